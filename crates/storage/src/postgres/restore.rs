//! What a database needs that its own tools have put back to an earlier state.

use commucat_proto::id::QueueId;
use commucat_proto::time::Timestamp;

use super::changes::After;
use super::convert::{Uuid, queue_id};
use super::fault::Fault;
use super::meta;
use super::spool::Queues;
use super::tx::Tx;
use super::{Postgres, transact};
use crate::StoreError;
use crate::store::backup::{POSITIONS_SKIPPED, RESTORED};

/// Queues of one transaction.
const QUEUES: i64 = 256;

const LIVE: &str =
    "SELECT id, queue FROM queues WHERE id > $1 AND NOT revoked ORDER BY id LIMIT $2";

/// Sessions of others with the rights of this one: servers, for commands have a name of their own.
const OTHERS: &str = "SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND usename = current_user
        AND application_name <> current_setting('application_name')";

impl Postgres {
    pub(crate) async fn others_connected(&self) -> Result<u64, StoreError> {
        let row = self.row(OTHERS, &[]).await?;
        let count: Option<i64> = row
            .map(|row| row.try_get(0))
            .transpose()
            .map_err(Fault::from)?;
        Ok(count
            .and_then(|count| u64::try_from(count).ok())
            .unwrap_or(0))
    }

    /// Interrupted, it is done by doing it again: positions go on further still, and a queue that has
    /// a gap entry gets no second one.
    pub(crate) async fn ready_after_restore(&self, now: Timestamp) -> Result<(), StoreError> {
        let mut after = Some(0);
        while let Some(id) = after {
            after = transact!(self, tx => ready_queues(&tx, id, now))?;
        }
        transact!(self, tx => ready_rest(&tx, now))
    }
}

/// Some queues behind the row `after`; the last one, if there may be more.
async fn ready_queues(tx: &Tx, after: i64, now: Timestamp) -> Result<Option<i64>, Fault> {
    let found = tx.query(LIVE, &[&after, &QUEUES]).await?;
    let mut rows: Vec<(i64, QueueId)> = Vec::with_capacity(found.len());
    for row in found {
        rows.push((row.try_get(0)?, queue_id(&row, 1)?));
    }
    let ids: Vec<_> = rows.iter().map(|(_, queue)| Uuid::from(*queue)).collect();
    let mut queues = Queues::lock(tx, &ids).await?;
    for (_, queue) in &rows {
        if let Some((line, changes)) = queues.parts(*queue) {
            line.skip(POSITIONS_SKIPPED);
            line.leave_gap(changes, now)?;
        }
    }
    queues.write(tx, After::GoOn).await?;
    let is_full = i64::try_from(rows.len()).is_ok_and(|found| found == QUEUES);
    Ok(rows.last().filter(|_| is_full).map(|(id, _)| *id))
}

async fn ready_rest(tx: &Tx, now: Timestamp) -> Result<(), Fault> {
    tx.execute(
        "UPDATE outbox_lanes SET next_position = next_position + $1",
        &[&POSITIONS_SKIPPED],
    )
    .await?;
    // The hash stays: what was handed out must not be published again.
    tx.execute(
        "UPDATE key_packages SET package = NULL WHERE NOT last_resort",
        &[],
    )
    .await?;
    meta::put(tx, RESTORED, &now.as_millis().to_be_bytes()).await
}
