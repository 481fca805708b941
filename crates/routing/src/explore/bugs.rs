//! Mistakes that the exploration has to find.

/// One planted mistake, in a machine or in the world around it.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Bug {
    /// A repeat is answered because it is one.
    EarlyAckOfRepeat,
    /// Only the newest entry goes to disk.
    SpoolOfTail,
    /// The mailbox is told sequence numbers and applies them to the present connection.
    BareSequence,
    /// An acknowledged row is deleted with everything before it.
    RangeDelete,
    /// Positions are given out when a transaction begins, not when it commits.
    SequenceAllocatedPositions,
    /// An entry for an offline queue is inserted past its mailbox.
    SpoolOutside,
    /// An ACK for an entry in a running transaction is forgotten.
    AckDuringSpooling,
    /// A commit's rows are inserted and the mailbox is not told.
    CommitWithoutPoke,
    /// A peer answers a request when it has come, before it has custody of its events.
    AnswerAtReceipt,
    /// A request that is sent again is not signed anew, and is outside of the receiver's window.
    OldCreated,
    /// A lane that connects again sends from memory before it has read its outbox.
    OutboxOvertaken,
    /// After an error the next request goes on behind the one that got no answer.
    SkipUnanswered,
    /// A ticket counts from nothing, without a leg that guards it while legs are added.
    NoGuardLeg,
    /// A MSG is fanned out with a cached list older than its position.
    StaleFanoutCache,
    /// A repeated bundle gets `Conflict`, and its author takes its own entry for another's.
    OwnCommitInConflict,
    /// An owner takes entries from memory although older ones may be in the store.
    NoSync,
    /// A queue changes its place while something is unanswered at the old one.
    PlaceChangedEarly,
    /// An answer of another node is matched by its number alone.
    AnswerByNumber,
    /// An owner takes a parcel although the one before it got lost.
    GapTaken,
    /// What a link leaves unanswered goes to the store newest first.
    FallbackTurnedRound,
}

/// What a link gave up, in its order or, with the bug, in the other.
pub(crate) fn turned_round<T>(planted: Option<Bug>, given_up: impl Iterator<Item = T>) -> Vec<T> {
    let mut all: Vec<T> = given_up.collect();
    if planted == Some(Bug::FallbackTurnedRound) {
        all.reverse();
    }
    all
}
