//! The outbox: events that wait for other domains, in eight lanes each (CCP-1 section 8).

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use commucat_proto::id::{DedupeKey, Domain, Handle};
use commucat_proto::time::Timestamp;

use super::clock::ExpiryClock;
use super::queues::QueuePosition;
use super::{Store, on_backend};
use crate::StoreError;

/// One lane of a peer. Its entries are delivered in the order of their positions.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct OutboxLane {
    /// The domain.
    pub peer: Domain,
    /// 0 to 7.
    pub number: u8,
}

/// An event to be kept for another domain.
#[derive(Clone)]
pub struct NewOutboxEntry {
    /// Where it goes.
    pub lane: OutboxLane,
    /// Names its effect; unique within the lane.
    pub key: DedupeKey,
    /// The encoded event, with its id.
    pub event: Bytes,
    /// Whom to tell if it is given up, in the server's own encoding; `None` for nobody.
    pub return_to: Option<Bytes>,
}

impl fmt::Debug for NewOutboxEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "NewOutboxEntry({:?}, {} bytes)",
            self.lane,
            self.event.len()
        )
    }
}

/// What a commit sends to another domain in its own transaction.
#[derive(Clone, Debug)]
pub struct GroupRelay {
    /// Of a Welcome, whose: it is named if the outbox refuses it.
    pub welcomes: Option<Handle>,
    /// The event.
    pub entry: NewOutboxEntry,
}

/// What became of one entry.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outboxed {
    /// It is on disk at this position.
    Stored(QueuePosition),
    /// An entry with that key is on disk already, at this position.
    Repeat(QueuePosition),
    /// The peer's outbox is full: it is not on disk.
    Full,
}

/// An entry that waits.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct OutboxRow {
    /// Its position.
    pub position: QueuePosition,
    /// Its key.
    pub key: DedupeKey,
    /// When it was stored.
    pub stored_at: Timestamp,
    /// What it holds.
    pub content: OutboxContent,
}

/// What an entry of the outbox holds.
#[derive(Clone, Eq, PartialEq)]
pub enum OutboxContent {
    /// An event.
    Event {
        /// As it was stored.
        event: Bytes,
        /// As it was stored.
        return_to: Option<Bytes>,
    },
    /// The stored bytes are damaged. Delete the row.
    Corrupt,
}

impl fmt::Debug for OutboxContent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Event { event, .. } => write!(f, "Event({} bytes)", event.len()),
            Self::Corrupt => f.write_str("Corrupt"),
        }
    }
}

/// Some entries of a lane.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct OutboxPage {
    /// Ascending by position.
    pub rows: Vec<OutboxRow>,
    /// The last position given out in this lane when the page was read.
    pub head: QueuePosition,
    /// Whether rows follow after the last one of the page.
    pub more: bool,
}

/// Names one entry exactly.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct OutboxRowId {
    /// Its lane.
    pub lane: OutboxLane,
    /// Its position.
    pub position: QueuePosition,
    /// Its key.
    pub key: DedupeKey,
}

/// How full a lane is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct OutboxState {
    /// The lane.
    pub lane: OutboxLane,
    /// The last position given out.
    pub head: QueuePosition,
    /// Entries waiting.
    pub entries: u64,
    /// Bytes of their events.
    pub bytes: u64,
}

/// What the outbox holds for one peer at most, over all its lanes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct OutboxLimits {
    /// Bytes of events.
    pub bytes: u64,
    /// Events.
    pub entries: u64,
}

impl Default for OutboxLimits {
    fn default() -> Self {
        Self {
            bytes: 1024 * 1024 * 1024,
            entries: 500_000,
        }
    }
}

/// Names a run of a server process that sends to peers.
pub type NodeId = [u8; 16];

impl Store {
    /// Appends to the outbox in one transaction, in order; one result per entry.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; nothing was stored, or see [`StoreError::Unavailable`]: the same call again
    /// gets [`Outboxed::Repeat`] for what is there.
    pub async fn append_outbox(
        &self,
        entries: Vec<NewOutboxEntry>,
        now: Timestamp,
    ) -> Result<Vec<Outboxed>, StoreError> {
        on_backend!(self, backend => backend.append_outbox(entries, now).await)
    }

    /// Entries of a lane after a position: as many as fit `bytes_max`, at least one, at most
    /// `rows_max`. An unknown lane is an empty one.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store cannot be read.
    pub async fn outbox_page(
        &self,
        lane: &OutboxLane,
        after: QueuePosition,
        bytes_max: usize,
        rows_max: usize,
    ) -> Result<OutboxPage, StoreError> {
        on_backend!(self, backend => backend.outbox_page(lane, after, bytes_max, rows_max).await)
    }

    /// Deletes exactly the entries named; returns how many were there.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; nothing was deleted, or see [`StoreError::Unavailable`].
    pub async fn delete_outbox(&self, rows: Vec<OutboxRowId>) -> Result<u64, StoreError> {
        on_backend!(self, backend => backend.delete_outbox(rows).await)
    }

    /// Every lane in which something waits: what to take up after a start, and what a node that
    /// sends to a peer looks for.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store cannot be read.
    pub async fn outbox_states(&self) -> Result<Vec<OutboxState>, StoreError> {
        on_backend!(self, backend => backend.outbox_states().await)
    }

    /// The oldest entries of each lane that waited for `ttl` by the stored clock, at most
    /// `rows_max`. They stay: tell their authors, then [`Store::delete_outbox`].
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store cannot be read.
    pub async fn outbox_expired(
        &self,
        clock: ExpiryClock,
        ttl: Duration,
        rows_max: usize,
    ) -> Result<Vec<(OutboxLane, OutboxRow)>, StoreError> {
        on_backend!(self, backend => backend.outbox_expired(clock, ttl, rows_max).await)
    }

    /// Takes or keeps the right to send to `peer` for `lease` from now by the store's clock; `false`
    /// while another node has it. A node that lost it costs repeats, never an event. An embedded
    /// store has one process, which always gets it.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; see [`StoreError::Unavailable`].
    pub async fn hold_outbox(
        &self,
        peer: &Domain,
        node: NodeId,
        lease: Duration,
    ) -> Result<bool, StoreError> {
        on_backend!(self, backend => backend.hold_outbox(peer, node, lease).await)
    }
}
