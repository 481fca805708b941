//! Opening the database: the lock, the file, and the settings that durability depends on.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags};

use crate::error::BackendError;
use crate::{OpenError, StoreError};

const LOCK_FILE: &str = "store.lock";
pub(super) const DATABASE_FILE: &str = "store.sqlite3";
/// Says that the database is being replaced.
const UNFINISHED_FILE: &str = "store.unfinished";
/// How often the lock is tried while another process goes away.
const LOCK_RETRY: Duration = Duration::from_millis(10);
/// Readers never block the writer in WAL; this covers checkpoints and recovery.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Statements kept prepared per connection: more than there are.
const STATEMENTS: usize = 128;

/// Takes the lock of the data directory, which is made if it is missing.
///
/// The operating system lets go of it when the file is closed, also by `kill -9`.
pub(crate) fn lock(directory: &Path, wait: Duration) -> Result<File, OpenError> {
    make_directory(directory).map_err(OpenError::Directory)?;
    let file = private_file(&directory.join(LOCK_FILE)).map_err(OpenError::Directory)?;
    let deadline = Instant::now() + wait;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(error)) => return Err(OpenError::Directory(error)),
            Err(TryLockError::WouldBlock) if Instant::now() >= deadline => {
                return Err(OpenError::InUse);
            }
            Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_RETRY),
        }
    }
}

/// Refuses a directory in which a database was being replaced when the process ended.
pub(super) fn check_finished(directory: &Path) -> Result<(), OpenError> {
    if directory.join(UNFINISHED_FILE).exists() {
        return Err(OpenError::Unfinished);
    }
    Ok(())
}

/// From now on nothing opens the database in `directory`.
pub(super) fn mark_unfinished(directory: &Path) -> std::io::Result<()> {
    private_file(&directory.join(UNFINISHED_FILE))?.sync_all()?;
    File::open(directory)?.sync_all()
}

/// It may be opened again.
pub(super) fn unmark_unfinished(directory: &Path) -> std::io::Result<()> {
    std::fs::remove_file(directory.join(UNFINISHED_FILE))?;
    File::open(directory)?.sync_all()
}

/// The database file, readable by its owner alone. SQLite gives its WAL the same mode.
pub(super) fn database_file(directory: &Path) -> Result<PathBuf, OpenError> {
    let path = directory.join(DATABASE_FILE);
    private_file(&path).map_err(OpenError::Directory)?;
    Ok(path)
}

/// Opens the connection that writes. Nothing is changed until [`configure_writer`].
pub(super) fn writer_connection(path: &Path) -> Result<Connection, OpenError> {
    open(path, OpenFlags::SQLITE_OPEN_READ_WRITE)
}

/// Makes the settings that durability depends on and checks that they hold.
pub(super) fn configure_writer(connection: &Connection) -> Result<(), OpenError> {
    connection
        .execute_batch(
            "PRAGMA journal_mode = WAL;
             PRAGMA synchronous = FULL;
             PRAGMA foreign_keys = ON;
             PRAGMA secure_delete = FAST;
             PRAGMA temp_store = MEMORY;
             PRAGMA cache_size = -32768;
             PRAGMA wal_autocheckpoint = 8000;
             PRAGMA journal_size_limit = 134217728;",
        )
        .map_err(database)?;
    require(connection, "journal_mode", "wal")?;
    require(connection, "synchronous", "2")?;
    require(connection, "foreign_keys", "1")
}

/// Opens a connection that cannot write.
pub(super) fn reader_connection(path: &Path) -> Result<Connection, OpenError> {
    let connection = open(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    connection
        .execute_batch("PRAGMA query_only = ON; PRAGMA cache_size = -4096;")
        .map_err(database)?;
    Ok(connection)
}

/// Opens the writing connection anew after a failed commit.
///
/// After a failed fsync the kernel may call pages clean that never reached the disk, so that a later
/// fsync proves nothing about them. The checkpoint writes them once more, into the database file,
/// and empties the log.
pub(super) fn reopened_writer(path: &Path) -> Result<Connection, StoreError> {
    let connection = writer_connection(path).map_err(OpenError::into_unavailable)?;
    configure_writer(&connection).map_err(OpenError::into_unavailable)?;
    let busy: i64 =
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
    if busy == 0 {
        return Ok(connection);
    }
    Err(StoreError::Unavailable(BackendError::text(
        "the log cannot be emptied",
    )))
}

fn open(path: &Path, mode: OpenFlags) -> Result<Connection, OpenError> {
    let connection = Connection::open_with_flags(path, mode | OpenFlags::SQLITE_OPEN_NO_MUTEX)
        .map_err(database)?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(database)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    Ok(connection)
}

fn require(connection: &Connection, setting: &'static str, wanted: &str) -> Result<(), OpenError> {
    let value = connection
        .query_row(&format!("PRAGMA {setting}"), [], |row| {
            row.get_ref(0).map(|value| match value.as_i64() {
                Ok(number) => number.to_string(),
                Err(_) => value.as_str().unwrap_or_default().to_owned(),
            })
        })
        .map_err(database)?;
    if value == wanted {
        Ok(())
    } else {
        Err(OpenError::Setting(setting))
    }
}

fn database(error: rusqlite::Error) -> OpenError {
    if matches!(
        error.sqlite_error_code(),
        Some(rusqlite::ErrorCode::NotADatabase)
    ) {
        return OpenError::UnknownSchema;
    }
    OpenError::Database(error.into())
}

pub(super) fn make_directory(directory: &Path) -> std::io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(directory)
}

pub(super) fn private_file(path: &Path) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}
