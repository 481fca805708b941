//! What goes into a peer's lane: an event, whom to tell if it does not arrive, and who waits.

use bytes::{BufMut, Bytes, BytesMut};
use commucat_federation as federation;
use commucat_federation::batch::Unsettled;
use commucat_federation::event::{Body, Event, EventId, Lane};
use commucat_proto::error::Title;
use commucat_proto::frame::error::Problem;
use commucat_proto::id::{DedupeKey, Domain, Handle, MessageId, SealedRef};
use commucat_proto::wire::Cbor;
use commucat_proto::wire::reader::{CborError, Reader, required};
use commucat_proto::wire::writer::Writer;
use commucat_routing::lane::{Delivery, Envelope};
use commucat_routing::ticket::{Missed, Outcome, Reason};
use commucat_storage::{NewOutboxEntry, OutboxLane};

use crate::custody::Leg;
use crate::events;

/// An event on its way out.
pub(crate) struct Outgoing {
    event: Event,
    return_to: Option<Bytes>,
}

impl Outgoing {
    /// A new event. [`ReturnTo`] stays here, beside it.
    pub(crate) fn new(body: Body, return_to: Option<ReturnTo>) -> Self {
        Self {
            event: Event::new(fresh_id(), body),
            return_to: return_to.map(|to| Bytes::from(to.encode())),
        }
    }

    /// The event alone.
    pub(super) fn into_event(self) -> Event {
        self.event
    }

    /// The lane that it takes; `None` for what takes none.
    pub(super) fn lane(&self) -> Option<Lane> {
        self.event.lane()
    }

    /// The form that a lane holds: length of `return_to` | `return_to` | event.
    pub(super) fn envelope(self) -> Envelope {
        Envelope {
            key: self.event.key(),
            group: self.event.body.lane_group().copied(),
            frame: self.event.body.kind(),
            body: pack(self.return_to.as_ref(), self.event.encoded()),
        }
    }

    /// The form that a commit's transaction stores.
    pub(crate) fn entry(self, peer: &Domain) -> Option<NewOutboxEntry> {
        Some(NewOutboxEntry {
            lane: OutboxLane {
                peer: peer.clone(),
                number: self.lane()?.number(),
            },
            key: self.event.key(),
            event: self.event.encoded().clone(),
            return_to: self.return_to,
        })
    }
}

/// An event's name. Without random bytes nothing else works either: the handshakes and references
/// that every event needs use the same source.
fn fresh_id() -> EventId {
    let mut id = [0; 16];
    if let Err(error) = getrandom::fill(&mut id) {
        tracing::error!(%error, "the system gives no random bytes");
    }
    EventId::new(id)
}

/// Puts event and `return_to` into one body.
pub(super) fn pack(return_to: Option<&Bytes>, event: &Bytes) -> Bytes {
    let empty = Bytes::new();
    let return_to = return_to.unwrap_or(&empty);
    let mut body = BytesMut::with_capacity(4 + return_to.len() + event.len());
    body.put_u32(u32::try_from(return_to.len()).unwrap_or(0));
    body.put_slice(return_to);
    body.put_slice(event);
    body.freeze()
}

/// Takes a body of [`pack`] apart without copying: `return_to`, event.
pub(super) fn unpack(body: &Bytes) -> Option<(Option<Bytes>, Bytes)> {
    let (len, rest) = body.split_first_chunk::<4>()?;
    let len = usize::try_from(u32::from_be_bytes(*len)).ok()?;
    let return_to = rest.get(..len)?;
    let event = body.slice_ref(rest.get(len..)?);
    let return_to = (len > 0).then(|| body.slice_ref(return_to));
    Some((return_to, event))
}

/// Whom to tell of a `deliver` that does not arrive, and of whom it is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct ReturnTo {
    /// None for what the hub itself sends.
    pub(crate) author: Option<AuthorOf>,
    /// The handles of the event's references, in their order.
    pub(crate) handles: Vec<Handle>,
}

/// The author of a frame that may come back.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct AuthorOf {
    /// Its domain.
    pub(crate) home: Domain,
    /// Its reference.
    pub(crate) reference: SealedRef,
    /// The frame's id.
    pub(crate) message: MessageId,
    /// The dedupe key of the frame's entries.
    pub(crate) key: DedupeKey,
}

impl Cbor for ReturnTo {
    fn write(&self, to: &mut Writer<'_>) {
        to.map(|map| {
            if let Some(author) = &self.author {
                map.put(0, &author.home);
                map.put(1, &author.reference);
                map.put(2, &author.message);
            }
            map.key(3).list(&self.handles);
            map.put_some(4, self.author.as_ref().map(|author| &author.key));
        });
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, CborError> {
        let (mut home, mut reference, mut message) = (None, None, None);
        let (mut handles, mut returned) = (None, None);
        from.map(|key, from| {
            match key {
                0 => home = Some(Domain::read(from)?),
                1 => reference = Some(SealedRef::read(from)?),
                2 => message = Some(MessageId::read(from)?),
                3 => handles = Some(from.list(Handle::read)?),
                4 => returned = Some(DedupeKey::read(from)?),
                _ => from.skip()?,
            }
            Ok(())
        })?;
        let author = home.zip(reference).zip(message).zip(returned);
        Ok(Self {
            author: author.map(|(((home, reference), message), key)| AuthorOf {
                home,
                reference,
                message,
                key,
            }),
            handles: required(handles, 3)?,
        })
    }
}

/// What waits for an event in a lane.
pub(crate) struct PeerLeg {
    leg: Leg,
    /// The recipients that the event's references stand for in the leg's ticket; empty where the
    /// event is taken or refused as a whole.
    recipients: Vec<u16>,
}

/// An event that a request holds, as the outbox has it.
pub(super) struct Sent {
    pub(super) event: Event,
    pub(super) return_to: Option<ReturnTo>,
}

impl Sent {
    /// `None` if the outbox's bytes are damaged.
    pub(super) fn of(delivery: &Delivery) -> Option<Self> {
        let (return_to, event) = unpack(&delivery.envelope.body)?;
        Self::read(return_to.as_ref(), &event)
    }

    pub(super) fn read(return_to: Option<&Bytes>, event: &Bytes) -> Option<Self> {
        let event = Event::decode(event).ok()?;
        let return_to = return_to.map(ReturnTo::decode_shared).transpose().ok()?;
        Some(Self { event, return_to })
    }
}

/// How a peer settled an event.
#[derive(Clone, Debug)]
pub(super) enum Verdict {
    /// It has custody for all references but these.
    Custody(Vec<Unsettled>),
    /// It will never take it.
    Refused(Problem),
    /// Nobody will, for this reason.
    Lost(Reason),
}

impl Verdict {
    /// What an answer means for an event; `None` if it is to be sent again.
    pub(super) fn of(outcome: federation::Outcome, event: &Event) -> Option<Self> {
        match (outcome, &event.body) {
            (federation::Outcome::Custody(unsettled), Body::Deliver(_)) => {
                Some(Self::Custody(unsettled))
            }
            (federation::Outcome::Custody(_), _) => Some(Self::Custody(Vec::new())),
            (federation::Outcome::Refused(problem), _) => Some(Self::Refused(*problem)),
            (federation::Outcome::Gone, Body::Deliver(deliver)) => {
                let gone = |(index, _): (u32, &SealedRef)| Unsettled {
                    index,
                    gone: true,
                    reason: events::wire(Reason::Gone),
                };
                let unsettled = (0..).zip(&deliver.references).map(gone).collect();
                Some(Self::Custody(unsettled))
            }
            (federation::Outcome::Gone, _) => Some(Self::Refused(Problem::new(
                Title::NotFound,
                "the other domain knows nothing of it",
            ))),
            (federation::Outcome::Result(_) | federation::Outcome::Later, _) => None,
        }
    }
}

impl PeerLeg {
    pub(crate) const fn new(leg: Leg, recipients: Vec<u16>) -> Self {
        Self { leg, recipients }
    }

    /// Ends the leg with what became of the event here: on disk, or not.
    pub(super) fn resolve(self, outcome: Outcome) {
        match outcome {
            // Where there is no recipient to name, whoever sent it keeps it.
            Outcome::Refused(_) if self.recipients.is_empty() => {
                self.leg.resolve(Outcome::Failed);
            }
            Outcome::Refused(reason) => self.settle(&Verdict::Lost(reason)),
            Outcome::Delivered
            | Outcome::Relayed
            | Outcome::Stored
            | Outcome::Gone
            | Outcome::Failed => self.leg.resolve(outcome),
        }
    }

    /// Ends the leg with what the peer says.
    pub(super) fn settle(self, verdict: &Verdict) {
        let Self { leg, recipients } = self;
        match verdict {
            Verdict::Custody(unsettled) => {
                for one in unsettled {
                    let index = usize::try_from(one.index).unwrap_or(usize::MAX);
                    if let Some(recipient) = recipients.get(index) {
                        leg.missed(Missed {
                            recipient: *recipient,
                            reason: reason_of(one),
                        });
                    }
                }
                leg.resolve(Outcome::Relayed);
            }
            Verdict::Refused(problem) if recipients.is_empty() => leg.reject(problem.clone()),
            // Its author is told by `undelivered`, which is on disk.
            Verdict::Lost(reason) if recipients.is_empty() => {
                leg.resolve(Outcome::Refused(*reason));
            }
            Verdict::Refused(_) | Verdict::Lost(_) => {
                let reason = match verdict {
                    Verdict::Lost(reason) => *reason,
                    Verdict::Refused(_) | Verdict::Custody(_) => Reason::Forbidden,
                };
                for recipient in recipients {
                    leg.missed(Missed { recipient, reason });
                }
                leg.resolve(Outcome::Relayed);
            }
        }
    }
}

/// Why a reference was missed.
pub(super) fn reason_of(unsettled: &Unsettled) -> Reason {
    if unsettled.gone {
        Reason::Gone
    } else {
        events::told(unsettled.reason)
    }
}

/// Why a refused `submit` comes back to its author (CCP-1 section 8).
pub(super) fn reason_for(problem: &Problem) -> Reason {
    if problem.title == Title::EpochOld {
        Reason::Epoch
    } else {
        Reason::Forbidden
    }
}
