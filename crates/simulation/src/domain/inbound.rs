//! Batches of other domains: each event on its own, one answer for all.

use std::collections::BTreeSet;

use bytes::Bytes;
use commucat_federation::batch::{Outcome, Settled};
use commucat_federation::event::EventId;
use commucat_federation::{PeerKeys, Received, Verified};
use commucat_proto::frame::FrameType;
use commucat_proto::frame::group_event::GroupEvent;
use commucat_proto::frame::msg::Msg;
use commucat_proto::id::{DedupeKey, GroupId, MessageId, QueueId, SealedRef};
use commucat_proto::wire::Cbor as _;
use commucat_routing::ticket::{Outcome as LegOutcome, Reason};

use super::Domain;
use super::custody::{Frame, Purpose};
use super::hub::{Sender, not_found};
use super::requests::Asker;
use crate::outside::{Event, Index, Outside};
use crate::peer::{Answer, Batch, Event as PeerEvent, ReturnTo};
use crate::plant::Plant;
use crate::store::Place;

/// A batch whose events are not all done.
#[derive(Debug)]
pub(super) struct Inbound {
    batch: u64,
    from: Index,
    verified: Verified,
    events: Vec<EventId>,
    outcomes: Vec<Option<Outcome>>,
}

impl Inbound {
    fn is_put_off(&self, index: usize) -> bool {
        matches!(self.outcomes.get(index), Some(Some(Outcome::Later)))
    }
}

impl Domain {
    /// A batch arrives.
    pub(crate) fn take_batch(&mut self, out: &mut Outside, batch: &Batch) {
        let (from, to) = (batch.from, self.index);
        out.note(|| format!("domain {to} takes {} of {from}", batch.id));
        let Some(verified) = self.verified(out, batch) else {
            return self.send_answer(out, (batch.id, from), None);
        };
        self.peer_heard(out, from);
        let id = self.number();
        let (events, _) = verified.events();
        let inbound = Inbound {
            batch: batch.id,
            from,
            verified,
            events: events.iter().map(|event| event.id).collect(),
            outcomes: events.iter().map(|_| None).collect(),
        };
        self.process.inbound.insert(id, inbound);
        if events.is_empty() {
            return self.batch_done(out, id);
        }
        // One node takes a batch as a whole: what it knows of a group does not get older in between.
        let node = out.random.index(super::NODES);
        let mut held_up = BTreeSet::new();
        for (index, event) in events.into_iter().enumerate() {
            let group = event.body.lane_group().copied();
            // Behind one of its group that could not be placed nothing is: it would come before it.
            if group.is_some_and(|group| held_up.contains(&group)) {
                self.event_done(out, id, index, Outcome::Later);
                continue;
            }
            self.take_event(out, (id, index), (from, node), PeerEvent::of_wire(event));
            let inbound = self.process.inbound.get(&id);
            if inbound.is_some_and(|inbound| inbound.is_put_off(index)) {
                held_up.extend(group);
            }
        }
    }

    /// The request, if its sender signed it for this domain just now.
    fn verified(&self, out: &Outside, batch: &Batch) -> Option<Verified> {
        let received = Received::read(&batch.request).ok()?;
        let key = *self.keys.get(batch.from)?;
        let now = self.clock(out);
        let verified = received.verify(self.name()?, &PeerKeys::new(key), now);
        verified.ok()
    }

    fn take_event(
        &mut self,
        out: &mut Outside,
        (id, index): (u64, usize),
        (from, node): (Index, usize),
        event: PeerEvent,
    ) {
        match event {
            PeerEvent::Deliver {
                group,
                frame,
                payload,
                references,
                ..
            } => {
                let Some(key) = key_of(frame, &group, &payload) else {
                    return self.event_done(out, id, index, Outcome::Later);
                };
                let frame = Frame {
                    group,
                    kind: frame,
                    key,
                    payload,
                    author: None,
                };
                if let Some(lie) = self.lie(out, references.len()) {
                    return self.event_done(out, id, index, lie);
                }
                self.place(out, (id, index), from, &frame, &references);
            }
            PeerEvent::Submit {
                group,
                handle,
                reference,
                payload,
            } => {
                let sender = Sender {
                    handle,
                    reference,
                    origin: from,
                };
                let to = ReturnTo::There(from, reference);
                let purpose = Purpose::Event(id, index);
                let result = match Msg::decode(&payload) {
                    Ok(msg) => self.fan_out(out, purpose, (node, group), (sender, to), &msg),
                    Err(_) => Err(not_found()),
                };
                if let Err(problem) = result {
                    self.event_done(out, id, index, Outcome::Refused(Box::new(problem)));
                }
            }
            PeerEvent::Return {
                group,
                message,
                handles,
                reason,
                reference,
            } => {
                // Only the group's hub returns: the reference opens with the batch's origin as hub.
                match self.open_for_peer(out, &reference, &group, from) {
                    Ok(queue) => {
                        let to = (Purpose::Event(id, index), queue);
                        self.undelivered(out, to, (group, message), (handles, reason));
                    }
                    Err(_) => {
                        self.event_done(out, id, index, Outcome::Refused(Box::new(not_found())));
                    }
                }
            }
            PeerEvent::Request { frame, payload } => {
                let asker = Asker::Peer(id, index);
                self.request_of_peer(out, (asker, from), frame, &payload);
            }
            PeerEvent::Tag {
                group,
                handle,
                reference,
                position,
                tag,
            } => {
                let sender = Sender {
                    handle,
                    reference,
                    origin: from,
                };
                self.tag(out, sender, &group, (position, tag));
                self.event_done(out, id, index, Outcome::Custody(Vec::new()));
            }
        }
    }

    /// Puts a frame of another hub into the queues that its references open to.
    fn place(
        &mut self,
        out: &mut Outside,
        (id, index): (u64, usize),
        hub: Index,
        frame: &Frame,
        references: &[SealedRef],
    ) {
        let early = out.has(Plant::AnswerAtReceipt);
        let purpose = if early {
            self.event_done(out, id, index, Outcome::Custody(Vec::new()));
            Purpose::Nothing
        } else {
            Purpose::Event(id, index)
        };
        let (ticket, guard) = self.open_ticket(out, purpose, (frame.group, None), Vec::new());
        let mut seen = Vec::new();
        for (at, reference) in references.iter().enumerate() {
            match self.open_for_peer(out, reference, &frame.group, hub) {
                Ok(queue) if seen.contains(&queue) => {}
                Ok(queue) => {
                    seen.push(queue);
                    let place = Place::Device(queue);
                    let leg = self.leg(ticket, at, Some((place, frame.key)));
                    self.append(out, place, frame.envelope(), leg);
                }
                Err(reason) => {
                    let leg = self.leg(ticket, at, None);
                    let outcome = if reason == Reason::Gone {
                        LegOutcome::Gone
                    } else {
                        LegOutcome::Refused(reason)
                    };
                    self.resolve(out, leg, outcome);
                }
            }
        }
        self.drop_guard(out, ticket, guard);
    }

    /// The queue that a reference leads to, for a group whose hub is `hub`.
    fn open_for_peer(
        &self,
        out: &Outside,
        reference: &SealedRef,
        group: &GroupId,
        hub: Index,
    ) -> Result<QueueId, Reason> {
        let made_for = self.store.references.get(reference).map(|one| one.hub);
        let hub = made_for
            .filter(|_| out.has(Plant::AnyHubDelivers))
            .unwrap_or(hub);
        self.open_reference(reference, group, hub)
    }

    /// One event of a batch is done; the last one sends the answer.
    pub(super) fn event_done(
        &mut self,
        out: &mut Outside,
        id: u64,
        index: usize,
        outcome: Outcome,
    ) {
        let Some(inbound) = self.process.inbound.get_mut(&id) else {
            return;
        };
        if let Some(place) = inbound.outcomes.get_mut(index) {
            *place = Some(outcome);
        }
        if inbound.outcomes.iter().all(Option::is_some) {
            self.batch_done(out, id);
        }
    }

    fn batch_done(&mut self, out: &mut Outside, id: u64) {
        let Some(inbound) = self.process.inbound.remove(&id) else {
            return;
        };
        let outcomes = inbound.outcomes.into_iter().flatten();
        let settled = inbound.events.into_iter().zip(outcomes);
        let mut settled: Vec<_> = settled
            .map(|(event, outcome)| Settled { event, outcome })
            .collect();
        if self.lies_by_silence(out) {
            settled.pop();
        }
        let Some(own) = self.name() else { return };
        let signed = inbound.verified.answer(settled, own, &self.secret);
        self.send_answer(out, (inbound.batch, inbound.from), Some(signed));
    }

    fn send_answer(&self, out: &mut Outside, (batch, to): (u64, Index), signed: Option<Bytes>) {
        let answer = Answer {
            batch,
            from: self.index,
            to,
            signed,
        };
        for delay in out.crossing(self.index, to) {
            out.after(delay, Event::Answer(answer.clone()));
        }
    }
}

/// The dedupe key of a frame, made by whoever puts it into queues.
fn key_of(kind: FrameType, group: &GroupId, payload: &Bytes) -> Option<DedupeKey> {
    let message: MessageId = match kind {
        FrameType::Msg => {
            let msg = Msg::decode(payload).ok()?;
            return Some(DedupeKey::of(group, &msg.message(), &msg.ciphertext()));
        }
        FrameType::KeyUpdate => {
            let entry = commucat_proto::frame::key_update::LogEntry::decode_shared(payload);
            entry.ok()?.message
        }
        FrameType::GroupInvite => {
            let invite = commucat_proto::frame::group_invite::GroupInvite::decode_shared(payload);
            invite.ok()?.message
        }
        FrameType::GroupEvent => GroupEvent::decode_shared(payload).ok()?.message,
        _ => return None,
    };
    Some(DedupeKey::of(group, &message, payload))
}
