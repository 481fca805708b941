//! Receipts: telling authors that their messages arrived or were read.
//!
//! They are collected for a moment, so that a burst of messages costs one receipt; what is owed is
//! in the vault, so that a crash forgets none.

use std::collections::BTreeMap;
use std::time::Duration;

use commucat_proto::id::{GroupId, MessageId};
use commucat_proto::time::Timestamp;

use super::core::Core;
use super::model::Stored;
use super::tables;
use crate::chat::{Body, Stage};
use crate::error::ClientError;
use crate::record;

/// How long receipts are collected.
const COLLECT: Duration = Duration::from_millis(100);
/// Messages in one receipt.
const BATCH: usize = 64;
/// Conversations with more devices do without receipts: each would go to all of them.
pub(super) const DEVICES_MAX: usize = 16;

/// Messages by conversation that a receipt is owed for, since when.
#[derive(Default)]
pub(crate) struct Collected(BTreeMap<GroupId, (Timestamp, Vec<MessageId>)>);

/// Which receipts to send.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum When {
    /// Those that were collected long enough.
    Due,
    /// All.
    Now,
}

impl Collected {
    /// When the oldest have been collected long enough.
    pub(super) fn due(&self) -> Option<Timestamp> {
        self.0
            .values()
            .map(|(since, _)| since.saturating_add(COLLECT))
            .min()
    }
}

impl Core {
    pub(super) fn owe_receipt(
        &mut self,
        group: &GroupId,
        message: &MessageId,
    ) -> Result<(), ClientError> {
        self.vault
            .put(tables::OWED, group.as_bytes(), message.as_bytes(), &[])?;
        let entry = self
            .receipts
            .0
            .entry(*group)
            .or_insert_with(|| (self.now, Vec::new()));
        entry.1.push(*message);
        Ok(())
    }

    pub(super) fn restore_receipts(&mut self, group: &GroupId) -> Result<(), ClientError> {
        let owed = self.vault.list(tables::OWED, group.as_bytes())?;
        let owed: Vec<_> = owed
            .iter()
            .filter_map(|(id, _)| MessageId::parse(id).ok())
            .collect();
        if !owed.is_empty() {
            self.receipts.0.insert(*group, (self.now, owed));
        }
        Ok(())
    }

    pub(super) fn flush_receipts(&mut self, when: When) -> Result<(), ClientError> {
        let now = self.now;
        let is_due = |since: Timestamp| when == When::Now || since.saturating_add(COLLECT) <= now;
        let due: Vec<_> = self
            .receipts
            .0
            .iter()
            .filter(|(_, (since, _))| is_due(*since))
            .map(|(g, _)| *g)
            .collect();
        for group in due {
            // Undecided requests owe nothing yet: a stranger does not learn that anybody is there.
            if self
                .conversations
                .get(&group)
                .is_some_and(|one| one.request.is_some())
            {
                self.receipts.0.remove(&group);
                continue;
            }
            let Some((_, messages)) = self.receipts.0.remove(&group) else {
                continue;
            };
            let wanted = self.is_active(&group) && self.devices_in(&group) <= DEVICES_MAX;
            for batch in messages.chunks(BATCH) {
                for message in batch {
                    self.vault
                        .delete(tables::OWED, group.as_bytes(), message.as_bytes())?;
                }
                if wanted {
                    let messages = batch.to_vec();
                    self.post(
                        &group,
                        Body::Receipt {
                            stage: Stage::Stored,
                            messages,
                        },
                    )?;
                }
            }
        }
        Ok(())
    }

    /// Tells the authors of everything unread in a conversation that it was read.
    pub(super) fn mark_read(&mut self, group: &GroupId) -> Result<(), ClientError> {
        let own = self.own_id();
        let (mut after, mut unread) = (0, Vec::new());
        loop {
            let page = self
                .vault
                .entries(tables::HISTORY, group.as_bytes(), after, 200)?;
            let Some((last, _)) = page.last() else { break };
            after = *last;
            for (number, bytes) in &page {
                let mut stored: Stored = record::decode(tables::HISTORY, bytes)?;
                if stored.author != own && !stored.read {
                    stored.read = true;
                    let bytes = record::encode(tables::HISTORY, &stored)?;
                    self.vault
                        .replace(tables::HISTORY, group.as_bytes(), *number, &bytes)?;
                    unread.push(stored.id);
                }
            }
        }
        let wanted = self.is_active(group) && self.devices_in(group) <= DEVICES_MAX;
        if wanted {
            for batch in unread.chunks(BATCH) {
                let messages = batch.to_vec();
                self.post(
                    group,
                    Body::Receipt {
                        stage: Stage::Read,
                        messages,
                    },
                )?;
            }
        }
        Ok(())
    }
}
