//! What an ACK means: custody of what was sent, and the ACK for what was stored (CCP-1 section 4).

use bytes::BytesMut;
use commucat_proto::encoder;
use commucat_proto::error::Title;
use commucat_proto::frame::ack::{AckDown, AckUp, CustodyRun, CustodyStatus};
use commucat_proto::frame::error::Problem;
use commucat_proto::frame::{FrameType, Header};
use commucat_proto::id::GroupId;

use super::core::{Core, Effect};
use super::model::{Outgoing, Stage};
use super::online::{Binding, Unanswered};
use super::tables;
use crate::chat::Content;
use crate::error::ClientError;
use crate::event::{Event, Tick, UndeliveredReason};
use crate::record;

/// Outbox rows read at once.
const PAGE: u32 = 64;

impl Core {
    /// The ACK for everything that this step stored; the last thing of a step.
    pub(super) fn acknowledge(&mut self) -> Result<(), ClientError> {
        self.bind_for_tags()?;
        let Some(online) = &mut self.online else {
            return Ok(());
        };
        let tags = online.take_tags();
        if online.received == online.acknowledged && tags.is_empty() {
            return Ok(());
        }
        online.acknowledged = online.received;
        let ack = AckUp {
            through: Some(online.received),
            tags,
        };
        let mut out = BytesMut::new();
        encoder::cbor(Header::bare(FrameType::Ack), &ack, &mut out);
        self.effects.push(Effect::Send(out.freeze()));
        Ok(())
    }

    /// Binds the groups of which there is a fork tag to report: a device that only reads shall hear of
    /// a fork, too.
    fn bind_for_tags(&mut self) -> Result<(), ClientError> {
        let Some(online) = &self.online else {
            return Ok(());
        };
        for group in online.unbound_with_tags() {
            // Whoever has not decided about a stranger does not show that it reads along.
            let is_member = self
                .conversations
                .get(&group)
                .is_some_and(|one| one.stage == Stage::Active && one.request.is_none());
            if !is_member {
                if let Some(online) = &mut self.online {
                    online.tags.retain(|tag| tag.group != group);
                }
            } else if !self.retry.contains_key(&group) {
                self.bind(&group)?;
            }
        }
        Ok(())
    }

    /// ACK s->c.
    pub(super) fn on_ack(&mut self, ack: AckDown) -> Result<(), ClientError> {
        for run in ack.custody {
            self.on_custody(run)?;
        }
        if let Some(answer) = ack.answer {
            let what = self
                .online
                .as_mut()
                .and_then(|online| online.answered(answer.request));
            if let Some(Unanswered::Request { purpose, .. }) = what {
                self.on_result(purpose, &answer.result)?;
            }
        }
        if ack.queue_empty {
            if let Some(online) = &mut self.online {
                online.caught_up = Some(self.now);
            }
            self.had_gap(false)?;
            // What had to wait for this.
            self.awake.extend(self.conversations.keys().copied());
            self.flush_receipts(super::receipts::When::Now)?;
        }
        if self
            .online
            .as_ref()
            .is_some_and(super::online::Online::is_settled)
        {
            self.set_state(crate::event::Connection::CaughtUp);
        }
        Ok(())
    }

    fn on_custody(&mut self, run: CustodyRun) -> Result<(), ClientError> {
        for offset in 0..run.count {
            let sequence = run.first.saturating_add(offset);
            let Some(online) = &mut self.online else {
                return Ok(());
            };
            // A run covers numbers of MSG frames only; one that was never sent ends the run.
            if online.unanswered.range(sequence..).next().is_none() {
                return Ok(());
            }
            let Some(Unanswered::Message { group, number, .. }) = online.answered(sequence) else {
                continue;
            };
            self.room_made();
            self.no_failures(&group);
            self.settled(&group, number, run.status)?;
            // Custody of an older message may be told after a newer one has failed.
            self.mend(&group);
        }
        Ok(())
    }

    /// A message is answered: conversations that the window kept from sending may go on.
    fn room_made(&mut self) {
        if let Some(online) = &mut self.online {
            let mut awake = std::mem::take(&mut online.blocked);
            self.awake.append(&mut awake);
        }
    }

    /// The server has custody of an outbox entry, or it is of no use any more.
    fn settled(
        &mut self,
        group: &GroupId,
        number: u64,
        status: CustodyStatus,
    ) -> Result<(), ClientError> {
        if let Some(outgoing) = self.outgoing(group, number)? {
            self.vault
                .remove(tables::OUTBOX, group.as_bytes(), number)?;
            self.has_custody(group, number, (&outgoing, status))?;
            self.reached(&outgoing.message, Tick::Stored)?;
        }
        Ok(())
    }

    /// An ERROR to a MSG: its channel is unbound; everything behind it is refused too, and all of
    /// it is sent again after a new JOIN, oldest first.
    pub(super) fn on_message_error(
        &mut self,
        (group, channel, number): (GroupId, u32, u64),
        problem: &Problem,
    ) -> Result<(), ClientError> {
        self.room_made();
        let online = self.online.as_mut();
        let binding = online.and_then(|online| online.bindings.get_mut(&group));
        match binding.filter(|(current, _)| *current == channel) {
            Some((_, binding)) => *binding = Binding::Broken,
            // Of a channel that was given up with the membership.
            None => {
                self.mend(&group);
                return Ok(());
            }
        }
        let title = problem.title;
        if title == Title::EpochOld {
            self.change(&group, |one| one.behind = true);
            self.stale.insert(group);
        } else if title == Title::Conflict || title == Title::NotFound {
            self.doubt(&group, problem);
        } else if title == Title::PayloadTooLarge || title == Title::InvalidControlPayload {
            // It can never be sent; what is behind it must not wait for ever.
            tracing::warn!(code = title.as_str(), "a message is refused for good");
            self.give_up(&group, number)?;
        } else if title != Title::NotJoined {
            self.later(&group, problem);
        }
        self.mend(&group);
        Ok(())
    }

    fn give_up(&mut self, group: &GroupId, number: u64) -> Result<(), ClientError> {
        let Some(outgoing) = self.outgoing(group, number)? else {
            return Ok(());
        };
        self.vault
            .remove(tables::OUTBOX, group.as_bytes(), number)?;
        if let Ok(content) = Content::decode(&outgoing.content) {
            self.is_settled(group, content.counter);
        }
        self.tell_given_up(group, &outgoing)
    }

    /// This device is out of a group: what it has not sent there it cannot send any more.
    pub(super) fn give_up_all(&mut self, group: &GroupId) -> Result<(), ClientError> {
        let mut after = 0;
        loop {
            let page = self
                .vault
                .entries(tables::OUTBOX, group.as_bytes(), after, PAGE)?;
            let Some((last, _)) = page.last() else {
                break;
            };
            after = *last;
            for (_, bytes) in page {
                self.tell_given_up(group, &record::decode(tables::OUTBOX, &bytes)?)?;
            }
        }
        self.vault.clear(tables::OUTBOX, group.as_bytes())?;
        Ok(())
    }

    /// Receipts and the like are not worth a word.
    fn tell_given_up(&mut self, group: &GroupId, outgoing: &Outgoing) -> Result<(), ClientError> {
        if self
            .vault
            .contains(tables::SENT, b"", outgoing.message.as_bytes())?
        {
            self.tell(Event::Undelivered {
                conversation: *group,
                message: outgoing.message,
                reason: UndeliveredReason::Forbidden,
            });
        }
        Ok(())
    }

    fn outgoing(&self, group: &GroupId, number: u64) -> Result<Option<Outgoing>, ClientError> {
        let after = number.saturating_sub(1);
        let page = self
            .vault
            .entries(tables::OUTBOX, group.as_bytes(), after, 1)?;
        match page.first() {
            Some((found, bytes)) if *found == number => {
                Ok(Some(record::decode(tables::OUTBOX, bytes)?))
            }
            _ => Ok(None),
        }
    }

    /// Binds a broken channel again once all frames behind the error have been answered.
    pub(super) fn mend(&mut self, group: &GroupId) {
        let Some(online) = &mut self.online else {
            return;
        };
        let broken = matches!(online.bindings.get(group), Some((_, Binding::Broken)));
        if broken && !online.has_messages(group) {
            online.unbind(group);
            online.sent.remove(group);
            self.awake.insert(*group);
        }
    }
}
