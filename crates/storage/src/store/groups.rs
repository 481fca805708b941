//! Groups of which this domain is the hub: list, ordered log, sealed GroupInfo.

use std::time::Duration;

use bytes::Bytes;
use commucat_proto::id::{Domain, GroupId, Handle, QueueId, SealedRef};
use commucat_proto::time::Timestamp;

use super::clock::ExpiryClock;
use super::outbox::{GroupRelay, Outboxed};
use super::queues::{NewEntry, QueueSpooled};
use super::{Store, SweepCursor, on_backend};
use crate::StoreError;

/// One entry of a group's fan-out list (CCP-1 section 5.0).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FanoutEntry {
    /// The pseudonym.
    pub handle: Handle,
    /// Its home domain.
    pub domain: Domain,
    /// Its reference, opaque to the hub.
    pub sealed_ref: SealedRef,
    /// Whether its commits may remove others.
    pub admin: bool,
}

/// A list, in the order in which its entries were added.
pub type Fanout = Vec<FanoutEntry>;

/// The public key that join commits are signed by while it is in force.
pub type JoinKey = [u8; 32];

/// A group to be created.
#[derive(Clone, Debug)]
pub struct NewGroup {
    /// Chosen by its creator.
    pub group: GroupId,
    /// BLAKE3 of the request: a repeat is known by it.
    pub request_hash: [u8; 32],
    /// Its first entry.
    pub creator: FanoutEntry,
    /// Sealed GroupInfo at position 0.
    pub group_info: Option<Bytes>,
    /// The join key in force.
    pub join_key: Option<JoinKey>,
}

/// What became of a creation.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum GroupCreated {
    /// It exists, with head 0.
    Created,
    /// It was created by the very same request; nothing was changed.
    Repeat,
    /// The id is taken.
    Conflict,
}

/// A group as stored.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Group {
    /// The position of the last log entry; 0 before the first.
    pub head: u64,
    /// Raised by every change, also those that leave the head alone.
    pub revision: u64,
    /// The list.
    pub entries: Fanout,
    /// Handles that were in the list and have not been added again: the last [`Store::GONE_KEPT`] of
    /// them, oldest first.
    pub gone: Vec<Handle>,
    /// The join key in force.
    pub join_key: Option<JoinKey>,
    /// Whether it was closed or its list ran empty: it takes no more commits and messages and is
    /// deleted soon. Kept until then so that a repeat of the closing commit gets its result.
    pub closed: bool,
}

/// How far a group is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct GroupHead {
    /// The position of the last log entry.
    pub head: u64,
    /// Raised by every change.
    pub revision: u64,
    /// As in [`Group`].
    pub closed: bool,
}

/// Change of the join key by a commit.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum JoinKeyChange {
    /// As it was.
    #[default]
    Keep,
    /// None is in force.
    Clear,
    /// This one.
    Set(JoinKey),
}

/// Queue rows that a commit makes for one member of this domain.
#[derive(Clone, Debug)]
pub struct GroupDelivery {
    /// The member, to be named if its Welcome is refused.
    pub handle: Handle,
    /// Its queue.
    pub queue: QueueId,
    /// Welcome, copy of the commit, first message: in order.
    pub entries: Vec<NewEntry>,
}

/// An accepted commit: what the hub's rules made of a bundle, applied as one compare-and-swap.
#[derive(Clone, Debug)]
pub struct Commit {
    /// The group.
    pub group: GroupId,
    /// The head that it was computed from; it becomes the entry after it.
    pub expect: u64,
    /// BLAKE3 of the bundle's body: a repeat is known by it.
    pub body_hash: [u8; 32],
    /// The log entry (KEY_UPDATE s->c payload).
    pub entry: Bytes,
    /// Sealed GroupInfo of the new epoch.
    pub group_info: Bytes,
    /// Entries added; none of them may be in the list ([`StoreError::Refused`]).
    pub add: Fanout,
    /// Entries removed; those not there have no effect.
    pub remove: Vec<Handle>,
    /// New admin flags.
    pub admins: Vec<(Handle, bool)>,
    /// Change of the join key.
    pub join_key: JoinKeyChange,
    /// Whether it closes the group.
    pub close: bool,
    /// Rows for queues of this domain.
    pub deliveries: Vec<GroupDelivery>,
    /// Events for other domains, in order.
    pub relays: Vec<GroupRelay>,
    /// Handles whose Welcome has no queue to go to: named in the result, also in that of a repeat.
    pub refused: Vec<Handle>,
}

/// What became of a [`Commit`].
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum CommitOutcome {
    /// It is the log's entry at `position`; all its effects and rows are on disk.
    Committed {
        /// Its position.
        position: u64,
        /// One result per delivery, in order.
        spooled: Vec<QueueSpooled>,
        /// One result per relay, in order.
        relayed: Vec<Outboxed>,
        /// Handles whose Welcome was refused.
        refused: Vec<Handle>,
    },
    /// The very same bundle is the entry at `position`; nothing was changed.
    Repeat {
        /// Its position.
        position: u64,
        /// Handles whose Welcome was refused then.
        refused: Vec<Handle>,
    },
    /// The position is taken; nothing was changed.
    Conflict {
        /// The head.
        head: u64,
    },
    /// There is no such group, or it is closed.
    NotFound,
}

/// One entry of the log.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LogEntry {
    /// Its position.
    pub position: u64,
    /// The entry as it was stored.
    pub entry: Bytes,
}

/// Some entries of a log.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LogPage {
    /// The position of the last entry.
    pub head: u64,
    /// The first position kept; `head + 1` if none is.
    pub first_kept: u64,
    /// Ascending.
    pub entries: Vec<LogEntry>,
    /// Whether entries follow.
    pub more: bool,
}

/// What became of removing entries from a list.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct GroupRemoval {
    /// Those that were there.
    pub removed: Vec<Handle>,
    /// The group afterwards.
    pub group: Group,
}

impl Store {
    /// GroupInfos kept: those of the last that many entries (CCP-1 section 5.2).
    pub const GROUP_INFOS_KEPT: u64 = 16;
    /// How long log entries are kept (CCP-1 section 5.4).
    pub const LOG_KEPT: Duration = Duration::from_secs(30 * 24 * 3600);
    /// Departed handles remembered for a group.
    pub const GONE_KEPT: usize = 256;
    /// How long a closed group stays before it is deleted.
    pub const CLOSED_KEPT: Duration = Duration::from_secs(24 * 3600);

    /// Creates a group.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; nothing was made, or see [`StoreError::Unavailable`].
    pub async fn create_group(
        &self,
        group: NewGroup,
        now: Timestamp,
    ) -> Result<GroupCreated, StoreError> {
        on_backend!(self, backend => backend.create_group(group, now).await)
    }

    /// The group as it is.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store cannot be read.
    pub async fn group(&self, group: &GroupId) -> Result<Option<Group>, StoreError> {
        on_backend!(self, backend => backend.group(group).await)
    }

    /// How far the group is, without its list.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store cannot be read.
    pub async fn group_head(&self, group: &GroupId) -> Result<Option<GroupHead>, StoreError> {
        on_backend!(self, backend => backend.group_head(group).await)
    }

    /// Applies a commit in one transaction if the head is `expect` (CCP-1 section 5.2).
    ///
    /// The list changes are deltas: an entry that left meanwhile stays away, and if no admin is left
    /// all entries become admins. Rows follow the rules of [`Store::spool`]. A list that runs empty
    /// closes the group.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; nothing was changed, or see [`StoreError::Unavailable`]: the same call again
    /// gets [`CommitOutcome::Repeat`] if it was.
    pub async fn commit(
        &self,
        commit: Commit,
        now: Timestamp,
    ) -> Result<CommitOutcome, StoreError> {
        on_backend!(self, backend => backend.commit(commit, now).await)
    }

    /// Removes entries whose references are gone, in one transaction; `None` if there is no such
    /// group. The head stays.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; nothing was changed, or see [`StoreError::Unavailable`].
    pub async fn remove_handles(
        &self,
        group: &GroupId,
        handles: Vec<Handle>,
        now: Timestamp,
    ) -> Result<Option<GroupRemoval>, StoreError> {
        on_backend!(self, backend => backend.remove_handles(group, handles, now).await)
    }

    /// The log from position `from` on: as many entries as fit `bytes_max`, at least one. `None` if
    /// there is no such group.
    ///
    /// # Errors
    ///
    /// [`StoreError::Corrupt`] if an entry is damaged.
    pub async fn log_page(
        &self,
        group: &GroupId,
        from: u64,
        bytes_max: usize,
    ) -> Result<Option<LogPage>, StoreError> {
        on_backend!(self, backend => backend.log_page(group, from, bytes_max).await)
    }

    /// The sealed GroupInfos kept, with their positions, newest first: as many as fit `bytes_max`,
    /// at least one. Empty if there is none.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store cannot be read.
    pub async fn group_infos(
        &self,
        group: &GroupId,
        bytes_max: usize,
    ) -> Result<Vec<(u64, Bytes)>, StoreError> {
        on_backend!(self, backend => backend.group_infos(group, bytes_max).await)
    }

    /// Deletes a group with everything in it; `false` if there is none. For the operator.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; nothing was deleted, or see [`StoreError::Unavailable`].
    pub async fn delete_group(&self, group: &GroupId) -> Result<bool, StoreError> {
        on_backend!(self, backend => backend.delete_group(group).await)
    }

    /// One bounded step over the groups: deletes log entries older than [`Store::LOG_KEPT`] and
    /// groups closed for [`Store::CLOSED_KEPT`], by the stored clock. Returns where to go on; `None`
    /// at the end.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; nothing was deleted, or see [`StoreError::Unavailable`].
    pub async fn sweep_groups(
        &self,
        clock: ExpiryClock,
        cursor: SweepCursor,
    ) -> Result<Option<SweepCursor>, StoreError> {
        on_backend!(self, backend => backend.sweep_groups(clock, cursor).await)
    }
}
