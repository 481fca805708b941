//! A sink that keeps nothing, for operators who want no ledger.

use super::{Sink, SinkError, new_entries};
use crate::entry::Entry;

/// Takes every entry and keeps none.
#[derive(Debug, Default)]
pub struct NullSink {
    next: u64,
}

impl Sink for NullSink {
    fn next_index(&self) -> u64 {
        self.next
    }

    fn append(&mut self, entries: &[Entry]) -> Result<(), SinkError> {
        for _ in new_entries(entries, self.next)? {
            self.next += 1;
        }
        Ok(())
    }
}
