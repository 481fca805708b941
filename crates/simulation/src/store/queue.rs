//! Rows of one queue: what it has room for, what its device is told instead, what waits for too long.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use commucat_proto::frame::FrameType;
use commucat_proto::frame::group_event::GroupEvent;
use commucat_proto::id::{DedupeKey, MessageId};
use commucat_proto::wire::Cbor as _;
use commucat_routing::lane::{Envelope, Page, Position, Row};

use super::Place;

/// Rows of one page.
const PAGE_ROWS: usize = 4;

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Queue {
    rows: BTreeMap<u64, Stored>,
    last: u64,
    /// The row that tells of what was refused or has expired, which needs no room.
    gap: Option<u64>,
    /// A page has shown it: its device may have it already.
    gap_shown: bool,
}

#[derive(Debug)]
struct Stored {
    envelope: Envelope,
    at: u64,
}

/// What became of an entry.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Placed {
    /// It is there.
    At(u64),
    /// There is no room for it.
    Full,
}

impl Queue {
    /// Positions for rows that are not there yet: only a planted bug gives them out so early.
    pub(super) fn allocate(&mut self, count: usize) -> Vec<u64> {
        let positions = (self.last + 1..).take(count).collect::<Vec<_>>();
        self.last = positions.last().copied().unwrap_or(self.last);
        positions
    }

    /// Inserts an entry, if there is room or it is there already. Welcomes find room in a full queue.
    pub(super) fn insert(
        &mut self,
        envelope: &Envelope,
        early: Option<u64>,
        (room, now): (usize, u64),
    ) -> Placed {
        let there = self.rows.iter();
        let mut there = there.filter(|(_, row)| row.envelope.key == envelope.key);
        if let Some((position, _)) = there.next() {
            return Placed::At(*position);
        }
        if self.entries() >= room && envelope.frame != FrameType::GroupInvite.code() {
            return Placed::Full;
        }
        let position = early.unwrap_or(self.last + 1);
        self.put(position, envelope.clone(), now);
        Placed::At(position)
    }

    fn entries(&self) -> usize {
        self.rows.len() - usize::from(self.gap.is_some())
    }

    fn put(&mut self, position: u64, envelope: Envelope, at: u64) {
        self.last = self.last.max(position);
        self.rows.insert(position, Stored { envelope, at });
    }

    /// Makes sure that the device will be told: by a row that no page has shown, else by a new one.
    pub(super) fn leave_gap(&mut self, now: u64, merges_late: bool) {
        if let Some(waiting) = self.gap {
            if !self.gap_shown || merges_late {
                return;
            }
            self.rows.remove(&waiting);
        }
        let position = self.last + 1;
        let mut id = [0; MessageId::LEN];
        let (_, end) = id.split_at_mut(8);
        end.copy_from_slice(&position.to_be_bytes());
        let envelope = Envelope {
            key: DedupeKey::new(id),
            group: None,
            frame: FrameType::GroupEvent.code(),
            body: Bytes::from(GroupEvent::gap(MessageId::new(id)).encode()),
        };
        self.put(position, envelope, now);
        (self.gap, self.gap_shown) = (Some(position), false);
    }

    /// Takes out what was stored before `horizon`.
    pub(super) fn expire(&mut self, horizon: u64) -> Vec<Envelope> {
        let gap = self.gap;
        let old = self.rows.extract_if(.., |position, row| {
            row.at < horizon && Some(*position) != gap
        });
        old.map(|(_, row)| row.envelope).collect()
    }

    pub(super) fn delete(&mut self, row: &Row, range: bool) {
        let position = row.position.get();
        if range {
            self.rows.retain(|at, _| *at > position);
        } else if self
            .rows
            .get(&position)
            .is_some_and(|there| there.envelope.key == row.key)
        {
            self.rows.remove(&position);
        }
        self.gap = self.gap.filter(|gap| self.rows.contains_key(gap));
    }

    /// Rows above `after` that are not among `hidden`, in one snapshot.
    pub(super) fn page(
        &mut self,
        after: Position,
        (place, hidden): (Place, &BTreeSet<(Place, u64, DedupeKey)>),
    ) -> Page {
        let above = || self.rows.range(after.get() + 1..);
        let rows = above()
            .take(PAGE_ROWS)
            .filter(|(position, row)| !hidden.contains(&(place, **position, row.envelope.key)))
            .map(|(position, row)| (Position::new(*position), row.envelope.clone()))
            .collect::<Vec<_>>();
        let taken = above().take(PAGE_ROWS).count();
        if rows.is_empty() && taken == PAGE_ROWS {
            // All of them wait for their deletion: what follows is the page.
            let last = above()
                .nth(PAGE_ROWS - 1)
                .map_or(0, |(position, _)| *position);
            return self.page(Position::new(last), (place, hidden));
        }
        let page = Page {
            more: above().nth(PAGE_ROWS).is_some(),
            rows,
            head: Position::new(self.last),
        };
        let gap = self.gap.map(Position::new);
        self.gap_shown |= page.rows.iter().any(|(position, _)| Some(*position) == gap);
        page
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }
}
