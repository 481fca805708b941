//! The embedded backend: one writer thread that merges what waits into one transaction, and a small
//! pool of connections for reads.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use commucat_proto::time::Timestamp;
use rusqlite::Connection;

use crate::store::{Counters, Options};
use crate::tally::Tally;
use crate::{ExpiryClock, OpenError, StoreError};

mod bodies;
mod capabilities;
mod claims;
mod convert;
mod copy;
mod devices;
mod expiry;
pub(crate) mod export;
mod groups;
mod invites;
mod key_packages;
mod line;
mod lists;
mod log;
mod meta;
mod open;
mod outbox;
mod peers;
mod queues;
mod readers;
pub(crate) mod restore;
mod schema;
mod shown;
#[cfg(test)]
mod tests;
mod writer;

use readers::Readers;
use shown::ShownGaps;
use writer::{Tx, Writer};

/// Rows that one bounded step of a sweep touches at most.
const SWEEP_ROWS: usize = 512;

/// Whether there is a database in `directory`.
pub(crate) fn is_made(directory: &std::path::Path) -> bool {
    directory.join(open::DATABASE_FILE).exists()
}

/// Handle to an open database. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Sqlite(Arc<Inner>);

struct Inner {
    writer: Writer,
    readers: Readers,
    tally: Arc<Tally>,
    shown: Arc<ShownGaps>,
    schema_version: u32,
    directory: PathBuf,
    path: PathBuf,
    /// A copy in the making gives up.
    closing: AtomicBool,
}

impl Sqlite {
    pub(crate) async fn open(directory: PathBuf, options: Options) -> Result<Self, OpenError> {
        let opening =
            tokio::task::spawn_blocking(move || Self::open_blocking(&directory, &options));
        match opening.await {
            Ok(opened) => opened,
            Err(stopped) => Err(OpenError::Directory(std::io::Error::other(stopped))),
        }
    }

    fn open_blocking(directory: &std::path::Path, options: &Options) -> Result<Self, OpenError> {
        let lock = open::lock(directory, options.lock_wait)?;
        open::check_finished(directory)?;
        copy::clean(directory);
        let path = open::database_file(directory)?;
        let mut connection = open::writer_connection(&path)?;
        let found = schema::check(&connection, options.migrations)?;
        open::configure_writer(&connection)?;
        let schema_version = schema::bring_up_to_date(&mut connection, found)?;
        let tally = Arc::new(Tally::default());
        let shown = Arc::new(ShownGaps::default());
        let readers = Readers::open(path.clone(), options.readers)?;
        let setting = writer::Setting {
            path: path.clone(),
            lock,
            limits: options.queues,
            outbox: options.outbox,
            tally: Arc::clone(&tally),
            shown: Arc::clone(&shown),
        };
        let writer = Writer::start(connection, setting)?;
        Ok(Self(Arc::new(Inner {
            writer,
            readers,
            tally,
            shown,
            schema_version,
            directory: directory.to_owned(),
            path,
            closing: AtomicBool::new(false),
        })))
    }

    pub(crate) async fn close(&self) {
        self.0.closing.store(true, Ordering::Release);
        self.0.readers.close().await;
        self.0.writer.close().await;
    }

    pub(crate) fn counters(&self) -> Counters {
        self.0.tally.snapshot()
    }

    pub(crate) fn schema_version(&self) -> u32 {
        self.0.schema_version
    }

    pub(crate) async fn ping(&self) -> Result<(), StoreError> {
        self.write(|_| Ok(())).await
    }

    pub(crate) async fn check_integrity(&self) -> Result<(), StoreError> {
        self.read(|connection| {
            let verdict: String =
                connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
            if verdict == "ok" {
                Ok(())
            } else {
                Err(StoreError::Corrupt { what: "database" })
            }
        })
        .await
    }

    pub(crate) async fn columns(&self) -> Result<Vec<(String, String)>, StoreError> {
        self.read(|connection| Ok(schema::columns(connection)?))
            .await
    }

    pub(crate) async fn sweep_expired(&self, clock: ExpiryClock) -> Result<bool, StoreError> {
        let now = clock.time();
        self.write(move |tx| {
            let invites = invites::sweep(tx, now)?;
            let packages = key_packages::sweep(tx, now)?;
            let claims = claims::sweep(tx, now)?;
            Ok(invites || packages || claims)
        })
        .await
    }

    pub(crate) async fn advance_clock(
        &self,
        wall: Timestamp,
        elapsed: Duration,
    ) -> Result<ExpiryClock, StoreError> {
        self.write(move |tx| meta::advance_clock(tx, wall, elapsed))
            .await
    }

    /// Runs `work` on the writer thread, in a transaction that it shares with others; answers after
    /// the commit. If `work` fails, nothing of it is done, and the others are not touched: all are
    /// rolled back and run again one by one, so `work` may run twice.
    async fn write<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Fn(&mut Tx<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        self.0.writer.run(work).await
    }

    /// Runs `work` on a read connection, in one snapshot.
    async fn read<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        let inner = Arc::clone(&self.0);
        inner.tally.count_read();
        let permit = inner.readers.permit().await?;
        let reading = tokio::task::spawn_blocking(move || {
            let done = inner.readers.run(work);
            drop(permit);
            done
        });
        reading.await.unwrap_or(Err(StoreError::Closed))
    }
}
