//! Lanes to other domains, by the rules of [`PeerLane`]: one batch in flight in each, the oldest
//! first, everything again after a failure; and requests, which use no lane.

use std::collections::VecDeque;

use commucat_federation::PeerKeys;
use commucat_federation::batch::{
    Answer as SignedAnswer, BatchId, Outcome, Parcel, RawEvent, Sent as SentBatch, Unsettled,
};
use commucat_proto::error::Title;
use commucat_proto::frame::error::Problem;
use commucat_proto::time::Timestamp;
use commucat_routing::lane::{Delivery, Effect, Position};
use commucat_routing::peer::{Next, PeerLane};
use commucat_routing::ticket::Reason;

use super::custody::Purpose;
use super::requests::Asker;
use super::{Domain, LegId, Machine};
use crate::outside::{Connection, Event, Index, Inside, Outside};
use crate::peer::{Answer, Batch, Event as PeerEvent, id_of, told_reason};
use crate::plant::Plant;
use crate::store::Place;

/// No answer within this is none.
const TIMEOUT_MS: u64 = 20_000;

/// The sender's side of one lane.
#[derive(Debug)]
pub(super) struct PeerState {
    /// The page that is being read; one that was asked for before is of no use.
    reading: u64,
    /// Waits before it tries again.
    waits: bool,
    failures: u32,
    /// The planted bug: the date of the batch that failed.
    created: Option<Timestamp>,
}

/// A batch that waits for its answer.
#[derive(Debug)]
pub(super) struct Flight {
    to: Index,
    sent: SentBatch,
    what: What,
}

/// An answer that is gone through only when an author was told of its last event.
#[derive(Debug)]
pub(super) struct Answered {
    to: (Index, u8),
    /// What follows then from that event.
    effects: Vec<Effect<LegId>>,
    sent: VecDeque<u64>,
    outcomes: VecDeque<Option<Outcome>>,
}

#[derive(Debug)]
enum What {
    Lane(u8, Vec<u64>),
    Request(u64, Option<(Connection, u32)>),
}

impl Domain {
    /// Begins to send what a lane has, if nobody does.
    pub(super) fn open_peer(&mut self, out: &mut Outside, peer: Index, lane: u8) {
        if self.process.peers.contains_key(&(peer, lane)) {
            return;
        }
        let state = PeerState {
            reading: 0,
            waits: false,
            failures: 0,
            created: None,
        };
        self.process.peers.insert((peer, lane), state);
        self.connect_peer(out, peer, lane);
    }

    fn connect_peer(&mut self, out: &mut Outside, peer: Index, lane: u8) {
        self.with_peer(out, (peer, lane), PeerLane::connect);
        self.later(out, 0, Inside::PeerPump(peer, lane));
    }

    /// Does what the lane says.
    pub(super) fn peer_pump(&mut self, out: &mut Outside, peer: Index, lane: u8) {
        let state = self.process.peers.get(&(peer, lane));
        if state.is_none_or(|state| state.waits) {
            return;
        }
        // An idle lane is forgotten; whatever comes next makes it anew.
        self.with_peer(out, (peer, lane), PeerLane::connect);
        if let Some(next) = self.with_peer(out, (peer, lane), |lane, _| lane.pump()) {
            self.proceed(out, (peer, lane), next);
        }
    }

    fn proceed(&mut self, out: &mut Outside, (peer, lane): (Index, u8), next: Next) {
        match next {
            Next::Send(batch) => self.send_batch(out, (peer, lane), &batch),
            Next::ReadPage { after } => {
                let reading = self.number();
                if let Some(state) = self.process.peers.get_mut(&(peer, lane)) {
                    state.reading = reading;
                }
                let wait = out.random.below(5);
                self.later(out, wait, Inside::PeerRead(peer, lane, reading, after));
            }
            Next::Wait => {}
        }
    }

    pub(super) fn peer_reads(
        &mut self,
        out: &mut Outside,
        (peer, lane): (Index, u8),
        reading: u64,
        after: Position,
    ) {
        let state = self.process.peers.get(&(peer, lane));
        if state.is_none_or(|state| state.reading != reading) {
            return;
        }
        let place = Place::Peer(peer, lane);
        let fails = !out.calm && out.random.chance(out.scenario.store_faults);
        if fails {
            self.with_peer(out, (peer, lane), |lane, _| lane.page_failed());
            return self.later(out, 1_000, Inside::PeerPump(peer, lane));
        }
        let page = self.store.page(place, after, &self.process.deletes);
        if let Some(next) = self.with_peer(out, (peer, lane), |lane, _| lane.page(page)) {
            self.proceed(out, (peer, lane), next);
        }
    }

    fn send_batch(&mut self, out: &mut Outside, (peer, lane): (Index, u8), sends: &[Delivery]) {
        let number = |delivery: &Delivery| {
            let bytes = delivery.envelope.body.as_ref().try_into().ok();
            bytes.map_or(u64::MAX, u64::from_be_bytes)
        };
        let sent: Vec<u64> = sends.iter().map(number).collect();
        let events = sent.clone();
        let now = self.clock(out);
        let keeps = out.has(Plant::OldCreated);
        let Some(state) = self.process.peers.get_mut(&(peer, lane)) else {
            return;
        };
        let created = state.created.filter(|_| keeps).unwrap_or(now);
        state.created = Some(created);
        self.transmit(out, (peer, What::Lane(lane, sent)), created, &events);
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
        let created = self.clock(out);
        let what = What::Request(number, asker);
        self.transmit(out, (to, what), created, &[number]);
    }

    fn transmit(
        &mut self,
        out: &mut Outside,
        (to, what): (Index, What),
        created: Timestamp,
        events: &[u64],
    ) {
        let id = self.number();
        let from = self.index;
        out.note(|| format!("domain {from} sends {} events to {to}: {id}", events.len()));
        let mut parcel = Parcel::new();
        for number in events {
            let event = out.kept(*number).cloned();
            let raw = event.as_ref().and_then(|event| event.wire(id_of(*number)));
            let raw = raw.map(|event| RawEvent::from(&event));
            let is_event = raw.as_ref().is_some_and(|raw| raw.decode().is_ok());
            if !is_event {
                out.judge
                    .complain(|| format!("domain {from} sends what is no event: {event:?}"));
            }
            if !raw.is_some_and(|raw| parcel.push(raw)) {
                out.judge.complain(|| "an event does not fit".to_owned());
            }
        }
        let (Some(own), Some(other)) = (self.names.get(from), self.names.get(to)) else {
            return;
        };
        let batch_id = BatchId::new(out.random.bytes());
        let sent = parcel.sign(batch_id, (own, other), created, &self.secret);
        let batch = Batch {
            id,
            from,
            to,
            request: sent.request().clone(),
        };
        let flight = Flight { to, sent, what };
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
        let key = self.keys.get(from).copied();
        let signed = answer.signed.as_ref().zip(key);
        let verified = signed.and_then(|(raw, key)| {
            let keys = PeerKeys::new(key).accepted(self.clock(out));
            SignedAnswer::verify(raw, &flight.sent, &keys).ok()
        });
        let settled = verified.map(|answer| answer.settled).unwrap_or_default();
        let mut outcomes: Vec<_> = settled
            .into_iter()
            .map(|one| (one.event, one.outcome))
            .collect();
        let mut outcome = |number: u64| {
            let mut all = outcomes.iter();
            let at = all.position(|(event, _)| *event == id_of(number))?;
            Some(outcomes.swap_remove(at).1)
        };
        match flight.what {
            What::Request(number, asker) => {
                let outcome = outcome(number);
                self.request_answered(out, asker, outcome);
            }
            What::Lane(lane, sent) => {
                let outcomes = sent.iter().map(|number| outcome(*number)).collect();
                self.lane_answered(out, (flight.to, lane), sent.into(), outcomes);
            }
        }
    }

    /// Goes through an answer, oldest first; where an author has to be told something, only after
    /// that is durable.
    fn lane_answered(
        &mut self,
        out: &mut Outside,
        (peer, lane): (Index, u8),
        mut sent: VecDeque<u64>,
        mut outcomes: VecDeque<Option<Outcome>>,
    ) {
        while let Some(number) = sent.pop_front() {
            let front = self.with_peer(out, (peer, lane), |lane, _| lane.front());
            let (Some(event), Some(outcome), Some(Some(_))) = (
                out.kept(number).cloned(),
                outcomes.pop_front().flatten(),
                front,
            ) else {
                return self.lane_fails(out, peer, lane);
            };
            if matches!(outcome, Outcome::Later | Outcome::Result(_)) {
                // A result answers requests only: the event is sent again.
                return self.lane_fails(out, peer, lane);
            }
            let mut effects = Vec::new();
            self.settle_front((peer, lane), &mut effects);
            let legs: Vec<LegId> = effects.iter().filter_map(leg_of).collect();
            let (mut misses, mut refused) = (None, None);
            match outcome {
                Outcome::Custody(unsettled) => {
                    let missed: Vec<_> = unsettled.iter().map(missed_of).collect();
                    misses = self.peer_missed(out, &legs, &event, &missed);
                }
                Outcome::Gone => {
                    let all = every_reference(&event, Reason::Gone);
                    misses = self.peer_missed(out, &legs, &event, &all);
                }
                Outcome::Refused(problem) => match &event {
                    PeerEvent::Deliver { .. } => {
                        let all = every_reference(&event, Reason::Forbidden);
                        misses = self.peer_missed(out, &legs, &event, &all);
                    }
                    _ => refused = self.peer_refused(out, &legs, &event, &problem),
                },
                Outcome::Later | Outcome::Result(_) => {}
            }
            if misses.is_none() && refused.is_none() {
                self.entry_done(out, (peer, lane), effects);
                continue;
            }
            let purpose = Purpose::Lane(Box::new(Answered {
                to: (peer, lane),
                effects,
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
        let landed = self.with_peer(out, (peer, lane), PeerLane::landed);
        if landed == Some(true) {
            self.later(out, 0, Inside::PeerPump(peer, lane));
        } else {
            self.lane_fails(out, peer, lane);
        }
    }

    /// Settles the oldest event of the request that is out; what follows is for the caller.
    fn settle_front(&mut self, (peer, lane): (Index, u8), effects: &mut Vec<Effect<LegId>>) {
        let mailbox = self.process.lanes.get_mut(&Place::Peer(peer, lane));
        if let Some(Machine::Peer(lane)) = mailbox.map(|mailbox| &mut mailbox.machine) {
            lane.settle(effects);
        }
    }

    /// The author of an event knows what it has to.
    pub(super) fn lane_goes_on(&mut self, out: &mut Outside, answered: Answered, told: bool) {
        let (peer, lane) = answered.to;
        if told {
            self.entry_done(out, answered.to, answered.effects);
            self.lane_answered(out, answered.to, answered.sent, answered.outcomes);
        } else {
            // Its row stays, and it is sent again.
            self.lane_fails(out, peer, lane);
        }
    }

    fn entry_done(&mut self, out: &mut Outside, to: (Index, u8), effects: Vec<Effect<LegId>>) {
        self.carry_out_all(out, Place::Peer(to.0, to.1), effects);
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
            Some(Outcome::Custody(_) | Outcome::Gone | Outcome::Later) | None => {
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
            What::Request(_, asker) => self.request_answered(out, asker, None),
            What::Lane(lane, _) => {
                self.lane_fails(out, flight.to, lane);
            }
        }
    }

    /// The next batch begins with the oldest event that was not answered.
    fn lane_fails(&mut self, out: &mut Outside, peer: Index, lane: u8) {
        let Some(state) = self.process.peers.get_mut(&(peer, lane)) else {
            return;
        };
        state.waits = true;
        state.failures = state.failures.saturating_add(1).min(8);
        let most = 250_u64 << state.failures;
        let wait = out.random.between(most / 2, most);
        self.with_peer(out, (peer, lane), PeerLane::failed);
        self.later(out, wait, Inside::PeerRetry(peer, lane));
    }

    pub(super) fn peer_retries(&mut self, out: &mut Outside, peer: Index, lane: u8) {
        if let Some(state) = self.process.peers.get_mut(&(peer, lane)) {
            state.waits = false;
            self.connect_peer(out, peer, lane);
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

/// The leg that an effect ends.
const fn leg_of(effect: &Effect<LegId>) -> Option<LegId> {
    match effect {
        Effect::Resolve(leg, _) => Some(*leg),
        _ => None,
    }
}

/// Why a reference was missed.
fn missed_of(unsettled: &Unsettled) -> (usize, Reason) {
    let index = usize::try_from(unsettled.index).unwrap_or(usize::MAX);
    let reason = if unsettled.gone {
        Reason::Gone
    } else {
        told_reason(unsettled.reason)
    };
    (index, reason)
}

/// All references of a delivery, missed for one reason.
fn every_reference(event: &PeerEvent, reason: Reason) -> Vec<(usize, Reason)> {
    let references = match event {
        PeerEvent::Deliver { references, .. } => references.len(),
        _ => 0,
    };
    (0..references).map(|index| (index, reason)).collect()
}
