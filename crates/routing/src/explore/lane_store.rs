//! The transactional store and the device of the lane's world.

use std::hash::{Hash, Hasher};

use bytes::Bytes;
use commucat_proto::id::DedupeKey;

use super::bugs::Bug;
use crate::lane::{Envelope, Lane, Page, Place, Position, Row};
use crate::unacked::Unacked;

/// An item: what authors send and devices show.
pub(super) type Item = u8;

pub(super) fn key(item: Item) -> DedupeKey {
    DedupeKey::new([item; 16])
}

pub(super) fn item(key: &DedupeKey) -> Item {
    key.as_bytes()[0]
}

pub(super) fn envelope(item: Item) -> Envelope {
    Envelope {
        key: key(item),
        group: None,
        frame: 5,
        body: Bytes::from_static(b"x"),
    }
}

/// A running insert; positions are given out at its commit, save for the planted bug.
#[derive(Clone, Hash)]
pub(super) struct Insert {
    pub(super) items: Vec<Item>,
    early: Vec<u64>,
}

/// One queue's rows.
#[derive(Clone)]
pub(super) struct Rows {
    pub(super) rows: Vec<(u64, Item)>,
    pub(super) last: u64,
    pub(super) deletes: Vec<(u64, Item)>,
    bug: Option<Bug>,
}

impl Rows {
    pub(super) const fn new(bug: Option<Bug>) -> Self {
        Self {
            rows: Vec::new(),
            last: 0,
            deletes: Vec::new(),
            bug,
        }
    }

    pub(super) fn begin(&mut self, items: Vec<Item>) -> Insert {
        let mut early = Vec::new();
        if self.bug == Some(Bug::SequenceAllocatedPositions) {
            early.extend(
                items
                    .iter()
                    .zip(self.last + 1..)
                    .map(|(_, position)| position),
            );
            self.last += u64::try_from(items.len()).unwrap();
        }
        Insert { items, early }
    }

    /// Inserts what is not there; returns the positions.
    pub(super) fn commit(&mut self, insert: &Insert) -> Vec<Position> {
        let mut early = insert.early.iter().copied();
        let mut positions = Vec::new();
        for item in &insert.items {
            let given = early.next();
            let present = self.rows.iter().find(|(_, there)| there == item);
            let position = present.map(|(position, _)| *position).unwrap_or_else(|| {
                let position = given.unwrap_or(self.last + 1);
                self.last = self.last.max(position);
                self.rows.push((position, *item));
                position
            });
            positions.push(Position::new(position));
        }
        self.rows.sort_unstable();
        positions
    }

    pub(super) fn page(&self, after: Position, rows_max: usize) -> Page {
        let above: Vec<_> = self
            .rows
            .iter()
            .filter(|(position, _)| *position > after.get())
            .collect();
        let rows = above.iter().take(rows_max);
        Page {
            rows: rows
                .map(|(position, item)| (Position::new(*position), envelope(*item)))
                .collect(),
            more: above.len() > rows_max,
            head: Position::new(self.last),
        }
    }

    pub(super) fn plan_delete(&mut self, row: Row) {
        self.deletes.push((row.position.get(), item(&row.key)));
    }

    /// Applies the oldest delete; returns what went.
    pub(super) fn delete(&mut self) -> Vec<Item> {
        if self.deletes.is_empty() {
            return Vec::new();
        }
        let (position, item) = self.deletes.remove(0);
        let range = self.bug == Some(Bug::RangeDelete);
        let goes = |row: &(u64, Item)| *row == (position, item) || range && row.0 <= position;
        let gone = self
            .rows
            .iter()
            .copied()
            .filter(goes)
            .map(|(_, item)| item)
            .collect();
        self.rows.retain(|row| !goes(row));
        gone
    }

    pub(super) fn holds(&self, item: Item) -> bool {
        self.rows.iter().any(|(_, there)| *there == item)
    }
}

impl Rows {
    /// Positions counted from the last.
    pub(super) fn digest(&self, state: &mut impl Hasher) {
        for list in [&self.rows, &self.deletes] {
            list.len().hash(state);
            for (position, item) in list {
                (self.last - position, item).hash(state);
            }
        }
    }
}

/// A page on its way to the session.
#[derive(Clone)]
pub(super) enum Read {
    Asked(Position),
    Found(Position, Vec<(Position, Item)>, bool, Position),
}

/// One connection of the device, both ends.
#[derive(Clone)]
pub(super) struct Connection {
    pub(super) attachment: u64,
    pub(super) unacked: Unacked,
    /// On the wire to the device.
    pub(super) down: Vec<Item>,
    /// Frames that the device has stored; its latest ACK says so.
    pub(super) received: u64,
    /// ACKs that the session has handled.
    pub(super) acked: u64,
    pub(super) read: Option<Read>,
    /// The session has reason to pump.
    pub(super) runnable: bool,
}

impl Connection {
    pub(super) fn new(attachment: u64) -> Self {
        Self {
            attachment,
            unacked: Unacked::default(),
            down: Vec::new(),
            received: 0,
            acked: 0,
            read: None,
            runnable: true,
        }
    }
}

impl Connection {
    /// Positions, slots and sequences counted from the latest ones.
    pub(super) fn digest<L: Hash>(
        &self,
        last: u64,
        lane: Option<&Lane<L>>,
        state: &mut impl Hasher,
    ) {
        (self.attachment, &self.down, self.runnable).hash(state);
        (self.received - self.acked, self.unacked.len()).hash(state);
        for entry in self.unacked.iter() {
            let place = match (entry.place, lane) {
                (Place::Row(position), _) => (0, last - position.get()),
                (Place::Window(slot), Some(lane)) => (1, lane.slot_age(slot)),
                (Place::Window(_), None) => (2, 0),
            };
            (place, entry.key).hash(state);
        }
        match &self.read {
            None => 0.hash(state),
            Some(Read::Asked(after)) => (1, last - after.get()).hash(state),
            Some(Read::Found(after, rows, more, head)) => {
                (2, last - after.get(), rows.len(), more, last - head.get()).hash(state);
                for (position, item) in rows {
                    (last - position.get(), item).hash(state);
                }
            }
        }
    }
}
