//! A sink that writes to the log, for development.

use super::{Sink, SinkError, new_entries};
use crate::entry::Entry;

/// Logs the kind of each entry. Marks and hashes stay out: logs travel further than ledgers.
#[derive(Debug, Default)]
pub struct DebugSink {
    next: u64,
}

impl Sink for DebugSink {
    fn next_index(&self) -> u64 {
        self.next
    }

    fn append(&mut self, entries: &[Entry]) -> Result<(), SinkError> {
        for entry in new_entries(entries, self.next)? {
            tracing::info!(
                seq = entry.index(),
                code = entry.change().kind(),
                "ledger entry"
            );
            self.next += 1;
        }
        Ok(())
    }
}
