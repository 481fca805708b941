//! A copy takes the place of the database.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use commucat_proto::id::QueueId;
use commucat_proto::time::Timestamp;
use rusqlite::{Connection, OpenFlags, params};

use super::convert::queue_id;
use super::line::Line;
use super::writer::Tx;
use super::{SWEEP_ROWS, Sqlite, meta, open};
use crate::StoreError;
use crate::store::backup::{POSITIONS_SKIPPED, RESTORED, ReplaceError};

pub(crate) use super::open::lock;

/// Where the copy waits and is checked.
const DIRECTORY: &str = "restore.partial";

/// What belongs to a database.
const SUFFIXES: [&str; 3] = ["", "-wal", "-shm"];

/// Where the copy is.
pub(crate) fn place(directory: &Path) -> PathBuf {
    directory.join(DIRECTORY)
}

/// An empty file for the copy.
pub(crate) fn file(directory: &Path) -> io::Result<(File, PathBuf)> {
    let place = place(directory);
    match fs::remove_dir_all(&place) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    open::make_directory(&place)?;
    let path = place.join(open::DATABASE_FILE);
    Ok((open::private_file(&path)?, path))
}

/// Reads all of the copy, indexes too.
pub(crate) fn check(place: &Path) -> Result<(), ReplaceError> {
    let path = place.join(open::DATABASE_FILE);
    let verdict = || -> rusqlite::Result<String> {
        let mode = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&path, mode)?;
        connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))
    };
    match verdict() {
        Ok(verdict) if verdict == "ok" => Ok(()),
        Ok(_) | Err(_) => Err(ReplaceError::Damaged),
    }
}

/// Moves what is there to `aside`, and the copy to its place.
pub(crate) fn swap(directory: &Path, aside: &Path) -> io::Result<bool> {
    let from = place(directory);
    File::open(from.join(open::DATABASE_FILE))?.sync_all()?;
    // From here on nothing opens the store until all is in its place.
    open::mark_unfinished(directory)?;
    let mut found = false;
    for suffix in SUFFIXES {
        let name = format!("{}{suffix}", open::DATABASE_FILE);
        let old = directory.join(&name);
        if old.exists() {
            open::make_directory(aside)?;
            fs::rename(&old, aside.join(&name))?;
            found = true;
        }
    }
    if found {
        File::open(aside)?.sync_all()?;
    }
    fs::rename(
        from.join(open::DATABASE_FILE),
        directory.join(open::DATABASE_FILE),
    )?;
    File::open(directory)?.sync_all()?;
    open::unmark_unfinished(directory)?;
    fs::remove_dir_all(&from)?;
    Ok(found)
}

impl Sqlite {
    pub(crate) async fn ready_after_restore(&self, now: Timestamp) -> Result<(), StoreError> {
        let mut after = Some(0);
        while let Some(id) = after {
            after = self.write(move |tx| ready_queues(tx, id, now)).await?;
        }
        self.write(move |tx| {
            tx.execute(
                "UPDATE outbox_lanes SET next_position = next_position + ?1",
                [POSITIONS_SKIPPED],
            )?;
            // The hash stays: what was handed out must not be published again.
            tx.execute(
                "UPDATE key_packages SET package = NULL WHERE last_resort = 0",
                [],
            )?;
            meta::put(tx, RESTORED, &now.as_millis().to_be_bytes())
        })
        .await
    }
}

/// Some queues behind the row `after`; the last one, if there may be more.
fn ready_queues(tx: &mut Tx<'_>, after: i64, now: Timestamp) -> Result<Option<i64>, StoreError> {
    let queues: Vec<(i64, QueueId)> = tx
        .prepare("SELECT id, queue FROM queues WHERE id > ?1 AND revoked = 0 ORDER BY id LIMIT ?2")?
        .query_map(params![after, SWEEP_ROWS], |row| {
            Ok((row.get(0)?, queue_id(row, 1)?))
        })?
        .collect::<Result<_, _>>()?;
    for (_, queue) in &queues {
        if let Some(mut line) = Line::load(tx, *queue)? {
            line.skip(POSITIONS_SKIPPED);
            line.leave_gap(tx, now)?;
            line.save(tx)?;
        }
    }
    Ok(queues
        .last()
        .filter(|_| queues.len() == SWEEP_ROWS)
        .map(|(id, _)| *id))
}
