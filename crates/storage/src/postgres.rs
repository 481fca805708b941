//! PostgreSQL: the store of a server with traffic, and of several nodes of one domain.
//!
//! The rows of queues are the locks (see the migration). What mailboxes spool and acknowledge is
//! merged: the calls that wait become one transaction of two round trips. Everything else is a
//! transaction of its own. Connections and the merging tasks live on a thread of the store, so that
//! it can be used from any runtime.

use std::sync::Arc;
use std::time::Duration;

use commucat_proto::time::Timestamp;

use crate::store::outbox::OutboxLimits;
use crate::store::{Counters, Options, QueueLimits};
use crate::stored::random_id;
use crate::tally::Tally;
use crate::{ExpiryClock, OpenError, StoreError};

mod capabilities;
mod changes;
mod claims;
mod connections;
mod convert;
mod delete;
mod devices;
mod expiry;
mod fault;
mod groups;
pub(crate) mod import;
mod integrity;
mod invites;
mod key_packages;
mod line;
mod lists;
mod log;
mod merge;
mod meta;
mod outbox;
mod page;
mod peers;
mod pipeline;
mod queues;
mod restore;
mod schema;
mod spool;
#[cfg(test)]
mod tests;
mod tls;
mod tx;
pub(crate) mod url;

use connections::Connections;
use delete::Delete;
use fault::{Fault, within};
use merge::Merger;
use spool::Spool;
use tx::Tx;
use url::PostgresUrl;

/// Rows that one bounded step of a sweep touches at most.
const SWEEP_ROWS: i64 = 512;
/// Longest that one transaction may take, connection and all. The database itself gives up a little
/// earlier; this is for one that does not answer.
const TRANSACTION_WAIT: Duration = Duration::from_secs(8);
/// Tries of a transaction that others got in the way of.
const TRIES_MAX: u32 = 4;

/// Runs `$work`, an async expression over the transaction `$tx`, and commits; answers after the
/// commit. If others got in the way (a deadlock, a row that two insert) all of it runs again.
macro_rules! transact {
    ($postgres:expr, $tx:ident => $work:expr) => {{
        $postgres.0.tally.count_write_request();
        let mut tries = 1;
        loop {
            let attempt = async {
                let $tx = $postgres.begin().await?;
                match $work.await {
                    Ok(done) => $tx.commit().await.map(|()| done),
                    Err(failed) => {
                        $tx.roll_back().await;
                        Err($crate::postgres::fault::Fault::from(failed))
                    }
                }
            };
            let attempt =
                $crate::postgres::fault::within($crate::postgres::TRANSACTION_WAIT, attempt);
            match attempt.await {
                Err(failed) if failed.is_conflict() && tries < $crate::postgres::TRIES_MAX => {
                    tries += 1;
                }
                outcome => {
                    let outcome = outcome.map_err(StoreError::from);
                    break outcome.inspect_err(|failed| $postgres.0.tally.count_failure(failed));
                }
            }
        }
    }};
}
use transact;

/// Handle to an open database. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Postgres(Arc<Inner>);

struct Inner {
    spool: Merger<Spool>,
    delete: Merger<Delete>,
    connections: Arc<Connections>,
    tally: Arc<Tally>,
    limits: QueueLimits,
    outbox: OutboxLimits,
    schema_version: u32,
    /// Names this opening of the store to the other nodes.
    incarnation: [u8; 16],
}

impl Postgres {
    pub(crate) async fn open(url: &PostgresUrl, options: Options) -> Result<Self, OpenError> {
        let connections = Arc::new(Connections::new(url, options.readers)?);
        connections.check().await?;
        let schema_version = schema::prepare(&connections, options.migrations).await?;
        let tally = Arc::new(Tally::default());
        let limits = options.queues;
        let spool = Spool::new(Arc::clone(&connections), Arc::clone(&tally), limits);
        let delete = Delete::new(Arc::clone(&connections), Arc::clone(&tally));
        Ok(Self(Arc::new(Inner {
            spool: Merger::start(spool, connections.handle()),
            delete: Merger::start(delete, connections.handle()),
            connections,
            tally,
            limits,
            outbox: options.outbox,
            schema_version,
            incarnation: random_id().map_err(|_| {
                OpenError::Database(crate::error::BackendError::text("no random bytes"))
            })?,
        })))
    }

    pub(crate) async fn close(&self) {
        self.0.spool.close().await;
        self.0.delete.close().await;
        self.0.connections.close();
    }

    pub(crate) fn counters(&self) -> Counters {
        self.0.tally.snapshot()
    }

    pub(crate) fn schema_version(&self) -> u32 {
        self.0.schema_version
    }

    pub(crate) async fn ping(&self) -> Result<(), StoreError> {
        transact!(self, tx => async {
            let standby = tx.one("SELECT pg_is_in_recovery()", &[]).await?;
            if standby.try_get(0)? {
                return Err(Fault::text("the database is a standby"));
            }
            Ok(())
        })
    }

    pub(crate) async fn check_integrity(&self) -> Result<(), StoreError> {
        let checking = async {
            let tx = self.begin().await?;
            integrity::check(&tx).await?;
            tx.commit().await
        };
        Ok(within(integrity::WAIT, checking).await?)
    }

    pub(crate) async fn columns(&self) -> Result<Vec<(String, String)>, StoreError> {
        self.0.tally.count_read();
        Ok(within(TRANSACTION_WAIT, async {
            let client = self.0.connections.get().await?;
            schema::columns(&client).await
        })
        .await?)
    }

    pub(crate) async fn sweep_expired(&self, clock: ExpiryClock) -> Result<bool, StoreError> {
        let now = clock.time();
        transact!(self, tx => async {
            let invites = invites::sweep(&tx, now).await?;
            let packages = key_packages::sweep(&tx, now).await?;
            let claims = claims::sweep(&tx, now).await?;
            Ok::<_, Fault>(invites || packages || claims)
        })
    }

    pub(crate) async fn advance_clock(
        &self,
        wall: Timestamp,
        elapsed: Duration,
    ) -> Result<ExpiryClock, StoreError> {
        transact!(self, tx => meta::advance_clock(&tx, self.0.incarnation, wall, elapsed))
    }

    async fn begin(&self) -> Result<Tx, Fault> {
        let client = self.0.connections.get().await?;
        let tx = Tx::new(client, Arc::clone(&self.0.tally));
        tx.begin("BEGIN").await?;
        Ok(tx)
    }

    /// Runs one query, outside of a transaction. A connection that turns out to be dead is replaced,
    /// once.
    async fn query(
        &self,
        sql: &str,
        parameters: &[&(dyn tokio_postgres::types::ToSql + Sync)],
    ) -> Result<Vec<tokio_postgres::Row>, StoreError> {
        self.0.tally.count_read();
        let ask = || async {
            let client = self.0.connections.get().await?;
            let tx = Tx::new(client, Arc::clone(&self.0.tally));
            let rows = tx.query(sql, parameters).await?;
            tx.give_back();
            Ok(rows)
        };
        match within(TRANSACTION_WAIT, ask()).await {
            Err(failed) if failed.is_lost() => Ok(within(TRANSACTION_WAIT, ask()).await?),
            outcome => Ok(outcome?),
        }
    }

    /// The row of a query that has one at most.
    async fn row(
        &self,
        sql: &str,
        parameters: &[&(dyn tokio_postgres::types::ToSql + Sync)],
    ) -> Result<Option<tokio_postgres::Row>, StoreError> {
        Ok(self.query(sql, parameters).await?.into_iter().next())
    }
}
