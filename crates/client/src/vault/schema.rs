//! The tables of the vault file and their migrations.

use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use super::VaultError;

/// Marks the file as ours ("CCat"), for `file(1)` and against opening a stranger's database.
const APPLICATION_ID: i64 = 0x4343_6174;

/// One step a format; a step once released never changes.
const MIGRATIONS: [&str; 1] = ["
    CREATE TABLE header (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        kdf TEXT NOT NULL, salt BLOB NOT NULL,
        memory INTEGER NOT NULL, passes INTEGER NOT NULL, lanes INTEGER NOT NULL,
        wrapped BLOB NOT NULL
    ) STRICT;
    CREATE TABLE item (
        tab TEXT NOT NULL, scope BLOB NOT NULL, id BLOB NOT NULL, value BLOB NOT NULL,
        PRIMARY KEY (tab, scope, id)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE log (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        tab TEXT NOT NULL, scope BLOB NOT NULL, value BLOB NOT NULL
    ) STRICT;
    CREATE INDEX log_by_scope ON log (tab, scope, id);
"];

/// Opens an existing file with full durability.
pub(super) fn open(path: &Path) -> Result<Connection, VaultError> {
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    settings(&connection)?;
    Ok(connection)
}

/// Brings the file to the newest format, in one transaction.
pub(super) fn migrate(connection: &mut Connection) -> Result<(), VaultError> {
    settings(connection)?;
    let found: u32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let known = u32::try_from(MIGRATIONS.len()).unwrap_or(u32::MAX);
    if found > known {
        return Err(VaultError::Newer { found, known });
    }
    if found == known {
        return Ok(());
    }
    let transaction = connection.transaction()?;
    for step in MIGRATIONS
        .iter()
        .skip(usize::try_from(found).unwrap_or(usize::MAX))
    {
        transaction.execute_batch(step)?;
    }
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", known)?;
    transaction.commit()?;
    Ok(())
}

fn settings(connection: &Connection) -> Result<(), VaultError> {
    // Deleted rows hold old ratchet keys: they are overwritten, not only unlinked.
    connection.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA secure_delete = ON;
         PRAGMA trusted_schema = OFF; PRAGMA busy_timeout = 5000;",
    )?;
    connection.set_prepared_statement_cache_capacity(32);
    Ok(())
}
