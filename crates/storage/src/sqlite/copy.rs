//! A copy of the database while it is in use.
//!
//! A connection of its own reads one snapshot, in steps, into a file. Readers do not disturb the
//! writer in WAL; but the log cannot be emptied past the snapshot, so that it grows by what is
//! written until the copy is done.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};

use super::{Sqlite, open};
use crate::StoreError;
use crate::store::backup::{BackupError, CopyProgress, StoreCopy};

/// Where a copy is made, in the directory of the store: the one place where a server may write in
/// any case. What a process has left there goes with the next one that opens the store.
const DIRECTORY: &str = "backup.partial";

/// Pages of one step: a mebibyte, some milliseconds of a disk.
const STEP_PAGES: i32 = 256;
/// Between two steps, so that a disk serves others too.
const PAUSE: Duration = Duration::from_millis(1);
/// Longest wait for a lock of the file, which nobody holds for long.
const TRIES_MAX: u32 = 5_000;

/// Removes what an earlier process has left. Only for whoever holds the lock of `directory`.
pub(super) fn clean(directory: &Path) {
    // What cannot be removed is in nobody's way until a copy is made, which says so.
    fs::remove_dir_all(directory.join(DIRECTORY)).ok();
}

impl Sqlite {
    pub(crate) async fn copy(
        &self,
        mut on_step: impl FnMut(CopyProgress) + Send + 'static,
    ) -> Result<StoreCopy, BackupError> {
        let inner = std::sync::Arc::clone(&self.0);
        let copying = tokio::task::spawn_blocking(move || {
            let path = fresh_file(&inner.directory).map_err(BackupError::File)?;
            copy(&inner.path, &path, &inner.closing, &mut on_step)?;
            let bytes = settle(&path).map_err(BackupError::File)?;
            Ok(StoreCopy {
                path,
                bytes,
                schema_version: inner.schema_version,
            })
        });
        let done = copying.await;
        done.unwrap_or(Err(BackupError::Store(StoreError::Closed)))
    }

    pub(crate) async fn forget_copy(&self) {
        let inner = std::sync::Arc::clone(&self.0);
        let cleaning = tokio::task::spawn_blocking(move || clean(&inner.directory));
        // Stopped with the runtime: the next one that opens the store does it.
        cleaning.await.ok();
    }
}

fn fresh_file(directory: &Path) -> std::io::Result<PathBuf> {
    let place = directory.join(DIRECTORY);
    match fs::remove_dir_all(&place) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    open::make_directory(&place)?;
    let path = place.join(open::DATABASE_FILE);
    open::private_file(&path)?;
    Ok(path)
}

fn copy(
    from: &Path,
    to: &Path,
    closing: &AtomicBool,
    on_step: &mut dyn FnMut(CopyProgress),
) -> Result<(), BackupError> {
    let source = open::reader_connection(from).map_err(|error| error.into_unavailable())?;
    // The snapshot: without it each step would see another state and begin anew.
    let snapshot = source.unchecked_transaction().map_err(StoreError::from)?;
    snapshot
        .query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))
        .map_err(StoreError::from)?;
    let mut target = target(to).map_err(StoreError::from)?;
    let backup = Backup::new(&snapshot, &mut target).map_err(StoreError::from)?;
    let mut tries = 0;
    loop {
        if closing.load(Ordering::Acquire) {
            return Err(StoreError::Closed.into());
        }
        let step = backup.step(STEP_PAGES).map_err(StoreError::from)?;
        let seen = backup.progress();
        on_step(CopyProgress {
            done: count(seen.pagecount - seen.remaining),
            total: count(seen.pagecount),
        });
        match step {
            StepResult::Done => break,
            StepResult::More => tries = 0,
            // And whatever a later SQLite adds.
            StepResult::Busy | StepResult::Locked | _ => tries += 1,
        }
        if tries > TRIES_MAX {
            let text = crate::error::BackendError::text("the database is locked");
            return Err(StoreError::Unavailable(text).into());
        }
        std::thread::sleep(PAUSE);
    }
    drop(backup);
    // One file, without a log beside it.
    target
        .query_row("PRAGMA journal_mode = DELETE", [], |_| Ok(()))
        .map_err(StoreError::from)?;
    target
        .close()
        .map_err(|(_, error)| StoreError::from(error).into())
}

/// The file is synced once, at the end: a copy that was not finished is of no use.
fn target(path: &Path) -> rusqlite::Result<Connection> {
    let mode = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, mode)?;
    connection.execute_batch("PRAGMA synchronous = OFF;")?;
    Ok(connection)
}

fn settle(path: &Path) -> std::io::Result<u64> {
    let file = File::open(path)?;
    file.sync_all()?;
    Ok(file.metadata()?.len())
}

fn count(pages: i32) -> u64 {
    u64::try_from(pages).unwrap_or(0)
}
