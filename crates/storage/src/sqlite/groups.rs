//! Groups in SQLite: creation, list, and the compare-and-swap of a commit.

use commucat_proto::id::{Domain, GroupId, Handle, SealedRef};
use commucat_proto::time::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, params};

use super::convert::{millis, text_id, unsigned};
use super::writer::Tx;
use super::{Sqlite, log, outbox, queues};
use crate::store::groups::{
    Commit, CommitOutcome, Fanout, FanoutEntry, Group, GroupCreated, GroupHead, GroupRemoval,
    JoinKeyChange, NewGroup,
};
use crate::store::outbox::Outboxed;
use crate::store::queues::{EntryKind, Spooled};
use crate::{Store, StoreError};

impl Sqlite {
    pub(crate) async fn create_group(
        &self,
        group: NewGroup,
        now: Timestamp,
    ) -> Result<GroupCreated, StoreError> {
        self.write(move |tx| create(tx, &group, now)).await
    }

    pub(crate) async fn group(&self, group: &GroupId) -> Result<Option<Group>, StoreError> {
        let group = *group;
        self.read(move |connection| load(connection, &group)).await
    }

    pub(crate) async fn group_head(
        &self,
        group: &GroupId,
    ) -> Result<Option<GroupHead>, StoreError> {
        let group = *group;
        self.read(move |connection| {
            Ok(find(connection, &group)?.map(|found| GroupHead {
                head: found.head,
                revision: found.revision,
                closed: found.closed,
            }))
        })
        .await
    }

    pub(crate) async fn commit(
        &self,
        commit: Commit,
        now: Timestamp,
    ) -> Result<CommitOutcome, StoreError> {
        self.write(move |tx| swap(tx, &commit, now)).await
    }

    pub(crate) async fn remove_handles(
        &self,
        group: &GroupId,
        handles: Vec<Handle>,
        now: Timestamp,
    ) -> Result<Option<GroupRemoval>, StoreError> {
        let group = *group;
        self.write(move |tx| remove_gone(tx, &group, &handles, now))
            .await
    }

    pub(crate) async fn delete_group(&self, group: &GroupId) -> Result<bool, StoreError> {
        let group = *group;
        self.write(move |tx| {
            Ok(tx.execute("DELETE FROM groups WHERE group_id = ?1", [group.as_bytes()])? > 0)
        })
        .await
    }
}

/// The row of a group.
pub(super) struct Found {
    pub(super) row: i64,
    pub(super) head: u64,
    request_hash: [u8; 32],
    revision: u64,
    join_key: Option<[u8; 32]>,
    closed: bool,
}

pub(super) fn find(connection: &Connection, group: &GroupId) -> Result<Option<Found>, StoreError> {
    let found = connection
        .prepare_cached(
            "SELECT id, head, request_hash, revision, join_key, closed_at IS NOT NULL
             FROM groups WHERE group_id = ?1",
        )?
        .query_row([group.as_bytes()], |row| {
            Ok(Found {
                row: row.get(0)?,
                head: unsigned(row.get(1)?),
                request_hash: row.get(2)?,
                revision: unsigned(row.get(3)?),
                join_key: row.get(4)?,
                closed: row.get(5)?,
            })
        })
        .optional()?;
    Ok(found)
}

fn load(connection: &Connection, group: &GroupId) -> Result<Option<Group>, StoreError> {
    let Some(found) = find(connection, group)? else {
        return Ok(None);
    };
    let entries: Fanout = connection
        .prepare_cached(
            "SELECT handle, domain, sealed_ref, admin FROM group_fanout WHERE grp = ?1 ORDER BY id",
        )?
        .query_map([found.row], |row| {
            Ok(FanoutEntry {
                handle: Handle::new(row.get(0)?),
                domain: text_id(row, 1, Domain::parse)?,
                sealed_ref: SealedRef::new(row.get(2)?),
                admin: row.get(3)?,
            })
        })?
        .collect::<Result<_, _>>()?;
    let gone = connection
        .prepare_cached("SELECT handle FROM group_gone WHERE grp = ?1 ORDER BY id")?
        .query_map([found.row], |row| Ok(Handle::new(row.get(0)?)))?
        .collect::<Result<_, _>>()?;
    Ok(Some(Group {
        head: found.head,
        revision: found.revision,
        entries,
        gone,
        join_key: found.join_key,
        closed: found.closed,
    }))
}

fn create(tx: &Tx<'_>, group: &NewGroup, now: Timestamp) -> Result<GroupCreated, StoreError> {
    if let Some(found) = find(tx.connection, &group.group)? {
        let same = found.request_hash == group.request_hash;
        return Ok(if same {
            GroupCreated::Repeat
        } else {
            GroupCreated::Conflict
        });
    }
    tx.execute(
        "INSERT INTO groups (group_id, request_hash, head, revision, join_key)
         VALUES (?1, ?2, 0, ?3, ?4)",
        // Starting at the time keeps revisions of a group made anew above those of the old one.
        params![
            group.group.as_bytes(),
            group.request_hash,
            millis(now),
            group.join_key
        ],
    )?;
    let row = tx.connection.last_insert_rowid();
    add_entry(tx, row, &group.creator)?;
    if let Some(sealed) = &group.group_info {
        log::keep_group_info(tx, row, 0, sealed)?;
    }
    Ok(GroupCreated::Created)
}

fn swap(tx: &mut Tx<'_>, commit: &Commit, now: Timestamp) -> Result<CommitOutcome, StoreError> {
    let Some(found) = find(tx.connection, &commit.group)? else {
        return Ok(CommitOutcome::NotFound);
    };
    if found.head != commit.expect {
        return refuse(tx, commit, &found);
    }
    if found.closed {
        return Ok(CommitOutcome::NotFound);
    }
    let position = found.head + 1;
    change_list(tx, commit, &found)?;
    let mut spooled = Vec::with_capacity(commit.deliveries.len());
    let mut refused = commit.refused.clone();
    for delivery in &commit.deliveries {
        let done = queues::append(tx, delivery.queue, &delivery.entries, now)?;
        let lost_invite = delivery
            .entries
            .iter()
            .zip(&done.outcomes)
            .any(|(entry, outcome)| {
                entry.kind == EntryKind::GroupInvite && matches!(outcome, Spooled::Refused(_))
            });
        if lost_invite {
            refused.push(delivery.handle);
        }
        spooled.push(done);
    }
    let mut relayed = Vec::with_capacity(commit.relays.len());
    for relay in &commit.relays {
        let done = outbox::append(tx, &relay.entry, now)?;
        if done == Outboxed::Full {
            refused.extend(relay.welcomes);
        }
        relayed.push(done);
    }
    log::append(tx, found.row, position, (commit, &refused), now)?;
    log::keep_group_info(tx, found.row, position, &commit.group_info)?;
    let join_key = match commit.join_key {
        JoinKeyChange::Keep => found.join_key,
        JoinKeyChange::Clear => None,
        JoinKeyChange::Set(key) => Some(key),
    };
    tx.execute(
        "UPDATE groups SET head = head + 1, revision = revision + 1, join_key = ?2 WHERE id = ?1",
        params![found.row, join_key],
    )?;
    if commit.close {
        close(tx, found.row, now)?;
    } else {
        settle_list(tx, found.row, now)?;
    }
    Ok(CommitOutcome::Committed {
        position,
        spooled,
        relayed,
        refused,
    })
}

/// The answer to a commit whose position is taken: perhaps by itself.
fn refuse(tx: &Tx<'_>, commit: &Commit, found: &Found) -> Result<CommitOutcome, StoreError> {
    let position = commit.expect.saturating_add(1);
    if let Some(refused) = log::repeat(tx, found.row, position, &commit.body_hash)? {
        return Ok(CommitOutcome::Repeat { position, refused });
    }
    if found.closed {
        return Ok(CommitOutcome::NotFound);
    }
    Ok(CommitOutcome::Conflict { head: found.head })
}

fn change_list(tx: &Tx<'_>, commit: &Commit, found: &Found) -> Result<(), StoreError> {
    for handle in &commit.remove {
        if remove_entry(tx, found.row, handle)? {
            remember_gone(tx, found.row, handle)?;
        }
    }
    for entry in &commit.add {
        add_entry(tx, found.row, entry)?;
        forget_gone(tx, found.row, &entry.handle)?;
    }
    for (handle, admin) in &commit.admins {
        tx.execute(
            "UPDATE group_fanout SET admin = ?3 WHERE grp = ?1 AND handle = ?2",
            params![found.row, handle.as_bytes(), admin],
        )?;
    }
    Ok(())
}

fn add_entry(tx: &Tx<'_>, row: i64, entry: &FanoutEntry) -> Result<(), StoreError> {
    tx.execute(
        "INSERT INTO group_fanout (grp, handle, domain, sealed_ref, admin)
         VALUES (?1, ?2, ?3, ?4, ?5)",
        params![
            row,
            entry.handle.as_bytes(),
            entry.domain.as_str(),
            entry.sealed_ref.as_bytes(),
            entry.admin
        ],
    )?;
    Ok(())
}

fn remove_entry(tx: &Tx<'_>, row: i64, handle: &Handle) -> Result<bool, StoreError> {
    let removed = tx.execute(
        "DELETE FROM group_fanout WHERE grp = ?1 AND handle = ?2",
        params![row, handle.as_bytes()],
    )?;
    Ok(removed > 0)
}

/// A commit may remove this handle's leaf though the handle is not in the list any more.
fn remember_gone(tx: &Tx<'_>, row: i64, handle: &Handle) -> Result<(), StoreError> {
    tx.execute(
        "INSERT OR IGNORE INTO group_gone (grp, handle) VALUES (?1, ?2)",
        params![row, handle.as_bytes()],
    )?;
    tx.execute(
        "DELETE FROM group_gone WHERE grp = ?1 AND id NOT IN
             (SELECT id FROM group_gone WHERE grp = ?1 ORDER BY id DESC LIMIT ?2)",
        params![row, i64::try_from(Store::GONE_KEPT).unwrap_or(i64::MAX)],
    )?;
    Ok(())
}

fn forget_gone(tx: &Tx<'_>, row: i64, handle: &Handle) -> Result<(), StoreError> {
    tx.execute(
        "DELETE FROM group_gone WHERE grp = ?1 AND handle = ?2",
        params![row, handle.as_bytes()],
    )?;
    Ok(())
}

/// After a change: an empty list closes the group, and a list without an admin makes all admins.
fn settle_list(tx: &Tx<'_>, row: i64, now: Timestamp) -> Result<(), StoreError> {
    let counts = tx.row(
        "SELECT count(*), coalesce(sum(admin), 0) FROM group_fanout WHERE grp = ?1",
        [row],
        |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)),
    )?;
    match counts {
        Some((0, _)) | None => close(tx, row, now),
        Some((_, 0)) => {
            tx.execute("UPDATE group_fanout SET admin = 1 WHERE grp = ?1", [row])?;
            Ok(())
        }
        Some(_) => Ok(()),
    }
}

fn close(tx: &Tx<'_>, row: i64, now: Timestamp) -> Result<(), StoreError> {
    tx.execute(
        "UPDATE groups SET closed_at = ?2 WHERE id = ?1 AND closed_at IS NULL",
        params![row, millis(now)],
    )?;
    Ok(())
}

fn remove_gone(
    tx: &Tx<'_>,
    group: &GroupId,
    handles: &[Handle],
    now: Timestamp,
) -> Result<Option<GroupRemoval>, StoreError> {
    let Some(found) = find(tx.connection, group)? else {
        return Ok(None);
    };
    let mut removed = Vec::new();
    for handle in handles {
        if remove_entry(tx, found.row, handle)? {
            remember_gone(tx, found.row, handle)?;
            removed.push(*handle);
        }
    }
    if !removed.is_empty() {
        settle_list(tx, found.row, now)?;
        tx.execute(
            "UPDATE groups SET revision = revision + 1 WHERE id = ?1",
            [found.row],
        )?;
    }
    Ok(load(tx.connection, group)?.map(|group| GroupRemoval { removed, group }))
}
