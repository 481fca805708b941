//! Mistakes that the exploration has to find.

/// One planted mistake.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Bug {
    /// A repeat is answered because it is one.
    EarlyAckOfRepeat,
    /// Only the newest entry goes to disk.
    SpoolOfTail,
    /// An ACK for an entry in a running transaction is forgotten.
    AckDuringSpooling,
}
