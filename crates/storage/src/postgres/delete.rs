//! Deleting what devices have acknowledged: many queues in one transaction of two round trips.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use commucat_proto::time::Timestamp;
use tokio_postgres::Row;

use super::changes::{After, Removed, removed_columns};
use super::connections::Connections;
use super::convert::{Uuid, signed};
use super::fault::{Fault, within};
use super::line;
use super::merge::Merge;
use super::pipeline::Pipeline;
use super::spool::{Begin, Queues};
use super::tx::Tx;
use super::{Postgres, TRANSACTION_WAIT, TRIES_MAX, transact};
use crate::StoreError;
use crate::store::queues::RowId;
use crate::tally::Tally;

const DELETE: &str = concat!(
    "DELETE FROM queue_entries AS e
     USING unnest($1::uuid[], $2::bigint[], $3::uuid[]) AS t (queue, position, key)
     WHERE e.queue = t.queue AND e.position = t.position AND e.key = t.key RETURNING ",
    removed_columns!()
);

impl Postgres {
    pub(crate) async fn delete_exact(&self, rows: Vec<RowId>) -> Result<u64, StoreError> {
        self.0.tally.count_write_request();
        if rows.is_empty() {
            return Ok(0);
        }
        self.0.delete.call(rows).await
    }

    pub(crate) async fn replace_by_gap(
        &self,
        rows: Vec<RowId>,
        now: Timestamp,
    ) -> Result<u64, StoreError> {
        transact!(self, tx => async {
            let (removed, mut queues) = remove(&tx, rows.iter(), Begin::Earlier).await?;
            let affected: BTreeSet<_> = removed.iter().map(|row| row.queue).collect();
            for queue in affected {
                if let Some((line, changes)) = queues.parts(queue) {
                    line.leave_gap(changes, now)?;
                }
            }
            queues.write(&tx, After::GoOn).await?;
            Ok::<_, Fault>(u64::try_from(removed.len()).unwrap_or(u64::MAX))
        })
    }
}

/// The merged work.
pub(super) struct Delete {
    connections: Arc<Connections>,
    tally: Arc<Tally>,
}

impl Delete {
    pub(super) const fn new(connections: Arc<Connections>, tally: Arc<Tally>) -> Self {
        Self { connections, tally }
    }

    async fn attempt(&self, calls: &[Vec<RowId>]) -> Result<Vec<u64>, Fault> {
        let client = self.connections.get_for_merger().await?;
        let tx = Tx::new(client, Arc::clone(&self.tally));
        let (removed, queues) = remove(&tx, calls.iter().flatten(), Begin::Here).await?;
        queues.write(&tx, After::Commit).await?;
        tx.committed();
        let name = |row: &Removed| (row.queue, row.position, row.key);
        let mut removed: HashSet<_> = removed.iter().map(name).collect();
        let counts = calls.iter().map(|rows| {
            let found = rows
                .iter()
                .filter(|row| removed.remove(&(row.queue, signed(row.position.get()), row.key)));
            u64::try_from(found.count()).unwrap_or(u64::MAX)
        });
        Ok(counts.collect())
    }
}

impl Merge for Delete {
    type Call = Vec<RowId>;
    type Answer = u64;

    fn rows(call: &Self::Call) -> usize {
        call.len()
    }

    async fn run(&self, calls: &[Self::Call]) -> Result<Vec<u64>, StoreError> {
        let mut tries = 1;
        loop {
            match within(TRANSACTION_WAIT, self.attempt(calls)).await {
                Err(failed) if failed.is_conflict() && tries < TRIES_MAX => tries += 1,
                outcome => return Ok(outcome?),
            }
        }
    }
}

/// Locks the queues of `rows`, deletes those that are there, and accounts for them.
async fn remove(
    tx: &Tx,
    rows: impl Iterator<Item = &RowId>,
    begin: Begin,
) -> Result<(Vec<Removed>, Queues), Fault> {
    let (mut queue, mut position, mut key) = (Vec::new(), Vec::new(), Vec::new());
    for row in rows {
        queue.push(Uuid::from(row.queue));
        position.push(signed(row.position.get()));
        key.push(Uuid::from(row.key));
    }
    let distinct: BTreeSet<_> = queue.iter().copied().collect();
    let distinct: Vec<_> = distinct.into_iter().collect();
    let lock = tx.prepare(line::LOCK).await?;
    let delete = tx.prepare(DELETE).await?;
    let mut pipeline = Pipeline::new(tx);
    pipeline.plain(begin.statement());
    pipeline.query(lock, vec![&distinct]);
    pipeline.query(delete, vec![&queue, &position, &key]);
    let answers = pipeline.run().await?;
    let [_, locked, deleted] = answers.as_slice() else {
        return Err(Fault::corrupt("answer"));
    };
    let mut queues = Queues::of(locked)?;
    let removed = account(tx, &mut queues, deleted)?;
    Ok((removed, queues))
}

/// Accounts for deleted rows, of which [`removed_columns`] were returned.
pub(super) fn account(
    tx: &Tx,
    queues: &mut Queues,
    deleted: &[Row],
) -> Result<Vec<Removed>, Fault> {
    tx.count(u64::try_from(deleted.len()).unwrap_or(u64::MAX));
    let removed: Result<Vec<_>, Fault> = deleted.iter().map(Removed::read).collect();
    let removed = removed?;
    for row in &removed {
        if let Some((line, changes)) = queues.parts(row.queue) {
            line.removed(changes, row);
        }
    }
    Ok(removed)
}
