//! Queues: what waits for a device, in order, until the device has acknowledged it.

use std::time::Duration;

use bytes::Bytes;
use commucat_proto::id::{DedupeKey, GroupId, QueueId};
use commucat_proto::time::Timestamp;

use super::clock::ExpiryClock;
use super::{Store, SweepCursor, on_backend};
use crate::StoreError;

/// A place in one queue. Given out ascending by the inserting transaction and never twice, also not
/// after deletion. Zero is before the first.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct QueuePosition(u64);

impl QueuePosition {
    /// Before the first entry.
    pub const START: Self = Self(0);

    /// The place with this number.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// Its number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

/// The durable frames, by their wire code (CCP-1 section 2).
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum EntryKind {
    /// MSG.
    Message,
    /// KEY_UPDATE: the queue's copy of a commit.
    KeyUpdate,
    /// GROUP_INVITE: a Welcome. [`QueueLimits::INVITES_RESERVED`](crate::QueueLimits) find room in a
    /// full queue.
    GroupInvite,
    /// GROUP_EVENT.
    GroupEvent,
}

impl EntryKind {
    /// The frame type on the wire.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Message => 0x05,
            Self::KeyUpdate => 0x09,
            Self::GroupInvite => 0x0b,
            Self::GroupEvent => 0x0c,
        }
    }

    /// The kind with this frame type.
    #[must_use]
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            0x05 => Some(Self::Message),
            0x09 => Some(Self::KeyUpdate),
            0x0b => Some(Self::GroupInvite),
            0x0c => Some(Self::GroupEvent),
            _ => None,
        }
    }
}

/// An entry to be stored.
#[derive(Clone, Debug)]
pub struct NewEntry {
    /// Its dedupe key, unique within a queue.
    pub key: DedupeKey,
    /// Which frame it is.
    pub kind: EntryKind,
    /// The group that it belongs to and counts for.
    pub group: GroupId,
    /// What the server needs to make the frame again. Equal bodies for several queues are stored
    /// once.
    pub body: Bytes,
}

/// Entries for one queue, oldest first.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The queue.
    pub queue: QueueId,
    /// What to append, in order.
    pub entries: Vec<NewEntry>,
}

/// What became of one entry.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Spooled {
    /// It is on disk at this position.
    Stored(QueuePosition),
    /// An entry with that key is on disk already, at this position.
    Repeat(QueuePosition),
    /// It is not on disk.
    Refused(Refusal),
}

/// Why a queue did not take an entry.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Refusal {
    /// The queue, or the group's quarter of it, is full. The queue has a gap entry now.
    Full,
    /// The queue is revoked or was never here.
    Gone,
}

/// What became of a [`Delivery`].
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct QueueSpooled {
    /// The queue.
    pub queue: QueueId,
    /// One outcome per entry, in order.
    pub outcomes: Vec<Spooled>,
    /// The last position given out in this queue, gap entries included.
    pub head: QueuePosition,
}

/// Names one stored entry exactly.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct RowId {
    /// Its queue.
    pub queue: QueueId,
    /// Its position.
    pub position: QueuePosition,
    /// Its key.
    pub key: DedupeKey,
}

/// A stored entry.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Row {
    /// Its position.
    pub position: QueuePosition,
    /// Its key. That of a gap entry is random and serves as its `message_id` too.
    pub key: DedupeKey,
    /// When it was stored.
    pub stored_at: Timestamp,
    /// What it holds.
    pub content: Content,
}

/// What a stored entry holds.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Content {
    /// A frame.
    Frame {
        /// Which frame.
        kind: EntryKind,
        /// Its group.
        group: GroupId,
        /// The body as stored.
        body: Bytes,
    },
    /// Something was refused or expired here: GROUP_EVENT `gap`.
    Gap,
    /// The stored bytes are damaged ([`StoreError::Corrupt`] of this row alone). Hand the row to
    /// [`Store::replace_by_gap`].
    Corrupt,
}

/// Some rows of a queue.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Page {
    /// Ascending by position.
    pub rows: Vec<Row>,
    /// The last position given out in this queue when the page was read.
    pub head: QueuePosition,
    /// Whether rows follow after the last one of the page.
    pub more: bool,
}

/// How full a queue is. The gap entry counts for neither.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct QueueState {
    /// The last position given out.
    pub head: QueuePosition,
    /// Entries waiting.
    pub entries: u64,
    /// Bytes of their bodies.
    pub bytes: u64,
}

/// What a sealed reference says once it is opened.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Reference {
    /// The queue.
    pub queue: QueueId,
    /// The group that it was made for.
    pub group: GroupId,
    /// When it was made.
    pub issued: Timestamp,
}

/// What a reference is worth (CCP-1 section 5.0).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ReferenceState {
    /// It leads to a live queue.
    Live,
    /// The queue is revoked, or left the group for good after the reference was issued.
    Gone,
    /// Such a queue was never here: refused, and nobody is removed for it.
    Unknown,
}

/// What became of leaving a group for good.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Left {
    /// The mark is stored and that many waiting entries of the group were dropped.
    Marked {
        /// Entries dropped.
        dropped: u64,
    },
    /// The queue has [`QueueLimits::LEFT_MARKS`](crate::QueueLimits) marks. Nothing was changed.
    TooMany,
    /// There is no such queue.
    UnknownQueue,
}

/// What one step of expiry did.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Expired {
    /// Entries deleted, of revoked queues too.
    pub entries: u64,
    /// Queues that have a new gap entry at these positions; their mailboxes must look.
    pub gaps: Vec<(QueueId, QueuePosition)>,
    /// Where to go on; `None` at the end.
    pub next: Option<SweepCursor>,
}

impl Store {
    /// Appends to many queues in one transaction; one result per delivery, in order.
    ///
    /// Also the way to put an `undelivered` on disk. A delivery never fails for the sake of another:
    /// what a queue does not take is [`Spooled::Refused`]. What is refused for fullness leaves one
    /// gap entry, merged while no page has shown it.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; nothing was stored, or see [`StoreError::Unavailable`]: the same call again
    /// gets [`Spooled::Repeat`] for what is there.
    pub async fn spool(
        &self,
        deliveries: Vec<Delivery>,
        now: Timestamp,
    ) -> Result<Vec<QueueSpooled>, StoreError> {
        on_backend!(self, backend => backend.spool(deliveries, now).await)
    }

    /// The rows after `after`: as many as fit `bytes_max` (at least one) and `rows_max`. `None` if
    /// the queue is revoked or was never here.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store cannot be read. A damaged body is a row with
    /// [`Content::Corrupt`].
    pub async fn page(
        &self,
        queue: &QueueId,
        after: QueuePosition,
        bytes_max: usize,
        rows_max: usize,
    ) -> Result<Option<Page>, StoreError> {
        on_backend!(self, backend => backend.page(queue, after, bytes_max, rows_max).await)
    }

    /// Deletes exactly these rows; returns how many there were.
    ///
    /// Idempotent. A row whose position or key differs stays.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; nothing was deleted, or see [`StoreError::Unavailable`].
    pub async fn delete_exact(&self, rows: Vec<RowId>) -> Result<u64, StoreError> {
        on_backend!(self, backend => backend.delete_exact(rows).await)
    }

    /// Deletes damaged rows and leaves a gap entry in each of their queues.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; nothing was changed, or see [`StoreError::Unavailable`].
    pub async fn replace_by_gap(
        &self,
        rows: Vec<RowId>,
        now: Timestamp,
    ) -> Result<u64, StoreError> {
        on_backend!(self, backend => backend.replace_by_gap(rows, now).await)
    }

    /// How full `queue` is; `None` if it is revoked or was never here.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store cannot be read.
    pub async fn queue_state(&self, queue: &QueueId) -> Result<Option<QueueState>, StoreError> {
        on_backend!(self, backend => backend.queue_state(queue).await)
    }

    /// The last positions given out in many queues; `None` for those not here.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store cannot be read.
    pub async fn queue_heads(
        &self,
        queues: Vec<QueueId>,
    ) -> Result<Vec<Option<QueuePosition>>, StoreError> {
        on_backend!(self, backend => backend.queue_heads(queues).await)
    }

    /// What each of these references is worth, in order.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store cannot be read.
    pub async fn reference_states(
        &self,
        references: Vec<Reference>,
    ) -> Result<Vec<ReferenceState>, StoreError> {
        on_backend!(self, backend => backend.reference_states(references).await)
    }

    /// Leaves `group` for good on behalf of `queue`: stores the mark and drops the group's waiting
    /// entries, in one transaction (CCP-1 section 5, LEAVE). References issued up to `now` are gone.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; nothing was changed, or see [`StoreError::Unavailable`].
    pub async fn leave_group(
        &self,
        queue: &QueueId,
        group: &GroupId,
        now: Timestamp,
    ) -> Result<Left, StoreError> {
        on_backend!(self, backend => backend.leave_group(queue, group, now).await)
    }

    /// One bounded step of expiry: deletes entries older than `ttl` by the stored clock, leaving gap
    /// entries, and empties revoked queues. Call it again with [`Expired::next`] until that is
    /// `None`.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; nothing was deleted, or see [`StoreError::Unavailable`].
    pub async fn expire_entries(
        &self,
        clock: ExpiryClock,
        ttl: Duration,
        cursor: SweepCursor,
    ) -> Result<Expired, StoreError> {
        on_backend!(self, backend => backend.expire_entries(clock, ttl, cursor).await)
    }
}
