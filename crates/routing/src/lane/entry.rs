//! The values that go into a lane and come out of it.

use bytes::Bytes;
use commucat_proto::id::{DedupeKey, GroupId};

use crate::ticket::{Outcome, Reason};

/// A place in a queue's rows on disk: given out in commit order, never given out twice.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Position(u64);

impl Position {
    /// Wraps the number that the store gave; rows start at 1, so 0 is "before every row".
    #[must_use]
    pub const fn new(raw: u64) -> Self {
        Self(raw)
    }

    /// The number for the store.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    pub(super) const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// One connection of the far end; the caller never uses a number twice in a process.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Attachment(u64);

impl Attachment {
    /// Wraps a number that no other connection in this process has.
    #[must_use]
    pub const fn new(raw: u64) -> Self {
        Self(raw)
    }
}

/// Names an entry in a lane's window; never used twice in one lane.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct SlotId(pub(super) u64);

/// A durable frame on its way into one queue.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Envelope {
    /// Names the entry in its queue (CCP-1 section 4).
    pub key: DedupeKey,
    /// The group it belongs to; a gap entry has none.
    pub group: Option<GroupId>,
    /// The frame type's code (CCP-1 section 2).
    pub frame: u8,
    /// The payload as the far end gets it on channel 0; shared, never copied per recipient.
    pub body: Bytes,
}

/// A row's full name; what is deleted is exactly this, never a range (rule R2).
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Row {
    /// Where in the queue.
    pub position: Position,
    /// What is expected there; another key at that position is left alone.
    pub key: DedupeKey,
}

/// Where the lane found an entry that it handed to a session.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Place {
    /// In memory.
    Window(SlotId),
    /// In the store.
    Row(Position),
}

/// What a session remembers of each sequenced frame that it sent, to translate `ACK n`.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct SentEntry {
    /// Where the entry was when it was sent.
    pub place: Place,
    /// Its dedupe key; the lane believes the place only together with the key.
    pub key: DedupeKey,
}

/// One entry for the session to send now, in the order given.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Delivery {
    /// Where it is; goes into [`SentEntry`].
    pub place: Place,
    /// What to send.
    pub envelope: Envelope,
}

impl Delivery {
    /// What the session keeps until the far end acknowledges the frame.
    #[must_use]
    pub const fn sent(&self) -> SentEntry {
        SentEntry {
            place: self.place,
            key: self.envelope.key,
        }
    }
}

/// One page of a queue's rows, read in one snapshot.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Page {
    /// Rows above the position asked for, ascending.
    pub rows: Vec<(Position, Envelope)>,
    /// Whether rows follow after the last one of the page.
    pub more: bool,
    /// The highest position ever given out in this queue (`next_position - 1`), deleted or not.
    pub head: Position,
}

/// What the session does after [`Lane::pump`](super::Lane::pump) or [`Lane::page`](super::Lane::page).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Pumped {
    /// Nothing more: wait for [`Effect::Wake`].
    Idle,
    /// Send these, then pump again with the room that is left.
    More,
    /// The room is used up: pump again when the far end has acknowledged something.
    Full,
    /// Read rows above `after` (the room is the page's bound; at least one row if there is one) and
    /// hand them to [`Lane::page`](super::Lane::page), or report
    /// [`Lane::page_failed`](super::Lane::page_failed) and pump again after a back-off.
    ReadPage {
        /// The last position that this attachment was given.
        after: Position,
    },
    /// A page is being read for this attachment already.
    Reading,
    /// Send these, if any. The store is read to its end: tell the far end (ACK key 3) and pump again.
    Emptied,
    /// This attachment was replaced, detached or revoked: nothing more will come.
    Detached,
}

/// What became of one entry of a spooled batch.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Spooled {
    /// Committed, or the key was there already: its position.
    Stored(Position),
    /// The queue takes no more of these; the same transaction wrote or merged the gap entry.
    Refused(Reason),
    /// The queue is revoked or was never here.
    Gone,
}

/// What the caller does for the lane, in the order given.
///
/// `L` is the leg: what the author's ticket waits for. The lane gives back every leg exactly once.
#[derive(Debug, Eq, PartialEq)]
pub enum Effect<L> {
    /// Tell the ticket.
    Resolve(L, Outcome),
    /// Let the session of this attachment pump.
    Wake(Attachment),
    /// Insert these in this order in one transaction (other lanes' batches may share it), then call
    /// [`Lane::spooled`](super::Lane::spooled). Store down or outcome unknown: the same insert again
    /// with back-off; for good: [`Lane::spool_failed`](super::Lane::spool_failed). At most one
    /// batch of a lane is out at a time.
    Spool(Vec<Envelope>),
    /// Delete exactly this row; may wait for company.
    Delete(Row),
    /// Another connection took the queue: this one ends with `Replaced`.
    Replaced(Attachment),
}

/// An append to a lane that has left the map: look the lane up again.
#[derive(Debug, Eq, PartialEq)]
pub struct Closed<L> {
    /// The envelope, unchanged.
    pub envelope: Envelope,
    /// Its leg, unresolved.
    pub leg: L,
}
