//! A group's log and its sealed GroupInfos in PostgreSQL.

use bytes::Bytes;
use commucat_proto::id::{GroupId, Handle};
use commucat_proto::time::Timestamp;
use tokio_postgres::Row;

use super::convert::{Uuid, bytes, checksum, millis, number, signed};
use super::fault::Fault;
use super::tx::Tx;
use super::{Postgres, SWEEP_ROWS, transact};
use crate::store::groups::{Commit, LogEntry, LogPage};
use crate::store::{Store, SweepCursor};
use crate::{ExpiryClock, StoreError};

/// Groups that one step of the sweep looks at.
const GROUPS: i64 = 64;
/// Entries of a page at most: what one statement reads ahead.
const PAGE_ENTRIES: i64 = 512;

/// One statement, so that head and entries are of one moment; a row at least, for the head. `n`
/// numbers the entries from `$2` on, `total` sums up their bytes, `found` counts them.
const PAGE: &str = "SELECT g.head, (SELECT min(f.position) FROM group_log AS f WHERE f.grp = g.id),
        e.found, e.position, e.checksum, l.entry
    FROM groups AS g
    LEFT JOIN LATERAL (
        SELECT x.*, count(*) OVER () AS found, row_number() OVER upwards AS n,
            sum(x.size) OVER upwards AS total
        FROM (
            SELECT position, checksum, octet_length(entry) AS size FROM group_log
            WHERE grp = g.id AND position >= $2 ORDER BY position LIMIT $4::bigint + 1
        ) AS x
        WINDOW upwards AS (ORDER BY x.position ROWS UNBOUNDED PRECEDING)
    ) AS e ON e.n = 1 OR (e.n <= $4::bigint AND e.total <= $3::bigint)
    LEFT JOIN group_log AS l ON l.grp = g.id AND l.position = e.position
    WHERE g.group_id = $1 ORDER BY e.position";

/// From the newest on, as many as fit.
const INFOS: &str = "SELECT i.position, i.checksum, i.sealed
    FROM groups AS g JOIN group_infos AS i ON i.grp = g.id
    WHERE g.group_id = $1 ORDER BY i.position DESC LIMIT $2";

impl Postgres {
    pub(crate) async fn log_page(
        &self,
        group: &GroupId,
        from: u64,
        bytes_max: usize,
    ) -> Result<Option<LogPage>, StoreError> {
        let id = &group.as_bytes()[..];
        let bytes_max = i64::try_from(bytes_max).unwrap_or(i64::MAX);
        let found = self
            .query(PAGE, &[&id, &signed(from), &bytes_max, &PAGE_ENTRIES])
            .await?;
        Ok(read_page(&found)?)
    }

    pub(crate) async fn group_infos(
        &self,
        group: &GroupId,
        bytes_max: usize,
    ) -> Result<Vec<(u64, Bytes)>, StoreError> {
        let id = &group.as_bytes()[..];
        let kept = signed(Store::GROUP_INFOS_KEPT);
        let found = self.query(INFOS, &[&id, &kept]).await?;
        let mut infos: Vec<(u64, Bytes)> = Vec::new();
        let mut left = bytes_max;
        for row in &found {
            // Any GroupInfo serves: a damaged one is left out.
            let Some((position, sealed)) = read(row, 0)? else {
                continue;
            };
            if sealed.len() > left && !infos.is_empty() {
                break;
            }
            left = left.saturating_sub(sealed.len());
            infos.push((position, sealed));
        }
        Ok(infos)
    }

    pub(crate) async fn sweep_groups(
        &self,
        clock: ExpiryClock,
        cursor: SweepCursor,
    ) -> Result<Option<SweepCursor>, StoreError> {
        transact!(self, tx => sweep(&tx, clock, cursor))
    }
}

/// `None` if there is no such group.
fn read_page(found: &[Row]) -> Result<Option<LogPage>, Fault> {
    let Some(first) = found.first() else {
        return Ok(None);
    };
    let head = number(first, 0)?;
    let first_kept: Option<i64> = first.try_get(1)?;
    let waiting: Option<i64> = first.try_get(2)?;
    let mut entries = Vec::with_capacity(found.len());
    for row in found {
        if row.try_get::<_, Option<i64>>(3)?.is_none() {
            continue;
        }
        // The log is an order: an entry cannot be left out.
        let (position, entry) = read(row, 3)?.ok_or_else(|| Fault::corrupt("group_log"))?;
        entries.push(LogEntry { position, entry });
    }
    let returned = i64::try_from(entries.len()).unwrap_or(i64::MAX);
    Ok(Some(LogPage {
        head,
        first_kept: match first_kept {
            Some(_) => number(first, 1)?,
            None => head + 1,
        },
        entries,
        more: waiting.is_some_and(|waiting| waiting > returned),
    }))
}

/// Reads position, checksum and bytes from column `first` on; `None` if the bytes are damaged.
fn read(row: &Row, first: usize) -> Result<Option<(u64, Bytes)>, Fault> {
    let position = number(row, first)?;
    let Uuid(expected) = row.try_get(first + 1)?;
    let value = bytes(row, first + 2)?;
    Ok((checksum(&value) == expected).then_some((position, value)))
}

/// Appends a commit with the handles whose Welcome was refused.
pub(super) async fn append(
    tx: &Tx,
    group: i64,
    position: u64,
    (commit, refused): (&Commit, &[Handle]),
    now: Timestamp,
) -> Result<(), Fault> {
    let refused: Vec<u8> = refused
        .iter()
        .flat_map(|handle| *handle.as_bytes())
        .collect();
    tx.execute(
        "INSERT INTO group_log (grp, position, body_hash, refused, stored_at, checksum, entry)
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
        &[
            &group,
            &signed(position),
            &&commit.body_hash[..],
            &refused,
            &millis(now),
            &Uuid(checksum(&commit.entry)),
            &&commit.entry[..],
        ],
    )
    .await?;
    Ok(())
}

/// Keeps the GroupInfo of `position` and those of the entries just before it.
pub(super) async fn keep_group_info(
    tx: &Tx,
    group: i64,
    position: u64,
    sealed: &Bytes,
) -> Result<(), Fault> {
    tx.execute(
        "INSERT INTO group_infos (grp, position, checksum, sealed) VALUES ($1, $2, $3, $4)",
        &[
            &group,
            &signed(position),
            &Uuid(checksum(sealed)),
            &&sealed[..],
        ],
    )
    .await?;
    let old = signed(position) - signed(Store::GROUP_INFOS_KEPT);
    tx.execute(
        "DELETE FROM group_infos WHERE grp = $1 AND position <= $2",
        &[&group, &old],
    )
    .await?;
    Ok(())
}

/// If the entry at `position` is of this bundle: the handles refused then.
pub(super) async fn repeat(
    tx: &Tx,
    group: i64,
    position: u64,
    body_hash: &[u8; 32],
) -> Result<Option<Vec<Handle>>, Fault> {
    let found = tx
        .row(
            "SELECT refused FROM group_log WHERE grp = $1 AND position = $2 AND body_hash = $3",
            &[&group, &signed(position), &&body_hash[..]],
        )
        .await?;
    let Some(row) = found else { return Ok(None) };
    let refused: &[u8] = row.try_get(0)?;
    refused
        .chunks(Handle::LEN)
        .map(|raw| Handle::parse(raw).map_err(|_| Fault::corrupt("group_log")))
        .collect::<Result<_, _>>()
        .map(Some)
}

async fn sweep(
    tx: &Tx,
    clock: ExpiryClock,
    cursor: SweepCursor,
) -> Result<Option<SweepCursor>, Fault> {
    let groups = tx
        .query(
            "SELECT id, closed_at FROM groups WHERE id > $1 ORDER BY id LIMIT $2",
            &[&cursor.0, &GROUPS],
        )
        .await?;
    let horizon = millis(clock.time().saturating_sub(Store::LOG_KEPT));
    let closed_horizon = millis(clock.time().saturating_sub(Store::CLOSED_KEPT));
    let (mut ids, mut before, mut ended) = (Vec::new(), Vec::new(), Vec::new());
    for row in &groups {
        let (id, closed_at): (i64, Option<i64>) = (row.try_get(0)?, row.try_get(1)?);
        let is_ended = closed_at.is_some_and(|closed_at| closed_at < closed_horizon);
        ids.push(id);
        before.push(if is_ended { i64::MAX } else { horizon });
        ended.extend(is_ended.then_some(id));
    }
    // Of each group the entries before the first that is young enough.
    let deleted = tx
        .change(
            "DELETE FROM group_log AS l USING (
                 SELECT t.grp, o.position
                 FROM unnest($1::bigint[], $2::bigint[]) AS t (grp, before)
                 CROSS JOIN LATERAL (
                     SELECT x.position FROM group_log AS x
                     WHERE x.grp = t.grp AND x.position < coalesce((
                         SELECT y.position FROM group_log AS y
                         WHERE y.grp = t.grp AND y.stored_at >= t.before
                         ORDER BY y.position LIMIT 1), 9223372036854775807)
                     ORDER BY x.position LIMIT $3::bigint) AS o
                 ORDER BY t.grp, o.position LIMIT $3::bigint) AS d
             WHERE l.grp = d.grp AND l.position = d.position RETURNING l.grp",
            &[&ids, &before, &SWEEP_ROWS],
        )
        .await?;
    if i64::try_from(deleted.len()).is_ok_and(|rows| rows >= SWEEP_ROWS) {
        let mut reached = cursor.0;
        for row in &deleted {
            reached = reached.max(row.try_get::<_, i64>(0)? - 1);
        }
        return Ok(Some(SweepCursor(reached)));
    }
    if !ended.is_empty() {
        tx.execute("DELETE FROM groups WHERE id = ANY ($1)", &[&ended])
            .await?;
    }
    let full = i64::try_from(groups.len()).is_ok_and(|found| found == GROUPS);
    Ok(ids.last().filter(|_| full).map(|id| SweepCursor(*id)))
}
