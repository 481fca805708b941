//! A transaction on a connection of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use deadpool_postgres::Object;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Row, Statement};

use super::fault::Fault;
use crate::tally::Tally;

/// A connection in use. Dropped before it was given back, it is closed, for nobody knows then what it
/// is in the middle of; PostgreSQL rolls back.
pub(super) struct Tx {
    client: Option<Object>,
    tally: Arc<Tally>,
    rows: AtomicU64,
}

impl Tx {
    pub(super) const fn new(client: Object, tally: Arc<Tally>) -> Self {
        Self {
            client: Some(client),
            tally,
            rows: AtomicU64::new(0),
        }
    }

    pub(super) fn client(&self) -> Result<&Object, Fault> {
        self.client
            .as_ref()
            .ok_or_else(|| Fault::text("the connection was given back"))
    }

    /// Begins by this statement.
    pub(super) async fn begin(&self, statement: &str) -> Result<(), Fault> {
        Ok(self.client()?.batch_execute(statement).await?)
    }

    pub(super) async fn commit(self) -> Result<(), Fault> {
        self.client()?.batch_execute("COMMIT").await?;
        self.committed();
        Ok(())
    }

    /// Says that COMMIT was answered.
    pub(super) fn committed(self) {
        let rows = self.rows.load(Ordering::Relaxed);
        if rows > 0 {
            self.tally.count_commit(rows);
        }
        self.give_back();
    }

    /// Undoes it, as far as the connection still works.
    pub(super) async fn roll_back(self) {
        let Ok(client) = self.client() else { return };
        if client.batch_execute("ROLLBACK").await.is_ok() {
            self.give_back();
        }
    }

    /// Leaves the connection to others; it is in no transaction.
    pub(super) fn give_back(mut self) {
        drop(self.client.take());
    }

    /// Counts rows that a statement changed.
    pub(super) fn count(&self, rows: u64) {
        self.rows.fetch_add(rows, Ordering::Relaxed);
    }

    pub(super) async fn prepare(&self, sql: &str) -> Result<Statement, Fault> {
        Ok(self.client()?.prepare_cached(sql).await?)
    }

    pub(super) async fn query(
        &self,
        sql: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, Fault> {
        let statement = self.prepare(sql).await?;
        Ok(self.client()?.query(&statement, parameters).await?)
    }

    /// The row of a query that has one at most.
    pub(super) async fn row(
        &self,
        sql: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Option<Row>, Fault> {
        Ok(self.query(sql, parameters).await?.into_iter().next())
    }

    /// The row of a query that always has one.
    pub(super) async fn one(
        &self,
        sql: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Row, Fault> {
        self.row(sql, parameters)
            .await?
            .ok_or_else(|| Fault::corrupt("answer"))
    }

    /// Runs a statement; returns how many rows it changed.
    pub(super) async fn execute(
        &self,
        sql: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<u64, Fault> {
        let statement = self.prepare(sql).await?;
        let rows = self.client()?.execute(&statement, parameters).await?;
        self.count(rows);
        Ok(rows)
    }

    /// Runs a statement that changes rows and returns them.
    pub(super) async fn change(
        &self,
        sql: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, Fault> {
        let rows = self.query(sql, parameters).await?;
        self.count(u64::try_from(rows.len()).unwrap_or(u64::MAX));
        Ok(rows)
    }
}

impl Drop for Tx {
    fn drop(&mut self) {
        if let Some(client) = self.client.take() {
            // Out of the pool, which makes another when it is needed.
            drop(Object::take(client));
        }
    }
}
