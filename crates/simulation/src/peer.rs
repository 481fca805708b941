//! What domains tell each other. What travels is what the server sends too (`commucat_federation`);
//! beside an event stands what only its sender knows.

use bytes::Bytes;
use commucat_federation::event::{
    Body, Class, Deliver, Delivered, Event as WireEvent, EventId, Lane, Request, Requested, Return,
    Submit, Tag,
};
use commucat_proto::frame::FrameType;
use commucat_proto::frame::group_event::Reason as WireReason;
use commucat_proto::id::{DedupeKey, GroupId, Handle, MessageId, QueueId, SealedRef};
use commucat_routing::ticket::Reason;

use crate::outside::Index;

/// The lane of a group.
pub(crate) fn lane_of(group: &GroupId) -> u8 {
    Lane::of(group).number()
}

/// The name of the event with this number: the same whenever it is sent.
pub(crate) fn id_of(number: u64) -> EventId {
    let mut id = [0; 16];
    let (first, _) = id.split_at_mut(8);
    first.copy_from_slice(&number.to_be_bytes());
    EventId::new(id)
}

/// A message as `undelivered` names it: its id, and the dedupe key of the ciphertext, which is
/// another one after it was sealed again.
pub(crate) type Named = (MessageId, DedupeKey);

/// Where an author is told who did not get its frame.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ReturnTo {
    /// Its queue is here.
    Here(QueueId),
    /// Its domain opens this reference.
    There(Index, SealedRef),
}

/// One event. What only its sender needs (whose references these are, who wrote it) stays there.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    /// A frame of a group of the sender's, for these references.
    Deliver {
        group: GroupId,
        frame: FrameType,
        payload: Bytes,
        references: Vec<SealedRef>,
        /// The sender's own note: whose references these are.
        handles: Vec<Handle>,
        /// The sender's own note: of a MSG, its id and where its author is told of misses.
        author: Option<(Named, ReturnTo)>,
    },
    /// A MSG for a group of the receiver's.
    Submit {
        group: GroupId,
        handle: Handle,
        reference: SealedRef,
        payload: Bytes,
    },
    /// A frame of the receiver's author did not reach these.
    Return {
        group: GroupId,
        message: Named,
        handles: Vec<Handle>,
        reason: Reason,
        reference: SealedRef,
    },
    /// A request of a device, as the client encoded it.
    Request { frame: FrameType, payload: Bytes },
    /// A fork tag of a member.
    Tag {
        group: GroupId,
        handle: Handle,
        reference: SealedRef,
        position: u64,
        tag: Option<[u8; 16]>,
    },
}

impl Event {
    /// What goes to the other domain; none for what no server sends.
    pub(crate) fn wire(&self, id: EventId) -> Option<WireEvent> {
        let body = match self.clone() {
            Self::Deliver {
                group,
                frame,
                payload,
                references,
                ..
            } => Body::Deliver(Deliver {
                group,
                frame: Delivered::of_code(frame.code())?,
                payload,
                references,
            }),
            Self::Submit {
                group,
                handle,
                reference,
                payload,
            } => Body::Submit(Submit {
                group,
                handle,
                reference,
                class: Class::Durable,
                payload,
            }),
            Self::Return {
                group,
                message: (message, returned),
                handles,
                reason,
                reference,
            } => Body::Return(Return {
                group,
                message,
                returned,
                handles,
                reason: wire_reason(reason),
                author: reference,
            }),
            Self::Request { frame, payload } => Body::Request(Request {
                frame: Requested::of_code(frame.code())?,
                payload,
            }),
            Self::Tag {
                group,
                handle,
                reference,
                position,
                tag,
            } => Body::Tag(Tag {
                group,
                handle,
                reference,
                position,
                tag,
            }),
        };
        Some(WireEvent::new(id, body))
    }

    /// What came from the other domain.
    pub(crate) fn of_wire(event: WireEvent) -> Self {
        match event.body {
            Body::Deliver(deliver) => Self::Deliver {
                group: deliver.group,
                frame: deliver.frame.frame_type(),
                payload: deliver.payload,
                references: deliver.references,
                handles: Vec::new(),
                author: None,
            },
            Body::Submit(submit) => Self::Submit {
                group: submit.group,
                handle: submit.handle,
                reference: submit.reference,
                payload: submit.payload,
            },
            Body::Return(returned) => Self::Return {
                group: returned.group,
                message: (returned.message, returned.returned),
                handles: returned.handles,
                reason: told_reason(returned.reason),
                reference: returned.author,
            },
            Body::Request(request) => Self::Request {
                frame: request.frame.frame_type(),
                payload: request.payload,
            },
            Body::Tag(tag) => Self::Tag {
                group: tag.group,
                handle: tag.handle,
                reference: tag.reference,
                position: tag.position,
                tag: tag.tag,
            },
        }
    }
}

/// A reason as others are told.
pub(crate) const fn wire_reason(reason: Reason) -> WireReason {
    match reason {
        Reason::Full => WireReason::Full,
        Reason::Gone => WireReason::Gone,
        Reason::Expired => WireReason::Expired,
        Reason::Forbidden => WireReason::Forbidden,
        Reason::Epoch => WireReason::Epoch,
        Reason::Blocked => WireReason::Blocked,
    }
}

/// A reason that another domain tells.
pub(crate) const fn told_reason(reason: WireReason) -> Reason {
    match reason {
        WireReason::Full => Reason::Full,
        WireReason::Gone => Reason::Gone,
        WireReason::Expired => Reason::Expired,
        WireReason::Epoch => Reason::Epoch,
        WireReason::Blocked => Reason::Blocked,
        WireReason::Forbidden | WireReason::Unknown(_) => Reason::Forbidden,
    }
}

/// A request on its way.
#[derive(Clone, Debug)]
pub(crate) struct Batch {
    pub(crate) id: u64,
    pub(crate) from: Index,
    pub(crate) to: Index,
    /// Signed by its sender.
    pub(crate) request: Bytes,
}

/// The answer to a batch.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) batch: u64,
    pub(crate) from: Index,
    pub(crate) to: Index,
    /// Signed; `None` if the batch as a whole was refused.
    pub(crate) signed: Option<Bytes>,
}
