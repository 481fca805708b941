//! What a client receives: stored before it is acknowledged, shown once.

use bytes::Bytes;
use commucat_proto::error::Title;
use commucat_proto::frame::ack::{AckDown, AckUp, Answer, ForkTag};
use commucat_proto::frame::error::Problem;
use commucat_proto::frame::fetch::FetchResult;
use commucat_proto::frame::group_event::{EventKind, GroupEvent, Reason};
use commucat_proto::frame::group_invite::GroupInvite;
use commucat_proto::frame::key_update::LogEntry;
use commucat_proto::frame::msg::{Msg, MsgDown};
use commucat_proto::frame::payload::FromServer;
use commucat_proto::frame::{Frame, FrameType, Header};
use commucat_proto::id::{DedupeKey, GroupId};
use commucat_proto::wire::Cbor as _;

use super::commit::{Content, of_welcome};
use super::external::CHANNEL_OF_INTRUDER;
use super::group::{Applied, Invalid, Member};
use super::model::{Asked, Binding, Intent, Model, Outgoing};
use crate::outside::{Event, Outside};
use crate::plant::Plant;

impl Model {
    /// Frames arrive; they are stored and acknowledged in one step.
    pub(crate) fn take(&mut self, out: &mut Outside, frames: Vec<Frame>) {
        if out.has(Plant::ClientAckBeforeStore) {
            for frame in &frames {
                self.count(frame);
            }
            self.acknowledge(out);
            self.unstored.extend(frames);
            return out.after(30, Event::Wake(self.index));
        }
        for frame in frames {
            self.count(&frame);
            self.take_one(out, &frame);
        }
        self.acknowledge(out);
        self.pump(out);
    }

    /// The planted bug: stores what was acknowledged before.
    pub(super) fn store_late(&mut self, out: &mut Outside) {
        for frame in std::mem::take(&mut self.unstored) {
            self.take_one(out, &frame);
        }
    }

    fn count(&mut self, frame: &Frame) {
        if let Some(online) = &mut self.online
            && frame.header.sequence > 0
        {
            online.received = frame.header.sequence;
        }
    }

    /// Acknowledges what was stored, and reports the tags of groups that are bound.
    pub(super) fn acknowledge(&mut self, out: &mut Outside) {
        let Some(online) = &mut self.online else {
            return;
        };
        let bindings = &online.bindings;
        let is_bound = |group: &GroupId| bindings.get(group) == Some(&Binding::Bound);
        let tags = online.tags.extract_if(.., |group, _| is_bound(group));
        let tags: Vec<_> = tags
            .map(|(group, (position, tag))| ForkTag {
                group,
                position,
                tag,
            })
            .collect();
        if online.received == 0 && tags.is_empty() {
            return;
        }
        let ack = AckUp {
            through: (online.received > 0).then_some(online.received),
            tags,
        };
        let header = Header::bare(FrameType::Ack);
        let payload = ack.encode().into();
        out.up(online.connection, Frame { header, payload });
    }

    fn take_one(&mut self, out: &mut Outside, frame: &Frame) {
        let index = self.index;
        out.note(|| format!("client {index} takes {frame:?}"));
        match FromServer::decode(frame) {
            Ok(FromServer::Msg(down)) => self.on_msg(out, frame.header.channel, &down),
            Ok(FromServer::KeyUpdate(entry)) => self.on_entry(out, &entry),
            Ok(FromServer::GroupInvite(invite)) => self.on_invite(out, &invite),
            Ok(FromServer::GroupEvent(event)) => self.on_event(out, &event),
            Ok(FromServer::Ack(ack)) => self.on_ack(out, ack),
            Ok(FromServer::Error(problem)) => self.on_problem(out, &problem),
            Ok(FromServer::Typing(_) | FromServer::Padding) => {}
            Err(error) => out.judge.complain(|| format!("client {index}: {error}")),
        }
    }

    fn on_msg(&mut self, out: &mut Outside, channel: u32, down: &MsgDown) {
        let bound = self.online.as_ref().and_then(|online| {
            let mut channels = online.channels.iter();
            let bound = channels.find(|(_, number)| **number == channel);
            let intruded = online.intruded.filter(|_| channel == CHANNEL_OF_INTRUDER);
            bound.map(|(group, _)| *group).or(intruded)
        });
        let Some(group) = down.group.or(bound) else {
            return;
        };
        let is_in = self.disk.groups.get(&group).is_some_and(Member::is_in);
        let key = DedupeKey::of(&group, &down.msg.message(), &down.msg.ciphertext());
        let awaits = is_in || self.disk.joining.contains_key(&group);
        if awaits && self.disk.keys.insert(key) && !self.open(out, &group, &down.msg) {
            self.disk.held.push((group, down.msg.clone()));
            if let Some(member) = self.disk.groups.get_mut(&group) {
                member.behind = true;
                member.overtaken = true;
            }
        }
    }

    /// Opens a message; false if its epoch is yet to come.
    fn open(&mut self, out: &mut Outside, group: &GroupId, msg: &Msg) -> bool {
        let member = self.disk.groups.get(group).filter(|one| one.is_in());
        let Some(member) = member else {
            return !self.disk.joining.contains_key(group);
        };
        let Some(content) = Content::decode(&msg.ciphertext()) else {
            return true;
        };
        if !member.epoch.opens(content.state) {
            let (index, at) = (self.index, member.epoch.position);
            out.note(|| {
                let (text, of) = (content.text, msg.position());
                format!("client {index} at {at} cannot open text {text} of {of}")
            });
            let is_past = msg.position() <= member.epoch.position;
            if member.epoch.has_forgotten(content.state) {
                // `Event::Gap`: the entries overtook it by FETCH or Conflict, its keys are gone.
                out.judge.told_too_late(self.index, content.text);
            } else if is_past {
                out.judge.told_unreadable(self.index, content.text);
            }
            return is_past;
        }
        if self.disk.opened.insert((content.author, msg.message())) {
            let index = self.index;
            out.note(|| format!("client {index} shows text {}", content.text));
            out.judge.shows(self.index, content.text);
        }
        true
    }

    fn on_entry(&mut self, out: &mut Outside, entry: &LogEntry) {
        let (group, me) = (entry.group, self.index);
        let pending = self.disk.pending.as_ref();
        let is_own = pending.is_some_and(|one| one.group == group && one.entry == entry.message);
        let way = self
            .disk
            .pending
            .take_if(|one| is_own && one.external.is_some());
        if let Some(pending) = way {
            return self.external_accepted(out, pending);
        }
        let Some(member) = self.disk.groups.get_mut(&group).filter(|one| one.is_in()) else {
            return;
        };
        let handle = member.handle();
        let applied = member.epoch.apply(entry, Some(me));
        match applied {
            Applied::Known => return,
            Applied::Gap => {
                member.behind = true;
                member.overtaken = true;
                return;
            }
            Applied::Skipped(invalid) => {
                // Its author is elsewhere, or this device is; or the hub has taken it out of the list.
                let is_elsewhere = invalid == Invalid::Elsewhere && entry.author != handle;
                member.compares |= is_elsewhere || entry.change.remove.contains(&handle);
            }
            Applied::Advanced => {}
        }
        let (position, tag) = (member.epoch.position, member.epoch.tag());
        let removed = !member.epoch.roster.contains_key(&handle);
        out.note(|| format!("client {me} handles entry {position}: {applied:?}"));
        self.report(&group, position, tag);
        if is_own {
            self.pending_accepted(out);
        } else if let Some(lost) = self
            .disk
            .pending
            .take_if(|one| one.group == group && one.expect < position)
            && lost.external.is_some()
            && let Some(member) = self.disk.groups.get_mut(&group)
        {
            // The race is lost: the intent is proposed again on the new epoch, the way back sought again.
            member.rejoins = true;
        }
        if removed {
            return self.leave(out, &group);
        }
        self.open_held(out, &group);
    }

    /// Opens what waited for a later epoch.
    pub(super) fn open_held(&mut self, out: &mut Outside, group: &GroupId) {
        let held = std::mem::take(&mut self.disk.held);
        for (of, msg) in held {
            if of != *group || !self.open(out, &of, &msg) {
                self.disk.held.push((of, msg));
            }
        }
    }

    /// A fork tag for the next ACK.
    pub(super) fn report(&mut self, group: &GroupId, position: u64, tag: Option<[u8; 16]>) {
        let is_lie = self.disk.lies.contains(&(*group, position));
        let tag = if is_lie { Some([0xff; 16]) } else { tag };
        if let Some(online) = &mut self.online {
            online.tags.insert(*group, (position, tag));
        }
    }

    fn pending_accepted(&mut self, out: &mut Outside) {
        let Some(pending) = self.disk.pending.take() else {
            return;
        };
        self.disk.intents.pop_front();
        if let Some(first) = pending.first {
            self.acked(out, &first);
        }
    }

    fn acked(&mut self, out: &mut Outside, outgoing: &Outgoing) {
        out.judge.acked(outgoing.text);
        let index = self.index;
        out.note(|| format!("client {index} has text {} acknowledged", outgoing.text));
        let mut outbox = self.disk.outbox.iter();
        if let Some(first) = outbox.position(|one| one.message == outgoing.message) {
            self.disk.outbox.remove(first);
        }
        let mut outbox = self.disk.outbox.iter();
        if outbox.any(|one| one.message == outgoing.message)
            && let Some(online) = &mut self.online
        {
            // It waits sealed again.
            online.sent.remove(&outgoing.message);
        }
        let place = (outgoing.group, outgoing.text);
        self.disk.sent.insert(outgoing.message, place);
    }

    pub(super) fn leave(&mut self, out: &mut Outside, group: &GroupId) {
        let index = self.index;
        out.note(|| format!("client {index} is out of a group"));
        if let Some(member) = self.disk.groups.get_mut(group) {
            member.out.get_or_insert(out.now);
        }
        for outgoing in self.disk.outbox.extract_if(.., |one| one.group == *group) {
            out.judge.withdrawn(outgoing.text);
        }
        self.disk.held.retain(|(of, _)| of != group);
        self.disk.intents.retain(|(of, _)| of != group);
        self.disk.pending.take_if(|pending| pending.group == *group);
        if let Some(online) = &mut self.online {
            online.tags.remove(group);
            // Its channel is bound by a handle that is out.
            online.bindings.remove(group);
        }
        if let Some(invite) = self.disk.invited.remove(group) {
            self.on_invite(out, &invite);
        }
    }

    fn on_invite(&mut self, out: &mut Outside, invite: &GroupInvite) {
        let group = invite.group;
        let member = self.disk.groups.get_mut(&group);
        if let Some(member) = member.filter(|one| one.is_in())
            && member.epoch.position < invite.position
        {
            // Removed and added again, if the hub says so too: else somebody wants to lead it away.
            member.behind = true;
            self.disk.invited.insert(group, invite.clone());
            return;
        }
        let newer = self
            .disk
            .groups
            .get(&group)
            .is_none_or(|member| !member.is_in() && member.epoch.position < invite.position);
        // A LEAVE that is not answered yet would end the new membership too.
        let newer = newer && !self.disk.leaving.contains(&group);
        let epoch = of_welcome(invite.position, &invite.welcome);
        let key = self.disk.packages.remove(&invite.handle);
        let (index, opens, has_key) = (self.index, epoch.is_some(), key.is_some());
        out.note(|| {
            let at = invite.position;
            format!(
                "client {index} is invited at {at}: newer {newer}, opens {opens}, key {has_key}"
            )
        });
        let (Some(epoch), Some(key), true) = (epoch, key, newer) else {
            return;
        };
        let index = self.index;
        out.note(|| format!("client {index} joins at {}", invite.position));
        let counter = self.disk.groups.get(&group).map_or(0, |old| old.counter);
        let tag = epoch.tag();
        let place = (epoch, counter);
        let mut member = Member::new(invite.hub.clone(), key, invite.sealed_ref, place);
        member.behind = self.disk.had_gap;
        self.disk.groups.insert(group, member);
        // A joiner acknowledges its invitation with the tag: it may be alone in its epoch.
        self.report(&group, invite.position, tag);
    }

    fn on_event(&mut self, out: &mut Outside, event: &GroupEvent) {
        let notice = &event.notice;
        if !self.disk.notices.insert(event.message) {
            return;
        }
        match notice.kind {
            EventKind::Undelivered => {
                // Also of a message whose ACK was lost: the notice counts, for the next one about the
                // same ciphertext will be a repeat.
                let sent = notice.about.and_then(|about| {
                    let mut outbox = self.disk.outbox.iter();
                    let waits = outbox.find(|one| one.message == about);
                    let place = self.disk.sent.get(&about).copied();
                    Some((about, place.or(waits.map(|one| (one.group, one.text)))?))
                });
                let Some((message, (group, text))) = sent else {
                    return;
                };
                let index = self.index;
                out.note(|| format!("client {index} has text {text} returned"));
                out.judge.returned(text, notice.handles.as_deref());
                self.disk
                    .returned
                    .extend(notice.returned.filter(|_| notice.handles.is_none()));
                let is_in = self.disk.groups.get(&group).is_some_and(Member::is_in);
                if notice.reason == Some(Reason::Epoch) && is_in {
                    out.judge.written_again(text);
                    if let Some(member) = self.disk.groups.get_mut(&group) {
                        member.behind = true;
                    }
                    if let Some(online) = &mut self.online {
                        online.sent.remove(&message);
                    }
                    let mut outbox = self.disk.outbox.iter_mut();
                    match outbox.find(|one| one.message == message) {
                        Some(waiting) => waiting.sealed = None,
                        None => self.disk.outbox.push(Outgoing {
                            group,
                            message,
                            text,
                            sealed: None,
                            was_sent: false,
                        }),
                    }
                }
            }
            EventKind::Gap => {
                out.judge.told_gap(self.index);
                self.disk.had_gap = true;
                for member in self.disk.groups.values_mut() {
                    member.behind = true;
                }
            }
            EventKind::Gone => {
                for handle in notice.handles.iter().flatten() {
                    let group = notice.group.into_iter();
                    let intents = group.map(|group| (group, Intent::Remove(*handle)));
                    self.disk.intents.extend(intents);
                }
            }
            EventKind::Fork => {
                let Some(group) = notice.group else { return };
                let member = self.disk.groups.get_mut(&group);
                if let Some(member) = member.filter(|one| one.is_in()) {
                    let index = self.index;
                    out.note(|| format!("client {index} is told of a fork"));
                    out.judge.told_fork(index, &group);
                    (member.compares, member.told_fork) = (true, true);
                }
            }
            EventKind::Closed | EventKind::Unknown(_) => {}
        }
    }

    fn on_ack(&mut self, out: &mut Outside, ack: AckDown) {
        for run in &ack.custody {
            for sequence in run.first..run.first.saturating_add(run.count) {
                let asked = self.answered(sequence);
                let Some(Asked::Message(_, message, key)) = asked else {
                    continue;
                };
                let came_back = self.disk.returned.contains(&key);
                let mut outbox = self.disk.outbox.iter().filter(|_| !came_back);
                if let Some(outgoing) = outbox.find(|one| one.message == message).cloned() {
                    self.acked(out, &outgoing);
                }
            }
        }
        if ack.queue_empty
            && let Some(online) = &mut self.online
        {
            online.caught_up = true;
        }
        let Some(Answer { request, result }) = ack.answer else {
            return;
        };
        match self.answered(request) {
            Some(Asked::Join(group)) => self.bound(&group),
            Some(Asked::Commit) => self.commit_accepted(out),
            Some(Asked::Fetch(group)) => self.fetched(out, &group, &result),
            Some(Asked::Infos(group)) => self.infos_fetched(out, &group, &result),
            Some(Asked::Way(group)) => self.way_fetched(out, &group, &result),
            Some(Asked::Link(group)) => self.link_fetched(out, &group, &result),
            Some(Asked::Leave(group)) => {
                self.disk.leaving.remove(&group);
            }
            Some(Asked::Message(..) | Asked::Nothing) | None => {}
        }
    }

    /// A channel is bound: where the device is, is reported anew, for the hub may have forgotten it.
    fn bound(&mut self, group: &GroupId) {
        if let Some(online) = &mut self.online {
            online.bindings.insert(*group, Binding::Bound);
        }
        let epoch = self.disk.groups.get(group).map(|member| &member.epoch);
        if let Some(epoch) = epoch.filter(|epoch| epoch.position > 0) {
            let (position, tag) = (epoch.position, epoch.tag());
            self.report(group, position, tag);
        }
    }

    fn answered(&mut self, sequence: u32) -> Option<Asked> {
        let online = self.online.as_mut()?;
        let (asked, _) = online.unanswered.remove(&sequence)?;
        if let Asked::Message(group, ..) = asked {
            let mut rest = online.unanswered.values();
            let more =
                rest.any(|(other, _)| matches!(other, Asked::Message(of, ..) if *of == group));
            let broken = online.bindings.get(&group) == Some(&Binding::Broken);
            if broken && !more {
                // All that was behind the failed one is answered: bind anew, send all again.
                online.bindings.remove(&group);
                let outbox = self.disk.outbox.iter().filter(|one| one.group == group);
                for outgoing in outbox {
                    online.sent.remove(&outgoing.message);
                }
            }
        }
        Some(asked)
    }

    /// The own commit is in the log: it is applied as any other.
    fn commit_accepted(&mut self, out: &mut Outside) {
        let Some(pending) = self.disk.pending.clone() else {
            return;
        };
        let bundle = commucat_proto::frame::bundle::Bundle::decode_shared(&pending.bundle.body);
        let entry = bundle
            .ok()
            .and_then(|bundle| bundle.entry(&pending.bundle.body));
        if let Some(entry) = entry {
            self.on_entry(out, &entry);
            // Missing entries before it: the log has it, FETCH will tell.
            if self.disk.pending.is_some()
                && let Some(member) = self.disk.groups.get_mut(&pending.group)
            {
                member.behind = true;
            }
        }
    }

    fn fetched(&mut self, out: &mut Outside, group: &GroupId, result: &Bytes) {
        let Ok(result) = FetchResult::decode_shared(result) else {
            return;
        };
        if let Some(member) = self.disk.groups.get_mut(group) {
            // What came since the question was asked may be newer than the answer.
            member.behind = member.overtaken;
        }
        for entry in &result.entries {
            self.on_entry(out, entry);
        }
        if let Some(member) = self.disk.groups.get_mut(group) {
            let at = member.epoch.position;
            if result.first_kept > at + 1 {
                // The log does not reach back to where this device is.
                (member.behind, member.rejoins) = (false, true);
            } else {
                member.behind |= at < result.head;
            }
        }
    }

    fn on_problem(&mut self, out: &mut Outside, problem: &Problem) {
        let Some(sequence) = problem.sequence else {
            // Replaced by the own newer connection, or the server stops: the link ends by itself.
            return;
        };
        let Some(online) = &mut self.online else {
            return;
        };
        let asked = online.unanswered.get(&sequence).map(|(asked, _)| *asked);
        if let Some(Asked::Message(group, ..)) = asked {
            online.bindings.insert(group, Binding::Broken);
        }
        match self.answered(sequence) {
            Some(Asked::Message(group, ..)) => self.message_refused(&group, problem),
            Some(
                Asked::Join(group) | Asked::Fetch(group) | Asked::Infos(group) | Asked::Way(group),
            ) => {
                if let Some(online) = &mut self.online {
                    if asked == Some(Asked::Join(group)) {
                        online.bindings.remove(&group);
                    }
                    online.fetch_at = out.now + 500;
                }
                if problem.title == Title::NotFound {
                    self.leave(out, &group);
                }
            }
            Some(Asked::Link(group)) => {
                if let Some(online) = &mut self.online {
                    online.fetch_at = out.now + 500;
                }
                if problem.title == Title::NotFound {
                    self.disk.joining.remove(&group);
                }
            }
            Some(Asked::Commit) => self.commit_refused(out, problem),
            Some(Asked::Leave(_) | Asked::Nothing) | None => {}
        }
    }

    fn message_refused(&mut self, group: &GroupId, problem: &Problem) {
        let Some(member) = self.disk.groups.get_mut(group) else {
            return;
        };
        match problem.title {
            Title::EpochOld => {
                // Sealed again when the missing entries are here.
                member.behind = true;
                for outgoing in self
                    .disk
                    .outbox
                    .iter_mut()
                    .filter(|one| one.group == *group)
                {
                    outgoing.sealed = None;
                }
            }
            Title::NotFound | Title::Conflict => member.behind = true,
            other => debug_assert!(other != Title::PayloadTooLarge, "texts are small"),
        }
    }

    fn commit_refused(&mut self, out: &mut Outside, problem: &Problem) {
        if let Some(online) = &mut self.online {
            let wait = problem
                .extra
                .retry_after
                .map_or(250, |after| after * 1_000 + 50);
            online.commit_at = out.now + wait;
        }
        if self
            .disk
            .pending
            .as_ref()
            .is_some_and(|pending| pending.external.is_some())
        {
            return self.external_refused(out, problem);
        }
        match problem.title {
            Title::Conflict => {
                if out.has(Plant::OwnCommitInConflict) {
                    self.disk.pending = None;
                    return self.skip_own(problem);
                }
                let group = self.disk.pending.as_ref().map(|pending| pending.group);
                for entry in &problem.extra.missing {
                    self.on_entry(out, entry);
                }
                if let Some(member) = group.and_then(|group| self.disk.groups.get_mut(&group)) {
                    member.behind |= problem.extra.more;
                }
            }
            Title::Forbidden | Title::InvalidControlPayload => {
                self.disk.pending = None;
                self.disk.intents.pop_front();
            }
            Title::NotFound => {
                // Not in the list any more: FETCH says the same and ends it.
                if let Some(pending) = self.disk.pending.take()
                    && let Some(member) = self.disk.groups.get_mut(&pending.group)
                {
                    member.behind = true;
                }
            }
            other => debug_assert!(other != Title::PayloadTooLarge, "commits are small"),
        }
    }

    /// An external commit came too late, or is none that the hub takes: the GroupInfos are read again.
    fn external_refused(&mut self, out: &mut Outside, problem: &Problem) {
        let is_final = matches!(
            problem.title,
            Title::Conflict | Title::Forbidden | Title::InvalidControlPayload | Title::NotFound
        );
        let Some(pending) = self.disk.pending.take_if(|_| is_final) else {
            return;
        };
        let own = problem.extra.missing.iter();
        if let Some(entry) = own.into_iter().find(|entry| entry.message == pending.entry) {
            let entry = entry.clone();
            self.disk.pending = Some(pending);
            return self.on_entry(out, &entry);
        }
        if self.disk.joining.contains_key(&pending.group) {
            if problem.title != Title::Conflict {
                self.disk.joining.remove(&pending.group);
            }
        } else if let Some(member) = self.disk.groups.get_mut(&pending.group) {
            member.rejoins = true;
        }
    }

    /// The planted bug: entries of a `Conflict` are all of others.
    fn skip_own(&mut self, problem: &Problem) {
        for entry in &problem.extra.missing {
            let Some(member) = self.disk.groups.get_mut(&entry.group) else {
                continue;
            };
            if entry.author == member.handle() && entry.position == member.epoch.position + 1 {
                member.epoch.position = entry.position;
            } else {
                member.epoch.apply(entry, Some(self.index));
            }
        }
    }
}
