//! Own contents that the others may not have: those in the outbox, those that the own server keeps
//! for a hub of another domain, from where they may come back, and those sealed while the others may
//! have gone on without this device (CCP-1 sections 4 and 5.5).
//!
//! What comes back is sealed and sent again, whatever it is. And every content tells the recipients up
//! to which counter all is settled, so that they know what will never come.

use std::collections::BTreeSet;

use commucat_proto::frame::ack::CustodyStatus;
use commucat_proto::id::{GroupId, MessageId};
use commucat_proto::limits::{GAP_PATIENCE, RELAY_TTL_DEFAULT};
use serde::{Deserialize, Serialize};

use super::core::Core;
use super::model::Outgoing;
use super::tables;
use crate::chat::{Body, Content};
use crate::error::ClientError;
use crate::record;

/// Contents kept for one group that may come back; of more, those that are no texts are lost.
const GIVEN_MAX: usize = 10_000;

/// A content that the own server has custody of, on its way to the hub.
#[derive(Clone, Deserialize, Serialize)]
pub(super) struct Given {
    /// Its number in the outbox.
    number: u64,
    #[serde(with = "record::raw")]
    content: Vec<u8>,
}

impl Core {
    /// The server has custody of an outbox entry, which is not in the outbox any more.
    pub(super) fn has_custody(
        &mut self,
        group: &GroupId,
        number: u64,
        (outgoing, status): (&Outgoing, CustodyStatus),
    ) -> Result<(), ClientError> {
        let hub = self.conversations.get(group).map(|one| one.hub.clone());
        // Of a group whose hub is elsewhere, what is stored here is not there yet. And while it is not
        // sure that this device has the others' history, they may not be able to open it.
        let is_elsewhere = hub != self.own_domain() && status == CustodyStatus::Stored;
        let may_come_back = is_elsewhere || self.chat.is_in_doubt(group);
        let kept = self.vault.count_values(tables::GIVEN, group.as_bytes())?;
        if may_come_back && kept < GIVEN_MAX {
            let key = (
                group.as_bytes().as_slice(),
                outgoing.message.as_bytes().as_slice(),
            );
            let given = Given {
                number,
                content: outgoing.content.clone(),
            };
            return Ok(record::put(&self.vault, tables::GIVEN, key, &given)?);
        }
        if let Ok(content) = Content::decode(&outgoing.content) {
            self.is_settled(group, content.counter);
        }
        if may_come_back {
            return Ok(());
        }
        let passed = (number, self.now);
        let (number, at) = *self.passed.entry(*group).or_insert(passed);
        // The lane to the hub keeps its order: what was given before is settled too. But what came
        // back may be told a moment later than this.
        if at.saturating_add(GAP_PATIENCE) <= self.now {
            self.passed.remove(group);
            for (message, given) in self.given(group)? {
                if given.number < number {
                    self.settle_given(group, &message)?;
                }
            }
        }
        Ok(())
    }

    fn given(&self, group: &GroupId) -> Result<Vec<(MessageId, Given)>, ClientError> {
        let mut all = Vec::new();
        for (id, bytes) in self.vault.list(tables::GIVEN, group.as_bytes())? {
            if let Ok(message) = MessageId::parse(&id) {
                all.push((message, record::decode(tables::GIVEN, &bytes)?));
            }
        }
        Ok(all)
    }

    /// A content that was on its way to the hub is there, or comes back for good. Not so while there
    /// are doubts: one member has it, and others may be in another history.
    pub(super) fn settle_given(
        &mut self,
        group: &GroupId,
        message: &MessageId,
    ) -> Result<(), ClientError> {
        if self.chat.is_in_doubt(group) {
            return Ok(());
        }
        if let Some(content) = self.take_given(group, message)? {
            self.is_settled(group, content.counter);
        }
        Ok(())
    }

    fn take_given(
        &self,
        group: &GroupId,
        message: &MessageId,
    ) -> Result<Option<Content>, ClientError> {
        let key = (group.as_bytes().as_slice(), message.as_bytes().as_slice());
        let Some(given) = record::get::<Given>(&self.vault, tables::GIVEN, key)? else {
            return Ok(None);
        };
        self.vault.delete(tables::GIVEN, key.0, key.1)?;
        Ok(Content::decode(&given.content).ok())
    }

    /// Puts a content that came back into the outbox again, with the same id and counter.
    pub(super) fn seal_again(
        &mut self,
        group: &GroupId,
        message: &MessageId,
    ) -> Result<(), ClientError> {
        let mut content = self.take_given(group, message)?;
        if content.is_none() {
            content = self.content_in_outbox(group, message)?;
        }
        if content.is_none() {
            content = self.content_in_history(group, message)?;
        }
        let Some(content) = content else {
            return Ok(());
        };
        tracing::debug!(
            code = content.body.kind(),
            "a content that came back is sealed again"
        );
        if content.counter > 0 {
            self.unsettled
                .entry(*group)
                .or_default()
                .insert(content.counter);
        }
        self.post_content(group, *message, &content).map(drop)
    }

    /// After a rejoin: what was sealed in the history that this device left, the others may not be able to
    /// open. All that may still be on its way is sealed and sent again, in its order and under the same
    /// ids; whoever opened it already shows it once.
    pub(super) fn seal_all_again(&mut self, group: &GroupId) -> Result<(), ClientError> {
        let waiting = self
            .vault
            .entries(tables::OUTBOX, group.as_bytes(), 0, u32::MAX)?;
        let mut given = self.given(group)?;
        given.sort_by_key(|(_, given)| given.number);
        let oldest = self.now.saturating_sub(RELAY_TTL_DEFAULT);
        for (message, given) in given {
            // What is older has arrived, or came back. Whoever has it may have forgotten that.
            if Content::decode(&given.content).is_ok_and(|content| content.sent >= oldest) {
                self.seal_again(group, &message)?;
            }
        }
        for (number, bytes) in waiting {
            // A new number, so that the answer to what is on its way does not count for it.
            let outgoing: Outgoing = record::decode(tables::OUTBOX, &bytes)?;
            let fresh = Outgoing {
                sealed: None,
                ..outgoing
            };
            let bytes = record::encode(tables::OUTBOX, &fresh)?;
            self.vault
                .append(tables::OUTBOX, group.as_bytes(), &bytes)?;
            self.vault
                .remove(tables::OUTBOX, group.as_bytes(), number)?;
        }
        self.awake.insert(*group);
        Ok(())
    }

    /// It may come back before its custody is told.
    fn content_in_outbox(
        &self,
        group: &GroupId,
        message: &MessageId,
    ) -> Result<Option<Content>, ClientError> {
        for (_, bytes) in self
            .vault
            .entries(tables::OUTBOX, group.as_bytes(), 0, u32::MAX)?
        {
            let outgoing: Outgoing = record::decode(tables::OUTBOX, &bytes)?;
            if outgoing.message == *message {
                return Ok(Content::decode(&outgoing.content).ok());
            }
        }
        Ok(None)
    }

    fn content_in_history(
        &self,
        group: &GroupId,
        message: &MessageId,
    ) -> Result<Option<Content>, ClientError> {
        let Some(place) = self.vault.get(tables::SENT, b"", message.as_bytes())? else {
            return Ok(None);
        };
        let Some((number, _)) = place.split_first_chunk::<8>() else {
            return Ok(None);
        };
        let stored = self.stored(group, u64::from_be_bytes(*number))?;
        Ok(stored.map(|stored| Content {
            body: Body::Text(stored.text),
            sent: commucat_proto::time::Timestamp::from_millis(stored.sent),
            reply_to: None,
            counter: stored.counter,
            settled: None,
        }))
    }

    /// The hub has the content with this counter, or never will.
    pub(super) fn is_settled(&mut self, group: &GroupId, counter: u64) {
        if let Some(unsettled) = self.unsettled.get_mut(group) {
            unsettled.remove(&counter);
        }
    }

    /// Up to which counter all own contents are settled, for a content that is sealed now; its own
    /// counter does not count.
    pub(super) fn settled_before(&self, group: &GroupId, counter: u64) -> u64 {
        let first = self.unsettled.get(group).and_then(BTreeSet::first).copied();
        let own = (counter > 0).then_some(counter);
        match first.into_iter().chain(own).min() {
            Some(first) => first.saturating_sub(1),
            None => self.chat.counter(group),
        }
    }

    /// After a restart: which own contents are not settled.
    pub(super) fn restore_unsettled(&mut self) -> Result<(), ClientError> {
        let groups: Vec<_> = self.conversations.keys().copied().collect();
        for group in groups {
            let mut contents: Vec<_> = self
                .given(&group)?
                .into_iter()
                .map(|(_, given)| given.content)
                .collect();
            for (_, bytes) in self
                .vault
                .entries(tables::OUTBOX, group.as_bytes(), 0, u32::MAX)?
            {
                let outgoing: Outgoing = record::decode(tables::OUTBOX, &bytes)?;
                contents.push(outgoing.content);
            }
            let counters = contents
                .iter()
                .filter_map(|content| Some(Content::decode(content).ok()?.counter))
                .filter(|counter| *counter > 0);
            let counters: BTreeSet<u64> = counters.collect();
            if !counters.is_empty() {
                self.unsettled.insert(group, counters);
            }
        }
        Ok(())
    }

    /// This device is out of the group: nothing comes back.
    pub(super) fn forget_given(&mut self, group: &GroupId) -> Result<(), ClientError> {
        self.unsettled.remove(group);
        self.passed.remove(group);
        self.vault.delete_scope(tables::GIVEN, group.as_bytes())?;
        Ok(())
    }
}
