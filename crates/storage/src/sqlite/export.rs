//! Everything of a store that no server uses, table by table.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;
use std::time::Duration;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row};
use tokio::sync::mpsc;

use super::{open, schema};
use crate::store::Migrations;
use crate::transfer::Batch;
use crate::transfer::tables::{Cell, Table};
use crate::{OpenError, StoreError};

/// Rows of one batch, and their bytes.
const ROWS_MAX: usize = 2_000;
const BYTES_MAX: usize = 4 * 1024 * 1024;

/// A store that is read and not changed. Its lock is held: no server starts meanwhile.
pub(crate) struct Source {
    connection: Connection,
    fingerprint: [u8; 32],
    _lock: File,
}

impl Source {
    /// Opens the store in `directory`, of this program's schema. Blocks.
    pub(crate) fn open(directory: &Path) -> Result<Self, OpenError> {
        if !super::is_made(directory) {
            return Err(OpenError::UnknownSchema);
        }
        let lock = open::lock(directory, Duration::ZERO)?;
        open::check_finished(directory)?;
        let path = directory.join(open::DATABASE_FILE);
        let fingerprint = fingerprint(&path).map_err(OpenError::Directory)?;
        let connection = open::reader_connection(&path)?;
        if schema::check(&connection, Migrations::Refuse)? == 0 {
            return Err(OpenError::UnknownSchema);
        }
        Ok(Self {
            connection,
            fingerprint,
            _lock: lock,
        })
    }

    /// Names the state of the store: another after any change.
    pub(crate) const fn fingerprint(&self) -> [u8; 32] {
        self.fingerprint
    }

    /// Rows that the query of `table` has. Blocks.
    pub(crate) fn count(&self, table: &Table) -> Result<u64, StoreError> {
        let sql = format!("SELECT count(*) FROM ({})", table.query);
        let rows: i64 = self.connection.query_row(&sql, [], |row| row.get(0))?;
        Ok(crate::stored::unsigned(rows))
    }

    /// Sends the rows behind the first `skip` in batches, until nobody takes them. Blocks.
    pub(crate) fn read(
        &self,
        table: &Table,
        skip: u64,
        batches: &mpsc::Sender<Batch>,
    ) -> Result<(), StoreError> {
        let sql = format!("{} LIMIT -1 OFFSET ?1", table.query);
        let mut statement = self.connection.prepare(&sql)?;
        let mut rows = statement.query([crate::stored::signed(skip)])?;
        let (mut batch, mut bytes) = (Batch::new(), 0);
        while let Some(row) = rows.next()? {
            let cells = cells(row, table.columns.len())?;
            bytes += cells.iter().map(Cell::bytes).sum::<usize>();
            batch.push(cells);
            if batch.len() >= ROWS_MAX || bytes >= BYTES_MAX {
                bytes = 0;
                if batches.blocking_send(std::mem::take(&mut batch)).is_err() {
                    return Ok(());
                }
            }
        }
        if !batch.is_empty() {
            // Whoever does not take it has stopped.
            batches.blocking_send(batch).ok();
        }
        Ok(())
    }
}

fn cells(row: &Row<'_>, columns: usize) -> Result<Vec<Cell>, StoreError> {
    let corrupt = StoreError::Corrupt { what: "text" };
    (0..columns)
        .map(|column| {
            Ok(match row.get_ref(column)? {
                ValueRef::Null => Cell::Null,
                ValueRef::Integer(number) => Cell::Number(number),
                ValueRef::Text(text) => {
                    let text = std::str::from_utf8(text).map_err(|_| corrupt.clone())?;
                    Cell::Text(text.to_owned())
                }
                ValueRef::Blob(bytes) => Cell::Bytes(bytes.to_vec()),
                // No column is of this type.
                ValueRef::Real(_) => return Err(StoreError::Corrupt { what: "number" }),
            })
        })
        .collect()
}

/// Over the database and what its log holds.
fn fingerprint(path: &Path) -> io::Result<[u8; 32]> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(File::open(path)?)?;
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    match File::open(&log) {
        // Without a log and with an empty one it is the same database.
        Ok(file) => drop(hasher.update_reader(file.take(u64::MAX))?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    Ok(*hasher.finalize().as_bytes())
}
