//! Why the store could not be opened, and why an operation failed.

use std::sync::Arc;

use crate::UrlError;

/// Why the store cannot be opened. Nothing was changed, unless a migration says otherwise.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process holds the lock of the data directory.
    #[error("another process has the store open")]
    InUse,
    /// The data directory or the lock file cannot be made or opened.
    #[error("cannot use the data directory")]
    Directory(#[source] std::io::Error),
    /// The file is not a store of CommuCat, or its tables are not those of its version.
    #[error("the database is not a CommuCat store of a known schema")]
    UnknownSchema,
    /// The store was written by a newer CommuCat.
    #[error("the store has schema version {found}, this program knows up to {supported}")]
    NewerSchema {
        /// Version in the file.
        found: u32,
        /// Latest version that this program knows.
        supported: u32,
    },
    /// The store has an older schema and [`Migrations::Refuse`](crate::Migrations::Refuse) was asked.
    #[error("the store has schema version {found} and needs migration to {supported}")]
    OlderSchema {
        /// Version in the file.
        found: u32,
        /// Version that this program needs.
        supported: u32,
    },
    /// A migration failed; it was rolled back.
    #[error("migration {version} failed")]
    Migration {
        /// The migration.
        version: u32,
        /// What the database says.
        #[source]
        source: BackendError,
    },
    /// A restore or a copy into this store was not finished.
    #[error("the store is not complete: a restore or a copy into it has not ended")]
    Unfinished,
    /// The database does not keep a setting that durability depends on.
    #[error("the database refuses the setting `{0}`")]
    Setting(&'static str),
    /// The database cannot be opened or read.
    #[error("cannot open the database")]
    Database(#[source] BackendError),
    /// The URL of the store.
    #[error("the store's address cannot be used")]
    Address(#[from] UrlError),
    /// PostgreSQL is set up so that it may lose what it has committed.
    #[error("the database has `{setting} = {value}` and would lose what was acknowledged")]
    Unsafe {
        /// The setting.
        setting: &'static str,
        /// Its value, a word of PostgreSQL's.
        value: String,
    },
    /// PostgreSQL is older than this program can use.
    #[error("PostgreSQL {found} is too old, version 12 or later is needed")]
    TooOld {
        /// Its major version.
        found: u32,
    },
}

/// Why an operation failed. Business outcomes are values, not errors.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// The store is down or full, or its disk failed. A change may or may not have been made:
    /// repeat the same call.
    #[error("the store is unavailable")]
    Unavailable(#[source] BackendError),
    /// Stored bytes are not those that were written. Other rows are served.
    #[error("stored bytes of `{what}` are damaged")]
    Corrupt {
        /// Table or kind of value.
        what: &'static str,
    },
    /// The database refused a statement that should be right: a defect here. Nothing was changed.
    #[error("the database refused the operation")]
    Refused(#[source] BackendError),
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
}

/// What a backend says. Holds codes and names of tables, never row values.
#[derive(Clone, Debug, thiserror::Error)]
#[error(transparent)]
pub struct BackendError(Cause);

#[derive(Clone, Debug, thiserror::Error)]
enum Cause {
    #[error(transparent)]
    Sqlite(Arc<rusqlite::Error>),
    #[error("{0}")]
    Postgres(Arc<str>),
    #[error("{0}")]
    Text(&'static str),
}

impl BackendError {
    pub(crate) const fn text(text: &'static str) -> Self {
        Self(Cause::Text(text))
    }

    /// What PostgreSQL says, without anything of a row.
    pub(crate) fn postgres(text: &str) -> Self {
        Self(Cause::Postgres(text.into()))
    }
}

impl From<rusqlite::Error> for BackendError {
    fn from(error: rusqlite::Error) -> Self {
        Self(Cause::Sqlite(Arc::new(error)))
    }
}

impl OpenError {
    /// For a connection that is opened while the store is in use.
    pub(crate) fn into_unavailable(self) -> StoreError {
        match self {
            Self::Database(source) | Self::Migration { source, .. } => {
                StoreError::Unavailable(source)
            }
            Self::InUse
            | Self::Directory(_)
            | Self::UnknownSchema
            | Self::NewerSchema { .. }
            | Self::OlderSchema { .. }
            | Self::Setting(_)
            | Self::Unfinished
            | Self::Address(_)
            | Self::Unsafe { .. }
            | Self::TooOld { .. } => {
                StoreError::Unavailable(BackendError::text("the database cannot be opened again"))
            }
        }
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode as Code;

        let code = error.sqlite_error_code();
        if matches!(code, Some(Code::DatabaseCorrupt | Code::NotADatabase)) {
            return Self::Corrupt { what: "database" };
        }
        let down = matches!(
            code,
            Some(
                Code::DiskFull
                    | Code::SystemIoFailure
                    | Code::DatabaseBusy
                    | Code::DatabaseLocked
                    | Code::CannotOpen
                    | Code::ReadOnly
                    | Code::PermissionDenied
                    | Code::OutOfMemory
                    | Code::OperationInterrupted
                    | Code::FileLockingProtocolFailed
            )
        );
        if down {
            Self::Unavailable(error.into())
        } else {
            Self::Refused(error.into())
        }
    }
}
