//! An embedded store copied to PostgreSQL, in batches, so that it can be interrupted and go on.

pub(crate) mod tables;

use std::ops::ControlFlow;

use tokio::sync::mpsc;

use self::tables::{Cell, TABLES, Table};
use crate::postgres::import::Target;
use crate::sqlite::export::Source;
use crate::{Location, OpenError, StoreError};

/// Batches read ahead of the one that is written.
const AHEAD: usize = 2;

/// Some rows of a table.
pub(crate) type Batch = Vec<Vec<Cell>>;

/// How far the copy is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TransferProgress {
    /// The table that is copied.
    pub table: &'static str,
    /// Rows of it in the target.
    pub rows: u64,
    /// Rows of it in the source.
    pub total: u64,
}

/// A copy that was made.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Transferred {
    /// Every table with the number of its rows, the same on both sides.
    pub tables: Vec<(&'static str, u64)>,
    /// Rows that an earlier run had copied.
    pub resumed: u64,
}

/// Why no copy was made. What is in the target stays, and no server starts on it: the same call goes
/// on where it ended.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// Only from SQLite to PostgreSQL.
    #[error("a store is copied from `sqlite:` to `postgres:` only")]
    Direction,
    /// The source cannot be used.
    #[error("the source cannot be used")]
    Source(#[source] OpenError),
    /// The target cannot be used.
    #[error("the target cannot be used")]
    Target(#[source] OpenError),
    /// There is something in the target that is no unfinished copy.
    #[error("the target is not empty")]
    NotEmpty,
    /// The target has an unfinished copy of another source, or of another state of this one.
    #[error("the target has the beginning of another copy: the source has changed since")]
    OtherSource,
    /// Reading failed.
    #[error("the source cannot be read")]
    Read(#[source] StoreError),
    /// Writing failed.
    #[error("the target cannot be written")]
    Write(#[source] StoreError),
    /// The target has more or fewer rows than the source.
    #[error("table `{table}` has {found} rows in the target and {wanted} in the source")]
    Count {
        /// The table.
        table: &'static str,
        /// Rows in the target.
        found: u64,
        /// Rows in the source.
        wanted: u64,
    },
    /// `on_progress` wanted it so.
    #[error("the copy was stopped")]
    Stopped,
}

/// Copies the whole store at `from` to the empty database `to`, or goes on with that. The source is
/// locked and only read.
///
/// # Errors
///
/// [`TransferError`].
pub async fn transfer(
    from: Location,
    to: Location,
    mut on_progress: impl FnMut(TransferProgress) -> ControlFlow<()>,
) -> Result<Transferred, TransferError> {
    let (Location::Sqlite { directory }, Location::Postgres { url }) = (from, to) else {
        return Err(TransferError::Direction);
    };
    let opening = tokio::task::spawn_blocking(move || Source::open(&directory));
    let opened = opening.await.map_err(|_| TransferError::Stopped)?;
    let mut source = opened.map_err(TransferError::Source)?;
    let target = Target::open(&url).await.map_err(TransferError::Target)?;
    let copied = target.begin(&source.fingerprint()).await?;
    let mut done = Transferred {
        tables: Vec::new(),
        resumed: copied.values().sum(),
    };
    for table in TABLES {
        let before = copied.get(table.name).copied().unwrap_or(0);
        let total;
        (source, total) = copy_table(source, &target, table, before, &mut on_progress).await?;
        done.tables.push((table.name, total));
    }
    target.finish(&done.tables).await?;
    Ok(done)
}

async fn copy_table(
    source: Source,
    target: &Target,
    table: &'static Table,
    before: u64,
    on_progress: &mut dyn FnMut(TransferProgress) -> ControlFlow<()>,
) -> Result<(Source, u64), TransferError> {
    let counting = tokio::task::spawn_blocking(move || (source.count(table), source));
    let (total, source) = counting.await.map_err(|_| TransferError::Stopped)?;
    let total = total.map_err(TransferError::Read)?;
    let (batches, mut incoming) = mpsc::channel::<Batch>(AHEAD);
    let reading = tokio::task::spawn_blocking(move || {
        source.read(table, before, &batches)?;
        Ok(source)
    });
    let mut rows = before;
    let mut stopped = false;
    while let Some(batch) = incoming.recv().await {
        rows = rows.saturating_add(u64::try_from(batch.len()).unwrap_or(u64::MAX));
        target.append(table, &batch, rows).await?;
        let progress = TransferProgress {
            table: table.name,
            rows,
            total,
        };
        if on_progress(progress).is_break() {
            stopped = true;
            break;
        }
    }
    // The reader ends when nobody takes what it reads.
    drop(incoming);
    let read = reading.await.map_err(|_| TransferError::Stopped)?;
    let source = read.map_err(TransferError::Read)?;
    if stopped {
        return Err(TransferError::Stopped);
    }
    Ok((source, total))
}

#[cfg(test)]
mod tests;
