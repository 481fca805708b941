//! The versioned schema: migrations, and the refusal of anything that they do not lead to.

use rusqlite::{Connection, TransactionBehavior};

use crate::OpenError;
use crate::store::Migrations;

/// All migrations, in order. The schema version is how many were applied.
const MIGRATIONS: &[&str] = &[
    include_str!("../../migrations/sqlite/0001_initial.sql"),
    include_str!("../../migrations/sqlite/0002_federation.sql"),
];

/// Marks the file as ours: "CCAT".
const APPLICATION_ID: i64 = 0x4343_4154;

/// The version of the schema found. Changes nothing, and refuses anything else than an empty file or
/// a store of a known version.
pub(super) fn check(connection: &Connection, migrations: Migrations) -> Result<u32, OpenError> {
    let supported = supported();
    let found = found_version(connection)?;
    if found > supported {
        return Err(OpenError::NewerSchema { found, supported });
    }
    if shape(connection).map_err(database)? != shape_of_version(found)? {
        return Err(OpenError::UnknownSchema);
    }
    // An empty file is no older store: making it is not migrating it.
    if found < supported && found > 0 && migrations == Migrations::Refuse {
        return Err(OpenError::OlderSchema { found, supported });
    }
    Ok(found)
}

/// Applies the migrations after `found`; returns the version reached.
pub(super) fn bring_up_to_date(connection: &mut Connection, found: u32) -> Result<u32, OpenError> {
    for (version, sql) in (1..).zip(MIGRATIONS) {
        if version > found {
            apply(connection, version, sql).map_err(|error| OpenError::Migration {
                version,
                source: error.into(),
            })?;
        }
    }
    Ok(supported())
}

fn supported() -> u32 {
    u32::try_from(MIGRATIONS.len()).unwrap_or(u32::MAX)
}

/// Every table with its columns.
pub(super) fn columns(connection: &Connection) -> rusqlite::Result<Vec<(String, String)>> {
    connection
        .prepare(
            "SELECT t.name, c.name FROM sqlite_schema AS t, pragma_table_info(t.name) AS c
             WHERE t.type = 'table' AND t.name NOT LIKE 'sqlite_%' ORDER BY t.name, c.cid",
        )?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect()
}

fn found_version(connection: &Connection) -> Result<u32, OpenError> {
    let number = |name: &str| {
        connection.query_row(&format!("PRAGMA {name}"), [], |row| row.get::<_, i64>(0))
    };
    let application = number("application_id").map_err(database)?;
    let version = number("user_version").map_err(database)?;
    match (application, u32::try_from(version)) {
        (0, Ok(0)) => Ok(0),
        (APPLICATION_ID, Ok(version)) if version > 0 => Ok(version),
        _ => Err(OpenError::UnknownSchema),
    }
}

fn apply(connection: &mut Connection, version: u32, sql: &str) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.execute_batch(sql)?;
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", version)?;
    transaction.commit()
}

/// The definitions in a database, without what SQLite adds by itself.
fn shape(connection: &Connection) -> rusqlite::Result<Vec<(String, String)>> {
    connection
        .prepare(
            "SELECT name, coalesce(sql, '') FROM sqlite_schema
             WHERE name NOT LIKE 'sqlite_%' ORDER BY name",
        )?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect()
}

/// What [`shape`] must be at `version`.
fn shape_of_version(version: u32) -> Result<Vec<(String, String)>, OpenError> {
    let mut model = Connection::open_in_memory().map_err(database)?;
    for (number, sql) in (1..=version).zip(MIGRATIONS) {
        apply(&mut model, number, sql).map_err(|error| OpenError::Migration {
            version: number,
            source: error.into(),
        })?;
    }
    shape(&model).map_err(database)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_migration_that_fails_leaves_nothing() {
        let mut connection = Connection::open_in_memory().unwrap();

        let failed = apply(
            &mut connection,
            1,
            "CREATE TABLE a (b) STRICT; CREATE TABLE nonsense (",
        );

        assert!(failed.is_err());
        assert_eq!(shape(&connection).unwrap(), []);
        assert_eq!(found_version(&connection).unwrap(), 0);
    }
}
