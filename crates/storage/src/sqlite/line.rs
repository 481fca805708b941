//! One queue while a transaction changes it: its counters, its groups' counters, its gap entry.

use commucat_proto::id::{DedupeKey, GroupId, QueueId};
use commucat_proto::time::Timestamp;
use rusqlite::params;

use super::bodies;
use super::convert::{length, millis, random_id, signed, unsigned};
use super::writer::Tx;
use crate::StoreError;
use crate::store::QueueLimits;
use crate::store::queues::{EntryKind, NewEntry, QueuePosition, Refusal, Spooled};

/// `kind` of a gap entry.
pub(super) const GAP: i64 = 0;

/// Loaded at first use, written back by [`Line::save`].
pub(super) struct Line {
    pub(super) id: i64,
    queue: QueueId,
    pub(super) revoked: bool,
    next: i64,
    entries: i64,
    bytes: i64,
    invites: i64,
    gap: Option<i64>,
    left_marks: i64,
    groups: Vec<GroupUse>,
    changed: bool,
}

/// What one group uses of the queue.
struct GroupUse {
    /// Its row, once it has one.
    id: Option<i64>,
    group: Option<GroupId>,
    entries: i64,
    bytes: i64,
    changed: bool,
}

/// What a deleted row says about itself.
pub(super) struct Removed {
    pub(super) kind: i64,
    group: Option<i64>,
    body: Option<i64>,
    length: i64,
}

impl Removed {
    /// Reads `kind, grp, body, length` from column `first` on.
    pub(super) fn read(row: &rusqlite::Row<'_>, first: usize) -> rusqlite::Result<Self> {
        Ok(Self {
            kind: row.get(first)?,
            group: row.get(first + 1)?,
            body: row.get(first + 2)?,
            length: row.get(first + 3)?,
        })
    }
}

impl Line {
    /// The queue, revoked or not.
    pub(super) fn load(tx: &Tx<'_>, queue: QueueId) -> Result<Option<Self>, StoreError> {
        let found = tx.row(
            "SELECT id, revoked, next_position, entries, bytes, invites, gap_position, left_marks
             FROM queues WHERE queue = ?1",
            [queue.as_bytes()],
            |row| {
                Ok(Self {
                    id: row.get(0)?,
                    queue,
                    revoked: row.get(1)?,
                    next: row.get(2)?,
                    entries: row.get(3)?,
                    bytes: row.get(4)?,
                    invites: row.get(5)?,
                    gap: row.get(6)?,
                    left_marks: row.get(7)?,
                    groups: Vec::new(),
                    changed: false,
                })
            },
        )?;
        Ok(found)
    }

    /// The last position given out.
    pub(super) fn head(&self) -> QueuePosition {
        QueuePosition::new(unsigned(self.next - 1))
    }

    /// Marks of groups left for good.
    pub(super) const fn left_marks(&self) -> i64 {
        self.left_marks
    }

    /// Appends one entry, or says where it is, or leaves a gap entry.
    pub(super) fn append(
        &mut self,
        tx: &mut Tx<'_>,
        entry: &NewEntry,
        now: Timestamp,
    ) -> Result<Spooled, StoreError> {
        let group = self.group(tx, &entry.group)?;
        if !self.has_room(tx.limits, group, entry) {
            return self.refuse(tx, &entry.key, now);
        }
        let place = bodies::place(tx, &entry.body)?;
        let position = self.next;
        let group_row = self.group_row(tx, group, &entry.group)?;
        let inserted = tx.execute(
            "INSERT INTO queue_entries (queue, position, key, kind, grp, body, length, stored_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT (queue, key) DO NOTHING",
            params![
                self.id,
                position,
                entry.key.as_bytes(),
                entry.kind.code(),
                group_row,
                place.id,
                length(&entry.body),
                millis(now),
            ],
        )?;
        if inserted == 0 {
            return match self.find(tx, &entry.key)? {
                Some(position) => Ok(Spooled::Repeat(position)),
                None => Err(StoreError::Corrupt {
                    what: "queue_entries",
                }),
            };
        }
        bodies::keep(tx, &place, &entry.body)?;
        let usage = self.usage(group)?;
        usage.entries += 1;
        usage.bytes += length(&entry.body);
        usage.changed = true;
        self.next += 1;
        self.entries += 1;
        self.bytes += length(&entry.body);
        self.invites += i64::from(entry.kind == EntryKind::GroupInvite);
        self.changed = true;
        Ok(Spooled::Stored(QueuePosition::new(unsigned(position))))
    }

    fn has_room(&self, limits: QueueLimits, group: usize, entry: &NewEntry) -> bool {
        let entries_max = signed(limits.entries);
        let bytes_max = signed(limits.bytes);
        let length = length(&entry.body);
        let (group_entries, group_bytes) = self
            .groups
            .get(group)
            .map_or((0, 0), |usage| (usage.entries, usage.bytes));
        let fits = self.entries < entries_max
            && self.bytes.saturating_add(length) <= bytes_max
            && group_entries < entries_max / 4
            && group_bytes.saturating_add(length) <= bytes_max / 4;
        let reserve = entry.kind == EntryKind::GroupInvite
            && self.invites < signed(QueueLimits::INVITES_RESERVED);
        fits || reserve
    }

    fn refuse(
        &mut self,
        tx: &mut Tx<'_>,
        key: &DedupeKey,
        now: Timestamp,
    ) -> Result<Spooled, StoreError> {
        // A repeat of what is there needs no room.
        if let Some(position) = self.find(tx, key)? {
            return Ok(Spooled::Repeat(position));
        }
        self.leave_gap(tx, now)?;
        Ok(Spooled::Refused(Refusal::Full))
    }

    fn find(&self, tx: &Tx<'_>, key: &DedupeKey) -> Result<Option<QueuePosition>, StoreError> {
        let position: Option<i64> = tx.row(
            "SELECT position FROM queue_entries WHERE queue = ?1 AND key = ?2",
            params![self.id, key.as_bytes()],
            |row| row.get(0),
        )?;
        Ok(position.map(|position| QueuePosition::new(unsigned(position))))
    }

    /// Makes sure that a gap entry will be sent from now on. One that no page has shown serves;
    /// one that was shown may be at the device already, so a new one takes its place.
    ///
    /// Returns the position if it is new.
    pub(super) fn leave_gap(
        &mut self,
        tx: &mut Tx<'_>,
        now: Timestamp,
    ) -> Result<Option<QueuePosition>, StoreError> {
        if let Some(waiting) = self.gap {
            if !tx.shown.has(self.queue, waiting) {
                return Ok(None);
            }
            tx.execute(
                "DELETE FROM queue_entries WHERE queue = ?1 AND position = ?2",
                [self.id, waiting],
            )?;
            self.gap_is_gone(tx);
        }
        tx.execute(
            "INSERT INTO queue_entries (queue, position, key, kind, length, stored_at)
             VALUES (?1, ?2, ?3, ?4, 0, ?5)",
            params![self.id, self.next, random_id()?, GAP, millis(now)],
        )?;
        let position = self.next;
        self.gap = Some(position);
        self.next += 1;
        self.changed = true;
        Ok(Some(QueuePosition::new(unsigned(position))))
    }

    /// Accounts for a row that was deleted.
    pub(super) fn removed(&mut self, tx: &mut Tx<'_>, row: &Removed) -> Result<(), StoreError> {
        self.changed = true;
        if row.kind == GAP {
            self.gap_is_gone(tx);
            return Ok(());
        }
        self.entries -= 1;
        self.bytes -= row.length;
        self.invites -= i64::from(row.kind == i64::from(EntryKind::GroupInvite.code()));
        if let Some(group) = row.group {
            let usage = self.group_by_row(tx, group)?;
            usage.entries -= 1;
            usage.bytes -= row.length;
            usage.changed = true;
        }
        match row.body {
            Some(body) => bodies::release(tx, body),
            None => Ok(()),
        }
    }

    fn gap_is_gone(&mut self, tx: &mut Tx<'_>) {
        if let Some(position) = self.gap.take() {
            tx.forgotten_gaps.push((self.queue, position));
        }
    }

    /// Leaves out positions: they may have been given out.
    pub(super) fn skip(&mut self, positions: i64) {
        self.next = self.next.saturating_add(positions);
        self.changed = true;
    }

    /// Says that a field was changed by hand.
    pub(super) const fn set_left_marks(&mut self, marks: i64) {
        self.left_marks = marks;
        self.changed = true;
    }

    /// Writes the counters back, if any changed.
    pub(super) fn save(self, tx: &Tx<'_>) -> Result<(), StoreError> {
        if self.changed {
            tx.execute(
                "UPDATE queues SET next_position = ?2, entries = ?3, bytes = ?4, invites = ?5,
                     gap_position = ?6, left_marks = ?7 WHERE id = ?1",
                params![
                    self.id,
                    self.next,
                    self.entries,
                    self.bytes,
                    self.invites,
                    self.gap,
                    self.left_marks
                ],
            )?;
        }
        self.groups
            .iter()
            .filter(|usage| usage.changed)
            .try_for_each(|usage| usage.save(tx))
    }

    /// Index of the counters of `group`.
    fn group(&mut self, tx: &Tx<'_>, group: &GroupId) -> Result<usize, StoreError> {
        let known = self
            .groups
            .iter()
            .position(|usage| usage.group.as_ref() == Some(group));
        if let Some(index) = known {
            return Ok(index);
        }
        let found = tx.row(
            "SELECT id, entries, bytes FROM queue_groups WHERE queue = ?1 AND group_id = ?2",
            params![self.id, group.as_bytes()],
            |row| Ok((Some(row.get(0)?), row.get(1)?, row.get(2)?)),
        )?;
        let (id, entries, bytes) = found.unwrap_or((None, 0, 0));
        self.groups.push(GroupUse {
            id,
            group: Some(*group),
            entries,
            bytes,
            changed: false,
        });
        Ok(self.groups.len() - 1)
    }

    /// The row of the counters at `index`, made if there is none.
    fn group_row(&mut self, tx: &Tx<'_>, index: usize, group: &GroupId) -> Result<i64, StoreError> {
        let queue = self.id;
        let usage = self.usage(index)?;
        if let Some(id) = usage.id {
            return Ok(id);
        }
        tx.execute(
            "INSERT INTO queue_groups (queue, group_id) VALUES (?1, ?2)",
            params![queue, group.as_bytes()],
        )?;
        let id = tx.connection.last_insert_rowid();
        usage.id = Some(id);
        // It goes again if nothing is stored after all.
        usage.changed = true;
        Ok(id)
    }

    fn group_by_row(&mut self, tx: &Tx<'_>, id: i64) -> Result<&mut GroupUse, StoreError> {
        let known = self.groups.iter().position(|usage| usage.id == Some(id));
        let index = match known {
            Some(index) => index,
            None => {
                let found = tx.row(
                    "SELECT entries, bytes FROM queue_groups WHERE id = ?1",
                    [id],
                    |row| Ok((row.get(0)?, row.get(1)?)),
                )?;
                let (entries, bytes) = found.ok_or(StoreError::Corrupt {
                    what: "queue_groups",
                })?;
                let usage = GroupUse {
                    id: Some(id),
                    group: None,
                    entries,
                    bytes,
                    changed: false,
                };
                self.groups.push(usage);
                self.groups.len() - 1
            }
        };
        self.usage(index)
    }

    fn usage(&mut self, index: usize) -> Result<&mut GroupUse, StoreError> {
        self.groups.get_mut(index).ok_or(StoreError::Corrupt {
            what: "queue_groups",
        })
    }
}

impl GroupUse {
    /// Writes the counters back; a row that says nothing any more goes.
    fn save(&self, tx: &Tx<'_>) -> Result<(), StoreError> {
        let Some(id) = self.id else { return Ok(()) };
        if self.entries > 0 {
            tx.execute(
                "UPDATE queue_groups SET entries = ?2, bytes = ?3 WHERE id = ?1",
                [id, self.entries, self.bytes],
            )?;
            return Ok(());
        }
        let marked = tx.execute(
            "UPDATE queue_groups SET entries = 0, bytes = 0 WHERE id = ?1 AND left_at IS NOT NULL",
            [id],
        )?;
        if marked == 0 {
            tx.execute("DELETE FROM queue_groups WHERE id = ?1", [id])?;
        }
        Ok(())
    }
}
