//! The custody ticket: counts the legs of one frame down and decides its answer.
//!
//! CCP-1 section 4: an author's ACK is written when the ticket is done, and by nothing else.

use std::time::{Duration, Instant};

/// How long a ticket waits for its legs.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// Why custody was refused, or a frame returned (CCP-1 key table, GROUP_EVENT key 5).
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Reason {
    /// The queue is full.
    Full,
    /// The reference opens to a revoked queue, or to one that left the group.
    Gone,
    /// The entry expired.
    Expired,
    /// The reference does not open, or the peer refused.
    Forbidden,
    /// The sealing epoch is too old.
    Epoch,
    /// The peer is blocked.
    Blocked,
}

impl Reason {
    /// The number on the wire.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Full => 1,
            Self::Gone => 2,
            Self::Expired => 3,
            Self::Forbidden => 4,
            Self::Epoch => 5,
            Self::Blocked => 6,
        }
    }
}

/// How one leg ended.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Outcome {
    /// The recipient's device acknowledged it.
    Delivered,
    /// The recipient's domain has custody.
    Relayed,
    /// It is on disk here.
    Stored,
    /// The recipient's queue exists no more.
    Gone,
    /// Custody was refused.
    Refused(Reason),
    /// No custody: the author keeps the frame and sends it again. Also a leg that was dropped.
    Failed,
}

/// The status of an ACK s->c (CCP-1 section 4).
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Status {
    /// Some recipient's entry is on disk here.
    Stored,
    /// None on disk here, some with another domain.
    Relayed,
    /// Every recipient's device has it.
    Delivered,
    /// Some recipient's queue refused it.
    Refused,
}

impl Status {
    /// The number on the wire.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Stored => 1,
            Self::Relayed => 2,
            Self::Delivered => 3,
            Self::Refused => 4,
        }
    }
}

/// A recipient that did not get the frame, by its place in the fan-out list.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Missed {
    /// What [`Ticket::add`] was given.
    pub recipient: u16,
    /// Why.
    pub reason: Reason,
}

/// What the ticket's owner does when the last leg has ended.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Verdict {
    /// Write `undelivered` for these, durably (the author's own queue, or its domain's outbox), then
    /// call [`Ticket::returned`].
    Return(Vec<Missed>),
    /// Queue the ACK on the connection that sent the frame, if that is still there.
    Done(Status),
    /// Answer 503 on that connection and unbind the channel.
    Failed,
}

/// One leg: may end once. A leg that gets lost must be settled as [`Outcome::Failed`]; wrap it in a
/// type whose `Drop` does so.
#[derive(Debug, Eq, Hash, PartialEq)]
#[cfg_attr(test, derive(Clone))]
#[must_use = "a leg that is not settled keeps its ticket open until the deadline"]
pub struct Leg {
    recipient: Option<u16>,
}

#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
enum State {
    Open,
    Returning,
    Ended,
}

/// The ticket of one frame.
///
/// It starts with a guard leg, which `accept` settles as [`Outcome::Delivered`] after it has added a
/// leg for every recipient: without it the count would reach zero while legs are still added.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Ticket {
    open: u32,
    worst: Rank,
    missed: Vec<Missed>,
    state: State,
}

impl Default for Ticket {
    fn default() -> Self {
        Self {
            open: 0,
            worst: Rank::Delivered,
            missed: Vec::new(),
            state: State::Open,
        }
    }
}

#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
enum Rank {
    Delivered,
    Relayed,
    Stored,
    Gone,
    Refused,
    Failed,
}

impl Ticket {
    /// A ticket with its guard leg.
    pub fn new() -> (Self, Leg) {
        (
            Self {
                open: 1,
                ..Self::default()
            },
            Leg { recipient: None },
        )
    }

    /// The planted bug: a ticket that can be done before all its legs are there.
    #[cfg(test)]
    pub(crate) fn without_guard() -> Self {
        Self::default()
    }

    /// Adds a leg for a recipient, named by its place in the fan-out list (a peer: any of them).
    pub fn add(&mut self, recipient: u16) -> Leg {
        self.open = self.open.saturating_add(1);
        Leg {
            recipient: Some(recipient),
        }
    }

    /// Ends a leg; a verdict when it was the last one and the ticket is still open, and at once when
    /// it failed.
    ///
    /// A failed leg does not wait for the others: what the same author sends meanwhile would enter
    /// that queue, and the failed frame, sent again, come behind it.
    #[must_use]
    #[expect(
        clippy::needless_pass_by_value,
        reason = "a leg ends once, so it is used up"
    )]
    pub fn settle(&mut self, leg: Leg, outcome: Outcome) -> Option<Verdict> {
        let Leg { recipient } = leg;
        self.open = self.open.saturating_sub(1);
        let (rank, reason) = match outcome {
            Outcome::Delivered => (Rank::Delivered, None),
            Outcome::Relayed => (Rank::Relayed, None),
            Outcome::Stored => (Rank::Stored, None),
            Outcome::Gone => (Rank::Gone, Some(Reason::Gone)),
            Outcome::Refused(reason) => (Rank::Refused, Some(reason)),
            Outcome::Failed => (Rank::Failed, None),
        };
        if self.state != State::Open {
            return None;
        }
        self.worst = self.worst.max(rank);
        if let (Some(recipient), Some(reason)) = (recipient, reason) {
            self.missed.push(Missed { recipient, reason });
        }
        (self.open == 0 || rank == Rank::Failed).then(|| self.last_leg_ended())
    }

    /// Adds what a peer's answer says of single recipients; settle its leg afterwards.
    pub fn missed(&mut self, missed: Missed) {
        if self.state == State::Open {
            let rank = if missed.reason == Reason::Gone {
                Rank::Gone
            } else {
                Rank::Refused
            };
            self.worst = self.worst.max(rank);
            self.missed.push(missed);
        }
    }

    /// The only leg of a frame that went to the hub of another domain: that refused the frame. `true`
    /// if the ticket was open; the caller then answers with the hub's ERROR, as after
    /// [`Verdict::Failed`] but for the reason.
    #[must_use]
    #[expect(
        clippy::needless_pass_by_value,
        reason = "a leg ends once, so it is used up"
    )]
    pub fn reject(&mut self, leg: Leg) -> bool {
        let Leg { .. } = leg;
        self.open = self.open.saturating_sub(1);
        self.worst = Rank::Failed;
        std::mem::replace(&mut self.state, State::Ended) != State::Ended
    }

    fn last_leg_ended(&mut self) -> Verdict {
        if self.worst == Rank::Failed {
            self.state = State::Ended;
            return Verdict::Failed;
        }
        if !self.missed.is_empty() {
            self.state = State::Returning;
            return Verdict::Return(std::mem::take(&mut self.missed));
        }
        self.done()
    }

    fn done(&mut self) -> Verdict {
        self.state = State::Ended;
        match self.worst {
            Rank::Failed => Verdict::Failed,
            Rank::Refused => Verdict::Done(Status::Refused),
            Rank::Stored | Rank::Gone => Verdict::Done(Status::Stored),
            Rank::Relayed => Verdict::Done(Status::Relayed),
            Rank::Delivered => Verdict::Done(Status::Delivered),
        }
    }

    /// `undelivered` is durable (or its own leg ended otherwise): the verdict proper.
    #[must_use]
    pub fn returned(&mut self, outcome: Outcome) -> Option<Verdict> {
        if self.state != State::Returning {
            return None;
        }
        if outcome == Outcome::Failed {
            self.worst = Rank::Failed;
        }
        Some(self.done())
    }

    /// The deadline has passed: an open ticket fails; legs still out go on and are ignored.
    #[must_use]
    pub fn expire(&mut self) -> Option<Verdict> {
        if self.state == State::Ended {
            return None;
        }
        self.worst = Rank::Failed;
        Some(self.done())
    }

    /// Whether the verdict is out.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.state == State::Ended
    }

    /// When a ticket made at `now` expires.
    #[must_use]
    pub fn deadline(now: Instant) -> Instant {
        now.checked_add(DEADLINE).unwrap_or(now)
    }
}
