//! Tickets: which legs a frame waits for, and what follows from the verdict.

use std::time::Instant;

use bytes::Bytes;
use commucat_federation::batch::{Outcome as EventOutcome, Unsettled};
use commucat_proto::error::Title;
use commucat_proto::frame::FrameType;
use commucat_proto::frame::error::Problem;
use commucat_proto::frame::group_event::GroupEvent;
use commucat_proto::frame::msg::Msg;
use commucat_proto::id::{DedupeKey, DeviceId, GroupId, Handle, MessageId, QueueId};
use commucat_proto::wire::Cbor as _;
use commucat_routing::hub::Entry;
use commucat_routing::lane::Envelope;
use commucat_routing::ticket::{Leg, Missed, Outcome, Reason, Ticket, Verdict};

use super::peers::Answered;
use super::{Domain, LegId, TicketId};
use crate::outside::{Connection, Index, Outside};
use crate::peer::{self, Event as PeerEvent, Named, ReturnTo, id_of, wire_reason};
use crate::plant::Plant;
use crate::store::Place;

/// A ticket and what it is for.
#[derive(Debug)]
pub(super) struct Open {
    ticket: Ticket,
    purpose: Purpose,
    group: GroupId,
    /// The handles that legs name by their index.
    recipients: Vec<Handle>,
    /// Of a MSG: its id, and where its author is told of misses.
    author: Option<(Named, ReturnTo)>,
    pub(super) expires: Instant,
    /// Why a hub refused it.
    problem: Option<Problem>,
    /// Of a delivery of another hub: what to answer besides custody.
    missed: Vec<Missed>,
}

/// One leg, and the entry that it waits for.
#[derive(Debug)]
pub(super) struct Held {
    ticket: TicketId,
    leg: Leg,
    at: Option<(Place, DedupeKey)>,
}

/// Who waits for a verdict.
#[derive(Debug)]
pub(super) enum Purpose {
    /// A device of this domain, for the answer to a MSG.
    Frame(Connection, u32),
    /// Another domain, for the outcome of an event in a batch.
    Event(u64, usize),
    /// The ticket of a frame some of whose recipients were missed.
    Returning(TicketId),
    /// Members that are gone are taken out when all others have the notice.
    Departure(Vec<Handle>),
    /// A lane to a peer goes on with an answer when an author knows what the last event came to.
    Lane(Box<Answered>),
    /// Nobody.
    Nothing,
}

/// Who did not get a frame, and where its author is told.
#[derive(Debug)]
pub(super) struct Misses {
    group: GroupId,
    message: Named,
    to: ReturnTo,
    missed: Vec<(Handle, Reason)>,
}

/// A frame that its hub refused after its author had been answered.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) queue: QueueId,
    pub(super) group: GroupId,
    pub(super) message: Named,
    pub(super) reason: Reason,
}

/// How `undelivered` names a message.
pub(super) fn named(group: &GroupId, msg: &Msg) -> Named {
    let message = msg.message();
    (message, DedupeKey::of(group, &message, &msg.ciphertext()))
}

/// A frame that goes to members of a group.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) group: GroupId,
    pub(super) kind: FrameType,
    pub(super) key: DedupeKey,
    pub(super) payload: Bytes,
    pub(super) author: Option<(Named, ReturnTo)>,
}

impl Domain {
    /// Opens a ticket with its guard leg.
    pub(super) fn open_ticket(
        &mut self,
        out: &Outside,
        purpose: Purpose,
        (group, author): (GroupId, Option<(Named, ReturnTo)>),
        recipients: Vec<Handle>,
    ) -> (TicketId, Leg) {
        let (ticket, guard) = Ticket::new();
        let id = self.number();
        let open = Open {
            ticket,
            purpose,
            group,
            recipients,
            author,
            expires: Ticket::deadline(out.instant()),
            problem: None,
            missed: Vec::new(),
        };
        self.process.tickets.insert(id, open);
        (id, guard)
    }

    /// A leg for the recipient with this index.
    pub(super) fn leg(
        &mut self,
        ticket: TicketId,
        recipient: usize,
        at: Option<(Place, DedupeKey)>,
    ) -> LegId {
        let id = self.number();
        let recipient = u16::try_from(recipient).unwrap_or(u16::MAX);
        if let Some(open) = self.process.tickets.get_mut(&ticket) {
            let leg = open.ticket.add(recipient);
            self.process.legs.insert(id, Held { ticket, leg, at });
        }
        id
    }

    /// The legs that wait for an entry.
    pub(super) fn legs_of(&self, place: Place, key: &DedupeKey) -> Vec<LegId> {
        let legs = self.process.legs.iter();
        legs.filter(|(_, held)| held.at == Some((place, *key)))
            .map(|(id, _)| *id)
            .collect()
    }

    /// The guard of a ticket falls.
    pub(super) fn drop_guard(&mut self, out: &mut Outside, ticket: TicketId, guard: Leg) {
        self.settle(out, ticket, guard, Outcome::Delivered);
    }

    /// A leg has ended.
    pub(super) fn resolve(&mut self, out: &mut Outside, leg: LegId, outcome: Outcome) {
        if let Some(held) = self.process.legs.remove(&leg) {
            self.settle(out, held.ticket, held.leg, outcome);
        }
    }

    fn settle(&mut self, out: &mut Outside, ticket: TicketId, leg: Leg, outcome: Outcome) {
        let Some(open) = self.process.tickets.get_mut(&ticket) else {
            return;
        };
        if let Some(verdict) = open.ticket.settle(leg, outcome) {
            self.conclude(out, ticket, verdict);
        }
    }

    /// What a peer's answer says of an event besides custody, for the tickets whose legs end with it;
    /// otherwise what is to be told to its author, durably, before the event is forgotten.
    pub(super) fn peer_missed(
        &mut self,
        out: &mut Outside,
        legs: &[LegId],
        event: &PeerEvent,
        missed: &[(usize, Reason)],
    ) -> Option<Misses> {
        let PeerEvent::Deliver {
            group,
            handles,
            author,
            ..
        } = event
        else {
            return None;
        };
        let named = |(index, reason): &(usize, Reason)| Some((*handles.get(*index)?, *reason));
        let missed: Vec<(Handle, Reason)> = missed.iter().filter_map(named).collect();
        let gone = missed.iter().filter(|(_, reason)| *reason == Reason::Gone);
        let gone: Vec<_> = gone.map(|(handle, _)| *handle).collect();
        if !gone.is_empty() {
            self.depart(out, *group, gone);
        }
        if legs.is_empty() {
            let (message, to) = (*author)?;
            return (!missed.is_empty()).then_some(Misses {
                group: *group,
                message,
                to,
                missed,
            });
        }
        for leg in legs {
            let Some(held) = self.process.legs.get(leg) else {
                continue;
            };
            let Some(open) = self.process.tickets.get_mut(&held.ticket) else {
                continue;
            };
            for (handle, reason) in &missed {
                let recipient = open.recipients.iter().position(|other| other == handle);
                if let Some(recipient) = recipient.and_then(|index| u16::try_from(index).ok()) {
                    open.ticket.missed(Missed {
                        recipient,
                        reason: *reason,
                    });
                }
            }
        }
        None
    }

    /// Another domain's hub refused a submitted frame for good: the tickets whose legs end with it fail
    /// with its reason; otherwise what the author is to be told.
    pub(super) fn peer_refused(
        &mut self,
        out: &mut Outside,
        legs: &[LegId],
        event: &PeerEvent,
        problem: &Problem,
    ) -> Option<Refused> {
        let PeerEvent::Submit {
            group,
            reference,
            payload,
            ..
        } = event
        else {
            return None;
        };
        for leg in legs {
            if let Some(held) = self.process.legs.get(leg)
                && let Some(open) = self.process.tickets.get_mut(&held.ticket)
            {
                open.problem = Some(problem.clone());
            }
            self.resolve(out, *leg, Outcome::Failed);
        }
        if !legs.is_empty() || out.has(Plant::RefusalForgotten) {
            return None;
        }
        let reason = if problem.title == Title::EpochOld {
            Reason::Epoch
        } else {
            Reason::Forbidden
        };
        let msg = Msg::decode(payload).ok()?;
        Some(Refused {
            queue: self.store.references.get(reference)?.queue,
            group: *group,
            message: named(group, &msg),
            reason,
        })
    }

    fn conclude(&mut self, out: &mut Outside, id: TicketId, verdict: Verdict) {
        if let Verdict::Return(missed) = verdict {
            return self.give_back(out, id, missed);
        }
        let Some(open) = self.process.tickets.remove(&id) else {
            return;
        };
        let done = matches!(verdict, Verdict::Done(_));
        match (open.purpose, verdict) {
            (Purpose::Frame(connection, sequence), Verdict::Done(status)) => {
                self.frame_done(out, connection, sequence, status);
            }
            (Purpose::Frame(connection, sequence), _) => {
                let problem = open.problem.unwrap_or_else(|| {
                    Problem::new(Title::StorageFailure, "the message could not be stored")
                });
                self.frame_refused(out, connection, sequence, problem);
            }
            (Purpose::Event(inbound, index), _) => {
                let outcome = match (done, open.problem) {
                    (true, _) => EventOutcome::Custody(unsettled(&open.missed)),
                    (false, Some(problem)) => EventOutcome::Refused(Box::new(problem)),
                    (false, None) => EventOutcome::Later,
                };
                self.event_done(out, inbound, index, outcome);
            }
            (Purpose::Returning(of), _) => {
                let outcome = if done {
                    Outcome::Stored
                } else {
                    Outcome::Failed
                };
                let of_open = self.process.tickets.get_mut(&of);
                let verdict = of_open.and_then(|open| open.ticket.returned(outcome));
                if let Some(verdict) = verdict {
                    self.conclude(out, of, verdict);
                }
            }
            (Purpose::Departure(handles), _) => self.take_out(out, open.group, handles, done),
            (Purpose::Lane(answered), _) => self.lane_goes_on(out, *answered, done),
            (Purpose::Nothing, _) => {}
        }
    }

    /// Some recipients were missed: their author is told durably before it is answered.
    fn give_back(&mut self, out: &mut Outside, id: TicketId, missed: Vec<Missed>) {
        let Some(open) = self.process.tickets.get_mut(&id) else {
            return;
        };
        let named = |one: &Missed| {
            let handle = open.recipients.get(usize::from(one.recipient))?;
            Some((*handle, one.reason))
        };
        let handles = missed.iter().filter_map(named).collect();
        let group = open.group;
        match open.author {
            Some((message, to)) => {
                let misses = Misses {
                    group,
                    message,
                    to,
                    missed: handles,
                };
                self.return_frame(out, Purpose::Returning(id), &misses);
            }
            // A delivery for another hub, which tells the author; or a notice.
            None => {
                open.missed = missed;
                if let Some(verdict) = open.ticket.returned(Outcome::Stored) {
                    self.conclude(out, id, verdict);
                }
            }
        }
    }

    /// Puts `undelivered` into the author's queue, or `return` into its domain's outbox.
    pub(super) fn return_frame(&mut self, out: &mut Outside, purpose: Purpose, misses: &Misses) {
        let Misses {
            group,
            message,
            to,
            ref missed,
        } = *misses;
        let (ticket, guard) = self.open_ticket(out, purpose, (group, None), Vec::new());
        for reason in [
            Reason::Full,
            Reason::Gone,
            Reason::Expired,
            Reason::Forbidden,
        ] {
            let of_reason = missed.iter().filter(|(_, why)| *why == reason);
            let handles: Vec<_> = of_reason.map(|(handle, _)| *handle).collect();
            if handles.is_empty() {
                continue;
            }
            let (place, envelope) = match to {
                ReturnTo::Here(queue) => {
                    let envelope = undelivered(out, (group, message), handles, reason);
                    (Place::Device(queue), envelope)
                }
                ReturnTo::There(domain, reference) => {
                    let event = PeerEvent::Return {
                        group,
                        message,
                        handles,
                        reason,
                        reference,
                    };
                    peer_entry(out, (domain, group), event)
                }
            };
            let leg = self.leg(ticket, 0, Some((place, envelope.key)));
            self.append(out, place, envelope, leg);
        }
        self.drop_guard(out, ticket, guard);
    }

    /// Tells a device that its queue could not take everything.
    pub(crate) fn tell_gap(&mut self, out: &mut Outside, device: &DeviceId) {
        let Some(queue) = self.store.devices.get(device).map(|device| device.queue) else {
            return;
        };
        let none = GroupId::new([0; 32]);
        let message = MessageId::new(out.random.bytes());
        let payload = Bytes::from(GroupEvent::gap(message).encode());
        let envelope = Envelope {
            key: DedupeKey::of(&none, &message, &payload),
            group: None,
            frame: FrameType::GroupEvent.code(),
            body: payload,
        };
        let (ticket, guard) = self.open_ticket(out, Purpose::Nothing, (none, None), Vec::new());
        let place = Place::Device(queue);
        let leg = self.leg(ticket, 0, Some((place, envelope.key)));
        self.append(out, place, envelope, leg);
        self.drop_guard(out, ticket, guard);
    }

    /// Tells an author of this domain.
    pub(super) fn undelivered(
        &mut self,
        out: &mut Outside,
        (purpose, queue): (Purpose, QueueId),
        (group, message): (GroupId, Named),
        (handles, reason): (Vec<Handle>, Reason),
    ) {
        let envelope = undelivered(out, (group, message), handles, reason);
        let (ticket, guard) = self.open_ticket(out, purpose, (group, None), Vec::new());
        let place = Place::Device(queue);
        let leg = self.leg(ticket, 0, Some((place, envelope.key)));
        self.append(out, place, envelope, leg);
        self.drop_guard(out, ticket, guard);
    }

    /// Takes a frame into custody for `list`, without waiting in between; the guard falls last.
    pub(super) fn accept(
        &mut self,
        out: &mut Outside,
        purpose: Purpose,
        frame: &Frame,
        list: &[Entry],
    ) {
        let handles = list.iter().map(|entry| entry.handle).collect();
        let about = (frame.group, frame.author);
        let (ticket, guard) = self.open_ticket(out, purpose, about, handles);
        let mut guard = Some(guard);
        if out.has(Plant::NoGuardLeg)
            && let Some(guard) = guard.take()
        {
            self.drop_guard(out, ticket, guard);
        }
        let mut gone = Vec::new();
        let mut seen = Vec::new();
        for (index, entry) in list.iter().enumerate() {
            if self.index_of(&entry.domain) != Some(self.index) {
                continue;
            }
            match self.open_reference(&entry.sealed_ref, &frame.group, self.index) {
                Ok(queue) if seen.contains(&queue) => {}
                Ok(queue) => {
                    seen.push(queue);
                    let place = Place::Device(queue);
                    let leg = self.leg(ticket, index, Some((place, frame.key)));
                    self.append(out, place, frame.envelope(), leg);
                }
                Err(reason) => {
                    if reason == Reason::Gone {
                        gone.push(entry.handle);
                    }
                    let leg = self.leg(ticket, index, None);
                    self.resolve(out, leg, missed(reason));
                }
            }
        }
        for domain in 0..self.names.len() {
            self.accept_for_peer(out, ticket, frame, (domain, list));
        }
        if let Some(guard) = guard {
            self.drop_guard(out, ticket, guard);
        }
        if !gone.is_empty() {
            self.depart(out, frame.group, gone);
        }
    }

    /// One event for all members of another domain.
    fn accept_for_peer(
        &mut self,
        out: &mut Outside,
        ticket: TicketId,
        frame: &Frame,
        (domain, list): (Index, &[Entry]),
    ) {
        if domain == self.index {
            return;
        }
        let of_domain = |entry: &&Entry| self.index_of(&entry.domain) == Some(domain);
        let Some(first) = list.iter().position(|entry| of_domain(&entry)) else {
            return;
        };
        let there: Vec<Entry> = list.iter().filter(of_domain).cloned().collect();
        let (place, envelope) = deliver(out, domain, frame, &there);
        let leg = self.leg(ticket, first, Some((place, envelope.key)));
        self.append(out, place, envelope, leg);
    }

    /// Tickets whose time is up.
    pub(super) fn expire_tickets(&mut self, out: &mut Outside) {
        let now = out.instant();
        let tickets = self.process.tickets.iter();
        let due: Vec<_> = tickets
            .filter(|(_, open)| open.expires <= now)
            .map(|(id, _)| *id)
            .collect();
        for id in due {
            let open = self.process.tickets.get_mut(&id);
            if let Some(verdict) = open.and_then(|open| open.ticket.expire()) {
                self.conclude(out, id, verdict);
            }
        }
    }
}

impl Frame {
    pub(super) fn envelope(&self) -> Envelope {
        Envelope {
            key: self.key,
            group: Some(self.group),
            frame: self.kind.code(),
            body: self.payload.clone(),
        }
    }
}

/// A `deliver` event for members of one other domain, as an entry of its lane.
pub(super) fn deliver(
    out: &mut Outside,
    domain: Index,
    frame: &Frame,
    there: &[Entry],
) -> (Place, Envelope) {
    let event = PeerEvent::Deliver {
        group: frame.group,
        frame: frame.kind,
        payload: frame.payload.clone(),
        references: there.iter().map(|entry| entry.sealed_ref).collect(),
        handles: there.iter().map(|entry| entry.handle).collect(),
        author: frame.author,
    };
    peer_entry(out, (domain, frame.group), event)
}

/// An event as an entry of the lane that its group takes.
pub(super) fn peer_entry(
    out: &mut Outside,
    (domain, group): (Index, GroupId),
    event: PeerEvent,
) -> (Place, Envelope) {
    let number = out.keep(event);
    let wire = out.kept(number).and_then(|event| event.wire(id_of(number)));
    let envelope = Envelope {
        key: wire.map_or(DedupeKey::new([0; 16]), |event| event.key()),
        group: Some(group),
        frame: 0,
        body: Bytes::copy_from_slice(&number.to_be_bytes()),
    };
    (Place::Peer(domain, peer::lane_of(&group)), envelope)
}

/// GROUP_EVENT as an entry.
pub(super) fn group_event(group: GroupId, event: &GroupEvent) -> Frame {
    let payload = Bytes::from(event.encode());
    Frame {
        group,
        kind: FrameType::GroupEvent,
        key: DedupeKey::of(&group, &event.message, &payload),
        payload,
        author: None,
    }
}

/// The entry names what was returned: of a frame that is returned, sealed again and returned again
/// the second notice is not a repeat of the first.
fn undelivered(
    out: &Outside,
    (group, (message, returned)): (GroupId, Named),
    handles: Vec<Handle>,
    reason: Reason,
) -> Envelope {
    let handles = (!handles.is_empty()).then_some(handles);
    let returned = if out.has(Plant::ReturnedOnce) {
        DedupeKey::new([0; 16])
    } else {
        returned
    };
    let event = GroupEvent::undelivered(group, (message, returned), handles, wire_reason(reason));
    group_event(group, &event).envelope()
}

const fn missed(reason: Reason) -> Outcome {
    match reason {
        Reason::Gone => Outcome::Gone,
        Reason::Full | Reason::Expired | Reason::Forbidden | Reason::Epoch | Reason::Blocked => {
            Outcome::Refused(reason)
        }
    }
}

/// What an answer says of the references that are not in custody.
fn unsettled(missed: &[Missed]) -> Vec<Unsettled> {
    let one = |missed: &Missed| Unsettled {
        index: missed.recipient.into(),
        gone: missed.reason == Reason::Gone,
        reason: wire_reason(missed.reason),
    };
    let mut unsettled: Vec<_> = missed.iter().map(one).collect();
    unsettled.sort_unstable_by_key(|one| one.index);
    unsettled.dedup_by_key(|one| one.index);
    unsettled
}
