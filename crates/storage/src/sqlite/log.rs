//! A group's log and its sealed GroupInfos in SQLite.

use bytes::Bytes;
use commucat_proto::id::{GroupId, Handle};
use commucat_proto::time::Timestamp;
use rusqlite::{Row, params};

use super::convert::{bytes, checksum, millis, signed, unsigned};
use super::groups::find;
use super::writer::Tx;
use super::{SWEEP_ROWS, Sqlite};
use crate::store::groups::{Commit, LogEntry, LogPage};
use crate::store::{Store, SweepCursor};
use crate::{ExpiryClock, StoreError};

/// Groups that one step of the sweep looks at.
const GROUPS: i64 = 64;

impl Sqlite {
    pub(crate) async fn log_page(
        &self,
        group: &GroupId,
        from: u64,
        bytes_max: usize,
    ) -> Result<Option<LogPage>, StoreError> {
        let group = *group;
        self.read(move |connection| {
            let Some(found) = find(connection, &group)? else {
                return Ok(None);
            };
            let first: Option<i64> = connection
                .prepare_cached("SELECT min(position) FROM group_log WHERE grp = ?1")?
                .query_row([found.row], |row| row.get(0))?;
            let first_kept = first.map_or(found.head + 1, unsigned);
            let mut statement = connection.prepare_cached(
                "SELECT position, checksum, entry FROM group_log
                 WHERE grp = ?1 AND position >= ?2 ORDER BY position",
            )?;
            let rows = statement.query(params![found.row, signed(from)])?;
            let (entries, more) = fitting(rows, bytes_max, "group_log", OnDamage::Fail)?;
            let entries = entries
                .into_iter()
                .map(|(position, entry)| LogEntry { position, entry })
                .collect();
            Ok(Some(LogPage {
                head: found.head,
                first_kept,
                entries,
                more,
            }))
        })
        .await
    }

    pub(crate) async fn group_infos(
        &self,
        group: &GroupId,
        bytes_max: usize,
    ) -> Result<Vec<(u64, Bytes)>, StoreError> {
        let group = *group;
        self.read(move |connection| {
            let Some(found) = find(connection, &group)? else {
                return Ok(Vec::new());
            };
            let mut statement = connection.prepare_cached(
                "SELECT position, checksum, sealed FROM group_infos
                 WHERE grp = ?1 ORDER BY position DESC",
            )?;
            let rows = statement.query([found.row])?;
            fitting(rows, bytes_max, "group_infos", OnDamage::Skip).map(|(infos, _)| infos)
        })
        .await
    }

    pub(crate) async fn sweep_groups(
        &self,
        clock: ExpiryClock,
        cursor: SweepCursor,
    ) -> Result<Option<SweepCursor>, StoreError> {
        self.write(move |tx| sweep(tx, clock, cursor)).await
    }
}

/// Appends a commit with the handles whose Welcome was refused.
pub(super) fn append(
    tx: &Tx<'_>,
    group: i64,
    position: u64,
    (commit, refused): (&Commit, &[Handle]),
    now: Timestamp,
) -> Result<(), StoreError> {
    let refused: Vec<u8> = refused
        .iter()
        .flat_map(|handle| *handle.as_bytes())
        .collect();
    tx.execute(
        "INSERT INTO group_log (grp, position, body_hash, refused, stored_at, checksum, entry)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        params![
            group,
            signed(position),
            commit.body_hash,
            refused,
            millis(now),
            checksum(&commit.entry),
            &commit.entry[..]
        ],
    )?;
    Ok(())
}

/// Keeps the GroupInfo of `position` and those of the entries just before it.
pub(super) fn keep_group_info(
    tx: &Tx<'_>,
    group: i64,
    position: u64,
    sealed: &Bytes,
) -> Result<(), StoreError> {
    tx.execute(
        "INSERT INTO group_infos (grp, position, checksum, sealed) VALUES (?1, ?2, ?3, ?4)",
        params![group, signed(position), checksum(sealed), &sealed[..]],
    )?;
    tx.execute(
        "DELETE FROM group_infos WHERE grp = ?1 AND position <= ?2",
        params![group, signed(position) - signed(Store::GROUP_INFOS_KEPT)],
    )?;
    Ok(())
}

/// If the entry at `position` is of this bundle: the handles refused then.
pub(super) fn repeat(
    tx: &Tx<'_>,
    group: i64,
    position: u64,
    body_hash: &[u8; 32],
) -> Result<Option<Vec<Handle>>, StoreError> {
    let refused: Option<Vec<u8>> = tx.row(
        "SELECT refused FROM group_log WHERE grp = ?1 AND position = ?2 AND body_hash = ?3",
        params![group, signed(position), body_hash],
        |row| row.get(0),
    )?;
    let Some(refused) = refused else {
        return Ok(None);
    };
    refused
        .chunks(Handle::LEN)
        .map(|raw| Handle::parse(raw).map_err(|_| StoreError::Corrupt { what: "group_log" }))
        .collect::<Result<_, _>>()
        .map(Some)
}

#[derive(Clone, Copy)]
enum OnDamage {
    /// The log is an order: an entry cannot be left out.
    Fail,
    /// Any GroupInfo serves.
    Skip,
}

/// Reads `(position, checksum, bytes)` as long as they fit, at least one; and whether more follow.
fn fitting(
    mut rows: rusqlite::Rows<'_>,
    bytes_max: usize,
    what: &'static str,
    on_damage: OnDamage,
) -> Result<(Vec<(u64, Bytes)>, bool), StoreError> {
    let mut fitting = Vec::new();
    let mut left = bytes_max;
    while let Some(row) = rows.next()? {
        let (position, expected, value) = read(row)?;
        if checksum(&value) != expected {
            match on_damage {
                OnDamage::Fail => return Err(StoreError::Corrupt { what }),
                OnDamage::Skip => continue,
            }
        }
        if value.len() > left && !fitting.is_empty() {
            return Ok((fitting, true));
        }
        left = left.saturating_sub(value.len());
        fitting.push((position, value));
    }
    Ok((fitting, false))
}

fn read(row: &Row<'_>) -> rusqlite::Result<(u64, [u8; 16], Bytes)> {
    Ok((unsigned(row.get(0)?), row.get(1)?, bytes(row, 2)?))
}

fn sweep(
    tx: &Tx<'_>,
    clock: ExpiryClock,
    cursor: SweepCursor,
) -> Result<Option<SweepCursor>, StoreError> {
    let groups: Vec<(i64, Option<i64>)> = tx
        .prepare("SELECT id, closed_at FROM groups WHERE id > ?1 ORDER BY id LIMIT ?2")?
        .query_map([cursor.0, GROUPS], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<_, _>>()?;
    let horizon = millis(clock.0.saturating_sub(Store::LOG_KEPT));
    let closed_horizon = millis(clock.0.saturating_sub(Store::CLOSED_KEPT));
    let mut budget = SWEEP_ROWS;
    for (group, closed_at) in &groups {
        let ended = closed_at.is_some_and(|closed_at| closed_at < closed_horizon);
        let before = if ended { i64::MAX } else { horizon };
        budget -= tx.execute(
            "DELETE FROM group_log WHERE grp = ?1 AND position IN
                 (SELECT position FROM group_log WHERE grp = ?1 AND position < coalesce(
                      (SELECT position FROM group_log WHERE grp = ?1 AND stored_at >= ?2
                       ORDER BY position LIMIT 1), 9223372036854775807)
                  ORDER BY position LIMIT ?3)",
            params![group, before, budget],
        )?;
        if budget == 0 {
            return Ok(Some(SweepCursor(group - 1)));
        }
        if ended {
            tx.execute("DELETE FROM groups WHERE id = ?1", [group])?;
        }
    }
    let full = i64::try_from(groups.len()).is_ok_and(|found| found == GROUPS);
    Ok(groups
        .last()
        .filter(|_| full)
        .map(|(group, _)| SweepCursor(*group)))
}
