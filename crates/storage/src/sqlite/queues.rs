//! Queues in SQLite.

use std::collections::BTreeMap;

use commucat_proto::id::{DedupeKey, GroupId, QueueId};
use commucat_proto::time::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, Row as SqlRow, params};

use super::Sqlite;
use super::convert::{bytes, checksum, millis, random_id, signed, time, unsigned};
use super::line::{GAP, Line, Removed};
use super::shown::ShownGaps;
use super::writer::Tx;
use crate::StoreError;
use crate::store::QueueLimits;
use crate::store::queues::{
    Content, Delivery, EntryKind, Left, NewEntry, Page, QueuePosition, QueueSpooled, QueueState,
    Reference, ReferenceState, Refusal, Row, RowId, Spooled,
};
use crate::tally::Tally;

impl Sqlite {
    pub(crate) async fn spool(
        &self,
        deliveries: Vec<Delivery>,
        now: Timestamp,
    ) -> Result<Vec<QueueSpooled>, StoreError> {
        self.write(move |tx| {
            deliveries
                .iter()
                .map(|one| append(tx, one.queue, &one.entries, now))
                .collect()
        })
        .await
    }

    pub(crate) async fn page(
        &self,
        queue: &QueueId,
        after: QueuePosition,
        bytes_max: usize,
        rows_max: usize,
    ) -> Result<Option<Page>, StoreError> {
        let queue = *queue;
        let shown = std::sync::Arc::clone(&self.0.shown);
        let tally = std::sync::Arc::clone(&self.0.tally);
        self.read(move |connection| {
            let Some((id, head)) = live_queue(connection, queue)? else {
                return Ok(None);
            };
            let span = Span {
                queue,
                id,
                after,
                bytes_max,
                rows_max,
            };
            read_page(connection, &span, head, (&shown, &tally)).map(Some)
        })
        .await
    }

    pub(crate) async fn delete_exact(&self, rows: Vec<RowId>) -> Result<u64, StoreError> {
        self.write(move |tx| {
            for_each_queue(&rows, |queue, rows| delete_from(tx, queue, rows, None))
        })
        .await
    }

    pub(crate) async fn replace_by_gap(
        &self,
        rows: Vec<RowId>,
        now: Timestamp,
    ) -> Result<u64, StoreError> {
        self.write(move |tx| {
            for_each_queue(&rows, |queue, rows| delete_from(tx, queue, rows, Some(now)))
        })
        .await
    }

    pub(crate) async fn queue_state(
        &self,
        queue: &QueueId,
    ) -> Result<Option<QueueState>, StoreError> {
        let queue = *queue;
        self.read(move |connection| {
            let state = connection
                .prepare_cached(
                    "SELECT next_position - 1, entries, bytes FROM queues
                     WHERE queue = ?1 AND revoked = 0",
                )?
                .query_row([queue.as_bytes()], |row| {
                    Ok(QueueState {
                        head: QueuePosition::new(unsigned(row.get(0)?)),
                        entries: unsigned(row.get(1)?),
                        bytes: unsigned(row.get(2)?),
                    })
                })
                .optional()?;
            Ok(state)
        })
        .await
    }

    pub(crate) async fn queue_heads(
        &self,
        queues: Vec<QueueId>,
    ) -> Result<Vec<Option<QueuePosition>>, StoreError> {
        self.read(move |connection| {
            queues
                .into_iter()
                .map(|queue| Ok(live_queue(connection, queue)?.map(|(_, head)| head)))
                .collect()
        })
        .await
    }

    pub(crate) async fn reference_states(
        &self,
        references: Vec<Reference>,
    ) -> Result<Vec<ReferenceState>, StoreError> {
        self.read(move |connection| {
            references
                .iter()
                .map(|reference| state_of(connection, reference))
                .collect()
        })
        .await
    }

    pub(crate) async fn leave_group(
        &self,
        queue: &QueueId,
        group: &GroupId,
        now: Timestamp,
    ) -> Result<Left, StoreError> {
        let (queue, group) = (*queue, *group);
        self.write(move |tx| leave(tx, queue, &group, now)).await
    }
}

/// Makes a queue; returns its row and id.
pub(super) fn create(tx: &Tx<'_>) -> Result<(i64, QueueId), StoreError> {
    let queue = QueueId::new(random_id()?);
    tx.execute("INSERT INTO queues (queue) VALUES (?1)", [queue.as_bytes()])?;
    Ok((tx.connection.last_insert_rowid(), queue))
}

/// Shuts a queue for good. Its entries go in the steps of expiry.
pub(super) fn revoke(tx: &Tx<'_>, row: i64) -> Result<(), StoreError> {
    tx.execute("UPDATE queues SET revoked = 1 WHERE id = ?1", [row])?;
    Ok(())
}

/// Appends to one queue in the running transaction.
pub(super) fn append(
    tx: &mut Tx<'_>,
    queue: QueueId,
    entries: &[NewEntry],
    now: Timestamp,
) -> Result<QueueSpooled, StoreError> {
    let mut line = match Line::load(tx, queue)? {
        Some(line) if !line.revoked => line,
        _ => {
            let outcomes = entries
                .iter()
                .map(|_| Spooled::Refused(Refusal::Gone))
                .collect();
            return Ok(QueueSpooled {
                queue,
                outcomes,
                head: QueuePosition::START,
            });
        }
    };
    let outcomes: Result<Vec<_>, _> = entries
        .iter()
        .map(|entry| line.append(tx, entry, now))
        .collect();
    let outcomes = outcomes?;
    let head = line.head();
    line.save(tx)?;
    Ok(QueueSpooled {
        queue,
        outcomes,
        head,
    })
}

struct Span {
    queue: QueueId,
    id: i64,
    after: QueuePosition,
    bytes_max: usize,
    rows_max: usize,
}

fn live_queue(
    connection: &Connection,
    queue: QueueId,
) -> Result<Option<(i64, QueuePosition)>, StoreError> {
    let found = connection
        .prepare_cached(
            "SELECT id, next_position - 1 FROM queues WHERE queue = ?1 AND revoked = 0",
        )?
        .query_row([queue.as_bytes()], |row| {
            Ok((row.get(0)?, QueuePosition::new(unsigned(row.get(1)?))))
        })
        .optional()?;
    Ok(found)
}

fn read_page(
    connection: &Connection,
    span: &Span,
    head: QueuePosition,
    (shown, tally): (&ShownGaps, &Tally),
) -> Result<Page, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT e.position, e.key, e.stored_at, e.kind, e.length, g.group_id, b.checksum, b.bytes
         FROM queue_entries AS e
         LEFT JOIN queue_groups AS g ON g.id = e.grp
         LEFT JOIN bodies AS b ON b.id = e.body
         WHERE e.queue = ?1 AND e.position > ?2 ORDER BY e.position LIMIT ?3",
    )?;
    let limit = i64::try_from(span.rows_max.max(1))
        .unwrap_or(i64::MAX)
        .saturating_add(1);
    let mut found = statement.query(params![span.id, signed(span.after.get()), limit])?;
    let mut page = Page {
        rows: Vec::new(),
        head,
        more: false,
    };
    let mut bytes_left = u64::try_from(span.bytes_max).unwrap_or(u64::MAX);
    while let Some(row) = found.next()? {
        let length = unsigned(row.get(4)?);
        let full = page.rows.len() >= span.rows_max.max(1) || length > bytes_left;
        if full && !page.rows.is_empty() {
            page.more = true;
            break;
        }
        bytes_left = bytes_left.saturating_sub(length);
        let row = read_row(row)?;
        match row.content {
            // Before the page is returned: from here on a refusal makes a new gap entry.
            Content::Gap => shown.mark(span.queue, signed(row.position.get())),
            Content::Corrupt => tally.count_corrupt(),
            Content::Frame { .. } => {}
        }
        page.rows.push(row);
    }
    Ok(page)
}

fn read_row(row: &SqlRow<'_>) -> Result<Row, StoreError> {
    let kind: i64 = row.get(3)?;
    let content = if kind == GAP {
        Content::Gap
    } else {
        read_frame(row, kind).unwrap_or(Content::Corrupt)
    };
    Ok(Row {
        position: QueuePosition::new(unsigned(row.get(0)?)),
        key: DedupeKey::new(row.get(1)?),
        stored_at: time(row, 2)?,
        content,
    })
}

/// `None` if anything of it is missing or does not fit its checksum.
fn read_frame(row: &SqlRow<'_>, kind: i64) -> Option<Content> {
    let kind = u8::try_from(kind).ok().and_then(EntryKind::from_code)?;
    let group = row.get(5).map(GroupId::new).ok()?;
    let expected: [u8; 16] = row.get(6).ok()?;
    let body = bytes(row, 7).ok()?;
    (checksum(&body) == expected).then_some(Content::Frame { kind, group, body })
}

fn state_of(connection: &Connection, reference: &Reference) -> Result<ReferenceState, StoreError> {
    let found: Option<(bool, Option<i64>)> = connection
        .prepare_cached(
            "SELECT q.revoked, g.left_at FROM queues AS q
             LEFT JOIN queue_groups AS g ON g.queue = q.id AND g.group_id = ?2
             WHERE q.queue = ?1",
        )?
        .query_row(
            params![reference.queue.as_bytes(), reference.group.as_bytes()],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .optional()?;
    Ok(match found {
        None => ReferenceState::Unknown,
        Some((true, _)) => ReferenceState::Gone,
        Some((false, Some(left_at))) if millis(reference.issued) <= left_at => ReferenceState::Gone,
        Some((false, _)) => ReferenceState::Live,
    })
}

fn for_each_queue(
    rows: &[RowId],
    mut work: impl FnMut(QueueId, &[&RowId]) -> Result<u64, StoreError>,
) -> Result<u64, StoreError> {
    let mut by_queue: BTreeMap<QueueId, Vec<&RowId>> = BTreeMap::new();
    for row in rows {
        by_queue.entry(row.queue).or_default().push(row);
    }
    by_queue
        .into_iter()
        .try_fold(0, |sum, (queue, rows)| Ok(sum + work(queue, &rows)?))
}

fn delete_from(
    tx: &mut Tx<'_>,
    queue: QueueId,
    rows: &[&RowId],
    gap: Option<Timestamp>,
) -> Result<u64, StoreError> {
    let Some(mut line) = Line::load(tx, queue)? else {
        return Ok(0);
    };
    let mut deleted = 0;
    for row in rows {
        let removed = tx.row(
            "DELETE FROM queue_entries WHERE queue = ?1 AND position = ?2 AND key = ?3
             RETURNING kind, grp, body, length",
            params![line.id, signed(row.position.get()), row.key.as_bytes()],
            |row| Removed::read(row, 0),
        )?;
        if let Some(removed) = removed {
            line.removed(tx, &removed)?;
            deleted += 1;
        }
    }
    if deleted > 0 {
        if let Some(now) = gap {
            line.leave_gap(tx, now)?;
        }
        line.save(tx)?;
    }
    Ok(deleted)
}

fn leave(
    tx: &mut Tx<'_>,
    queue: QueueId,
    group: &GroupId,
    now: Timestamp,
) -> Result<Left, StoreError> {
    let mut line = match Line::load(tx, queue)? {
        Some(line) if !line.revoked => line,
        _ => return Ok(Left::UnknownQueue),
    };
    let mark: Option<(i64, Option<i64>)> = tx.row(
        "SELECT id, left_at FROM queue_groups WHERE queue = ?1 AND group_id = ?2",
        params![line.id, group.as_bytes()],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    let is_new = !matches!(mark, Some((_, Some(_))));
    if is_new && line.left_marks() >= signed(QueueLimits::LEFT_MARKS) {
        return Ok(Left::TooMany);
    }
    line.set_left_marks(line.left_marks() + i64::from(is_new));
    tx.execute(
        "INSERT INTO queue_groups (queue, group_id, left_at) VALUES (?1, ?2, ?3)
         ON CONFLICT (queue, group_id)
         DO UPDATE SET left_at = max(coalesce(left_at, 0), excluded.left_at)",
        params![line.id, group.as_bytes(), millis(now)],
    )?;
    let mut dropped = 0;
    if let Some((row, _)) = mark {
        for removed in delete_group_entries(tx, line.id, row)? {
            line.removed(tx, &removed)?;
            dropped += 1;
        }
    }
    line.save(tx)?;
    Ok(Left::Marked { dropped })
}

fn delete_group_entries(tx: &Tx<'_>, line: i64, group: i64) -> Result<Vec<Removed>, StoreError> {
    let mut statement = tx.prepare(
        "DELETE FROM queue_entries WHERE queue = ?1 AND grp = ?2 RETURNING kind, grp, body, length",
    )?;
    let removed = statement.query_map([line, group], |row| Removed::read(row, 0))?;
    let removed: Result<Vec<_>, rusqlite::Error> = removed.collect();
    Ok(removed?)
}
