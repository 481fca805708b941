//! What a client sends: texts until they are acknowledged, commits until the hub has decided.

use commucat_crypto::signing::Purpose;
use commucat_proto::frame::FrameType;
use commucat_proto::frame::bundle::{Bundle, Welcome};
use commucat_proto::frame::fanout::Change;
use commucat_proto::frame::fetch::{Fetch, FetchAccess, Want};
use commucat_proto::frame::join::Join;
use commucat_proto::frame::key_update::KeyUpdate;
use commucat_proto::frame::msg::Msg;
use commucat_proto::id::{GroupId, MessageId};
use commucat_proto::wire::Cbor as _;

use super::group::{Content, Epoch, Member, next_epoch};
use super::model::{Asked, Binding, Intent, Model, Outgoing, Pending};
use crate::outside::Outside;
use crate::plant::Plant;

/// Commits after which a ciphertext is sealed again.
const STALE_AFTER: u64 = 4;

/// Messages on the wire at once: fewer than the server allows.
const WINDOW: usize = 24;

impl Model {
    /// Writes a text.
    pub(crate) fn write(&mut self, out: &mut Outside, group: GroupId) {
        let Some(member) = self.disk.groups.get_mut(&group).filter(|one| !one.out) else {
            return;
        };
        member.counter += 1;
        let text = out.judge.written(self.index, group, member.counter);
        let index = self.index;
        out.note(|| format!("client {index} writes text {text}"));
        self.disk.outbox.push(Outgoing {
            group,
            message: MessageId::new(out.random.bytes()),
            text,
            sealed: None,
            was_sent: false,
        });
        self.pump(out);
    }

    /// Sends what can be sent.
    pub(crate) fn pump(&mut self, out: &mut Outside) {
        if self.online.as_ref().is_none_or(|online| !online.caught_up) {
            return self.wake_later(out);
        }
        let groups: Vec<GroupId> = self.disk.groups.keys().copied().collect();
        for group in groups {
            self.pump_group(out, group);
            self.fetch_if_behind(out, group);
        }
        self.pump_commit(out);
        self.wake_later(out);
    }

    fn pump_group(&mut self, out: &mut Outside, group: GroupId) {
        let behind = self.disk.groups.get(&group).is_none_or(|one| one.behind);
        if behind || !self.disk.outbox.iter().any(|one| one.group == group) {
            return;
        }
        match self.binding(&group) {
            None => self.join(out, group),
            Some(Binding::Joining | Binding::Broken) => {}
            Some(Binding::Bound) => self.send_texts(out, group),
        }
    }

    fn binding(&self, group: &GroupId) -> Option<Binding> {
        self.online.as_ref()?.bindings.get(group).copied()
    }

    fn join(&mut self, out: &mut Outside, group: GroupId) {
        let (Some(member), Some(online)) = (self.disk.groups.get(&group), &mut self.online) else {
            return;
        };
        let next = u32::try_from(online.channels.len()).unwrap_or(0) + 1;
        let channel = *online.channels.entry(group).or_insert(next);
        online.bindings.insert(group, Binding::Joining);
        let join = Join {
            group,
            hub: member.hub.clone(),
            handle: member.handle(),
            sealed_ref: member.reference,
        };
        let kind = (FrameType::Join, channel);
        self.ask(out, kind, join.encode().into(), Asked::Join(group));
    }

    fn send_texts(&mut self, out: &mut Outside, group: GroupId) {
        let mut order: Vec<usize> = (0..self.disk.outbox.len()).collect();
        if out.has(Plant::ResendBehindNew) {
            let sent = |index: &usize| self.disk.outbox.get(*index).is_some_and(|one| one.was_sent);
            order.sort_by_key(sent);
        }
        for index in order {
            let Some(online) = &mut self.online else {
                return;
            };
            let (Some(outgoing), Some(member)) = (
                self.disk.outbox.get_mut(index),
                self.disk.groups.get(&group),
            ) else {
                return;
            };
            if outgoing.group != group || online.sent.contains(&outgoing.message) {
                continue;
            }
            if online.unanswered.len() >= WINDOW {
                return;
            }
            let before = outgoing.sealed.clone();
            let msg = outgoing.seal(member, self.index, out.random.next());
            if outgoing.was_sent && before.is_none_or(|before| before != msg) {
                out.judge.sealed_again(outgoing.text);
            }
            outgoing.was_sent = true;
            online.sent.insert(outgoing.message);
            let channel = online.channels.get(&group).copied().unwrap_or(0);
            let asked = Asked::Message(group, outgoing.message);
            self.ask(out, (FrameType::Msg, channel), msg.payload().clone(), asked);
        }
    }

    fn fetch_if_behind(&mut self, out: &mut Outside, group: GroupId) {
        let (Some(member), Some(online)) = (self.disk.groups.get(&group), &self.online) else {
            return;
        };
        let waits = out.now < online.fetch_at || self.is_asking(Asked::Fetch(group));
        if !member.behind || member.out || waits {
            return;
        }
        let fetch = Fetch {
            group,
            hub: member.hub.clone(),
            access: FetchAccess::Member {
                handle: member.handle(),
                sealed_ref: member.reference,
            },
            from: member.epoch.position + 1,
            want: Want {
                entries: true,
                ..Want::default()
            },
        };
        if let Some(member) = self.disk.groups.get_mut(&group) {
            member.overtaken = false;
        }
        self.request(out, FrameType::Fetch, &fetch, Asked::Fetch(group));
    }

    fn pump_commit(&mut self, out: &mut Outside) {
        let waits = self
            .online
            .as_ref()
            .is_none_or(|online| out.now < online.commit_at);
        if waits || self.is_asking(Asked::Commit) {
            return;
        }
        if self.disk.pending.is_none() {
            self.disk.pending = self.propose(out);
        }
        let Some(pending) = &self.disk.pending else {
            return;
        };
        let Some(member) = self.disk.groups.get(&pending.group) else {
            return;
        };
        let update = KeyUpdate {
            hub: member.hub.clone(),
            bundle: pending.bundle.clone(),
            sealed_ref: member.reference,
        };
        self.request(out, FrameType::KeyUpdate, &update, Asked::Commit);
    }

    /// Builds the commit for the oldest intent that still makes sense.
    fn propose(&mut self, out: &mut Outside) -> Option<Pending> {
        loop {
            let (group, intent) = self.disk.intents.front()?.clone();
            let member = self.disk.groups.get(&group);
            let Some(member) = member.filter(|one| !one.out && makes_sense(one, &intent)) else {
                self.disk.intents.pop_front();
                continue;
            };
            if member.behind {
                return None;
            }
            let (mut change, mut added) = (Change::default(), Vec::new());
            match &intent {
                Intent::Update | Intent::Rubbish => {}
                Intent::Add(entry, client) => {
                    change.add.push(entry.clone());
                    added.push(*client);
                }
                Intent::Remove(handle) => change.remove.push(*handle),
            }
            let mut commit = member.epoch.commit(out.random.next(), &added);
            let author = member.handle();
            let next = next_epoch(&member.epoch, (group, author), &commit, &change);
            if matches!(intent, Intent::Rubbish) {
                commit = bytes::Bytes::from_static(b"this leads nowhere");
            }
            let handles: Vec<_> = change.add.iter().map(|entry| entry.handle).collect();
            let welcomed = next.iter().filter(|_| !handles.is_empty());
            let welcomes = welcomed.map(|next| Welcome {
                handles: handles.clone(),
                welcome: next.welcome(),
            });
            let first = self.first_message(out, group, next.as_ref(), &intent);
            let bundle = Bundle {
                group,
                expect: member.epoch.position,
                commit,
                change,
                welcomes: welcomes.collect(),
                sealed_group_info: bytes::Bytes::from_static(b"info"),
                author,
                first_message: first
                    .as_ref()
                    .and_then(|first| Some(first.sealed.as_ref()?.payload().clone())),
            };
            let expect = bundle.expect;
            let signed = member.key.sign(Purpose::Commit, bundle.encode());
            return Some(Pending {
                group,
                entry: MessageId::of_body(&signed.body),
                bundle: signed,
                expect,
                first,
            });
        }
    }

    /// Sometimes a commit carries the first message of its epoch: the oldest text, if none of the
    /// client's is on its way.
    fn first_message(
        &self,
        out: &mut Outside,
        group: GroupId,
        next: Option<&Epoch>,
        intent: &Intent,
    ) -> Option<Outgoing> {
        let mut outbox = self.disk.outbox.iter();
        let mut first = outbox.next().filter(|_| outbox.next().is_none())?.clone();
        let next = next.filter(|_| !matches!(intent, Intent::Rubbish))?;
        if first.group != group || first.was_sent || !out.random.chance(300) {
            return None;
        }
        let content = Content {
            state: next.state(),
            author: u64::try_from(self.index).unwrap_or(u64::MAX),
            nonce: out.random.next(),
            text: first.text,
        };
        first.sealed = Some(Msg::new(next.position, first.message, &content.encode()));
        Some(first)
    }
}

impl Outgoing {
    /// The ciphertext to send: sealed again if nobody could read the old one.
    fn seal(&mut self, member: &Member, author: usize, nonce: u64) -> Msg {
        let position = member.epoch.position;
        if let Some(sealed) = &self.sealed
            && position < sealed.position() + STALE_AFTER
        {
            return sealed.clone();
        }
        let content = Content {
            state: member.epoch.state(),
            author: u64::try_from(author).unwrap_or(u64::MAX),
            nonce,
            text: self.text,
        };
        let msg = Msg::new(position, self.message, &content.encode());
        self.sealed = Some(msg.clone());
        msg
    }
}

/// Whether an intent can still be carried out.
fn makes_sense(member: &Member, intent: &Intent) -> bool {
    let roster = &member.epoch.roster;
    match intent {
        Intent::Update | Intent::Rubbish => true,
        Intent::Add(entry, client) => {
            let mut people = roster.values();
            !roster.contains_key(&entry.handle) && !people.any(|(other, _)| other == client)
        }
        Intent::Remove(handle) => member.is_admin() && roster.contains_key(handle),
    }
}
