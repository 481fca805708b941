//! What domains tell each other: events, batches of them, answers (CCP-1 section 8).

use bytes::Bytes;
use commucat_proto::frame::FrameType;
use commucat_proto::frame::error::Problem;
use commucat_proto::id::{DedupeKey, GroupId, Handle, MessageId, QueueId, SealedRef};
use commucat_routing::ticket::Reason;

use crate::outside::Index;

/// Lanes to one peer; a group's events all take the same.
pub(crate) const LANES: u8 = 8;

/// How far a batch's date may be from the receiver's clock.
pub(crate) const WINDOW_MS: u64 = 15 * 60 * 1000;

/// The lane of a group.
pub(crate) fn lane_of(group: &GroupId) -> u8 {
    let [first, ..] = *blake3::hash(group.as_bytes()).as_bytes();
    first % LANES
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

/// Events on their way, signed by their sender.
#[derive(Clone, Debug)]
pub(crate) struct Batch {
    pub(crate) id: u64,
    pub(crate) from: Index,
    pub(crate) to: Index,
    /// By the sender's clock.
    pub(crate) created: u64,
    /// Their numbers, see [`crate::outside::Outside::keep`].
    pub(crate) events: Vec<u64>,
}

/// What became of one event.
#[derive(Clone, Debug)]
pub(crate) enum Outcome {
    /// In custody, but for these references.
    Custody(Vec<(usize, Reason)>),
    /// The result of a request.
    Result(Bytes),
    /// Refused for good.
    Refused(Box<Problem>),
    /// Not now.
    Later,
}

/// The signed answer to a batch.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) batch: u64,
    pub(crate) from: Index,
    pub(crate) to: Index,
    /// One for each event; `None` if the batch as a whole was refused.
    pub(crate) outcomes: Option<Vec<Outcome>>,
}
