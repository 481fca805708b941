//! The handle to the durable store and the dispatch to its backend.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use self::outbox::OutboxLimits;
use crate::{ExpiryClock, OpenError, PostgresUrl, StoreError, UrlError, postgres, sqlite};

pub(crate) mod backup;
pub(crate) mod capabilities;
pub(crate) mod clock;
pub(crate) mod devices;
pub(crate) mod groups;
pub(crate) mod invites;
pub(crate) mod key_packages;
pub(crate) mod meta;
pub(crate) mod outbox;
pub(crate) mod peers;
pub(crate) mod queues;

/// Handle to the durable store. Cheap to clone.
#[derive(Clone)]
pub struct Store(pub(crate) Backend);

/// The backends.
#[derive(Clone)]
pub(crate) enum Backend {
    Sqlite(sqlite::Sqlite),
    Postgres(postgres::Postgres),
}

/// Calls the same inherent method on whichever backend is open.
macro_rules! on_backend {
    ($store:expr, $backend:ident => $call:expr) => {
        match &$store.0 {
            $crate::store::Backend::Sqlite($backend) => $call,
            $crate::store::Backend::Postgres($backend) => $call,
        }
    };
}
pub(crate) use on_backend;

/// Where the store is.
#[derive(Clone, Debug)]
pub enum Location {
    /// An embedded SQLite database in this directory, which is made if it is missing. One process
    /// at a time has it open.
    Sqlite {
        /// The data directory.
        directory: PathBuf,
    },
    /// A database of PostgreSQL 12 or later, in the schema that is first in its search path. Several
    /// processes may have it open.
    Postgres {
        /// Where, as whom, and how.
        url: PostgresUrl,
    },
}

impl FromStr for Location {
    type Err = UrlError;

    /// `sqlite:DIRECTORY`, or a [`PostgresUrl`].
    fn from_str(text: &str) -> Result<Self, UrlError> {
        match text.strip_prefix("sqlite:") {
            Some(path) => match path.strip_prefix("//").unwrap_or(path) {
                "" => Err(UrlError::Directory),
                path => Ok(Self::Sqlite {
                    directory: path.into(),
                }),
            },
            None => text.parse().map(|url| Self::Postgres { url }),
        }
    }
}

impl Location {
    /// Whether a store was made there, to tell a wrong directory before one is made. Of a database,
    /// which somebody has made in any case, this cannot be told without opening it: `true`.
    #[must_use]
    pub fn is_made(&self) -> bool {
        match self {
            Self::Sqlite { directory } => sqlite::is_made(directory),
            Self::Postgres { .. } => true,
        }
    }
}

/// How the store is opened.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long to wait for another process to let go of an embedded store. (For one that migrates
    /// the same database the wait is a minute.)
    pub lock_wait: Duration,
    /// Whether an older schema is brought up to date.
    pub migrations: Migrations,
    /// Connections for reads. A database gets a few more for what changes something.
    pub readers: usize,
    /// What a queue holds at most.
    pub queues: QueueLimits,
    /// What waits for one peer at most.
    pub outbox: OutboxLimits,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            lock_wait: Duration::ZERO,
            migrations: Migrations::Apply,
            readers: 4,
            queues: QueueLimits::default(),
            outbox: OutboxLimits::default(),
        }
    }
}

/// What happens when the store has an older schema.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Migrations {
    /// It is brought up to date, one transaction per migration.
    Apply,
    /// It is refused with [`OpenError::OlderSchema`]; so is a database without any table, of version 0.
    /// A directory without a store gets one.
    Refuse,
}

/// What one queue holds at most (CCP-1 section 4, "Full queues"). One group may use a quarter of
/// each; [`QueueLimits::INVITES_RESERVED`] Welcomes always find room.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct QueueLimits {
    /// Bytes of payload.
    pub bytes: u64,
    /// Entries.
    pub entries: u64,
}

impl QueueLimits {
    /// GROUP_INVITEs that a queue takes although it is full otherwise.
    pub const INVITES_RESERVED: u64 = 64;
    /// Marks of groups left for good that a queue keeps at most (CCP-1 section 5, LEAVE).
    pub const LEFT_MARKS: u64 = 4_096;
}

impl Default for QueueLimits {
    fn default() -> Self {
        Self {
            bytes: 64 * 1024 * 1024,
            entries: 20_000,
        }
    }
}

/// What the store has done since it was opened. All numbers only grow.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Counters {
    /// Transactions that changed something; each is one fsync.
    pub commits: u64,
    /// Rows inserted, changed or deleted.
    pub rows: u64,
    /// Write requests handled, also those that changed nothing.
    pub write_requests: u64,
    /// Read requests handled.
    pub reads: u64,
    /// Rows found damaged.
    pub corrupt: u64,
    /// Requests that were not carried out, because the store was unavailable.
    pub failures: u64,
}

/// Where the next bounded step of a sweep begins. Start with the default.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct SweepCursor(pub(crate) i64);

impl Store {
    /// Opens the store at `location`, waiting at most [`Options::lock_wait`] for its lock.
    ///
    /// # Errors
    ///
    /// [`OpenError`] says which step failed.
    pub async fn open(location: Location, options: Options) -> Result<Self, OpenError> {
        match location {
            Location::Sqlite { directory } => sqlite::Sqlite::open(directory, options)
                .await
                .map(Backend::Sqlite)
                .map(Self),
            Location::Postgres { url } => postgres::Postgres::open(&url, options)
                .await
                .map(Backend::Postgres)
                .map(Self),
        }
    }

    /// Completes what is queued, closes the database and lets go of the lock. Later calls, also on
    /// clones, get [`StoreError::Closed`]. Dropping every clone does the same in the background.
    pub async fn close(&self) {
        on_backend!(self, backend => backend.close().await);
    }

    /// What the store has done since it was opened.
    #[must_use]
    pub fn counters(&self) -> Counters {
        on_backend!(self, backend => backend.counters())
    }

    /// Whether the store takes writes: one empty transaction through the whole writer.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if it does not.
    pub async fn ping(&self) -> Result<(), StoreError> {
        on_backend!(self, backend => backend.ping().await)
    }

    /// The schema version in use.
    #[must_use]
    pub fn schema_version(&self) -> u32 {
        on_backend!(self, backend => backend.schema_version())
    }

    /// Checks the structure of the database; `Ok` if it is sound. Reads everything.
    ///
    /// # Errors
    ///
    /// [`StoreError::Corrupt`] if it is damaged.
    pub async fn check_integrity(&self) -> Result<(), StoreError> {
        on_backend!(self, backend => backend.check_integrity().await)
    }

    /// Every table with its columns, for the data manifest.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the database cannot be read.
    pub async fn columns(&self) -> Result<Vec<(String, String)>, StoreError> {
        on_backend!(self, backend => backend.columns().await)
    }

    /// Removes what has outlived its use and is cheap to find: expired invites, key packages,
    /// claims and claim budgets, by the stored clock. At most a few hundred rows of each a call;
    /// `true` if more is left.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; nothing was removed, or see [`StoreError::Unavailable`].
    pub async fn sweep_expired(&self, clock: ExpiryClock) -> Result<bool, StoreError> {
        on_backend!(self, backend => backend.sweep_expired(clock).await)
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Backend::Sqlite(_) => f.write_str("Store(sqlite)"),
            Backend::Postgres(_) => f.write_str("Store(postgres)"),
        }
    }
}
