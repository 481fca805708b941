//! The hub's rules for groups (CCP-1 section 5): who may send, read and commit, and what follows.
//!
//! The hub knows pseudonymous handles with sealed references and one admin flag, nothing else.
//! Everything here is a function of the group as it is and of what is asked; the caller verifies
//! signatures, keeps the group and applies a [`Change`] as a compare-and-swap on the head.

mod alarm;
mod commit;
mod group;
mod rate;
#[cfg(test)]
mod tests;

pub use self::alarm::{Alarm, Fork, TAG_CONFLICT_HELD, Tag};
pub use self::commit::{
    Change, Committed, JoinKeyChange, Past, Proposal, Recipient, Signer, commit, signer,
};
pub use self::group::{
    Admission, Author, DOMAINS_MAX, Departure, EPOCHS_OPEN, Entry, Fanout, Group, HANDLES_MAX,
    JOIN_READ_WINDOW, JoinKey, Source,
};
pub use self::rate::{Limiter, Rate};

/// Missing entries that a `Conflict` carries inline, and a page of FETCH: this many bytes, at least
/// one entry, then `more`.
pub const PAGE_BYTES: usize = 256 * 1024;

/// Why the hub does not do what is asked. Nothing was changed.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// No such group, or no such entry in its list: the two look alike.
    #[error("no such group or entry")]
    NotFound,
    /// The position is taken, or is above the head.
    #[error("the position is taken")]
    Conflict {
        /// The position of the last entry.
        head: u64,
    },
    /// Sealed too many entries ago.
    #[error("the epoch is too old")]
    EpochOld,
    /// Needs rights that the author does not have.
    #[error("{0}")]
    Forbidden(&'static str),
    /// Makes no sense whoever asks.
    #[error("{0}")]
    Invalid(&'static str),
}
