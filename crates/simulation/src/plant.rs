//! Planted mistakes: each is one that the rules of custody exist to prevent, and has to be found.

use clap::ValueEnum;

/// One planted mistake.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Plant {
    /// An author is answered when the transaction begins, not when it has committed.
    AckBeforeCommit,
    /// A repeat is answered because it is one.
    EarlyAckOfRepeat,
    /// What comes while the window is held goes to disk at once, past it.
    SpoolOfTail,
    /// An acknowledged row is deleted with everything before it.
    RangeDelete,
    /// Positions are given out when a transaction begins, not when it commits.
    EarlyPositions,
    /// An entry for an offline queue is inserted past its mailbox.
    SpoolOutside,
    /// A commit's rows are inserted and the mailboxes are not told.
    CommitWithoutPoke,
    /// A ticket counts from nothing while its legs are added.
    NoGuardLeg,
    /// A message is fanned out with whatever list is at hand.
    StaleFanoutCache,
    /// A repeated commit gets `Conflict`, and its author takes its own entry for another's.
    OwnCommitInConflict,
    /// A follower answers an event when it has arrived.
    AnswerAtReceipt,
    /// A lane to a peer answers a repeat of what the peer refused.
    PeerRemembersKeys,
    /// A batch that failed is sent again with its old date.
    OldCreated,
    /// A follower's hub refuses what its author was told is safe, and the author does not hear it.
    RefusalForgotten,
    /// A second notice of a frame that was returned, sealed again and returned again is a repeat.
    ReturnedOnce,
    /// The hub does not ask who may remove members.
    AnybodyRemoves,
    /// The hub takes messages of those who are not in the list any more.
    RemovedMaySend,
    /// The hub takes a fork tag for whomever it names.
    TagsOfAnybody,
    /// The hub does not tell those who are apart.
    ForkUntold,
    /// A follower takes frames of a group from whoever sends them, not from its hub alone.
    AnyHubDelivers,
    /// A client that was told `fork` follows whatever GroupInfo is the newest.
    AnyGroupInfo,
    /// A queue that is full refuses an entry, and its author does not hear it.
    FullUntold,
    /// A queue that refused something merges that with a notice that its device has had already.
    GapMergedLate,
    /// Entries expire, and their device does not hear it.
    ExpiryUntold,
    /// A client that missed a removal follows a GroupInfo from before it.
    InfoBeforeRemoval,
    /// A client acknowledges a frame before it has stored it.
    ClientAckBeforeStore,
    /// A client that reconnects sends new messages before those that were not acknowledged.
    ResendBehindNew,
}

impl Plant {
    /// All of them.
    #[must_use]
    pub fn all() -> &'static [Self] {
        Self::value_variants()
    }

    /// Its name on the command line.
    #[must_use]
    pub fn name(self) -> String {
        self.to_possible_value()
            .map(|value| value.get_name().to_owned())
            .unwrap_or_default()
    }
}
