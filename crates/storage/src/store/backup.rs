//! A copy of an embedded store that is in use, and an older copy put in its place.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use commucat_proto::time::Timestamp;

use super::{Backend, Store};
use crate::sqlite::restore;
use crate::{OpenError, StoreError};

/// How far positions go on beyond those of a copy. Nothing hands out so many before a backup is made
/// again; and it is more than the milliseconds of a month, for outboxes begin at the time.
pub(crate) const POSITIONS_SKIPPED: i64 = 1 << 32;

/// When the store was put back: milliseconds, eight bytes.
pub(crate) const RESTORED: &str = "restored";

/// How far a copy is, in pages.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct CopyProgress {
    /// Copied.
    pub done: u64,
    /// Of so many.
    pub total: u64,
}

/// A copy that was made.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct StoreCopy {
    /// Its file, readable by its owner alone, on the disk.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// Its schema.
    pub schema_version: u32,
}

/// Why no copy was made.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// PostgreSQL makes backups of itself.
    #[error("the store is a database of PostgreSQL, which has tools of its own")]
    NotEmbedded,
    /// The file cannot be written.
    #[error("cannot write the copy")]
    File(#[source] std::io::Error),
    /// The database cannot be read, or the copy not be written.
    #[error("the store cannot be copied")]
    Store(#[from] StoreError),
}

impl Store {
    /// Copies an embedded store, as it is when this begins, into a file of its directory, while
    /// others go on using it. A copy made before is gone. `on_step` hears of each step.
    ///
    /// # Errors
    ///
    /// [`BackupError`]; what there is of the file is of no use.
    pub async fn copy(
        &self,
        on_step: impl FnMut(CopyProgress) + Send + 'static,
    ) -> Result<StoreCopy, BackupError> {
        match &self.0 {
            Backend::Sqlite(sqlite) => sqlite.copy(on_step).await,
            Backend::Postgres(_) => Err(BackupError::NotEmbedded),
        }
    }

    /// Removes what [`Self::copy`] has made.
    pub async fn forget_copy(&self) {
        if let Backend::Sqlite(sqlite) = &self.0 {
            sqlite.forget_copy().await;
        }
    }

    /// Readies a store that was put back from a copy: whatever happened after the copy was made is
    /// unknown here, but not to the clients.
    ///
    /// * Positions of queues and of outboxes go on far beyond any that were given out since.
    /// * Each queue gets a gap entry: its device is told that something may be missing, and asks
    ///   every group for what it has not seen.
    /// * Single-use key packages are gone, for some were handed out; devices publish new ones.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; done in part. Begin again: with the copy, or where a database was put back by its
    /// own tools, with this.
    pub async fn ready_after_restore(&self, now: Timestamp) -> Result<(), StoreError> {
        match &self.0 {
            Backend::Sqlite(sqlite) => sqlite.ready_after_restore(now).await,
            Backend::Postgres(postgres) => postgres.ready_after_restore(now).await,
        }
    }

    /// How many others are connected to the database as the same user, under another name; an
    /// embedded store has one process.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn others_connected(&self) -> Result<u64, StoreError> {
        match &self.0 {
            Backend::Sqlite(_) => Ok(0),
            Backend::Postgres(postgres) => postgres.others_connected().await,
        }
    }
}

/// What happened to the domain after a copy was made.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Since {
    /// A server may have worked on the store.
    Unknown,
    /// Nothing: the server was stopped before and has not run since.
    Nothing,
}

/// An embedded store about to be replaced by a copy. Holds its lock: no server starts meanwhile.
#[derive(Debug)]
pub struct Replacement {
    directory: PathBuf,
    _lock: File,
}

impl Replacement {
    /// Takes the lock of `directory`, which is made if it is missing.
    ///
    /// # Errors
    ///
    /// [`OpenError::InUse`] if a process works there, or [`OpenError::Directory`].
    pub fn begin(directory: &Path, wait: Duration) -> Result<Self, OpenError> {
        Ok(Self {
            _lock: restore::lock(directory, wait)?,
            directory: directory.to_owned(),
        })
    }

    /// Whether a store is there.
    #[must_use]
    pub fn has_store(&self) -> bool {
        crate::sqlite::is_made(&self.directory)
    }

    /// An empty file for the copy, in a directory beside the store.
    ///
    /// # Errors
    ///
    /// [`OpenError::Directory`].
    pub fn file(&self) -> Result<(File, PathBuf), OpenError> {
        restore::file(&self.directory).map_err(OpenError::Directory)
    }

    /// Checks the copy in [`Self::file`] from end to end, brings it up to date and readies it; returns
    /// the schema version that it has then. The store is as it was.
    ///
    /// # Errors
    ///
    /// [`ReplaceError`].
    pub async fn prepare(&self, since: Since, now: Timestamp) -> Result<u32, ReplaceError> {
        let directory = restore::place(&self.directory);
        restore::check(&directory)?;
        let options = super::Options {
            readers: 1,
            ..super::Options::default()
        };
        let store = Store::open(super::Location::Sqlite { directory }, options).await?;
        let readied = match since {
            Since::Unknown => store.ready_after_restore(now).await,
            Since::Nothing => Ok(()),
        };
        store.close().await;
        readied?;
        Ok(store.schema_version())
    }

    /// Puts the copy in the place of the store. What was there goes into the directory `aside`, which
    /// is made; `true` if there was something. Killed half-way, it is done by doing it all again, and
    /// until then nothing opens the store.
    ///
    /// # Errors
    ///
    /// [`OpenError::Directory`].
    pub fn finish(self, aside: &Path) -> Result<bool, OpenError> {
        restore::swap(&self.directory, aside).map_err(OpenError::Directory)
    }
}

/// Why a copy does not become the store.
#[derive(Debug, thiserror::Error)]
pub enum ReplaceError {
    /// It is damaged.
    #[error("the copy is damaged")]
    Damaged,
    /// It is no store that this program can use.
    #[error("the copy cannot be opened")]
    Open(#[from] OpenError),
    /// It cannot be changed.
    #[error("the copy cannot be readied")]
    Ready(#[from] StoreError),
}
