//! The outbox in SQLite.

use std::time::Duration;

use bytes::Bytes;
use commucat_proto::id::{DedupeKey, Domain};
use commucat_proto::time::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::Sqlite;
use super::convert::{bytes, length, millis, signed, text_id, time, unsigned};
use super::writer::Tx;
use crate::store::outbox::{
    NewOutboxEntry, NodeId, OutboxContent, OutboxLane, OutboxPage, OutboxRow, OutboxRowId,
    OutboxState, Outboxed,
};
use crate::store::queues::QueuePosition;
use crate::stored::outbox_checksum;
use crate::tally::Tally;
use crate::{ExpiryClock, StoreError};

impl Sqlite {
    pub(crate) async fn append_outbox(
        &self,
        entries: Vec<NewOutboxEntry>,
        now: Timestamp,
    ) -> Result<Vec<Outboxed>, StoreError> {
        self.write(move |tx| entries.iter().map(|entry| append(tx, entry, now)).collect())
            .await
    }

    pub(crate) async fn outbox_page(
        &self,
        lane: &OutboxLane,
        after: QueuePosition,
        bytes_max: usize,
        rows_max: usize,
    ) -> Result<OutboxPage, StoreError> {
        let lane = lane.clone();
        let tally = std::sync::Arc::clone(&self.0.tally);
        self.read(move |connection| {
            let Some((id, next)) = find(connection, &lane)? else {
                return Ok(OutboxPage::default());
            };
            let mut page = OutboxPage {
                head: QueuePosition::new(unsigned(next - 1)),
                ..OutboxPage::default()
            };
            let mut statement = connection.prepare_cached(
                "SELECT position, key, stored_at, checksum, event, return_to FROM outbox
                 WHERE lane = ?1 AND position > ?2 ORDER BY position",
            )?;
            let mut rows = statement.query(params![id, signed(after.get())])?;
            let mut size = 0_usize;
            while let Some(row) = rows.next()? {
                let event = row.get_ref(4)?.as_blob().map_err(rusqlite::Error::from)?;
                size = size.saturating_add(event.len());
                let full = size > bytes_max || page.rows.len() >= rows_max;
                if full && !page.rows.is_empty() {
                    page.more = true;
                    break;
                }
                page.rows.push(read(row, &tally)?);
            }
            Ok(page)
        })
        .await
    }

    pub(crate) async fn delete_outbox(&self, rows: Vec<OutboxRowId>) -> Result<u64, StoreError> {
        self.write(move |tx| {
            rows.iter()
                .try_fold(0, |deleted, row| Ok(deleted + delete(tx, row)?))
        })
        .await
    }

    pub(crate) async fn outbox_states(&self) -> Result<Vec<OutboxState>, StoreError> {
        self.read(|connection| {
            let states = connection
                .prepare_cached(
                    "SELECT peer, lane, next_position, entries, bytes FROM outbox_lanes
                     WHERE entries > 0 ORDER BY peer, lane",
                )?
                .query_map([], |row| {
                    Ok(OutboxState {
                        lane: OutboxLane {
                            peer: text_id(row, 0, Domain::parse)?,
                            number: row.get(1)?,
                        },
                        head: QueuePosition::new(unsigned(row.get::<_, i64>(2)? - 1)),
                        entries: unsigned(row.get(3)?),
                        bytes: unsigned(row.get(4)?),
                    })
                })?
                .collect::<Result<_, _>>()?;
            Ok(states)
        })
        .await
    }

    pub(crate) async fn outbox_expired(
        &self,
        clock: ExpiryClock,
        ttl: Duration,
        rows_max: usize,
    ) -> Result<Vec<(OutboxLane, OutboxRow)>, StoreError> {
        // Nothing is old enough while the clock shows less than the time to live.
        if clock.0.since(Timestamp::ZERO) < ttl {
            return Ok(Vec::new());
        }
        let horizon = clock.0.saturating_sub(ttl);
        let tally = std::sync::Arc::clone(&self.0.tally);
        self.read(move |connection| expired(connection, horizon, rows_max, &tally))
            .await
    }

    #[expect(
        clippy::unused_async,
        reason = "the contract of every backend; here one process holds the store's lock"
    )]
    pub(crate) async fn hold_outbox(
        &self,
        _peer: &Domain,
        _node: NodeId,
        _lease: Duration,
    ) -> Result<bool, StoreError> {
        Ok(true)
    }
}

/// Appends one entry in the running transaction.
pub(super) fn append(
    tx: &Tx<'_>,
    entry: &NewOutboxEntry,
    now: Timestamp,
) -> Result<Outboxed, StoreError> {
    let (id, next) = match find(tx.connection, &entry.lane)? {
        Some(found) => found,
        None => create(tx, &entry.lane, now)?,
    };
    let held: Option<i64> = tx.row(
        "SELECT position FROM outbox WHERE lane = ?1 AND key = ?2",
        params![id, entry.key.as_bytes()],
        |row| row.get(0),
    )?;
    if let Some(position) = held {
        return Ok(Outboxed::Repeat(QueuePosition::new(unsigned(position))));
    }
    if is_full(tx, entry)? {
        return Ok(Outboxed::Full);
    }
    tx.execute(
        "INSERT INTO outbox (lane, position, key, stored_at, checksum, event, return_to)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        params![
            id,
            next,
            entry.key.as_bytes(),
            millis(now),
            outbox_checksum(&entry.event, entry.return_to.as_deref()),
            entry.event.as_ref(),
            entry.return_to.as_deref(),
        ],
    )?;
    tx.execute(
        "UPDATE outbox_lanes SET next_position = next_position + 1, entries = entries + 1,
             bytes = bytes + ?2 WHERE id = ?1",
        params![id, length(&entry.event)],
    )?;
    Ok(Outboxed::Stored(QueuePosition::new(unsigned(next))))
}

/// Row and next position of a lane.
fn find(connection: &Connection, lane: &OutboxLane) -> Result<Option<(i64, i64)>, StoreError> {
    let found = connection
        .prepare_cached("SELECT id, next_position FROM outbox_lanes WHERE peer = ?1 AND lane = ?2")?
        .query_row(params![lane.peer.as_str(), lane.number], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .optional()?;
    Ok(found)
}

fn create(tx: &Tx<'_>, lane: &OutboxLane, now: Timestamp) -> Result<(i64, i64), StoreError> {
    let first = millis(now).max(1);
    tx.execute(
        "INSERT INTO outbox_lanes (peer, lane, next_position) VALUES (?1, ?2, ?3)",
        params![lane.peer.as_str(), lane.number, first],
    )?;
    Ok((tx.connection.last_insert_rowid(), first))
}

fn is_full(tx: &Tx<'_>, entry: &NewOutboxEntry) -> Result<bool, StoreError> {
    let used = tx.row(
        "SELECT coalesce(sum(entries), 0), coalesce(sum(bytes), 0) FROM outbox_lanes
         WHERE peer = ?1",
        [entry.lane.peer.as_str()],
        |row| Ok((unsigned(row.get(0)?), unsigned(row.get(1)?))),
    )?;
    let (entries, bytes) = used.unwrap_or_default();
    let size = unsigned(length(&entry.event));
    Ok(entries >= tx.outbox.entries || bytes.saturating_add(size) > tx.outbox.bytes)
}

fn delete(tx: &Tx<'_>, row: &OutboxRowId) -> Result<u64, StoreError> {
    let Some((id, _)) = find(tx.connection, &row.lane)? else {
        return Ok(0);
    };
    let size: Option<i64> = tx.row(
        "DELETE FROM outbox WHERE lane = ?1 AND position = ?2 AND key = ?3
         RETURNING length(event)",
        params![id, signed(row.position.get()), row.key.as_bytes()],
        |row| row.get(0),
    )?;
    let Some(size) = size else {
        return Ok(0);
    };
    tx.execute(
        "UPDATE outbox_lanes SET entries = entries - 1, bytes = bytes - ?2 WHERE id = ?1",
        params![id, size],
    )?;
    Ok(1)
}

fn expired(
    connection: &Connection,
    horizon: Timestamp,
    rows_max: usize,
    tally: &Tally,
) -> Result<Vec<(OutboxLane, OutboxRow)>, StoreError> {
    let lanes: Vec<(i64, OutboxLane)> = connection
        .prepare_cached(
            "SELECT id, peer, lane FROM outbox_lanes WHERE entries > 0 ORDER BY peer, lane",
        )?
        .query_map([], |row| {
            let peer = text_id(row, 1, Domain::parse)?;
            let number = row.get(2)?;
            Ok((row.get(0)?, OutboxLane { peer, number }))
        })?
        .collect::<Result<_, _>>()?;
    let mut found = Vec::new();
    for (id, lane) in lanes {
        let mut statement = connection.prepare_cached(
            "SELECT position, key, stored_at, checksum, event, return_to FROM outbox
             WHERE lane = ?1 ORDER BY position",
        )?;
        let mut rows = statement.query([id])?;
        while let Some(row) = rows.next()? {
            if found.len() >= rows_max {
                return Ok(found);
            }
            if time(row, 2)? > horizon {
                break;
            }
            found.push((lane.clone(), read(row, tally)?));
        }
    }
    Ok(found)
}

fn read(row: &Row<'_>, tally: &Tally) -> rusqlite::Result<OutboxRow> {
    let event = bytes(row, 4)?;
    let return_to = row.get_ref(5)?.as_blob_or_null()?;
    let return_to = return_to.map(Bytes::copy_from_slice);
    let stored: [u8; 16] = row.get(3)?;
    let content = if stored == outbox_checksum(&event, return_to.as_deref()) {
        OutboxContent::Event { event, return_to }
    } else {
        tally.count_corrupt();
        OutboxContent::Corrupt
    };
    Ok(OutboxRow {
        position: QueuePosition::new(unsigned(row.get(0)?)),
        key: DedupeKey::new(row.get(1)?),
        stored_at: time(row, 2)?,
        content,
    })
}
