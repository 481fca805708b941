//! A lane to another domain: a [`Lane`] whose far end takes requests, one at a time.
//!
//! CCP-1 section 8 and custody 13: front first, in memory only while nothing durable is before it,
//! one request in flight, custody by the signed answer only, and after an error the next request
//! starts with the oldest unanswered event. Custody is per event: an answer settles events from the
//! front up to the first that the peer wants later, so that nothing is settled before an older one.
//!
//! The caller owns clock, store, network and back-off. It calls [`PeerLane::connect`] when the peer
//! may be tried, then does what [`PeerLane::pump`] says; everything else is the lane's.

#[cfg(test)]
mod tests;

use std::time::Duration;

use crate::lane::{
    Attachment, Delivery, Effect, Lane, Page, Position, Pumped, SentEntry, Settings,
};
use crate::ticket::Outcome;

/// Events of one request (CCP-1 section 8).
pub const EVENTS_MAX: usize = 1_000;

/// Bytes of events that a request is filled up to. The last event may pass it by its own length, at
/// most 1 MiB, and the whole stays below 4 MiB.
pub const BATCH_BYTES: usize = 2_816 * 1024;

impl Settings {
    /// A lane to a peer: `T` is 1 s, custody means `relayed`, and no acknowledged keys are kept: a
    /// repeat is sent again, because only its answer says which references it missed.
    #[must_use]
    pub const fn peer() -> Self {
        Self {
            hold: Duration::from_secs(1),
            window_bytes: 1 << 20,
            acked_keys: 0,
            answer: Outcome::Relayed,
            entry_bytes_min: BATCH_BYTES.div_ceil(EVENTS_MAX),
        }
    }
}

/// What the caller does next for the lane.
#[derive(Debug, Eq, PartialEq)]
pub enum Next {
    /// Read rows of the outbox above `after`, then call [`PeerLane::page`] or
    /// [`PeerLane::page_failed`].
    ReadPage {
        /// The last position that was read.
        after: Position,
    },
    /// Send these as one request, oldest first; then settle its events or report
    /// [`PeerLane::failed`].
    Send(Vec<Delivery>),
    /// Nothing before [`Effect::Wake`], or, while it is not connected, before the caller's back-off
    /// has passed.
    Wait,
}

/// Whether a request is out.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
enum Flight {
    /// Not connected: the peer rests, or nothing was tried yet. Entries go to the outbox at once.
    Grounded,
    /// Connected; no request is out.
    Idle,
    /// A page of the outbox is being read.
    Reading,
    /// What the request that is out holds and its answer has not settled, oldest last.
    Out(Vec<SentEntry>),
}

/// One of a peer's lanes. See the module's documentation.
#[derive(Clone, Debug)]
pub struct PeerLane<L> {
    lane: Lane<L>,
    flight: Flight,
}

/// A lane is detached before it is attached again, so that one name is enough.
const CONNECTION: Attachment = Attachment::new(1);

impl<L> PeerLane<L> {
    /// A lane that is not connected.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            lane: Lane::new(settings),
            flight: Flight::Grounded,
        }
    }

    /// The lane proper, for appends, spooling, pokes, time and draining. Attaching, pumping and
    /// acknowledging are this type's business.
    pub const fn lane(&mut self) -> &mut Lane<L> {
        &mut self.lane
    }

    /// The lane proper, to look at.
    #[must_use]
    pub const fn look(&self) -> &Lane<L> {
        &self.lane
    }

    /// Whether the peer is being tried: entries wait in memory for [`Settings::hold`].
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.flight != Flight::Grounded
    }

    /// Whether a request is out.
    #[must_use]
    pub const fn is_out(&self) -> bool {
        matches!(self.flight, Flight::Out(_))
    }

    /// The peer may be tried (again): everything unanswered is sent, oldest first, the outbox before
    /// what is in memory. Without effect while connected.
    pub fn connect(&mut self, out: &mut Vec<Effect<L>>) {
        if self.is_connected() || self.lane.is_closed() {
            return;
        }
        self.lane.attach(CONNECTION, out);
        self.flight = Flight::Idle;
    }

    /// What to do now. At most one page or request is under way.
    pub fn pump(&mut self) -> Next {
        if self.flight != Flight::Idle {
            return Next::Wait;
        }
        let mut sends = Vec::new();
        let pumped = self.lane.pump(CONNECTION, BATCH_BYTES, &mut sends);
        self.proceed(pumped, sends)
    }

    /// The page that [`Next::ReadPage`] asked for, and what to do now.
    pub fn page(&mut self, page: Page) -> Next {
        if self.flight != Flight::Reading {
            return Next::Wait;
        }
        self.flight = Flight::Idle;
        let mut sends = Vec::new();
        let pumped = self.lane.page(CONNECTION, page, &mut sends);
        match self.proceed(pumped, sends) {
            Next::Wait => self.pump(),
            next @ (Next::ReadPage { .. } | Next::Send(_)) => next,
        }
    }

    /// The outbox could not be read: ask [`PeerLane::pump`] again after a back-off.
    pub fn page_failed(&mut self) {
        if self.flight == Flight::Reading {
            self.flight = Flight::Idle;
            self.lane.page_failed(CONNECTION);
        }
    }

    fn proceed(&mut self, pumped: Pumped, sends: Vec<Delivery>) -> Next {
        if !sends.is_empty() {
            self.flight = Flight::Out(sends.iter().rev().map(Delivery::sent).collect());
            return Next::Send(sends);
        }
        match pumped {
            Pumped::ReadPage { after } => {
                self.flight = Flight::Reading;
                Next::ReadPage { after }
            }
            Pumped::Detached => {
                self.flight = Flight::Grounded;
                Next::Wait
            }
            Pumped::Idle | Pumped::More | Pumped::Full | Pumped::Reading | Pumped::Emptied => {
                Next::Wait
            }
        }
    }

    /// The oldest event of the request that is out and not settled yet.
    #[must_use]
    pub fn front(&self) -> Option<SentEntry> {
        match &self.flight {
            Flight::Out(unsettled) => unsettled.last().copied(),
            Flight::Grounded | Flight::Idle | Flight::Reading => None,
        }
    }

    /// The answer settles [`PeerLane::front`]: the peer has custody of it, or will never have.
    ///
    /// The effects are those of this one event: its legs, then the deletion of its row. A row is
    /// deleted for good, so whatever the answer says of missed references is made durable first,
    /// by the legs' tickets or, without legs, by the caller.
    pub fn settle(&mut self, out: &mut Vec<Effect<L>>) -> Option<SentEntry> {
        let Flight::Out(unsettled) = &mut self.flight else {
            return None;
        };
        let entry = unsettled.pop()?;
        self.lane.acked([entry], out);
        Some(entry)
    }

    /// The request's answer is dealt with. `true` if it settled everything; else the lane is not
    /// connected any more, as after [`PeerLane::failed`].
    pub fn landed(&mut self, out: &mut Vec<Effect<L>>) -> bool {
        match &self.flight {
            Flight::Out(unsettled) if unsettled.is_empty() => {
                self.flight = Flight::Idle;
                true
            }
            Flight::Out(_) => {
                self.failed(out);
                false
            }
            Flight::Grounded | Flight::Idle | Flight::Reading => true,
        }
    }

    /// No good answer came, or the peer rests: nothing more was taken as far as is known, and what
    /// is in memory goes to the outbox at once.
    pub fn failed(&mut self, out: &mut Vec<Effect<L>>) {
        if self.is_connected() {
            self.lane.detach(CONNECTION, out);
            self.flight = Flight::Grounded;
        }
    }
}

#[cfg(test)]
impl<L: std::hash::Hash> PeerLane<L> {
    /// The planted bug: the events of the request that is out count as sent, and the lane goes on.
    pub(crate) fn skip_out(&mut self) {
        self.flight = Flight::Idle;
    }

    /// Everything that its behaviour depends on, as [`Lane::digest`].
    pub(crate) fn digest(&self, last: u64, hasher: &mut impl std::hash::Hasher) {
        use std::hash::Hash;

        use crate::lane::Place;

        std::mem::discriminant(&self.flight).hash(hasher);
        if let Flight::Out(unsettled) = &self.flight {
            for entry in unsettled {
                entry.key.hash(hasher);
                match entry.place {
                    Place::Row(position) => (0, last.wrapping_sub(position.get())).hash(hasher),
                    Place::Window(slot) => (1, self.lane.slot_age(slot)).hash(hasher),
                }
            }
        }
        self.lane.digest(last, hasher);
    }
}
