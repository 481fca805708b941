//! One queue while a transaction changes it: its counters, its groups' counters, its gap entry. No
//! statement is sent from here; what is to be written goes into [`Changes`].

use std::collections::HashMap;

use commucat_proto::id::{DedupeKey, GroupId, QueueId};
use commucat_proto::time::Timestamp;
use tokio_postgres::Row;

use super::changes::{Changes, Inserted, Removed};
use super::convert::{length, millis, queue_id, random_id, signed, unsigned};
use super::fault::Fault;
use crate::store::QueueLimits;
use crate::store::queues::{EntryKind, NewEntry, QueuePosition, Refusal, Spooled};

/// `kind` of a gap entry.
pub(super) const GAP: i16 = 0;

/// Locks queues, in the order that everybody locks them in; and what [`Line::read`] takes.
pub(super) const LOCK: &str = "SELECT queue, revoked, next_position, entries, bytes, invites,
        gap_position, gap_shown, left_marks
    FROM queues WHERE queue = ANY ($1::uuid[]) ORDER BY queue FOR UPDATE";

/// A locked row of `queues`, with what is known of its entries.
pub(super) struct Line {
    pub(super) queue: QueueId,
    pub(super) revoked: bool,
    pub(super) next: i64,
    pub(super) entries: i64,
    pub(super) bytes: i64,
    pub(super) invites: i64,
    pub(super) gap: Option<Gap>,
    pub(super) left_marks: i64,
    pub(super) changed: bool,
    /// What groups use of the queue: `(entries, bytes)`.
    groups: HashMap<GroupId, (i64, i64)>,
    /// Where entries are, of those that somebody asked for or that are new.
    known: HashMap<DedupeKey, i64>,
}

/// A gap entry.
#[derive(Clone, Copy)]
pub(super) struct Gap {
    pub(super) position: i64,
    /// Some page has shown it: it may be on its way to the device, so a later refusal needs another.
    pub(super) shown: bool,
}

impl Line {
    /// Reads a row of [`LOCK`].
    pub(super) fn read(row: &Row) -> Result<Self, Fault> {
        let gap: Option<i64> = row.try_get(6)?;
        let shown = row.try_get(7)?;
        Ok(Self {
            queue: queue_id(row, 0)?,
            revoked: row.try_get(1)?,
            next: row.try_get(2)?,
            entries: row.try_get(3)?,
            bytes: row.try_get(4)?,
            invites: row.try_get(5)?,
            gap: gap.map(|position| Gap { position, shown }),
            left_marks: row.try_get(8)?,
            changed: false,
            groups: HashMap::new(),
            known: HashMap::new(),
        })
    }

    /// Tells what a group uses of the queue before the transaction.
    pub(super) fn group_uses(&mut self, group: GroupId, entries: i64, bytes: i64) {
        self.groups.insert(group, (entries, bytes));
    }

    /// Tells where an entry is.
    pub(super) fn holds(&mut self, key: DedupeKey, position: i64) {
        self.known.insert(key, position);
    }

    /// The last position given out.
    pub(super) fn head(&self) -> QueuePosition {
        QueuePosition::new(unsigned(self.next - 1))
    }

    /// Appends one entry, or says where it is, or leaves a gap entry. What its group uses and whether
    /// its key is there must have been told.
    pub(super) fn append(
        &mut self,
        changes: &mut Changes,
        limits: QueueLimits,
        entry: &NewEntry,
        now: Timestamp,
    ) -> Result<Spooled, Fault> {
        if let Some(position) = self.known.get(&entry.key) {
            return Ok(Spooled::Repeat(QueuePosition::new(unsigned(*position))));
        }
        if !self.has_room(limits, entry) {
            self.leave_gap(changes, now)?;
            return Ok(Spooled::Refused(Refusal::Full));
        }
        let position = self.next;
        let size = length(&entry.body);
        changes.insert(Inserted {
            queue: self.queue,
            position,
            key: entry.key,
            kind: i16::from(entry.kind.code()),
            stored_at: millis(now),
            frame: Some((entry.group, entry.body.clone())),
        });
        let (entries, bytes) = self.groups.entry(entry.group).or_default();
        *entries += 1;
        *bytes += size;
        self.known.insert(entry.key, position);
        self.next += 1;
        self.entries += 1;
        self.bytes += size;
        self.invites += i64::from(entry.kind == EntryKind::GroupInvite);
        self.changed = true;
        Ok(Spooled::Stored(QueuePosition::new(unsigned(position))))
    }

    fn has_room(&self, limits: QueueLimits, entry: &NewEntry) -> bool {
        let entries_max = signed(limits.entries);
        let bytes_max = signed(limits.bytes);
        let size = length(&entry.body);
        let (group_entries, group_bytes) =
            self.groups.get(&entry.group).copied().unwrap_or_default();
        let fits = self.entries < entries_max
            && self.bytes.saturating_add(size) <= bytes_max
            && group_entries < entries_max / 4
            && group_bytes.saturating_add(size) <= bytes_max / 4;
        let reserve = entry.kind == EntryKind::GroupInvite
            && self.invites < signed(QueueLimits::INVITES_RESERVED);
        fits || reserve
    }

    /// Makes sure that a gap entry will be sent from now on. One that no page has shown serves; one
    /// that was shown may be at the device already, so a new one takes its place.
    ///
    /// Returns the position if it is new.
    pub(super) fn leave_gap(
        &mut self,
        changes: &mut Changes,
        now: Timestamp,
    ) -> Result<Option<QueuePosition>, Fault> {
        match self.gap {
            Some(Gap { shown: false, .. }) => return Ok(None),
            Some(Gap { position, .. }) => changes.drop_gap(self.queue, position),
            None => {}
        }
        let position = self.next;
        changes.insert(Inserted {
            queue: self.queue,
            position,
            key: DedupeKey::new(random_id()?),
            kind: GAP,
            stored_at: millis(now),
            frame: None,
        });
        self.gap = Some(Gap {
            position,
            shown: false,
        });
        self.next += 1;
        self.changed = true;
        Ok(Some(QueuePosition::new(unsigned(position))))
    }

    /// Goes on so many positions further.
    pub(super) const fn skip(&mut self, positions: i64) {
        self.next = self.next.saturating_add(positions);
        self.changed = true;
    }

    /// Accounts for a row that was deleted.
    pub(super) fn removed(&mut self, changes: &mut Changes, row: &Removed) {
        self.changed = true;
        if row.kind == GAP {
            self.gap = self.gap.filter(|gap| gap.position != row.position);
            return;
        }
        self.entries -= 1;
        self.bytes -= row.length;
        self.invites -= i64::from(row.kind == i16::from(EntryKind::GroupInvite.code()));
        changes.release(row);
    }

    /// Says how many marks of groups left for good there are.
    pub(super) const fn set_left_marks(&mut self, marks: i64) {
        self.left_marks = marks;
        self.changed = true;
    }
}
