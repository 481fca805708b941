//! The versioned schema: migrations, one process at a time, and the refusal of anything that they do
//! not lead to.

use std::time::Duration;

use tokio_postgres::{Client, Row};

use super::connections::Connections;
use super::convert::{Uuid, checksum};
use super::fault::{Fault, backend, within};
use crate::OpenError;
use crate::store::Migrations;

/// All migrations, in order. The schema version is how many were applied.
const MIGRATIONS: &[&str] = &[
    include_str!("../../migrations/postgres/0001_initial.sql"),
    include_str!("../../migrations/postgres/0002_federation.sql"),
];

/// Says which version the schema has and what it looked like then.
const MARK: &str = "commucat_schema";

/// Says that rows are still being copied into this schema, from where and how many are there.
pub(super) const COPY_MARK: &str = "commucat_copy";

/// Names the lock of migrations among the database's advisory locks: "CCATmigr".
const LOCK: i64 = 0x4343_4154_6d69_6772;
/// Longest that all migrations may take, and the wait for another process that applies them.
const WAIT: Duration = Duration::from_secs(600);

/// Every column of a table in the schema in use.
const COLUMNS: &str = "SELECT c.relname::text, a.attname::text,
        format_type(a.atttypid, a.atttypmod), a.attnotnull
    FROM pg_attribute AS a
    JOIN pg_class AS c ON c.oid = a.attrelid
    WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p')
        AND a.attnum > 0 AND NOT a.attisdropped
    ORDER BY c.relname::text COLLATE \"C\", a.attnum";

/// Brings the schema up to date, or refuses it; returns its version.
pub(super) async fn prepare(
    connections: &Connections,
    migrations: Migrations,
) -> Result<u32, OpenError> {
    let preparing = async {
        let client = connections.get().await?;
        let found = check(&client, migrations).await?;
        if found < supported() {
            bring_up_to_date(&client, migrations).await?;
        }
        Ok(supported())
    };
    Ok(within(WAIT, preparing).await?)
}

/// Every table with its columns.
pub(super) async fn columns(client: &Client) -> Result<Vec<(String, String)>, Fault> {
    let rows = client.query(COLUMNS, &[]).await?;
    rows.iter()
        .map(|row| Ok((row.try_get(0)?, row.try_get(1)?)))
        .collect()
}

fn supported() -> u32 {
    u32::try_from(MIGRATIONS.len()).unwrap_or(u32::MAX)
}

/// The version found. Changes nothing, and refuses anything else than an empty schema or a store of a
/// known version.
async fn check(client: &Client, migrations: Migrations) -> Result<u32, Fault> {
    let unknown = || Fault::Unsafe(OpenError::UnknownSchema);
    let supported = supported();
    let rows = client.query(COLUMNS, &[]).await?;
    if rows.is_empty() {
        return match migrations {
            Migrations::Apply => Ok(0),
            Migrations::Refuse => Err(Fault::Unsafe(OpenError::OlderSchema {
                found: 0,
                supported,
            })),
        };
    }
    let is_copy = |row: &Row| row.try_get(0).is_ok_and(|table: &str| table == COPY_MARK);
    if rows.iter().any(is_copy) {
        return Err(Fault::Unsafe(OpenError::Unfinished));
    }
    let is_mark = |row: &Row| row.try_get(0).is_ok_and(|table: &str| table == MARK);
    if !rows.iter().any(is_mark) {
        return Err(unknown());
    }
    let marks = client
        .query(&format!("SELECT version, shape FROM {MARK}"), &[])
        .await
        .map_err(|_| unknown())?;
    let [mark] = marks.as_slice() else {
        return Err(unknown());
    };
    let found: i32 = mark.try_get(0).map_err(|_| unknown())?;
    let found = u32::try_from(found).map_err(|_| unknown())?;
    if found > supported {
        return Err(Fault::Unsafe(OpenError::NewerSchema { found, supported }));
    }
    let shape: Uuid = mark.try_get(1).map_err(|_| unknown())?;
    if shape != shape_of(&rows)? {
        return Err(unknown());
    }
    if found < supported && migrations == Migrations::Refuse {
        return Err(Fault::Unsafe(OpenError::OlderSchema { found, supported }));
    }
    Ok(found)
}

/// A hash over the columns of all tables.
fn shape_of(rows: &[Row]) -> Result<Uuid, Fault> {
    let mut text = String::new();
    for row in rows {
        let (table, column): (&str, &str) = (row.try_get(0)?, row.try_get(1)?);
        let (kind, is_set): (&str, bool) = (row.try_get(2)?, row.try_get(3)?);
        text.push_str(&format!("{table}.{column} {kind} {is_set}\n"));
    }
    Ok(Uuid(checksum(text.as_bytes())))
}

/// Applies what is missing in one transaction, under a lock that one process has at a time.
async fn bring_up_to_date(client: &Client, migrations: Migrations) -> Result<(), Fault> {
    client
        .batch_execute(
            "BEGIN; SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = '60s';
             SET LOCAL enable_seqscan = on; SET LOCAL enable_bitmapscan = on;
             SET LOCAL enable_hashjoin = on; SET LOCAL enable_mergejoin = on;",
        )
        .await?;
    let done = apply_missing(client, migrations).await;
    let end = if done.is_ok() { "COMMIT" } else { "ROLLBACK" };
    client.batch_execute(end).await?;
    done
}

async fn apply_missing(client: &Client, migrations: Migrations) -> Result<(), Fault> {
    client
        .execute("SELECT pg_advisory_xact_lock($1)", &[&LOCK])
        .await?;
    // Another process may have done it while this one waited.
    let found = check(client, migrations).await?;
    if found == 0 {
        let mark = format!(
            "CREATE TABLE {MARK} (version integer NOT NULL, shape uuid NOT NULL);
             INSERT INTO {MARK} VALUES (0, '00000000-0000-0000-0000-000000000000')"
        );
        client.batch_execute(&mark).await?;
    }
    for (version, sql) in (1..).zip(MIGRATIONS) {
        if version > found {
            client.batch_execute(sql).await.map_err(|error| {
                Fault::Unsafe(OpenError::Migration {
                    version,
                    source: backend(&error),
                })
            })?;
        }
    }
    let shape = shape_of(&client.query(COLUMNS, &[]).await?)?;
    let version = i32::try_from(supported()).unwrap_or(i32::MAX);
    client
        .execute(
            &format!("UPDATE {MARK} SET version = $1, shape = $2"),
            &[&version, &shape],
        )
        .await?;
    Ok(())
}
