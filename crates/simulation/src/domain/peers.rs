//! Lanes to other domains: one batch in flight in each, the oldest first, everything again after a
//! failure; and requests, which use no lane.

use std::collections::VecDeque;

use commucat_proto::error::Title;
use commucat_proto::frame::error::Problem;
use commucat_routing::lane::{Attachment, Delivery, Lane, Position, Pumped, SentEntry};

use super::custody::Purpose;
use super::requests::Asker;
use super::{Domain, Mailbox};
use crate::outside::{Connection, Event, Index, Inside, Outside};
use crate::peer::{Answer, Batch, Event as PeerEvent, Outcome};
use crate::plant::Plant;
use crate::store::Place;

/// No answer within this is none.
const TIMEOUT_MS: u64 = 20_000;

/// Bytes of one batch: eight for each event.
const BATCH_BYTES: usize = 64;

/// The sender's side of one lane.
#[derive(Debug)]
pub(super) struct PeerLane {
    attachment: u64,
    /// A batch that was not answered.
    busy: bool,
    /// Waits before it tries again.
    waits: bool,
    failures: u32,
    /// The planted bug: the date of the batch that failed.
    created: Option<u64>,
}

/// A batch that waits for its answer.
#[derive(Debug)]
pub(super) struct Flight {
    to: Index,
    what: Sent,
}

/// An answer that is gone through only when an author was told of its last event.
#[derive(Debug)]
pub(super) struct Answered {
    to: (Index, u8),
    entry: SentEntry,
    sent: VecDeque<(SentEntry, u64)>,
    outcomes: VecDeque<Outcome>,
}

#[derive(Debug)]
enum Sent {
    Lane(u8, Vec<(SentEntry, u64)>),
    Request(Option<(Connection, u32)>),
}

impl Domain {
    /// Begins to send what a lane has, if nobody does.
    pub(super) fn open_peer(&mut self, out: &mut Outside, peer: Index, lane: u8) {
        if self.process.peers.contains_key(&(peer, lane)) {
            return;
        }
        let state = PeerLane {
            attachment: 0,
            busy: false,
            waits: false,
            failures: 0,
            created: None,
        };
        self.process.peers.insert((peer, lane), state);
        self.attach_peer(out, peer, lane);
    }

    fn attach_peer(&mut self, out: &mut Outside, peer: Index, lane: u8) {
        let attachment = self.number();
        if let Some(state) = self.process.peers.get_mut(&(peer, lane)) {
            state.attachment = attachment;
        }
        self.with_lane(out, Place::Peer(peer, lane), |lane, effects| {
            lane.attach(Attachment::new(attachment), effects);
        });
        self.later(out, 0, Inside::PeerPump(peer, lane));
    }

    /// Sends what there is, unless a batch is out.
    pub(super) fn peer_pump(&mut self, out: &mut Outside, peer: Index, lane: u8) {
        let place = Place::Peer(peer, lane);
        loop {
            let state = self.process.peers.get(&(peer, lane));
            let Some(state) = state.filter(|state| !state.busy && !state.waits) else {
                return;
            };
            let attachment = state.attachment;
            let Some(Mailbox { lane: machine, .. }) = self.process.lanes.get_mut(&place) else {
                return;
            };
            let mut sends = Vec::new();
            let pumped = machine.pump(Attachment::new(attachment), BATCH_BYTES, &mut sends);
            if !sends.is_empty() {
                return self.send_batch(out, (peer, lane), &sends);
            }
            match pumped {
                Pumped::ReadPage { after } => {
                    let wait = out.random.below(5);
                    let read = Inside::PeerRead(peer, lane, attachment, after);
                    return self.later(out, wait, read);
                }
                Pumped::More | Pumped::Emptied => {}
                Pumped::Idle | Pumped::Full | Pumped::Reading | Pumped::Detached => return,
            }
        }
    }

    pub(super) fn peer_reads(
        &mut self,
        out: &mut Outside,
        (peer, lane): (Index, u8),
        attachment: u64,
        after: Position,
    ) {
        let place = Place::Peer(peer, lane);
        let page = self.store.page(place, after, &self.process.deletes);
        let mut sends = Vec::new();
        let attachment = Attachment::new(attachment);
        let pumped = self.with_lane(out, place, |lane: &mut Lane<_>, _| {
            lane.page(attachment, page, &mut sends)
        });
        if pumped == Pumped::Detached {
            return;
        }
        if sends.is_empty() {
            self.later(out, 0, Inside::PeerPump(peer, lane));
        } else {
            self.send_batch(out, (peer, lane), &sends);
        }
    }

    fn send_batch(&mut self, out: &mut Outside, (peer, lane): (Index, u8), sends: &[Delivery]) {
        let number = |delivery: &Delivery| {
            let bytes = delivery.envelope.body.as_ref().try_into().ok();
            (delivery.sent(), bytes.map_or(u64::MAX, u64::from_be_bytes))
        };
        let sent: Vec<_> = sends.iter().map(number).collect();
        let events = sent.iter().map(|(_, event)| *event).collect();
        let now = out.now + self.skew_ms;
        let keeps = out.has(Plant::OldCreated);
        let Some(state) = self.process.peers.get_mut(&(peer, lane)) else {
            return;
        };
        state.busy = true;
        let created = state.created.filter(|_| keeps).unwrap_or(now);
        state.created = Some(created);
        let flight = Flight {
            to: peer,
            what: Sent::Lane(lane, sent),
        };
        self.transmit(out, flight, (created, events));
    }

    /// Sends one event that no lane keeps.
    pub(super) fn send_unkept(
        &mut self,
        out: &mut Outside,
        to: Index,
        event: PeerEvent,
        asker: Option<(Connection, u32)>,
    ) {
        let number = out.keep(event);
        let created = out.now + self.skew_ms;
        let what = Sent::Request(asker);
        self.transmit(out, Flight { to, what }, (created, vec![number]));
    }

    fn transmit(&mut self, out: &mut Outside, flight: Flight, (created, events): (u64, Vec<u64>)) {
        let id = self.number();
        let (from, to) = (self.index, flight.to);
        out.note(|| format!("domain {from} sends {} events to {to}: {id}", events.len()));
        let batch = Batch {
            id,
            from,
            to,
            created,
            events,
        };
        for delay in out.crossing(from, to) {
            out.after(delay, Event::Batch(batch.clone()));
        }
        self.process.flights.insert(id, flight);
        self.later(out, TIMEOUT_MS, Inside::PeerTimeout(id));
    }

    /// An answer arrives.
    pub(crate) fn take_answer(&mut self, out: &mut Outside, answer: Answer) {
        let (from, to) = (answer.from, self.index);
        let Some(flight) = self.process.flights.remove(&answer.batch) else {
            return;
        };
        if flight.to != from {
            self.process.flights.insert(answer.batch, flight);
            return;
        }
        out.note(|| format!("domain {to} hears from {from} about {}", answer.batch));
        match flight.what {
            Sent::Request(asker) => {
                let first = answer.outcomes.and_then(|all| all.into_iter().next());
                self.request_answered(out, asker, first);
            }
            Sent::Lane(lane, sent) => {
                let outcomes = answer.outcomes.unwrap_or_default();
                self.lane_answered(out, (flight.to, lane), sent.into(), outcomes.into());
            }
        }
    }

    /// Goes through an answer, oldest first; where an author has to be told something, only after
    /// that is durable.
    fn lane_answered(
        &mut self,
        out: &mut Outside,
        (peer, lane): (Index, u8),
        mut sent: VecDeque<(SentEntry, u64)>,
        mut outcomes: VecDeque<Outcome>,
    ) {
        let place = Place::Peer(peer, lane);
        while let Some((entry, number)) = sent.pop_front() {
            let (Some(event), Some(outcome)) = (out.kept(number).cloned(), outcomes.pop_front())
            else {
                return self.lane_fails(out, peer, lane);
            };
            let at = (place, entry.key);
            let (mut misses, mut refused) = (None, None);
            match outcome {
                Outcome::Later => return self.lane_fails(out, peer, lane),
                Outcome::Custody(missed) => misses = self.peer_missed(out, at, &event, &missed),
                Outcome::Refused(problem) => {
                    refused = self.peer_refused(out, at, &event, &problem);
                }
                Outcome::Result(_) => {}
            }
            let waits = misses.is_some() || refused.is_some();
            if !waits {
                self.entry_done(out, (peer, lane), entry);
                continue;
            }
            let purpose = Purpose::Lane(Box::new(Answered {
                to: (peer, lane),
                entry,
                sent,
                outcomes,
            }));
            if let Some(misses) = misses {
                self.return_frame(out, purpose, &misses);
            } else if let Some(refused) = refused {
                let about = (refused.group, refused.message);
                let what = (Vec::new(), refused.reason);
                self.undelivered(out, (purpose, refused.queue), about, what);
            }
            return;
        }
        if let Some(state) = self.process.peers.get_mut(&(peer, lane)) {
            state.busy = false;
        }
        self.later(out, 0, Inside::PeerPump(peer, lane));
    }

    /// The author of an event knows what it has to.
    pub(super) fn lane_goes_on(&mut self, out: &mut Outside, answered: Answered, told: bool) {
        let (peer, lane) = answered.to;
        if told {
            self.entry_done(out, answered.to, answered.entry);
            self.lane_answered(out, answered.to, answered.sent, answered.outcomes);
        } else {
            self.lane_fails(out, peer, lane);
        }
    }

    fn entry_done(&mut self, out: &mut Outside, to: (Index, u8), entry: SentEntry) {
        self.acked(out, Place::Peer(to.0, to.1), vec![entry]);
        if let Some(state) = self.process.peers.get_mut(&to) {
            state.failures = 0;
            state.created = None;
        }
    }

    fn request_answered(
        &mut self,
        out: &mut Outside,
        asker: Option<(Connection, u32)>,
        outcome: Option<Outcome>,
    ) {
        let Some((connection, sequence)) = asker else {
            return;
        };
        let asker = Asker::Device(connection, sequence);
        let failure = || Problem::new(Title::FederationFailure, "");
        match outcome {
            Some(Outcome::Result(result)) => self.answer(out, asker, Ok(result)),
            Some(Outcome::Refused(problem)) => self.answer(out, asker, Err(*problem)),
            Some(Outcome::Custody(_) | Outcome::Later) | None => {
                self.answer(out, asker, Err(failure()));
            }
        }
    }

    /// No answer came.
    pub(super) fn flight_fails(&mut self, out: &mut Outside, id: u64) {
        let Some(flight) = self.process.flights.remove(&id) else {
            return;
        };
        match flight.what {
            Sent::Request(asker) => self.request_answered(out, asker, None),
            Sent::Lane(lane, _) => {
                self.lane_fails(out, flight.to, lane);
            }
        }
    }

    /// The next batch begins with the oldest event that was not answered.
    fn lane_fails(&mut self, out: &mut Outside, peer: Index, lane: u8) {
        let Some(state) = self.process.peers.get_mut(&(peer, lane)) else {
            return;
        };
        state.busy = false;
        state.waits = true;
        state.failures = state.failures.saturating_add(1).min(8);
        let attachment = Attachment::new(state.attachment);
        let most = 250_u64 << state.failures;
        let wait = out.random.between(most / 2, most);
        self.with_lane(out, Place::Peer(peer, lane), |lane, effects| {
            lane.detach(attachment, effects);
        });
        self.later(out, wait, Inside::PeerRetry(peer, lane));
    }

    pub(super) fn peer_retries(&mut self, out: &mut Outside, peer: Index, lane: u8) {
        if let Some(state) = self.process.peers.get_mut(&(peer, lane)) {
            state.waits = false;
            self.attach_peer(out, peer, lane);
        }
    }

    /// The peer is there: nothing waits any longer.
    pub(crate) fn peer_heard(&mut self, out: &mut Outside, peer: Index) {
        let lanes = self.process.peers.iter_mut();
        let waiting: Vec<u8> = lanes
            .filter(|((of, _), state)| *of == peer && state.waits)
            .map(|((_, lane), state)| {
                state.failures = 0;
                *lane
            })
            .collect();
        for lane in waiting {
            self.peer_retries(out, peer, lane);
        }
    }
}
