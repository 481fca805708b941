//! Reads every table of the server's store, with values shortened for the screen.

use std::path::Path;

use anyhow::{Context as _, Result};
use data_encoding::HEXLOWER;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags, Row};

/// Why everything is stored; the server's tests compare it with its schema.
const MANIFEST: &str = include_str!("../../../../docs/data-manifest.toml");
/// Characters of a text that are shown.
const TEXT_MAX: usize = 12;
/// Bytes of an opaque value that are shown.
const BYTES_MAX: usize = 4;

/// One table.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) name: String,
    /// How long its rows stay, as the manifest says.
    pub(super) lifetime: String,
    pub(super) count: u64,
    /// The first rows, a line each.
    pub(super) rows: Vec<String>,
}

/// Reads a store that no server has open.
pub(super) fn read(store: &Path, rows_max: usize) -> Result<Vec<Table>> {
    let manifest: toml::Table = MANIFEST.parse().context("the data manifest")?;
    let connection = Connection::open_with_flags(store, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let names: Vec<String> = connection
        .prepare(
            "SELECT name FROM sqlite_schema
             WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name",
        )?
        .query_map([], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    names
        .into_iter()
        .map(|name| {
            Ok(Table {
                lifetime: lifetime(&manifest, &name),
                count: connection.query_row(
                    &format!("SELECT count(*) FROM \"{name}\""),
                    [],
                    |row| row.get(0),
                )?,
                rows: first_rows(&connection, &name, rows_max)?,
                name,
            })
        })
        .collect()
}

fn first_rows(connection: &Connection, table: &str, rows_max: usize) -> Result<Vec<String>> {
    let limit = i64::try_from(rows_max).unwrap_or(i64::MAX);
    let mut statement = connection.prepare(&format!("SELECT * FROM \"{table}\" LIMIT ?1"))?;
    let columns: Vec<_> = statement
        .column_names()
        .into_iter()
        .map(str::to_owned)
        .collect();
    let rows = statement.query_map([limit], |row| line(row, &columns))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn line(row: &Row<'_>, columns: &[String]) -> rusqlite::Result<String> {
    let mut values = Vec::new();
    for (index, column) in columns.iter().enumerate() {
        values.push(format!("{column}={}", short(row.get_ref(index)?)));
    }
    Ok(values.join("  "))
}

fn short(value: ValueRef<'_>) -> String {
    match value {
        ValueRef::Null => "-".to_owned(),
        ValueRef::Integer(number) => number.to_string(),
        ValueRef::Real(number) => number.to_string(),
        ValueRef::Text(bytes) => {
            let text = String::from_utf8_lossy(bytes);
            let start: String = text.chars().take(TEXT_MAX).collect();
            if start.len() < text.len() {
                format!("{start}…")
            } else {
                start
            }
        }
        ValueRef::Blob(bytes) => match bytes.get(..BYTES_MAX) {
            Some(start) if bytes.len() > BYTES_MAX => {
                format!("{}…({} B)", HEXLOWER.encode(start), bytes.len())
            }
            _ => HEXLOWER.encode(bytes),
        },
    }
}

fn lifetime(manifest: &toml::Table, table: &str) -> String {
    let entry = manifest.get("tables").and_then(|tables| tables.get(table));
    let lifetime = entry.and_then(|entry| entry.get("lifetime"));
    lifetime
        .and_then(toml::Value::as_str)
        .unwrap_or("?")
        .to_owned()
}
