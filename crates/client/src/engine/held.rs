//! Frames of a later epoch: kept unopened until the log leads there (CCP-1 section 5.2).

use bytes::Bytes;
use commucat_proto::frame::msg::Msg;
use commucat_proto::id::GroupId;
use commucat_proto::limits::GAP_PATIENCE;

use super::core::Core;
use super::inbound::Kept;
use super::tables;
use crate::error::ClientError;
use crate::event::Event;

/// Frames of a later epoch that are kept for one group, and their bytes: its share of a full queue. What
/// is more is told as missing.
const HELD_MAX: usize = 10_000;
const HELD_BYTES_MAX: usize = 16 * 1024 * 1024;
/// How many of them are in memory at once.
const HELD_PAGE: u32 = 16;

impl Core {
    /// Keeps a frame for a later epoch.
    pub(super) fn hold(&mut self, group: &GroupId, msg: &Msg) -> Result<(), ClientError> {
        self.change(group, |one| one.behind = true);
        self.overtaken.insert(*group);
        // The entry usually follows at once; asking is for when it does not.
        let at = self.now.saturating_add(GAP_PATIENCE);
        self.retry.entry(*group).or_insert(at);
        let (held, bytes) = self.vault.extent(tables::HELD, group.as_bytes())?;
        if held >= HELD_MAX || bytes + msg.payload().len() > HELD_BYTES_MAX {
            tracing::warn!("too many frames of a later epoch; one is dropped");
            self.tell(Event::Gap {
                conversation: Some(*group),
            });
            return Ok(());
        }
        self.vault
            .append(tables::HELD, group.as_bytes(), msg.payload())?;
        Ok(())
    }

    /// Forgets what was kept for positions behind the end of the log: no member can have been there.
    pub(super) fn forget_beyond(&self, group: &GroupId, head: u64) -> Result<(), ClientError> {
        let scope = group.as_bytes();
        let mut after = 0;
        loop {
            let held = self.vault.entries(tables::HELD, scope, after, HELD_PAGE)?;
            let Some((last, _)) = held.last() else {
                return Ok(());
            };
            after = *last;
            for (number, payload) in held {
                if Msg::decode(&Bytes::from(payload)).is_ok_and(|msg| msg.position() > head) {
                    tracing::warn!("a message claims a position that the log does not have");
                    self.vault.remove(tables::HELD, scope, number)?;
                }
            }
        }
    }

    /// Tries what was kept for a later epoch again.
    pub(super) fn release(&mut self, group: &GroupId) -> Result<(), ClientError> {
        let mut after = 0;
        loop {
            let held = self
                .vault
                .entries(tables::HELD, group.as_bytes(), after, HELD_PAGE)?;
            let Some((last, _)) = held.last() else {
                return Ok(());
            };
            after = *last;
            for (number, payload) in held {
                let kept = match Msg::decode(&Bytes::from(payload)) {
                    Ok(msg) => self.receive(group, &msg)?,
                    Err(_) => Kept::Done,
                };
                if kept == Kept::Done {
                    self.vault.remove(tables::HELD, group.as_bytes(), number)?;
                }
            }
        }
    }
}
