//! What tests do to the world, and what they look at.

use std::collections::VecDeque;

use bytes::Bytes;
use commucat_crypto::certificate::List;
use commucat_proto::error::Title;
use commucat_proto::frame::FrameType;
use commucat_proto::frame::ack::ForkTag;
use commucat_proto::frame::error::Problem;
use commucat_proto::frame::fanout::Change;
use commucat_proto::frame::group_event::{GroupEvent, Reason};
use commucat_proto::frame::key_update::LogEntry;
use commucat_proto::frame::msg::Msg;
use commucat_proto::id::{DedupeKey, Domain, GroupId, Handle, MessageId};
use commucat_proto::wire::Cbor as _;
use tokio::sync::oneshot;

use super::World;
use crate::account::code::Answer;
use crate::account::new_device;
use crate::client::{Command, Decision, Reply};
use crate::engine::tables;
use crate::error::ClientError;
use crate::event::{Event, Tick};

impl World {
    pub(in crate::engine::tests) fn ask<T: Send + 'static>(
        &mut self,
        name: &str,
        command: impl FnOnce(Reply<T>) -> Command,
    ) -> T {
        let mut answer = self.ask_later(name, command);
        answer.try_recv().unwrap().unwrap()
    }

    pub(in crate::engine::tests) fn ask_later<T: Send + 'static>(
        &mut self,
        name: &str,
        command: impl FnOnce(Reply<T>) -> Command,
    ) -> oneshot::Receiver<Result<T, ClientError>> {
        let (reply, answer) = oneshot::channel();
        let command = command(reply);
        self.step(name, |core| core.on_command(command));
        answer
    }

    pub(in crate::engine::tests) fn contact_link(&mut self, name: &str) -> String {
        self.ask(name, Command::Me).contact_link
    }

    pub(in crate::engine::tests) fn add_contact(&mut self, name: &str, link: &str, petname: &str) {
        let (link, petname) = (link.to_owned(), petname.to_owned());
        self.ask(name, |reply| Command::AddContact {
            link,
            petname,
            reply,
        });
    }

    pub(in crate::engine::tests) fn send(&mut self, name: &str, to: &str, text: &str) {
        let (to, text) = (to.to_owned(), text.to_owned());
        self.ask(name, |reply| Command::Send { to, text, reply });
    }

    pub(in crate::engine::tests) fn create_group(&mut self, by: &str, name: &str, who: &[&str]) {
        let name = name.to_owned();
        let members = who.iter().map(|&one| one.to_owned()).collect();
        self.ask(by, |reply| Command::CreateGroup {
            name,
            members,
            reply,
        });
    }

    pub(in crate::engine::tests) fn invite(&mut self, by: &str, group: &str, who: &str) {
        let (group, who) = (group.to_owned(), who.to_owned());
        self.ask(by, |reply| Command::Invite { group, who, reply });
    }

    pub(in crate::engine::tests) fn remove(&mut self, by: &str, group: &str, who: &str) {
        let (group, who) = (group.to_owned(), who.to_owned());
        self.ask(by, |reply| Command::Remove { group, who, reply });
    }

    /// Writes `first` and accepts it.
    pub(in crate::engine::tests) fn talk(&mut self, from: &str, to: &str) {
        self.send(from, to, "first");
        self.settle();
        self.accept(to, from);
        self.settle();
    }

    /// Accepts the last request under a name.
    pub(in crate::engine::tests) fn accept(&mut self, name: &str, petname: &str) {
        let petname = petname.to_owned();
        self.decide(name, Decision::Accept { petname });
    }

    pub(in crate::engine::tests) fn decide(&mut self, name: &str, decision: Decision) {
        let request = self.ask(name, Command::Requests).pop().unwrap();
        let request = request.from.as_str().to_owned();
        self.ask(name, |reply| Command::Decide {
            request,
            decision,
            reply,
        });
    }

    pub(in crate::engine::tests) fn link(&mut self, first: &str, new: &str) {
        let mut account = new_device();
        let code = account.request().code();
        let mut answer = self.ask_later(first, |reply| Command::LinkDevice { code, reply });
        self.settle_reading(first);
        let answer = Answer::parse(&answer.try_recv().unwrap().unwrap()).unwrap();
        let list = List::verify(&answer.list).unwrap();
        account.key = Some(*list.account());
        account.list_version = list.version();
        account.list = Some(answer.list.encode());
        self.start(new, account);
    }

    fn settle_reading(&mut self, name: &str) {
        while self.read(name) || self.deliver(name) {}
    }

    pub(in crate::engine::tests) fn events(&self, name: &str) -> &[Event] {
        &self.devices[name].events
    }

    fn shown(&self, name: &str, own: bool) -> Vec<String> {
        let shown = self.events(name).iter().filter_map(|event| {
            let Event::Message(message) = event else {
                return None;
            };
            (message.own == own).then(|| message.text.clone())
        });
        shown.collect()
    }

    /// Texts of others, as the application was told.
    pub(in crate::engine::tests) fn texts(&self, name: &str) -> Vec<String> {
        self.shown(name, false)
    }

    pub(in crate::engine::tests) fn own_texts(&self, name: &str) -> Vec<String> {
        self.shown(name, true)
    }

    pub(in crate::engine::tests) fn tick_of(&mut self, name: &str, to: &str, text: &str) -> Tick {
        let name_of = to.to_owned();
        let history = self.ask(name, |reply| Command::History {
            name: name_of,
            after: 0,
            limit: 1000,
            reply,
        });
        history
            .iter()
            .find(|message| message.text == text)
            .unwrap()
            .tick
    }

    pub(in crate::engine::tests) fn groups(&self) -> usize {
        self.groups.len()
    }

    /// How many commits the device has sent.
    pub(in crate::engine::tests) fn commits(&self, name: &str) -> usize {
        self.devices[name].commits
    }

    pub(in crate::engine::tests) fn outbox(&mut self, name: &str) -> usize {
        self.ask(name, Command::Status).outbox
    }

    pub(in crate::engine::tests) fn queued(&self, name: &str) -> usize {
        self.devices[name].queue.len()
    }

    pub(in crate::engine::tests) fn sent_by(&self, name: &str) -> Vec<Bytes> {
        self.devices[name].messages.clone()
    }

    pub(in crate::engine::tests) fn device_id(&self, name: &str) -> String {
        self.devices[name].core.account.device.as_str().to_owned()
    }

    /// All devices of an account are lost; a new one has its phrase.
    pub(in crate::engine::tests) fn recover(&mut self, lost: &str, new: &str) {
        let phrase = self.devices[lost].core.account.phrase().unwrap();
        self.disconnect(lost);
        let mut account = new_device();
        self.now += 1;
        account.found(&phrase, &super::domain(), self.time());
        self.start(new, account);
    }

    pub(in crate::engine::tests) fn hide_packages(&mut self, hide: bool) {
        self.hide_packages = hide;
    }

    /// The server forgets the logs of all groups, and what waits for a device.
    pub(in crate::engine::tests) fn forget_logs(&mut self, name: &str) {
        for group in self.groups.values_mut() {
            group.first_kept = group.head + 1;
        }
        let gap = GroupEvent::gap(MessageId::new([7; 16]));
        let device = self.devices.get_mut(name).unwrap();
        device.queue.clear();
        device
            .queue
            .push_back((FrameType::GroupEvent, gap.encode().into()));
    }

    /// The queue of a device was full: of what waits there are only Welcomes, and the last entry of a log.
    pub(in crate::engine::tests) fn overflow_but_last(&mut self, name: &str) {
        let gap = GroupEvent::gap(MessageId::new([7; 16]));
        let queue = &mut self.devices.get_mut(name).unwrap().queue;
        let is_entry = |(kind, _): &(FrameType, Bytes)| *kind == FrameType::KeyUpdate;
        let last = queue.iter().rfind(|one| is_entry(one)).cloned();
        queue.retain(|one| one.0 == FrameType::GroupInvite || Some(one) == last.as_ref());
        queue.push_front((FrameType::GroupEvent, gap.encode().into()));
    }

    /// How often a device left a group for good.
    pub(in crate::engine::tests) fn leaves(&self, name: &str) -> usize {
        self.devices[name].leaves
    }

    /// The server cannot store the next LEAVE for good of a device.
    pub(in crate::engine::tests) fn refuse_next_leave(&mut self, name: &str) {
        self.devices.get_mut(name).unwrap().refuses_leave = true;
    }

    /// The only group in which these devices are.
    pub(super) fn group_of(&self, names: &[&str]) -> GroupId {
        let is_in = |group: &super::Group, name: &str| {
            let mut list = group.list.iter();
            list.any(|entry| self.refs[&entry.sealed_ref] == name)
        };
        let is_shared = |group: &super::Group| names.iter().all(|name| is_in(group, name));
        let mut groups = self.groups.iter().filter(|(_, group)| is_shared(group));
        let (id, _) = groups.next().expect("they share a group");
        assert!(groups.next().is_none(), "they share several");
        *id
    }

    pub(super) fn handle_of(&self, group: &GroupId, name: &str) -> Handle {
        let mut entries = self.groups[group].list.iter();
        let entry = entries.find(|entry| self.refs[&entry.sealed_ref] == name);
        entry.expect("it is in the list").handle
    }

    /// An entry comes into the log of a group, and to everybody.
    fn post(&mut self, id: &GroupId, author: Handle, commit: Bytes, change: Change) {
        let group = self.groups.get_mut(id).unwrap();
        group.head += 1;
        let entry = LogEntry {
            group: *id,
            position: group.head,
            commit,
            change,
            author,
            message: MessageId::new([9; 16]),
        };
        group.log.push(entry.clone());
        let payload = Bytes::from(entry.encode());
        self.fan_out(id, None, FrameType::KeyUpdate, &payload);
    }

    /// An entry that no member can read takes a device off the list.
    pub(in crate::engine::tests) fn strike(&mut self, author: &str, struck: &str) {
        let id = self.group_of(&[author, struck]);
        let (author, struck) = (self.handle_of(&id, author), self.handle_of(&id, struck));
        let change = Change {
            remove: vec![struck],
            ..Change::default()
        };
        self.post(&id, author, Bytes::from_static(b"rubbish"), change);
        let group = self.groups.get_mut(&id).unwrap();
        group.list.retain(|one| one.handle != struck);
        group.gone.push(struck);
    }

    /// A device posts the first commit of the group with another one once more: of an epoch that is
    /// over.
    pub(in crate::engine::tests) fn repeat_entry(&mut self, author: &str, other: &str) {
        let id = self.group_of(&[author, other]);
        let commit = self.groups[&id].log[0].commit.clone();
        self.post(&id, self.handle_of(&id, author), commit, Change::default());
    }

    /// A device has reason to believe that its history is not that of the others.
    pub(in crate::engine::tests) fn lose_track(&mut self, name: &str) {
        let id = self.group_of(&[name]);
        self.step(name, |core| {
            core.change(&id, |one| one.rejoin = true);
            core.awake.insert(id);
            Ok(())
        });
    }

    /// The next message of a device does not arrive as it was sent.
    pub(in crate::engine::tests) fn damage_next_message(&mut self, name: &str) {
        self.devices.get_mut(name).unwrap().damage_next = true;
    }

    /// The next message of a device arrives as one of an epoch that is yet to come.
    pub(in crate::engine::tests) fn advance_next_message(&mut self, name: &str) {
        self.devices.get_mut(name).unwrap().advance_next = true;
    }

    /// Frames of a later epoch that a device keeps, and their bytes.
    pub(in crate::engine::tests) fn held(&self, name: &str) -> (usize, usize) {
        let device = &self.devices[name];
        let groups = self.groups.keys();
        let held = groups.map(|group| device.vault.extent(tables::HELD, group.as_bytes()).unwrap());
        held.fold((0, 0), |(count, bytes), one| (count + one.0, bytes + one.1))
    }

    /// Almost sixteen megabytes wait for a later epoch of every group of a device.
    pub(in crate::engine::tests) fn fill_held(&mut self, name: &str) {
        let device = &self.devices[name];
        let rubbish = vec![0; 1024 * 1024 - 1024];
        for group in device.core.conversations.keys() {
            for _ in 0..16 {
                let scope = group.as_bytes();
                device.vault.append(tables::HELD, scope, &rubbish).unwrap();
            }
        }
    }

    /// What is in a device's queue of logs is lost.
    pub(in crate::engine::tests) fn lose_entries(&mut self, name: &str) {
        let queue = &mut self.devices.get_mut(name).unwrap().queue;
        queue.retain(|(kind, _)| *kind != FrameType::KeyUpdate);
    }

    /// Fork tags that a device reported, with their positions.
    pub(in crate::engine::tests) fn tags(&self, name: &str) -> &[ForkTag] {
        &self.devices[name].tags
    }

    /// In how many groups the hub lists a device.
    pub(in crate::engine::tests) fn listed(&self, name: &str) -> usize {
        let lists = self.groups.values().map(|group| &group.list);
        lists
            .filter(|list| list.iter().any(|one| self.refs[&one.sealed_ref] == name))
            .count()
    }

    /// Hubs have no GroupInfos.
    pub(in crate::engine::tests) fn hide_infos(&mut self, hide: bool) {
        self.hide_infos = hide;
    }

    /// A hub that is being restored knows nobody yet.
    pub(in crate::engine::tests) fn forget_members(&mut self, forget: bool) {
        self.knows_nobody = forget;
    }

    /// The hub was restored from before the last entry of the only group of these devices.
    pub(in crate::engine::tests) fn lose_last_entry(&mut self, names: &[&str]) {
        let id = self.group_of(names);
        let group = self.groups.get_mut(&id).unwrap();
        group.log.pop().expect("there is one");
        group.infos.pop();
        group.head -= 1;
    }

    /// The Welcomes that a device makes need a GroupInfo, as those of large groups do.
    pub(in crate::engine::tests) fn make_groups_large(&mut self, name: &str) {
        let device = self.devices.get_mut(name).unwrap();
        device.core.chat.tree_in_welcome_max = 0;
    }

    /// How many invitations wait for a GroupInfo.
    pub(in crate::engine::tests) fn invitations(&self, name: &str) -> usize {
        let vault = &self.devices[name].vault;
        vault.count_values(tables::INVITED, b"").unwrap()
    }

    pub(in crate::engine::tests) fn hide_lists(&mut self, hide: bool) {
        self.hide_lists = hide;
    }

    pub(in crate::engine::tests) fn lose_answers(&mut self, name: &str, lose: bool) {
        self.devices.get_mut(name).unwrap().lose_answers = lose;
    }

    /// Whoever answers the device's requests answers `{}`.
    pub(in crate::engine::tests) fn garble_answers(&mut self, name: &str, garble: bool) {
        self.devices.get_mut(name).unwrap().garbles_answers = garble;
    }

    /// How often a device asked for the list of an account of others.
    pub(in crate::engine::tests) fn lists_asked(&self, name: &str) -> usize {
        let device = &self.devices[name];
        let own = device.core.own_id();
        device.lists.iter().filter(|one| **one != own).count()
    }

    pub(in crate::engine::tests) fn ignore_acks(&mut self, name: &str, ignore: bool) {
        self.devices.get_mut(name).unwrap().ignore_acks = ignore;
    }

    pub(in crate::engine::tests) fn refuse_next_message(&mut self, name: &str, title: Title) {
        let problem = Problem::new(title, "");
        self.devices.get_mut(name).unwrap().refuse = Some(problem);
    }

    /// The next message is refused: the device shall wait for so many seconds.
    pub(in crate::engine::tests) fn put_off_next_message(&mut self, name: &str, seconds: u64) {
        let problem = Problem::new(Title::RateLimited, "").retry_after(seconds);
        self.devices.get_mut(name).unwrap().refuse = Some(problem);
    }

    /// The hub tells a device that others of the group are gone for good, as is returned. It takes them off
    /// its list afterwards: see [`World::take_off`].
    pub(in crate::engine::tests) fn tell_gone(&mut self, name: &str, gone: &[&str]) -> Bytes {
        let id = self.group_of(&[&[name], gone].concat());
        let handles = gone.iter().map(|one| self.handle_of(&id, one));
        let event = Bytes::from(GroupEvent::gone(id, handles.collect()).encode());
        self.repeat_event(name, &event);
        event
    }

    /// The hub takes whomever it called gone off its list.
    pub(in crate::engine::tests) fn take_off(&mut self, event: &Bytes) {
        let notice = GroupEvent::decode(event).unwrap().notice;
        let (id, handles) = (notice.group.unwrap(), notice.handles.unwrap());
        let group = self.groups.get_mut(&id).unwrap();
        group.list.retain(|one| !handles.contains(&one.handle));
        group.gone.extend(handles);
    }

    pub(in crate::engine::tests) fn repeat_event(&mut self, name: &str, event: &Bytes) {
        let queue = &mut self.devices.get_mut(name).unwrap().queue;
        queue.push_back((FrameType::GroupEvent, event.clone()));
    }

    /// How many members a device sees in the only group of these devices.
    pub(in crate::engine::tests) fn members(&mut self, name: &str, names: &[&str]) -> usize {
        let group = self.group_of(names);
        let device = self.devices.get_mut(name).unwrap();
        device.core.devices_in(&group)
    }

    /// How many changes of its groups a device has yet to make.
    pub(in crate::engine::tests) fn intents(&self, name: &str) -> usize {
        let core = &self.devices[name].core;
        let groups = core.conversations.keys();
        let intents = groups.map(|group| core.chat.intents(group).unwrap_or_default().len());
        intents.sum()
    }

    /// The server is silent about its custody of the next message until [`World::tell_custody`].
    pub(in crate::engine::tests) fn hold_custody(&mut self, name: &str) {
        self.devices.get_mut(name).unwrap().holds_custody = true;
    }

    pub(in crate::engine::tests) fn tell_custody(&mut self, name: &str) {
        let untold = self.devices.get_mut(name).unwrap().untold.take();
        self.custody(name, untold.unwrap());
    }

    pub(in crate::engine::tests) fn drop_next_message(&mut self, name: &str) {
        self.devices.get_mut(name).unwrap().drop_next = true;
    }

    /// Nothing of its queue gets to the device, while its requests are answered.
    pub(in crate::engine::tests) fn hold_queue(&mut self, name: &str, hold: bool) {
        self.devices.get_mut(name).unwrap().holds_queue = hold;
    }

    /// The hub of the device's conversations is another domain than its own from now on, and what it
    /// sends is stored on the way there.
    pub(in crate::engine::tests) fn move_away(&mut self, name: &str) {
        let server = self.devices.get_mut(name).unwrap();
        let server = server.core.account.server.as_mut().unwrap();
        server.domain = Domain::parse("elsewhere.example").unwrap();
    }

    /// The last message of the device that the server took, with its group.
    pub(in crate::engine::tests) fn last_of(&self, name: &str) -> (GroupId, Bytes) {
        self.devices[name].last.clone().unwrap()
    }

    /// A message of the device comes back.
    pub(in crate::engine::tests) fn return_to(
        &mut self,
        name: &str,
        (group, payload): (GroupId, Bytes),
        why: Reason,
    ) {
        let msg = Msg::decode(&payload).unwrap();
        let device = self.devices.get_mut(name).unwrap();
        let key = DedupeKey::of(&group, &msg.message(), &msg.ciphertext());
        let event = GroupEvent::undelivered(group, (msg.message(), key), None, why).encode();
        device
            .queue
            .push_back((FrameType::GroupEvent, event.into()));
    }

    /// Holds commits back, so that several are made for one position; then lets them go.
    pub(in crate::engine::tests) fn hold_commits(&mut self, hold: bool) {
        if hold {
            self.held = Some(VecDeque::new());
        } else {
            for (name, sequence, bundle) in self.held.take().unwrap_or_default() {
                self.commit(&name, sequence, &bundle);
            }
        }
    }
}
