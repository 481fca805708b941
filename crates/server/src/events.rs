//! Entries that the server itself puts into queues: notices about groups and messages.

use bytes::Bytes;
use commucat_proto::frame::FrameType;
use commucat_proto::frame::group_event::{GroupEvent, Reason as WireReason};
use commucat_proto::id::{DedupeKey, GroupId, Handle, MessageId};
use commucat_proto::wire::Cbor;
use commucat_routing::lane::Envelope;
use commucat_routing::ticket::Reason;

/// A frame came back: who did not get it (`None`: nobody got it), and why.
pub(crate) fn undelivered(
    group: &GroupId,
    (message, returned): (MessageId, DedupeKey),
    handles: Option<Vec<Handle>>,
    reason: Reason,
) -> Envelope {
    envelope(
        group,
        &GroupEvent::undelivered(*group, (message, returned), handles, wire(reason)),
    )
}

/// Members that are there no more.
pub(crate) fn gone(group: &GroupId, handles: Vec<Handle>) -> Envelope {
    envelope(group, &GroupEvent::gone(*group, handles))
}

/// The group is closed.
pub(crate) fn closed(group: &GroupId) -> Envelope {
    envelope(group, &GroupEvent::closed(*group))
}

/// Members hold different histories.
pub(crate) fn fork(group: &GroupId, position: u64) -> Envelope {
    envelope(group, &GroupEvent::fork(*group, position))
}

/// What a queue refused or let expire. The stored key serves as its message id.
pub(crate) fn gap(key: DedupeKey) -> Envelope {
    let event = GroupEvent::gap(MessageId::new(*key.as_bytes()));
    Envelope {
        key,
        group: None,
        frame: FrameType::GroupEvent.code(),
        body: Bytes::from(event.encode()),
    }
}

fn envelope(group: &GroupId, event: &GroupEvent) -> Envelope {
    let body = Bytes::from(event.encode());
    Envelope {
        key: DedupeKey::of(group, &event.message, &body),
        group: Some(*group),
        frame: FrameType::GroupEvent.code(),
        body,
    }
}

/// The reason as others are told.
pub(crate) const fn wire(reason: Reason) -> WireReason {
    match reason {
        Reason::Full => WireReason::Full,
        Reason::Gone => WireReason::Gone,
        Reason::Expired => WireReason::Expired,
        Reason::Forbidden => WireReason::Forbidden,
        Reason::Epoch => WireReason::Epoch,
        Reason::Blocked => WireReason::Blocked,
    }
}

/// The reason as another domain tells it; one of a later version counts as a refusal.
pub(crate) const fn told(reason: WireReason) -> Reason {
    match reason {
        WireReason::Full => Reason::Full,
        WireReason::Gone => Reason::Gone,
        WireReason::Expired => Reason::Expired,
        WireReason::Forbidden | WireReason::Unknown(_) => Reason::Forbidden,
        WireReason::Epoch => Reason::Epoch,
        WireReason::Blocked => Reason::Blocked,
    }
}
