//! What a client sends: texts until they are acknowledged, commits until the hub has decided.

use commucat_proto::frame::FrameType;
use commucat_proto::frame::fetch::{Fetch, FetchAccess, Want};
use commucat_proto::frame::join::Join;
use commucat_proto::frame::key_update::KeyUpdate;
use commucat_proto::frame::msg::Msg;
use commucat_proto::id::{DedupeKey, GroupId, MessageId};
use commucat_proto::wire::Cbor as _;

use super::commit::Content;
use super::external::Joining;
use super::group::Member;
use super::model::{Asked, Binding, Model, Outgoing};
use crate::outside::Outside;
use crate::plant::Plant;

/// Commits after which a ciphertext is sealed again.
const STALE_AFTER: u64 = 4;

/// Messages on the wire at once: fewer than the server allows.
const WINDOW: usize = 24;

impl Model {
    /// Writes a text.
    pub(crate) fn write(&mut self, out: &mut Outside, group: GroupId) {
        let Some(member) = self.disk.groups.get_mut(&group).filter(|one| one.is_in()) else {
            return;
        };
        member.counter += 1;
        let text = out.judge.written(self.index, group, member.counter);
        let index = self.index;
        out.note(|| format!("client {index} writes text {text}"));
        let message = MessageId::new(out.random.bytes());
        out.judge.is_called(text, message);
        self.disk.outbox.push(Outgoing {
            group,
            message,
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
            self.pump_infos(out, group);
        }
        self.pump_links(out);
        self.pump_leaving(out);
        self.pump_commit(out);
        self.wake_later(out);
    }

    fn pump_group(&mut self, out: &mut Outside, group: GroupId) {
        let member = self.disk.groups.get(&group);
        let Some(member) = member.filter(|one| one.is_in()) else {
            return;
        };
        let writes = !member.behind && self.disk.outbox.iter().any(|one| one.group == group);
        let tags = self.online.as_ref().map(|online| &online.tags);
        let reports = tags.is_some_and(|tags| tags.contains_key(&group));
        match self.binding(&group) {
            None if writes || reports => self.join(out, group),
            None | Some(Binding::Joining | Binding::Broken) => {}
            Some(Binding::Bound) => {
                if reports {
                    self.acknowledge(out);
                }
                if writes {
                    self.send_texts(out, group);
                }
            }
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
            if before.is_none_or(|before| before != msg) {
                let recipients = member.epoch.roster.keys().copied();
                out.judge.sealed(outgoing.text, recipients);
                if outgoing.was_sent {
                    out.judge.sealed_again(outgoing.text);
                }
            }
            outgoing.was_sent = true;
            online.sent.insert(outgoing.message);
            let channel = online.channels.get(&group).copied().unwrap_or(0);
            let key = DedupeKey::of(&group, &outgoing.message, &msg.ciphertext());
            let asked = Asked::Message(group, outgoing.message, key);
            self.ask(out, (FrameType::Msg, channel), msg.payload().clone(), asked);
        }
    }

    fn fetch_if_behind(&mut self, out: &mut Outside, group: GroupId) {
        let (Some(member), Some(online)) = (self.disk.groups.get(&group), &self.online) else {
            return;
        };
        let waits = out.now < online.fetch_at || self.is_asking(Asked::Fetch(group));
        if !member.behind || !member.is_in() || waits {
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
        let group = pending.group;
        if self.is_asking(Asked::Infos(group)) || self.is_asking(Asked::Way(group)) {
            return;
        }
        let way = self.disk.joining.get(&pending.group).map(Joining::way);
        let member = self.disk.groups.get(&pending.group);
        let way = way.or(member.map(|member| (member.hub.clone(), member.reference)));
        let Some((hub, sealed_ref)) = way else {
            return;
        };
        let update = KeyUpdate {
            hub,
            bundle: pending.bundle.clone(),
            sealed_ref,
        };
        self.request(out, FrameType::KeyUpdate, &update, Asked::Commit);
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
