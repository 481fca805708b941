//! What goes wrong on the way to a device, and what others put into its queue.

use std::collections::VecDeque;

use bytes::Bytes;
use commucat_proto::frame::FrameType;
use commucat_proto::frame::bundle::Bundle;
use commucat_proto::frame::fanout::Change;
use commucat_proto::frame::group_event::GroupEvent;
use commucat_proto::frame::group_invite::GroupInvite;
use commucat_proto::frame::key_update::LogEntry;
use commucat_proto::frame::msg::Msg;
use commucat_proto::id::{AccountKey, Domain, GroupId, MessageId};
use commucat_proto::wire::Cbor as _;

use super::World;
use crate::chat::{Claimed, Intent, NewGroup, Proposal, Role, Roles, Suite};

impl World {
    /// The queue of a device that is away was full: only its reserve for Welcomes has something.
    pub(in crate::engine::tests) fn overflow(&mut self, name: &str) {
        let gap = GroupEvent::gap(MessageId::new([7; 16]));
        let queue = &mut self.devices.get_mut(name).unwrap().queue;
        queue.retain(|(kind, _)| *kind == FrameType::GroupInvite);
        queue.push_front((FrameType::GroupEvent, gap.encode().into()));
    }

    /// The queue that was held gets to the device before the server hears of the device again.
    pub(in crate::engine::tests) fn show_queue(&mut self, name: &str) {
        self.hold_queue(name, false);
        self.deliver(name);
    }

    /// Answers do not get to the device, while everything else does; then all of them do.
    pub(in crate::engine::tests) fn hold_answers(&mut self, name: &str, hold: bool) {
        let answers = &mut self.devices.get_mut(name).unwrap().answers;
        let held = std::mem::replace(answers, hold.then(VecDeque::new));
        for ack in held.unwrap_or_default() {
            self.answer(name, &ack);
        }
    }

    /// Refusals do not get to the device, while everything else does; then all of them do.
    pub(in crate::engine::tests) fn hold_refusals(&mut self, name: &str, hold: bool) {
        let refusals = &mut self.devices.get_mut(name).unwrap().refusals;
        let held = std::mem::replace(refusals, hold.then(VecDeque::new));
        for frame in held.unwrap_or_default() {
            self.step(name, |core| core.on_frames(vec![frame]));
        }
    }

    /// The oldest refusal gets to the device.
    pub(in crate::engine::tests) fn pass_refusal(&mut self, name: &str) {
        let refusals = &mut self.devices.get_mut(name).unwrap().refusals;
        let frame = refusals.as_mut().unwrap().pop_front();
        let frame = frame.expect("there is one");
        self.step(name, |core| core.on_frames(vec![frame]));
    }

    /// How many refusals are held.
    pub(in crate::engine::tests) fn refusals(&self, name: &str) -> usize {
        self.devices[name]
            .refusals
            .as_ref()
            .map_or(0, VecDeque::len)
    }

    /// The hub's head of the only group that these devices share.
    pub(in crate::engine::tests) fn head(&self, names: &[&str]) -> u64 {
        self.groups[&self.group_of(names)].head
    }

    /// What a device knows of the log of the only group that these devices share.
    pub(in crate::engine::tests) fn position(&self, name: &str, names: &[&str]) -> u64 {
        let group = self.group_of(names);
        let core = &self.devices[name].core;
        core.conversations[&group].position
    }

    fn push(&mut self, name: &str, kind: FrameType, payload: Bytes) {
        let device = self.devices.get_mut(name).unwrap();
        device.queue.push_back((kind, payload));
    }

    /// Another domain than the hub tells a device that the group of these is closed.
    pub(in crate::engine::tests) fn forge_end(&mut self, name: &str, names: &[&str]) {
        let event = GroupEvent::closed(self.group_of(names));
        self.push(name, FrameType::GroupEvent, event.encode().into());
    }

    /// Another domain than the hub sends a device the next entry of the group of these.
    pub(in crate::engine::tests) fn forge_entry(&mut self, name: &str, names: &[&str]) {
        let entry = self.next_entry(names);
        self.push(name, FrameType::KeyUpdate, entry.encode().into());
    }

    /// Other hubs have the next entry of the group of these in the logs of their groups. A device reads the
    /// log of a 1:1.
    pub(in crate::engine::tests) fn mislead(&mut self, name: &str, names: &[&str]) {
        self.misleads = Some(self.next_entry(names));
        self.step(name, |core| {
            let mut all = core.conversations.values();
            let direct = all.find(|one| one.peer.is_some()).map(|one| one.id);
            core.fell_behind(&direct.unwrap());
            Ok(())
        });
    }

    /// An entry for the next position of the group of these that nobody can read.
    fn next_entry(&self, names: &[&str]) -> LogEntry {
        let group = self.group_of(names);
        LogEntry {
            group,
            position: self.groups[&group].head + 1,
            commit: Bytes::from_static(b"rubbish"),
            change: Change::default(),
            author: self.handle_of(&group, names[0]),
            message: MessageId::new([9; 16]),
        }
    }

    /// An altered copy overtakes each entry in the queue of a device.
    pub(in crate::engine::tests) fn forge_before_entries(&mut self, name: &str) {
        let queue = &mut self.devices.get_mut(name).unwrap().queue;
        let mut all = VecDeque::new();
        for (kind, payload) in queue.drain(..) {
            if kind == FrameType::KeyUpdate {
                let mut entry = LogEntry::decode(&payload).unwrap();
                entry.change.close = !entry.change.close;
                all.push_back((kind, entry.encode().into()));
            }
            all.push_back((kind, payload));
        }
        *queue = all;
    }

    /// `name` makes a group of its own with the id of the one that the others share, and invites the first
    /// of them there: as from the next position of the log, and from a hub.
    pub(in crate::engine::tests) fn lure(&mut self, name: &str, names: &[&str], hub: &str) {
        self.lure_ahead(name, names, hub, 1);
    }

    /// The same, as from a position so far behind the end of the log.
    pub(in crate::engine::tests) fn lure_ahead(
        &mut self,
        name: &str,
        names: &[&str],
        hub: &str,
        ahead: u64,
    ) {
        let group = self.group_of(names);
        let victim = self.devices[names[0]].core.account.clone();
        let mut invite = self.own_welcome(name, group, victim.key.unwrap());
        invite.position = self.groups[&group].head + ahead;
        invite.hub = Domain::parse(hub).unwrap();
        self.push(names[0], FrameType::GroupInvite, invite.encode().into());
    }

    /// Another domain sent a device what claims a position that the log of the group of these does not have.
    pub(in crate::engine::tests) fn forge_held(&mut self, name: &str, names: &[&str]) {
        let group = self.group_of(names);
        let msg = Msg::new(1 << 40, MessageId::new([9; 16]), b"rubbish");
        self.step(name, |core| core.hold(&group, &msg));
    }

    /// A Welcome to a group that only its maker is in.
    fn own_welcome(&mut self, name: &str, group: GroupId, victim: AccountKey) -> GroupInvite {
        let hub = super::domain();
        let account = commucat_proto::id::AccountId::of_key(&victim);
        let claimed = self.claim(name, &account).0.remove(0);
        let own_ref = self.reference(name);
        let core = &mut self.devices.get_mut(name).unwrap().core;
        let mut roles = Roles::default();
        roles.set(core.account.key.unwrap(), Role::Owner);
        let new = NewGroup {
            group,
            hub: hub.clone(),
            sealed_ref: own_ref,
            suite: Suite::Classical,
            roles,
        };
        core.chat.create(new).unwrap();
        let claimed = Claimed {
            account: victim,
            device: claimed.device,
            domain: hub.clone(),
            package: claimed.package,
            sealed_ref: claimed.sealed_ref,
        };
        let add = Intent::Add(vec![claimed]);
        core.chat.intend(&group, add, core.now).unwrap();
        let Proposal::Send(submission) = core.chat.propose(&group).unwrap() else {
            panic!("there is a commit");
        };
        let bundle = Bundle::decode(&submission.update.bundle.body).unwrap();
        let place = &bundle.change.add[0];
        GroupInvite {
            group,
            hub,
            position: 1,
            handle: place.handle,
            sealed_ref: place.sealed_ref,
            welcome: bundle.welcomes[0].welcome.clone(),
            message: MessageId::new([8; 16]),
        }
    }
}
