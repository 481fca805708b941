//! Where entries are kept: the one trait of this crate, because operators bring their own.

use std::io;

use crate::entry::Entry;

pub(crate) mod debug;
pub(crate) mod file;
pub(crate) mod null;

/// Why a sink did not keep the entries.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// What the sink writes to does not work.
    #[error("ledger sink does not take entries")]
    Io(#[from] io::Error),
    /// An entry came whose index is not the next one; a mistake of the caller.
    #[error("ledger entry {found} came where {expected} was due")]
    OutOfOrder {
        /// Index of the next entry.
        expected: u64,
        /// Index of the entry that came.
        found: u64,
    },
}

/// A place that keeps entries.
///
/// Blocking; the writer calls it on its own thread. [`crate::conformance::check`] shows whether an
/// implementation keeps this contract.
pub trait Sink: Send + 'static {
    /// Index of the next entry: one more than that of the last entry kept, 0 for none.
    fn next_index(&self) -> u64;

    /// Appends `entries`, whose indexes ascend without gaps. When this returns `Ok`, they survive a
    /// crash, as far as the sink keeps anything at all.
    ///
    /// Entries below [`Sink::next_index`] were kept before and are passed over, so that a caller may
    /// repeat a call that failed half-way.
    ///
    /// # Errors
    ///
    /// [`SinkError::Io`] if nothing or only a prefix was kept; the caller repeats the same entries.
    /// [`SinkError::OutOfOrder`] if an entry lies beyond the next; those before it may be kept.
    fn append(&mut self, entries: &[Entry]) -> Result<(), SinkError>;
}

/// The entries that are new to a sink whose next index is `next`.
///
/// # Errors
///
/// [`SinkError::OutOfOrder`] at the first gap.
pub(crate) fn new_entries(entries: &[Entry], next: u64) -> Result<&[Entry], SinkError> {
    let known = entries
        .iter()
        .take_while(|entry| entry.index() < next)
        .count();
    let new = entries.get(known..).unwrap_or_default();
    for (entry, expected) in new.iter().zip(next..) {
        if entry.index() != expected {
            return Err(SinkError::OutOfOrder {
                expected,
                found: entry.index(),
            });
        }
    }
    Ok(new)
}
