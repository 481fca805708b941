//! Expiry of waiting entries, and the emptying of revoked queues, in bounded steps.

use std::time::Duration;

use commucat_proto::id::QueueId;
use rusqlite::params;

use super::convert::{millis, queue_id};
use super::line::{GAP, Line, Removed};
use super::writer::Tx;
use super::{SWEEP_ROWS, Sqlite};
use crate::store::SweepCursor;
use crate::store::queues::Expired;
use crate::{ExpiryClock, StoreError};

/// Queues that one step looks at.
const QUEUES: i64 = 256;

impl Sqlite {
    pub(crate) async fn expire_entries(
        &self,
        clock: ExpiryClock,
        ttl: Duration,
        cursor: SweepCursor,
    ) -> Result<Expired, StoreError> {
        self.write(move |tx| step(tx, clock, ttl, cursor)).await
    }
}

fn step(
    tx: &mut Tx<'_>,
    clock: ExpiryClock,
    ttl: Duration,
    cursor: SweepCursor,
) -> Result<Expired, StoreError> {
    let queues = waiting_queues(tx, cursor)?;
    // Nothing is old enough while the clock shows less than the time to live.
    let horizon = (clock.0.since(commucat_proto::time::Timestamp::ZERO) >= ttl)
        .then(|| clock.0.saturating_sub(ttl));
    let mut done = Expired::default();
    let mut budget = SWEEP_ROWS;
    for (id, queue) in &queues {
        let Some(mut line) = Line::load(tx, *queue)? else {
            continue;
        };
        let old = match (line.revoked, horizon) {
            (true, _) => i64::MAX,
            (false, Some(horizon)) => millis(horizon),
            (false, None) => i64::MIN,
        };
        let deleted = delete_old(tx, &mut line, old, budget)?;
        done.entries += u64::try_from(deleted).unwrap_or(0);
        budget -= deleted;
        if line.revoked && budget > 0 {
            tx.execute("DELETE FROM queue_groups WHERE queue = ?1", [line.id])?;
            line.set_left_marks(0);
        }
        if !line.revoked
            && deleted > 0
            && let Some(position) = line.leave_gap(tx, clock.0)?
        {
            done.gaps.push((*queue, position));
        }
        line.save(tx)?;
        if budget == 0 {
            done.next = Some(SweepCursor(id - 1));
            return Ok(done);
        }
    }
    let full = i64::try_from(queues.len()).is_ok_and(|found| found == QUEUES);
    done.next = queues
        .last()
        .filter(|_| full)
        .map(|(id, _)| SweepCursor(*id));
    Ok(done)
}

fn waiting_queues(tx: &Tx<'_>, cursor: SweepCursor) -> Result<Vec<(i64, QueueId)>, StoreError> {
    let mut statement = tx.prepare(
        "SELECT id, queue FROM queues
         WHERE id > ?1 AND (entries > 0
             OR (revoked = 1 AND (gap_position IS NOT NULL OR left_marks > 0)))
         ORDER BY id LIMIT ?2",
    )?;
    let found = statement
        .query_map([cursor.0, QUEUES], |row| {
            Ok((row.get(0)?, queue_id(row, 1)?))
        })?
        .collect::<Result<_, _>>()?;
    Ok(found)
}

/// Deletes what was stored at or before `old`, from the oldest on, at most `budget` rows. Gap
/// entries stay, but for those of a revoked queue.
fn delete_old(
    tx: &mut Tx<'_>,
    line: &mut Line,
    old: i64,
    budget: usize,
) -> Result<usize, StoreError> {
    let mut rows = Vec::new();
    {
        let mut statement = tx.prepare(
            "SELECT position, stored_at, kind, grp, body, length FROM queue_entries
             WHERE queue = ?1 ORDER BY position",
        )?;
        let mut found = statement.query([line.id])?;
        while rows.len() < budget
            && let Some(row) = found.next()?
        {
            let removed = Removed::read(row, 2)?;
            if removed.kind == GAP && !line.revoked {
                continue;
            }
            if row.get::<_, i64>(1)? > old {
                break;
            }
            rows.push((row.get::<_, i64>(0)?, removed));
        }
    }
    for (position, removed) in &rows {
        tx.execute(
            "DELETE FROM queue_entries WHERE queue = ?1 AND position = ?2",
            params![line.id, position],
        )?;
        line.removed(tx, removed)?;
    }
    Ok(rows.len())
}
