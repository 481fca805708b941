//! A domain's store: what its transactions left behind is there after every crash.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use commucat_crypto::certificate::List;
use commucat_proto::frame::key_package::ClaimResult;
use commucat_proto::frame::key_update::LogEntry;
use commucat_proto::id::{AccountId, ClaimId, DedupeKey, DeviceId, GroupId, QueueId, SealedRef};
use commucat_proto::signed::Signed;
use commucat_routing::hub::{Entry, Group};
use commucat_routing::lane::{Envelope, Page, Position, Row, Spooled};

use crate::outside::Index;

/// Rows of one page.
const PAGE_ROWS: usize = 4;

/// GroupInfos kept of one group.
const INFOS_KEPT: usize = 16;

/// What a lane leads to.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Place {
    /// A device's queue.
    Device(QueueId),
    /// One lane of a peer's outbox.
    Peer(Index, u8),
}

/// Rows of one queue.
#[derive(Debug, Default)]
struct Queue {
    rows: BTreeMap<u64, Envelope>,
    last: u64,
}

/// What a sealed reference opens to.
#[derive(Clone, Debug)]
pub(crate) struct Reference {
    pub(crate) queue: QueueId,
    pub(crate) group: GroupId,
    pub(crate) hub: Index,
    pub(crate) issued: u64,
}

/// A group as its hub keeps it.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    pub(crate) group: Group,
    /// Raised by every change of the list.
    pub(crate) revision: u64,
    pub(crate) created_by: Bytes,
    pub(crate) log: Vec<LogEntry>,
    pub(crate) infos: Vec<(u64, Bytes)>,
}

/// A device that is registered here.
#[derive(Clone, Debug)]
pub(crate) struct Device {
    pub(crate) queue: QueueId,
    pub(crate) packages: Vec<Bytes>,
    pub(crate) last_resort: Option<Bytes>,
}

/// One transaction's writing.
#[derive(Clone, Debug)]
pub(crate) enum Write {
    /// A batch of one lane; with the planted bug positions are given out already.
    Spool(Place, Vec<Envelope>, Vec<u64>),
    /// Rows that were acknowledged.
    Delete(Place, Vec<Row>),
    /// A commit and everything that it puts into queues.
    Commit(Box<Commit>),
    /// A change of a group's list that is no commit.
    Replace(GroupId, u64, Box<Group>),
}

/// A commit's transaction.
#[derive(Clone, Debug)]
pub(crate) struct Commit {
    pub(crate) group: GroupId,
    pub(crate) revision: u64,
    pub(crate) after: Group,
    pub(crate) entry: LogEntry,
    pub(crate) info: Bytes,
    pub(crate) rows: Vec<(Place, Envelope)>,
}

/// An entry that left a group's list.
#[derive(Clone, Debug)]
pub(crate) struct Taken {
    pub(crate) group: GroupId,
    pub(crate) entry: Entry,
    /// Whether the commit was an admin's; none if there was no commit.
    pub(crate) by_admin: Option<bool>,
}

/// What a transaction came to.
#[derive(Debug)]
pub(crate) enum Written {
    /// One for each entry.
    Spooled(Vec<Spooled>),
    Deleted,
    /// Done; the head and the list were as expected.
    Changed,
    /// The group is not what it was when the transaction was made.
    Stale,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(crate) struct Store {
    queues: BTreeMap<Place, Queue>,
    pub(crate) groups: BTreeMap<GroupId, Kept>,
    pub(crate) references: BTreeMap<SealedRef, Reference>,
    /// Queues that left a group for good, and when.
    pub(crate) left: BTreeMap<(QueueId, GroupId), u64>,
    pub(crate) devices: BTreeMap<DeviceId, Device>,
    pub(crate) lists: BTreeMap<AccountId, Signed>,
    pub(crate) claims: BTreeMap<ClaimId, ClaimResult>,
    /// What left the lists since somebody looked.
    pub(crate) taken: Vec<Taken>,
}

impl Store {
    /// Makes a queue for a device.
    pub(crate) fn open_queue(&mut self, queue: QueueId) {
        self.queues.entry(Place::Device(queue)).or_default();
    }

    /// The planted bug: positions for a transaction that has only begun.
    pub(crate) fn allocate(&mut self, place: Place, count: usize) -> Vec<u64> {
        let queue = self.queues.entry(place).or_default();
        let positions = (queue.last + 1..).take(count).collect::<Vec<_>>();
        queue.last = positions.last().copied().unwrap_or(queue.last);
        positions
    }

    /// Carries a transaction out.
    pub(crate) fn write(&mut self, write: &Write, range_delete: bool) -> Written {
        match write {
            Write::Spool(place, batch, early) => {
                let mut early = early.iter().copied();
                let stored = batch.iter().map(|envelope| {
                    let position = self.insert(*place, envelope, early.next());
                    Spooled::Stored(Position::new(position))
                });
                Written::Spooled(stored.collect())
            }
            Write::Delete(place, rows) => {
                if let Some(queue) = self.queues.get_mut(place) {
                    for row in rows {
                        queue.delete(row, range_delete);
                    }
                }
                Written::Deleted
            }
            Write::Commit(commit) => self.commit(commit),
            Write::Replace(group, revision, after) => match self.groups.get_mut(group) {
                Some(kept) if kept.revision == *revision => {
                    let left = left(&kept.group, after);
                    self.taken.extend(left.map(|entry| Taken {
                        group: *group,
                        entry: entry.clone(),
                        by_admin: None,
                    }));
                    kept.group = (**after).clone();
                    kept.revision += 1;
                    Written::Changed
                }
                _ => Written::Stale,
            },
        }
    }

    fn commit(&mut self, commit: &Commit) -> Written {
        let Some(kept) = self.groups.get_mut(&commit.group) else {
            return Written::Stale;
        };
        if kept.revision != commit.revision {
            return Written::Stale;
        }
        let author = kept.group.entry(&commit.entry.author);
        let is_admin = author.is_some_and(|author| author.admin);
        let left = left(&kept.group, &commit.after);
        self.taken.extend(left.map(|entry| Taken {
            group: commit.group,
            entry: entry.clone(),
            by_admin: Some(is_admin),
        }));
        kept.revision += 1;
        kept.group = commit.after.clone();
        kept.log.push(commit.entry.clone());
        kept.infos
            .push((commit.entry.position, commit.info.clone()));
        if kept.infos.len() > INFOS_KEPT {
            kept.infos.remove(0);
        }
        for (place, envelope) in &commit.rows {
            self.insert(*place, envelope, None);
        }
        Written::Changed
    }

    fn insert(&mut self, place: Place, envelope: &Envelope, early: Option<u64>) -> u64 {
        let queue = self.queues.entry(place).or_default();
        let there = queue.rows.iter().find(|(_, row)| row.key == envelope.key);
        if let Some((position, _)) = there {
            return *position;
        }
        let position = early.unwrap_or(queue.last + 1);
        queue.last = queue.last.max(position);
        queue.rows.insert(position, envelope.clone());
        position
    }

    /// Rows above `after` that are not among `hidden`, in one snapshot.
    pub(crate) fn page(
        &self,
        place: Place,
        after: Position,
        hidden: &BTreeSet<(Place, u64, DedupeKey)>,
    ) -> Page {
        let Some(queue) = self.queues.get(&place) else {
            return Page::default();
        };
        let above = || queue.rows.range(after.get() + 1..);
        let rows = above()
            .take(PAGE_ROWS)
            .filter(|(position, row)| !hidden.contains(&(place, **position, row.key)))
            .map(|(position, row)| (Position::new(*position), row.clone()))
            .collect::<Vec<_>>();
        let taken = above().take(PAGE_ROWS).count();
        if rows.is_empty() && taken == PAGE_ROWS {
            // All of them wait for their deletion: what follows is the page.
            let last = above()
                .nth(PAGE_ROWS - 1)
                .map_or(0, |(position, _)| *position);
            return self.page(place, Position::new(last), hidden);
        }
        Page {
            more: above().nth(PAGE_ROWS).is_some(),
            rows,
            head: Position::new(queue.last),
        }
    }

    /// Rows that wait in a queue.
    pub(crate) fn waiting(&self, place: Place) -> usize {
        self.queues.get(&place).map_or(0, |queue| queue.rows.len())
    }

    /// The lanes of peers for which something waits.
    pub(crate) fn outboxes(&self) -> Vec<(Index, u8)> {
        let peers = self.queues.iter().filter_map(|(place, queue)| match place {
            Place::Peer(peer, lane) if !queue.rows.is_empty() => Some((*peer, *lane)),
            Place::Peer(..) | Place::Device(_) => None,
        });
        peers.collect()
    }

    /// The devices of an account, as its list names them.
    pub(crate) fn devices_of(&self, account: &AccountId) -> Vec<DeviceId> {
        let Some(list) = self
            .lists
            .get(account)
            .and_then(|list| List::verify(list).ok())
        else {
            return Vec::new();
        };
        let certificates = list.certificates().iter();
        certificates
            .map(|certificate| certificate.device().clone())
            .filter(|device| self.devices.contains_key(device))
            .collect()
    }
}

/// The entries of a list that are not in the one after it.
fn left<'a>(before: &'a Group, after: &'a Group) -> impl Iterator<Item = &'a Entry> {
    let list = before.list.iter();
    list.filter(|entry| after.entry(&entry.handle).is_none())
}

impl Queue {
    fn delete(&mut self, row: &Row, range: bool) {
        let position = row.position.get();
        if range {
            self.rows.retain(|at, _| *at > position);
        } else if self
            .rows
            .get(&position)
            .is_some_and(|there| there.key == row.key)
        {
            self.rows.remove(&position);
        }
    }
}
