//! A domain's store: what its transactions left behind is there after every crash.

mod queue;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use commucat_crypto::certificate::List;
use commucat_proto::frame::FrameType;
use commucat_proto::frame::key_package::ClaimResult;
use commucat_proto::frame::key_update::LogEntry;
use commucat_proto::id::{AccountId, ClaimId, DedupeKey, DeviceId, GroupId, QueueId, SealedRef};
use commucat_proto::signed::Signed;
use commucat_routing::hub::{Entry, Group};
use commucat_routing::lane::{Envelope, Page, Position, Row, Spooled};
use commucat_routing::ticket::Reason;

use self::queue::{Placed, Queue};
use crate::outside::Index;
use crate::plant::Plant;

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
    /// All of it; the hub knows those from `first_kept` on.
    pub(crate) log: Vec<LogEntry>,
    pub(crate) first_kept: u64,
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

/// An entry that is not in a queue although somebody put it there, or tried to.
#[derive(Clone, Debug)]
pub(crate) struct Lost {
    pub(crate) queue: QueueId,
    pub(crate) envelope: Envelope,
    /// [`Reason::Full`] or [`Reason::Expired`].
    pub(crate) reason: Reason,
}

/// What a transaction came to.
#[derive(Debug)]
pub(crate) enum Written {
    /// One for each entry.
    Spooled(Vec<Spooled>),
    Deleted,
    /// Done; the head and the list were as expected. The queues that had no room for a first message.
    Changed(Vec<Place>),
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
    /// What queues refused, and what has expired there, since somebody looked.
    pub(crate) lost: Vec<Lost>,
    /// Entries that a device's queue takes.
    pub(crate) queue_entries: usize,
}

impl Kept {
    /// The entries that the hub has, from this position on.
    pub(crate) fn entries_from(&self, position: u64) -> impl Iterator<Item = &LogEntry> {
        let from = position.max(self.first_kept);
        self.log.iter().filter(move |entry| entry.position >= from)
    }
}

impl Store {
    /// Makes a queue for a device.
    pub(crate) fn open_queue(&mut self, queue: QueueId) {
        self.queues.entry(Place::Device(queue)).or_default();
    }

    /// The planted bug: positions for a transaction that has only begun.
    pub(crate) fn allocate(&mut self, place: Place, count: usize) -> Vec<u64> {
        self.queues.entry(place).or_default().allocate(count)
    }

    /// Carries a transaction out.
    pub(crate) fn write(&mut self, write: &Write, plant: Option<Plant>, now: u64) -> Written {
        match write {
            Write::Spool(place, batch, early) => {
                let mut early = early.iter().copied();
                let stored = batch.iter().map(|envelope| {
                    let placed = self.insert(*place, envelope, early.next(), (plant, now));
                    match placed {
                        Placed::At(position) => Spooled::Stored(Position::new(position)),
                        Placed::Full if plant == Some(Plant::FullUntold) => {
                            Spooled::Stored(Position::new(0))
                        }
                        Placed::Full => Spooled::Refused(Reason::Full),
                    }
                });
                Written::Spooled(stored.collect())
            }
            Write::Delete(place, rows) => {
                if let Some(queue) = self.queues.get_mut(place) {
                    for row in rows {
                        queue.delete(row, plant == Some(Plant::RangeDelete));
                    }
                }
                Written::Deleted
            }
            Write::Commit(commit) => self.commit(commit, (plant, now)),
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
                    Written::Changed(Vec::new())
                }
                _ => Written::Stale,
            },
        }
    }

    fn commit(&mut self, commit: &Commit, at: (Option<Plant>, u64)) -> Written {
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
        let mut full = Vec::new();
        for (place, envelope) in &commit.rows {
            let placed = self.insert(*place, envelope, None, at);
            // Copies of commits are a convenience; of a message its author hears.
            if placed == Placed::Full && envelope.frame == FrameType::Msg.code() {
                full.push(*place);
            }
        }
        Written::Changed(full)
    }

    fn insert(
        &mut self,
        place: Place,
        envelope: &Envelope,
        early: Option<u64>,
        (plant, now): (Option<Plant>, u64),
    ) -> Placed {
        let room = match place {
            Place::Device(_) => self.queue_entries,
            Place::Peer(..) => usize::MAX,
        };
        let queue = self.queues.entry(place).or_default();
        let placed = queue.insert(envelope, early, (room, now));
        if let (Placed::Full, Place::Device(of)) = (placed, place) {
            queue.leave_gap(now, plant == Some(Plant::GapMergedLate));
            self.lost.push(Lost {
                queue: of,
                envelope: envelope.clone(),
                reason: Reason::Full,
            });
        }
        placed
    }

    /// Takes what was stored before `horizon` out of the queues of devices; those that had some.
    pub(crate) fn expire(
        &mut self,
        horizon: u64,
        (plant, now): (Option<Plant>, u64),
    ) -> Vec<Place> {
        let mut places = Vec::new();
        for (place, queue) in &mut self.queues {
            let Place::Device(of) = *place else { continue };
            let old = queue.expire(horizon);
            if old.is_empty() {
                continue;
            }
            if plant != Some(Plant::ExpiryUntold) {
                queue.leave_gap(now, plant == Some(Plant::GapMergedLate));
            }
            places.push(*place);
            self.lost.extend(old.into_iter().map(|envelope| Lost {
                queue: of,
                envelope,
                reason: Reason::Expired,
            }));
        }
        places
    }

    /// Rows above `after` that are not among `hidden`, in one snapshot.
    pub(crate) fn page(
        &mut self,
        place: Place,
        after: Position,
        hidden: &BTreeSet<(Place, u64, DedupeKey)>,
    ) -> Page {
        let queue = self.queues.get_mut(&place);
        queue.map_or_else(Page::default, |queue| queue.page(after, (place, hidden)))
    }

    /// Rows that wait in a queue.
    pub(crate) fn waiting(&self, place: Place) -> usize {
        self.queues.get(&place).map_or(0, Queue::len)
    }

    /// The lanes of peers for which something waits.
    pub(crate) fn outboxes(&self) -> Vec<(Index, u8)> {
        let peers = self.queues.iter().filter_map(|(place, queue)| match place {
            Place::Peer(peer, lane) if queue.len() > 0 => Some((*peer, *lane)),
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
