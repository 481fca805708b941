//! What went wrong inside the backend, before it is told to the caller. Nothing of a row is told:
//! PostgreSQL's messages may hold values, its codes do not.

use std::error::Error as _;
use std::time::Duration;

use deadpool_postgres::{HookError, PoolError};
use tokio_postgres::error::SqlState;

use crate::error::BackendError;
use crate::{OpenError, StoreError};

/// An error on its way out.
pub(super) enum Fault {
    Postgres(tokio_postgres::Error),
    Store(StoreError),
    /// A connection could not be used.
    Unsafe(OpenError),
}

impl Fault {
    pub(super) const fn text(text: &'static str) -> Self {
        Self::Store(StoreError::Unavailable(BackendError::text(text)))
    }

    pub(super) const fn corrupt(what: &'static str) -> Self {
        Self::Store(StoreError::Corrupt { what })
    }

    fn code(&self) -> Option<&SqlState> {
        match self {
            Self::Postgres(error) => error.code(),
            Self::Store(_) | Self::Unsafe(_) => None,
        }
    }

    /// Others got in the way, and nothing was done: a deadlock, or two that insert the same row.
    pub(super) fn is_conflict(&self) -> bool {
        let conflicts = [
            SqlState::T_R_SERIALIZATION_FAILURE,
            SqlState::T_R_DEADLOCK_DETECTED,
            SqlState::UNIQUE_VIOLATION,
        ];
        self.code().is_some_and(|code| conflicts.contains(code))
    }

    /// The connection is gone.
    pub(super) fn is_lost(&self) -> bool {
        match self {
            Self::Postgres(error) => {
                error.is_closed()
                    || error
                        .code()
                        .is_some_and(|code| code.code().starts_with("57P"))
                    || input_output(error).is_some()
            }
            Self::Store(_) | Self::Unsafe(_) => false,
        }
    }
}

/// Gives `work` so much time.
pub(super) async fn within<T>(
    wait: Duration,
    work: impl Future<Output = Result<T, Fault>>,
) -> Result<T, Fault> {
    match tokio::time::timeout(wait, work).await {
        Ok(done) => done,
        Err(_) => Err(Fault::text("the database does not answer in time")),
    }
}

impl From<tokio_postgres::Error> for Fault {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Postgres(error)
    }
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<PoolError> for Fault {
    fn from(error: PoolError) -> Self {
        match error {
            PoolError::Backend(error) | PoolError::PostCreateHook(HookError::Backend(error)) => {
                Self::Postgres(error)
            }
            PoolError::Closed => Self::Store(StoreError::Closed),
            PoolError::Timeout(_) => Self::text("no connection to the database in time"),
            PoolError::NoRuntimeSpecified | PoolError::PostCreateHook(HookError::Message(_)) => {
                Self::text("the database cannot be used")
            }
        }
    }
}

impl From<Fault> for StoreError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Postgres(error) => classify(&error),
            Fault::Store(error) => error,
            Fault::Unsafe(error) => error.into_unavailable(),
        }
    }
}

impl From<Fault> for OpenError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Postgres(error) => Self::Database(backend(&error)),
            Fault::Unsafe(error) => error,
            Fault::Store(StoreError::Unavailable(cause) | StoreError::Refused(cause)) => {
                Self::Database(cause)
            }
            Fault::Store(StoreError::Corrupt { .. }) => Self::UnknownSchema,
            Fault::Store(StoreError::Closed) => {
                Self::Database(BackendError::text("it was closed meanwhile"))
            }
        }
    }
}

fn classify(error: &tokio_postgres::Error) -> StoreError {
    let Some(code) = error.code() else {
        // A value that does not have the type of its column is a defect; all else is the connection.
        let is_ours = error.source().is_some_and(|cause| {
            cause.is::<tokio_postgres::types::WrongType>()
                || cause.is::<tokio_postgres::types::WasNull>()
        });
        return if is_ours {
            StoreError::Refused(backend(error))
        } else {
            StoreError::Unavailable(backend(error))
        };
    };
    let code = code.code();
    if matches!(code, "XX001" | "XX002") {
        return StoreError::Corrupt { what: "database" };
    }
    // Connection, transaction, resources, operator, system; read-only; a lock not got; access.
    let down = ["08", "25", "28", "40", "53", "55", "57", "58", "F0", "XX"];
    if down.iter().any(|class| code.starts_with(class)) {
        StoreError::Unavailable(backend(error))
    } else {
        StoreError::Refused(backend(error))
    }
}

/// The code and what it means, or what the connection says.
pub(super) fn backend(error: &tokio_postgres::Error) -> BackendError {
    let Some(db) = error.as_db_error() else {
        return match input_output(error) {
            Some(cause) => BackendError::postgres(&format!("no connection: {cause}")),
            None => BackendError::postgres(&error.to_string()),
        };
    };
    let code = db.code();
    let means = meaning(code.code());
    let place = db.constraint().or(db.table());
    let place = place.map_or_else(String::new, |name| format!(" at `{name}`"));
    BackendError::postgres(&format!("{means} (SQLSTATE {}){place}", code.code()))
}

fn input_output(error: &tokio_postgres::Error) -> Option<&std::io::Error> {
    error
        .source()
        .and_then(|cause| cause.downcast_ref::<std::io::Error>())
}

fn meaning(code: &str) -> &'static str {
    match code {
        "28P01" => "the password is wrong",
        "28000" => "access is refused (pg_hba.conf, or no such user)",
        "3D000" => "there is no such database",
        "42501" => "the user lacks a privilege",
        "53100" => "the database's disk is full",
        "53200" => "the database is out of memory",
        "53300" => "the database has too many connections",
        "55P03" => "a lock was not got in time",
        "57014" => "a statement took too long",
        "57P01" | "57P02" => "the database is being shut down",
        "57P03" => "the database is starting",
        "23505" => "a row is there already",
        "25006" => "the database is read-only",
        "40P01" => "a deadlock",
        _ => "the database refuses",
    }
}
