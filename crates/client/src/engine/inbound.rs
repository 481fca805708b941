//! Frames from the server: stored or finally discarded, each exactly once, before they are
//! acknowledged (CCP-1 section 4).

use commucat_proto::error::Title;
use commucat_proto::frame::ack::ForkTag;
use commucat_proto::frame::error::Problem;
use commucat_proto::frame::group_event::{EventKind, GroupEvent, Reason};
use commucat_proto::frame::key_update::LogEntry;
use commucat_proto::frame::msg::{Msg, MsgDown};
use commucat_proto::frame::payload::FromServer;
use commucat_proto::frame::{Frame, FrameType};
use commucat_proto::id::{AccountId, DedupeKey, GroupId};
use commucat_proto::limits::EPOCHS_KEPT;

use super::core::{Core, Effect, chat_error, unless_refused};
use super::model::Stage;
use super::online::{Purpose, Unanswered};
use super::order::Arrival;
use super::tables;
use crate::chat::{Applied, ChatError, Intent, Invalid, Opened, PAST_EPOCHS_MAX, Received, Role};
use crate::error::ClientError;
use crate::event::{Change, Connection, Event, UndeliveredReason};

impl Core {
    /// Handles frames in order.
    pub(crate) fn on_frames(&mut self, frames: Vec<Frame>) -> Result<(), ClientError> {
        for frame in frames {
            if self.online.is_none() {
                return Ok(());
            }
            self.on_frame(&frame)?;
        }
        Ok(())
    }

    fn on_frame(&mut self, frame: &Frame) -> Result<(), ClientError> {
        let sequence = frame.header.sequence;
        let Some(online) = &mut self.online else {
            return Ok(());
        };
        if sequence > 0 {
            // The decoder refuses gaps and repeats.
            online.received = sequence;
        }
        let Ok(decoded) = FromServer::decode(frame) else {
            tracing::warn!(frame = frame.header.kind.name(), "a frame does not decode");
            // A numbered one is discarded for good; one that answers would never be answered.
            if matches!(frame.header.kind, FrameType::Ack | FrameType::Error) {
                self.effects.push(Effect::Close(
                    "the server sent what is no answer".to_owned(),
                ));
            }
            return Ok(());
        };
        match decoded {
            FromServer::Msg(down) => self.on_msg(frame.header.channel, &down),
            FromServer::Ack(ack) => self.on_ack(ack),
            FromServer::KeyUpdate(entry) => {
                self.saw(&entry.group, entry.position)?;
                self.on_copy(&entry)
            }
            FromServer::GroupInvite(invite) => self.on_invite(&invite, &frame.payload),
            FromServer::GroupEvent(event) => self.on_event(event),
            FromServer::Error(problem) => self.on_problem(&problem),
            FromServer::Typing(_) | FromServer::Padding => Ok(()),
        }
    }

    fn on_msg(&mut self, channel: u32, down: &MsgDown) -> Result<(), ClientError> {
        let bound = self
            .online
            .as_ref()
            .and_then(|online| online.group_of(channel));
        let Some(group) = down.group.or(bound) else {
            return Ok(());
        };
        // Not, or no longer, in that group: discarded. Joining needs a GroupInfo first: kept.
        let is_joining = !self.is_active(&group);
        if is_joining
            && !self
                .vault
                .contains(tables::INVITED, b"", group.as_bytes())?
        {
            return Ok(());
        }
        let msg = &down.msg;
        self.saw(&group, msg.position())?;
        let key = DedupeKey::of(&group, &msg.message(), &msg.ciphertext());
        if self
            .vault
            .contains(tables::KEYS, group.as_bytes(), key.as_bytes())?
        {
            return Ok(());
        }
        let position = msg.position().to_be_bytes();
        self.vault
            .put(tables::KEYS, group.as_bytes(), key.as_bytes(), &position)?;
        if is_joining || self.receive(&group, msg)? == Kept::Later {
            self.hold(&group, msg)?;
        }
        Ok(())
    }

    /// Opens a message, or says that it is of a later epoch.
    pub(super) fn receive(&mut self, group: &GroupId, msg: &Msg) -> Result<Kept, ClientError> {
        let Some(received) = unless_refused(self.chat.open(group, msg))? else {
            return Ok(Kept::Done);
        };
        match received {
            Received::Opened(opened) => {
                self.opened(group, *opened)?;
                Ok(Kept::Done)
            }
            // This device has gone as far as its author had, and is in another epoch.
            Received::Later if self.has_handled(group, msg.position()) => {
                tracing::warn!("a message is of an epoch that the log does not lead to");
                self.may_be_split(group)?;
                Ok(Kept::Done)
            }
            Received::Later => Ok(Kept::Later),
            Received::Spent | Received::Own => Ok(Kept::Done),
            // Said before this device was in the group.
            Received::TooOld if self.is_before_joining(group, msg.position()) => Ok(Kept::Done),
            Received::TooOld => {
                tracing::warn!("a message is too old to be opened");
                self.tell(Event::Gap {
                    conversation: Some(*group),
                });
                Ok(Kept::Done)
            }
            Received::Foreign => {
                tracing::warn!("a message of a known epoch does not open");
                self.may_be_split(group)?;
                Ok(Kept::Done)
            }
            Received::Invalid(reason) => {
                tracing::warn!(reason, "a message is not valid");
                Ok(Kept::Done)
            }
        }
    }

    fn has_handled(&self, group: &GroupId, position: u64) -> bool {
        self.conversations
            .get(group)
            .is_some_and(|one| position <= one.position)
    }

    fn is_before_joining(&self, group: &GroupId, position: u64) -> bool {
        self.conversations
            .get(group)
            .is_some_and(|one| position < one.joined)
    }

    fn opened(&mut self, group: &GroupId, opened: Opened) -> Result<(), ClientError> {
        let id = [
            opened.device.as_str().as_bytes(),
            &[0],
            opened.message_id.as_bytes(),
        ]
        .concat();
        if self.vault.contains(tables::OPENED, group.as_bytes(), &id)? {
            return Ok(());
        }
        let now = self.now.as_millis().to_be_bytes();
        self.vault
            .put(tables::OPENED, group.as_bytes(), &id, &now)?;
        let arrival = Arrival {
            author: AccountId::of_key(&opened.account),
            device: opened.device,
            message: opened.message_id,
            admin: opened.role >= Role::Admin,
            content: opened.content.encode(),
            came: self.now.as_millis(),
        };
        self.arrive(group, &arrival, opened.content)
    }

    /// A copy of an entry, from the queue: a hint. Whoever has a reference of this device for the group
    /// id can send one, so what does not fit is looked up in the log.
    fn on_copy(&mut self, entry: &LogEntry) -> Result<(), ClientError> {
        if !self.is_active(&entry.group) {
            return Ok(());
        }
        let Some(applied) = unless_refused(self.chat.apply_copy(entry))? else {
            return Ok(());
        };
        self.on_applied(&entry.group, entry.position, applied)
    }

    /// An entry of a group's log, from FETCH or a Conflict.
    pub(super) fn on_entry(&mut self, entry: &LogEntry) -> Result<(), ClientError> {
        let group = entry.group;
        if !self.is_active(&group) {
            return Ok(());
        }
        let Some(applied) = unless_refused(self.chat.apply(entry))? else {
            return Ok(());
        };
        if matches!(applied, Applied::Skipped(_)) && !entry.change.remove.is_empty() {
            self.struck_off(entry)?;
        }
        self.on_applied(&group, entry.position, applied)
    }

    /// An entry that all members skip took these off the hub's list all the same. Whether this device
    /// is there still, the next FETCH tells. The others' leaves go, too, if the author might have
    /// removed them: else an admin could make the owners' devices remove an owner.
    fn struck_off(&mut self, entry: &LogEntry) -> Result<(), ClientError> {
        let group = &entry.group;
        let struck = &entry.change.remove;
        let Some(view) = unless_refused(self.chat.group(group))? else {
            return Ok(());
        };
        if struck.contains(&view.handle) {
            self.fell_behind(group);
        }
        let author = view.members.iter().find(|one| one.handle == entry.author);
        let author = author.map_or(Role::Member, |author| author.role);
        let may_remove = |role| author == Role::Owner || (author == Role::Admin && role < author);
        let others = view.members.iter().filter(|one| {
            one.handle != view.handle && struck.contains(&one.handle) && may_remove(one.role)
        });
        let others: Vec<_> = others.map(|one| one.handle).collect();
        if !others.is_empty() {
            self.intend(group, Intent::Remove(others));
        }
        Ok(())
    }

    /// What an entry did.
    pub(super) fn on_applied(
        &mut self,
        group: &GroupId,
        position: u64,
        applied: Applied,
    ) -> Result<(), ClientError> {
        match applied {
            Applied::Known => Ok(()),
            Applied::Gap(_) => {
                self.fell_behind(group);
                Ok(())
            }
            Applied::Unconfirmed(invalid) => {
                tracing::debug!(%invalid, "a copy of an entry does not fit");
                self.fell_behind(group);
                Ok(())
            }
            Applied::Skipped(invalid) => {
                tracing::warn!(%invalid, "an entry of the log is skipped");
                self.moved(group, position, None)?;
                if matches!(invalid, Invalid::Epoch | Invalid::Mls | Invalid::NotOurs) {
                    // Its author is elsewhere, or this device is: the newest GroupInfo tells.
                    self.fetch_infos(group, Purpose::Compare(*group))?;
                }
                Ok(())
            }
            Applied::Advanced(advance) => {
                self.moved(group, position, advance.tag)?;
                self.change(group, |one| one.rejoin = false);
                self.keep_epochs(group)?;
                self.prune(group, position)?;
                self.release(group)?;
                if advance.rejoined {
                    self.seal_all_again(group)?;
                    if self.invitation(group)?.is_some() {
                        // Whether it is a way back or a lure the log says, which was not asked for this.
                        self.fell_behind(group);
                    }
                }
                if advance.closed {
                    return self.end(group, Change::Closed);
                }
                self.members_changed(group, &advance)
            }
            Applied::Removed(_) => self.end(group, Change::Left),
        }
    }

    /// Something is in the log that this device has not seen; an answer that is under way may not have it.
    pub(super) fn fell_behind(&mut self, group: &GroupId) {
        self.change(group, |one| one.behind = true);
        self.overtaken.insert(*group);
        self.awake.insert(*group);
    }

    /// The queue is so far: what was said before this position has come.
    fn saw(&mut self, group: &GroupId, position: u64) -> Result<(), ClientError> {
        let Some(one) = self.conversations.get(group) else {
            return Ok(());
        };
        if position <= one.seen {
            return Ok(());
        }
        let was_ahead = one.position > one.seen;
        self.change(group, |one| one.seen = position);
        if was_ahead {
            self.keep_epochs(group)
        } else {
            Ok(())
        }
    }

    /// Keeps the keys for what may still come: the hub takes messages of the last epochs, and what
    /// this device knows of the log from elsewhere may be ahead of its queue.
    fn keep_epochs(&mut self, group: &GroupId) -> Result<(), ClientError> {
        let Some(one) = self.conversations.get(group) else {
            return Ok(());
        };
        let ahead = usize::try_from(one.position.saturating_sub(one.seen)).unwrap_or(usize::MAX);
        match self
            .chat
            .keep_epochs(group, EPOCHS_KEPT.saturating_add(ahead))
        {
            Err(error @ ChatError::Store(_)) => Err(chat_error(error)),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn moved(
        &mut self,
        group: &GroupId,
        position: u64,
        tag: Option<[u8; 16]>,
    ) -> Result<(), ClientError> {
        self.change(group, |one| one.position = position);
        self.intents.insert(*group);
        self.awake.insert(*group);
        if let Some(online) = &mut self.online {
            online.report(ForkTag {
                group: *group,
                position,
                tag,
            });
        }
        self.still_in(group, position)
    }

    /// Records of frames live a little longer than the secrets that could open a repeat.
    fn prune(&mut self, group: &GroupId, position: u64) -> Result<(), ClientError> {
        const KEPT: u64 = 8;
        if !position.is_multiple_of(KEPT) {
            return Ok(());
        }
        let seen = self
            .conversations
            .get(group)
            .map_or(position, |one| one.seen);
        let position = position.min(seen.max(position.saturating_sub(PAST_EPOCHS_MAX as u64)));
        self.forget_before(tables::KEYS, group, position.saturating_sub(2 * KEPT))
    }

    /// Deletes records of dedupe with a lower number than `first`.
    pub(super) fn forget_before(
        &mut self,
        table: &'static str,
        group: &GroupId,
        first: u64,
    ) -> Result<(), ClientError> {
        for (id, at) in self.vault.list(table, group.as_bytes())? {
            if at.try_into().map_or(0, u64::from_be_bytes) < first {
                self.vault.delete(table, group.as_bytes(), &id)?;
            }
        }
        Ok(())
    }

    /// This device is out of a conversation; its history stays.
    pub(super) fn end(&mut self, group: &GroupId, change: Change) -> Result<(), ClientError> {
        self.change(group, |one| one.stage = Stage::Left);
        self.unbind(group);
        self.begin_anew(group);
        self.give_up_all(group)?;
        self.forget_given(group)?;
        self.forget_conversation(group)?;
        self.tell(Event::Conversation {
            conversation: *group,
            change,
        });
        self.invited_again(group, change)
    }

    fn on_event(&mut self, event: GroupEvent) -> Result<(), ClientError> {
        let notice = event.notice;
        let Some(group) = notice.group else {
            if notice.kind == EventKind::Gap {
                let groups: Vec<_> = self.conversations.keys().copied().collect();
                for group in groups {
                    self.fell_behind(&group);
                }
                self.had_gap(true)?;
                self.tell(Event::Gap { conversation: None });
            }
            return Ok(());
        };
        if !self.is_active(&group) {
            return Ok(());
        }
        match notice.kind {
            EventKind::Undelivered => match (notice.about, notice.reason) {
                (Some(message), Some(reason)) => self.undelivered(&group, message, reason),
                _ => Ok(()),
            },
            EventKind::Gone => self.on_gone(&group, &notice.handles.unwrap_or_default()),
            EventKind::Fork => self.is_split(&group),
            // Its domain may be another one than the hub: the log decides.
            EventKind::Closed => {
                self.fell_behind(&group);
                Ok(())
            }
            EventKind::Gap | EventKind::Unknown(_) => Ok(()),
        }
    }

    /// Says so once for each state of the group: any member can send what does not open. Strangers
    /// whom nobody has decided about are not shown that this device reads along.
    fn may_be_split(&mut self, group: &GroupId) -> Result<(), ClientError> {
        let Some(one) = self.conversations.get(group) else {
            return Ok(());
        };
        let (position, is_undecided) = (one.position, one.request.is_some());
        if is_undecided || self.split_told.insert(*group, position) == Some(position) {
            return Ok(());
        }
        self.is_split(group)
    }

    fn is_split(&mut self, group: &GroupId) -> Result<(), ClientError> {
        self.tell(Event::Fork {
            conversation: *group,
        });
        self.fetch_infos(group, Purpose::Compare(*group))
    }

    fn undelivered(
        &mut self,
        group: &GroupId,
        message: commucat_proto::id::MessageId,
        reason: Reason,
    ) -> Result<(), ClientError> {
        if reason != Reason::Epoch {
            // The hub has it and tells who has not; or nobody ever will.
            self.settle_given(group, &message)?;
        }
        let reason = match reason {
            Reason::Epoch => {
                self.seal_again(group, &message)?;
                UndeliveredReason::Epoch
            }
            Reason::Full => UndeliveredReason::Full,
            Reason::Gone => UndeliveredReason::Gone,
            Reason::Expired => UndeliveredReason::Expired,
            Reason::Forbidden => UndeliveredReason::Forbidden,
            Reason::Blocked => UndeliveredReason::Blocked,
            Reason::Unknown(_) => return Ok(()),
        };
        // Receipts and the like are not worth a word.
        if self.vault.contains(tables::SENT, b"", message.as_bytes())? {
            self.tell(Event::Undelivered {
                conversation: *group,
                message,
                reason,
            });
        }
        Ok(())
    }

    fn on_problem(&mut self, problem: &Problem) -> Result<(), ClientError> {
        let Some(sequence) = problem.sequence else {
            if problem.title == Title::Replaced {
                self.set_state(Connection::Replaced);
            } else if problem.title == Title::Revoked {
                self.set_state(Connection::Revoked);
            }
            self.effects
                .push(Effect::Close(problem.title.as_str().to_lowercase()));
            return Ok(());
        };
        match self
            .online
            .as_mut()
            .and_then(|online| online.answered(sequence))
        {
            Some(Unanswered::Message {
                group,
                channel,
                number,
                ..
            }) => self.on_message_error((group, channel, number), problem),
            Some(Unanswered::Request { purpose, .. }) => self.on_request_error(purpose, problem),
            None => Ok(()),
        }
    }
}

/// What became of a message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kept {
    /// Opened or discarded.
    Done,
    /// Of a later epoch.
    Later,
}
