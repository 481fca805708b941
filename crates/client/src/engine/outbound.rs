//! The outbox: seal, store, then send; resend until the server acknowledges (CCP-1 section 4).

use bytes::BytesMut;
use commucat_proto::encoder;
use commucat_proto::error::Title;
use commucat_proto::frame::error::Problem;
use commucat_proto::frame::join::Join;
use commucat_proto::frame::{FrameType, Header};
use commucat_proto::id::{GroupId, MessageId};
use commucat_proto::time::Timestamp;
use commucat_proto::wire::Cbor;

use super::core::{Core, Effect, chat_error};
use super::model::{Outgoing, Stage};
use super::online::{Binding, Purpose, Unanswered};
use super::tables;
use crate::chat::{Body, ChatError, Content, Intent};
use crate::error::ClientError;
use crate::record;

/// Commits after which a stored ciphertext is sealed again: receivers keep the keys of 3 epochs.
const STALE_AFTER: u64 = 4;
/// Outbox rows read at once.
const PAGE: u32 = 64;
/// What a ciphertext adds to a content, roughly: for the window only.
const SEALING: usize = 512;
/// Whatever a hub says, it is asked again after so many seconds.
const RETRY_AFTER_MAX: u64 = 3_600;

impl Core {
    /// Puts a content into a conversation's outbox; returns its number there.
    pub(super) fn post(&mut self, group: &GroupId, body: Body) -> Result<u64, ClientError> {
        let message = MessageId::new(commucat_crypto::secret::random_bytes());
        let content = Content {
            body,
            sent: self.now,
            reply_to: None,
            counter: 0,
            settled: None,
        };
        self.post_content(group, message, &content)
    }

    /// Puts a content with its id into a conversation's outbox.
    pub(super) fn post_content(
        &mut self,
        group: &GroupId,
        message: MessageId,
        content: &Content,
    ) -> Result<u64, ClientError> {
        let outgoing = Outgoing {
            message,
            // A receipt is not counted: nobody needs to wait for one, or to know of one that is lost.
            composed: content.counter > 0 || matches!(content.body, Body::Receipt { .. }),
            content: content.encode(),
            sealed: None,
            position: 0,
        };
        let bytes = record::encode(tables::OUTBOX, &outgoing)?;
        let number = self
            .vault
            .append(tables::OUTBOX, group.as_bytes(), &bytes)?;
        self.awake.insert(*group);
        Ok(number)
    }

    /// How many contents wait.
    pub(super) fn unsent(&self, group: &GroupId) -> Result<usize, ClientError> {
        Ok(self.vault.count(tables::OUTBOX, group.as_bytes())?)
    }

    /// Sends what the window allows, oldest first.
    pub(super) fn pump(&mut self, group: &GroupId) -> Result<(), ClientError> {
        let Some(online) = &self.online else {
            return Ok(());
        };
        let mut after = online.sent.get(group).copied().unwrap_or(0);
        let Some((channel, binding)) = online.bindings.get(group).copied() else {
            if self
                .vault
                .entries(tables::OUTBOX, group.as_bytes(), after, 1)?
                .is_empty()
            {
                return Ok(());
            }
            // Binding asks the home server only; a hub that refuses must not be asked without pause.
            let has_failed = self.failures.contains_key(group) && self.retry.contains_key(group);
            // Nor one that does not know this device, before the log tells otherwise.
            let is_unknown = self.unknown.contains_key(group);
            return if has_failed || is_unknown {
                Ok(())
            } else {
                self.bind(group)
            };
        };
        if binding != Binding::Bound {
            return Ok(());
        }
        loop {
            let page = self
                .vault
                .entries(tables::OUTBOX, group.as_bytes(), after, PAGE)?;
            if page.is_empty() {
                return Ok(());
            }
            for (number, bytes) in page {
                let outgoing: Outgoing = record::decode(tables::OUTBOX, &bytes)?;
                if !self.send_one(group, channel, number, outgoing)? {
                    return Ok(());
                }
                after = number;
            }
        }
    }

    /// Seals if needed and sends one content; false if it has to wait.
    fn send_one(
        &mut self,
        group: &GroupId,
        channel: u32,
        number: u64,
        mut outgoing: Outgoing,
    ) -> Result<bool, ClientError> {
        let estimate = outgoing
            .sealed
            .as_ref()
            .map_or(outgoing.content.len() + SEALING, Vec::len);
        let Some(online) = &mut self.online else {
            return Ok(false);
        };
        if !online.has_room(estimate) {
            online.blocked.insert(*group);
            return Ok(false);
        }
        let position = self.conversations.get(group).map_or(0, |one| one.position);
        let stale = self.stale.contains(group) && outgoing.position < position;
        let old = position.saturating_sub(outgoing.position) >= STALE_AFTER;
        if outgoing.sealed.is_none() || stale || old {
            match self.seal(group, &mut outgoing) {
                Ok(()) => {}
                Err(ChatError::Store(error)) => return Err(chat_error(error)),
                Err(error) => {
                    tracing::warn!(%error, "a content cannot be sealed now");
                    return Ok(false);
                }
            }
            let bytes = record::encode(tables::OUTBOX, &outgoing)?;
            self.vault
                .replace(tables::OUTBOX, group.as_bytes(), number, &bytes)?;
            self.note_counter(&outgoing)?;
        }
        let Some(payload) = outgoing.sealed else {
            return Ok(false);
        };
        let Some(online) = &mut self.online else {
            return Ok(false);
        };
        let what = Unanswered::Message {
            group: *group,
            channel,
            number,
            bytes: payload.len(),
        };
        let header = Header {
            kind: FrameType::Msg,
            channel,
            sequence: online.number(what),
        };
        online.sent.insert(*group, number);
        let mut out = BytesMut::new();
        encoder::raw(header, &payload, &mut out);
        self.effects.push(Effect::Send(out.freeze()));
        Ok(true)
    }

    fn seal(&mut self, group: &GroupId, outgoing: &mut Outgoing) -> Result<(), ChatError> {
        let malformed = |_| ChatError::Encode("stored content");
        let mut content = Content::decode(&outgoing.content).map_err(malformed)?;
        if !outgoing.composed {
            content = self
                .chat
                .compose(group, content.body, content.sent, content.reply_to)?;
            outgoing.composed = true;
            let unsettled = self.unsettled.entry(*group).or_default();
            unsettled.insert(content.counter);
        }
        content.settled = Some(self.settled_before(group, content.counter));
        outgoing.content = content.encode();
        let sealed = self.chat.seal(group, &outgoing.message, &content)?;
        outgoing.position = sealed.msg.position();
        outgoing.sealed = Some(sealed.msg.payload().to_vec());
        Ok(())
    }

    /// The history of a sent text learns its counter, so that it can be sealed again.
    fn note_counter(&self, outgoing: &Outgoing) -> Result<(), ClientError> {
        let Some(place) = self
            .vault
            .get(tables::SENT, b"", outgoing.message.as_bytes())?
        else {
            return Ok(());
        };
        let Some((number, group)) = place.split_first_chunk::<8>() else {
            return Ok(());
        };
        let (Ok(group), number) = (GroupId::parse(group), u64::from_be_bytes(*number)) else {
            return Ok(());
        };
        let (Some(mut stored), Ok(content)) = (
            self.stored(&group, number)?,
            Content::decode(&outgoing.content),
        ) else {
            return Ok(());
        };
        stored.counter = content.counter;
        let bytes = record::encode(tables::HISTORY, &stored)?;
        self.vault
            .replace(tables::HISTORY, group.as_bytes(), number, &bytes)?;
        Ok(())
    }

    pub(super) fn bind(&mut self, group: &GroupId) -> Result<(), ClientError> {
        let Ok(view) = self.chat.group(group) else {
            return Ok(());
        };
        let Some(online) = &mut self.online else {
            return Ok(());
        };
        // All channels taken: other conversations have to be quiet first.
        let Some(channel) = online.channel_for(group) else {
            return Ok(());
        };
        online.bindings.insert(*group, (channel, Binding::Joining));
        let join = Join {
            group: *group,
            hub: view.hub,
            handle: view.handle,
            sealed_ref: view.sealed_ref,
        };
        self.request_on(channel, FrameType::Join, &join, Purpose::Join(*group));
        Ok(())
    }

    /// Sends a control request.
    pub(super) fn request(&mut self, kind: FrameType, value: &impl Cbor, purpose: Purpose) {
        self.request_on(0, kind, value, purpose);
    }

    fn request_on(&mut self, channel: u32, kind: FrameType, value: &impl Cbor, purpose: Purpose) {
        let at = self.now;
        let Some(online) = &mut self.online else {
            return;
        };
        let sequence = online.number(Unanswered::Request { purpose, at });
        let mut out = BytesMut::new();
        encoder::cbor(
            Header {
                kind,
                channel,
                sequence,
            },
            value,
            &mut out,
        );
        self.effects.push(Effect::Send(out.freeze()));
    }

    /// Looks at a conversation again after a while that grows with each failure.
    pub(super) fn later(&mut self, group: &GroupId, problem: &Problem) {
        let failures = self.failures.entry(*group).or_insert(0);
        *failures = failures.saturating_add(1).min(7);
        let wait = problem
            .extra
            .retry_after
            .map_or(250u64 << *failures, |after| {
                after.min(RETRY_AFTER_MAX) * 1000 + 50
            });
        let at = Timestamp::from_millis(self.now.as_millis().saturating_add(wait));
        self.retry.insert(*group, at);
    }

    /// Something was refused as if this device had missed an entry: the log tells.
    pub(super) fn doubt(&mut self, group: &GroupId, problem: &Problem) {
        self.change(group, |one| one.behind = true);
        self.doubted.insert(*group);
        self.later(group, problem);
    }

    /// What was asked in a conversation succeeds.
    pub(super) fn no_failures(&mut self, group: &GroupId) {
        self.failures.remove(group);
        self.doubted.remove(group);
    }

    /// A result was of no use; the request is repeated later.
    pub(super) fn sent_nothing(&mut self, group: &GroupId) {
        self.later(group, &Problem::new(Title::StorageFailure, ""));
    }

    pub(super) fn may_send(&self, group: &GroupId) -> bool {
        // While it rejoins, what this device seals is in the history that it is about to leave.
        let is_ready = self.conversations.get(group).is_some_and(|one| {
            one.stage == Stage::Active && one.request.is_none() && one.ready && !one.rejoin
        });
        is_ready && !self.is_removing(group)
    }

    /// Whether somebody shall be removed who is still there: what is written after that is not for them.
    fn is_removing(&self, group: &GroupId) -> bool {
        let is_removal =
            |intent: &Intent| matches!(intent, Intent::Remove(_) | Intent::RemoveAccount(_));
        self.has_intent(group, is_removal)
    }

    /// Whether a change of the group waits that is such a one.
    pub(super) fn has_intent(&self, group: &GroupId, is_it: impl FnMut(&Intent) -> bool) -> bool {
        let intents = || self.chat.intents(group).unwrap_or_default();
        self.intents.contains(group) && intents().iter().any(is_it)
    }
}
