//! One queue as a sending node sees it: where its entries go now, and where they ought to go.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::{Incarnation, Local, Reading};
use crate::lane::Envelope;

/// How long "no device is connected anywhere" is believed. A device that connects is announced, so
/// this only bounds what a lost announcement costs.
const NOBODY_FRESH: Duration = Duration::from_secs(1);

/// Entries that wait for their place; with more they go where the last ones went.
const WAITING_MAX: usize = 256;

/// Bytes of them.
const WAITING_BYTES: usize = 1 << 20;

/// Where the entries of a queue are put.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) enum Place {
    /// Into the lane of this node.
    Here,
    /// Over the link to another one.
    There(Incarnation),
}

/// What Redis said of a queue: a hint.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) enum Route {
    Unknown,
    /// No device was connected.
    Nobody(Instant),
    /// Its device is connected to this node.
    Node(Incarnation),
}

/// What to do with an entry.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Decision {
    Go,
    /// It waits for an answer about the route.
    Ask,
    /// It waits until nothing is unanswered at the old place.
    Rest,
}

/// Entries whose place is not known yet, oldest first.
#[derive(Clone, Debug)]
pub(super) struct Waiting<L> {
    pub(super) entries: VecDeque<(Envelope, L)>,
    pub(super) bytes: usize,
    pub(super) since: Instant,
    pub(super) asked: bool,
}

impl<L> Waiting<L> {
    pub(super) const fn new(now: Instant) -> Self {
        Self {
            entries: VecDeque::new(),
            bytes: 0,
            since: now,
            asked: false,
        }
    }

    pub(super) fn push(&mut self, envelope: Envelope, leg: L) {
        self.bytes = self.bytes.saturating_add(envelope.body.len());
        self.entries.push_back((envelope, leg));
    }

    pub(super) fn is_full(&self) -> bool {
        self.entries.len() >= WAITING_MAX || self.bytes >= WAITING_BYTES
    }
}

/// One queue's way.
#[derive(Clone, Debug)]
pub(super) struct Way<L> {
    pub(super) place: Place,
    /// Entries at [`Place::There`] that are not answered. Those here are the lane's business.
    pub(super) unanswered: usize,
    /// What the next entry says to the owner.
    pub(super) reading: Reading,
    pub(super) route: Route,
    pub(super) waiting: Option<Box<Waiting<L>>>,
    /// The planted bug: the place changes although something is unanswered at the old one.
    #[cfg(test)]
    pub(super) early: bool,
}

impl<L> Way<L> {
    /// Of a queue that was not used lately: what went before is not known.
    pub(super) const fn new() -> Self {
        Self {
            place: Place::Here,
            unanswered: 0,
            reading: Reading::StoreFirst,
            route: Route::Unknown,
            waiting: None,
            #[cfg(test)]
            early: false,
        }
    }

    /// Where the queue ought to be; `None` if that has to be asked.
    fn wanted(&self, local: Local, now: Instant) -> Option<Place> {
        if local.attached {
            return Some(Place::Here);
        }
        match self.route {
            Route::Node(node) => Some(Place::There(node)),
            Route::Nobody(at) if now.saturating_duration_since(at) < NOBODY_FRESH => {
                Some(Place::Here)
            }
            Route::Nobody(_) | Route::Unknown => None,
        }
    }

    /// Changes the place if it may, and says whether entries go there now (rule R4).
    pub(super) fn decide(&mut self, local: Local, now: Instant) -> Decision {
        let Some(wanted) = self.wanted(local, now) else {
            return Decision::Ask;
        };
        if wanted == self.place {
            return Decision::Go;
        }
        let at_rest = match self.place {
            Place::Here => local.settled,
            Place::There(_) => self.unanswered == 0,
        };
        #[cfg(test)]
        let at_rest = at_rest || self.early;
        if !at_rest {
            return Decision::Rest;
        }
        self.place = wanted;
        self.reading = Reading::StoreFirst;
        Decision::Go
    }

    /// Whether nothing is lost by forgetting it.
    pub(super) const fn is_idle(&self) -> bool {
        self.unanswered == 0 && self.waiting.is_none()
    }
}
