//! Links between the nodes of one domain: where a queue's entries go, and who answers for them.
//!
//! [`Dispatch`] is a node's sending half. It gives each queue a *place*, which is this node or the one
//! that the device is connected to, sends entries over numbered links, and puts all that a link
//! leaves unanswered into the queues here, in order. [`Incoming`] is the receiving half of one link.
//! Redis, which carries links and routes, may drop, repeat or forget everything at any moment: that
//! costs repeats, never a message and never the order of one author (custody rules R4 and R5).
//!
//! Like the lanes these are values: the caller owns clock, network and lanes, calls methods and
//! carries out the [`Act`]s, in order, before it calls again.

mod dispatch;
mod incoming;
mod outgoing;
#[cfg(test)]
mod tests;
mod way;

use std::time::Duration;

use commucat_proto::id::QueueId;

pub use self::dispatch::{Act, Dispatch, Moment};
pub use self::incoming::{Arrival, Incoming};
use crate::lane::Envelope;
use crate::ticket::Outcome;

/// One life of a node's process: random, made at its start. Whoever restarts is another one.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Incarnation([u8; Self::LEN]);

impl Incarnation {
    /// Length in bytes.
    pub const LEN: usize = 16;

    /// Wraps random bytes, or those that another node sent.
    #[must_use]
    pub const fn new(raw: [u8; Self::LEN]) -> Self {
        Self(raw)
    }

    /// The bytes for the wire.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }
}

/// How long another node may take.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// `T`: until it says that it holds an entry; also how long an entry waits for its place.
    pub hold: Duration,
    /// Until it says what became of an entry that it holds (eight times `T`).
    pub answer: Duration,
}

impl Settings {
    /// As CCP-1's design has it for a lane that holds entries for so long.
    #[must_use]
    pub const fn with_hold(hold: Duration) -> Self {
        Self {
            hold,
            answer: hold.saturating_mul(8),
        }
    }
}

/// Whether the owner of a queue reads the store before it takes an entry from memory (rule R5).
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Reading {
    /// Nothing can have come past the owner.
    GoOn,
    /// Entries older than this one may be in the store without the owner's knowing.
    StoreFirst,
}

/// What a node knows of its own lane of a queue.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Local {
    /// A device is attached to it.
    pub attached: bool,
    /// No ticket waits for it.
    pub settled: bool,
}

/// One numbered entry on its way to the node that owns its queue.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Parcel {
    /// Which of the link's attempts: a later one is a higher number.
    pub attempt: u64,
    /// Its number in the attempt, from 1 on.
    pub number: u64,
    /// Whether the owner reads the store first.
    pub reading: Reading,
    /// The queue.
    pub queue: QueueId,
    /// The entry.
    pub envelope: Envelope,
}

/// What became of one parcel, by attempt and number and by nothing else.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Answer {
    /// The attempt that it came in.
    pub attempt: u64,
    /// Its number there.
    pub number: u64,
    /// How its leg ended; never [`Outcome::Failed`], which breaks the attempt instead.
    pub outcome: Outcome,
    /// No device is attached to the queue there: the route was stale.
    pub away: bool,
}
