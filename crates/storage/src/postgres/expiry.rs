//! Expiry of waiting entries, and the emptying of revoked queues, in bounded steps.

use std::collections::BTreeMap;
use std::time::Duration;

use commucat_proto::id::QueueId;
use commucat_proto::time::Timestamp;

use super::changes::{After, removed_columns};
use super::convert::{Uuid, millis, queue_id};
use super::delete::account;
use super::fault::Fault;
use super::spool::Queues;
use super::tx::Tx;
use super::{Postgres, SWEEP_ROWS, transact};
use crate::store::SweepCursor;
use crate::store::queues::Expired;
use crate::{ExpiryClock, StoreError};

/// Queues that one step looks at.
const QUEUES: i64 = 256;

/// Queues with something in them; `due` if the oldest entry is old enough, or all may go.
const WAITING: &str = "SELECT q.id, q.queue, q.revoked OR coalesce((
            SELECT e.stored_at <= $3 FROM queue_entries AS e
            WHERE e.queue = q.queue AND e.kind <> 0 ORDER BY e.position LIMIT 1), false) AS due
    FROM queues AS q
    WHERE q.id > $1 AND (q.entries > 0
        OR (q.revoked AND (q.gap_position IS NOT NULL OR q.left_marks > 0)))
    ORDER BY q.id LIMIT $2";

/// Deletes what was stored at or before `old`, from the oldest on. Gap entries stay, but for those of
/// a revoked queue.
const DELETE: &str = concat!(
    "DELETE FROM queue_entries AS e USING (
         SELECT t.queue, o.position
         FROM unnest($1::uuid[], $2::bigint[], $3::boolean[]) WITH ORDINALITY
             AS t (queue, old, revoked, n)
         CROSS JOIN LATERAL (
             SELECT x.position FROM queue_entries AS x
             WHERE x.queue = t.queue AND x.stored_at <= t.old AND (x.kind <> 0 OR t.revoked)
             ORDER BY x.position LIMIT $4
         ) AS o
         ORDER BY t.n, o.position LIMIT $4
     ) AS d
     WHERE e.queue = d.queue AND e.position = d.position RETURNING ",
    removed_columns!()
);

impl Postgres {
    pub(crate) async fn expire_entries(
        &self,
        clock: ExpiryClock,
        ttl: Duration,
        cursor: SweepCursor,
    ) -> Result<Expired, StoreError> {
        // Nothing is old enough while the clock shows less than the time to live.
        let horizon = if clock.time().since(Timestamp::ZERO) >= ttl {
            millis(clock.time().saturating_sub(ttl))
        } else {
            i64::MIN
        };
        transact!(self, tx => step(&tx, clock.time(), horizon, cursor))
    }
}

async fn step(
    tx: &Tx,
    now: Timestamp,
    horizon: i64,
    cursor: SweepCursor,
) -> Result<Expired, Fault> {
    let waiting = tx.query(WAITING, &[&cursor.0, &QUEUES, &horizon]).await?;
    let last: Option<i64> = waiting.last().map(|row| row.try_get(0)).transpose()?;
    let is_full = i64::try_from(waiting.len()).is_ok_and(|found| found == QUEUES);
    let mut due: Vec<(i64, QueueId)> = Vec::new();
    for row in waiting {
        if row.try_get(2)? {
            due.push((row.try_get(0)?, queue_id(&row, 1)?));
        }
    }
    let mut done = Expired {
        next: last.filter(|_| is_full).map(SweepCursor),
        ..Expired::default()
    };
    if due.is_empty() {
        return Ok(done);
    }
    let ids: Vec<_> = due.iter().map(|(_, queue)| Uuid::from(*queue)).collect();
    let mut queues = Queues::lock(tx, &ids).await?;
    let revoked = due.iter().map(|(_, queue)| {
        let line = queues.line(*queue);
        line.is_some_and(|line| line.revoked)
    });
    let revoked: Vec<bool> = revoked.collect();
    let old: Vec<i64> = revoked
        .iter()
        .map(|revoked| if *revoked { i64::MAX } else { horizon })
        .collect();
    let deleted = tx
        .query(DELETE, &[&ids, &old, &revoked, &SWEEP_ROWS])
        .await?;
    let removed = account(tx, &mut queues, &deleted)?;
    let mut counts: BTreeMap<QueueId, u64> = BTreeMap::new();
    for row in &removed {
        *counts.entry(row.queue).or_default() += 1;
    }
    done.entries = u64::try_from(removed.len()).unwrap_or(u64::MAX);
    let spent = i64::try_from(removed.len()).is_ok_and(|rows| rows >= SWEEP_ROWS);
    if spent {
        // The last queue that was reached may have more.
        let reached = due.iter().rfind(|(_, queue)| counts.contains_key(queue));
        done.next = reached.map(|(id, _)| SweepCursor(id - 1)).or(done.next);
    }
    leave_gaps(&mut queues, &counts, now, &mut done)?;
    if !spent {
        forget_groups(tx, &mut queues, &due).await?;
    }
    queues.write(tx, After::GoOn).await?;
    Ok(done)
}

fn leave_gaps(
    queues: &mut Queues,
    counts: &BTreeMap<QueueId, u64>,
    now: Timestamp,
    done: &mut Expired,
) -> Result<(), Fault> {
    for queue in counts.keys() {
        let Some((line, changes)) = queues.parts(*queue).filter(|(line, _)| !line.revoked) else {
            continue;
        };
        if let Some(position) = line.leave_gap(changes, now)? {
            done.gaps.push((*queue, position));
        }
    }
    Ok(())
}

/// Of revoked queues that are empty now the marks of groups go too.
async fn forget_groups(tx: &Tx, queues: &mut Queues, due: &[(i64, QueueId)]) -> Result<(), Fault> {
    let mut emptied = Vec::new();
    for (_, queue) in due {
        if let Some(line) = queues.line(*queue).filter(|line| line.revoked) {
            line.set_left_marks(0);
            emptied.push(Uuid::from(*queue));
        }
    }
    if !emptied.is_empty() {
        tx.execute(
            "DELETE FROM queue_groups WHERE queue = ANY ($1::uuid[])",
            &[&emptied],
        )
        .await?;
    }
    Ok(())
}
