//! A database that becomes the copy of an embedded store.
//!
//! Until the last row is there, a table of its own says so and how far the copy is; each batch and the
//! note of it are one transaction. No server opens a schema that has that table.

use std::collections::HashMap;
use std::error::Error;
use std::pin::pin;
use std::time::Duration;

use bytes::{BufMut as _, BytesMut};
use tokio_postgres::binary_copy::BinaryCopyInWriter;
use tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};

use super::connections::Connections;
use super::fault::{Fault, within};
use super::integrity;
use super::schema::{self, COPY_MARK};
use super::tx::Tx;
use super::url::PostgresUrl;
use crate::store::Migrations;
use crate::tally::Tally;
use crate::transfer::tables::{Cell, Kind, TABLES, Table};
use crate::transfer::{Batch, TransferError};
use crate::{OpenError, StoreError};

/// Longest that a batch may take, and the last steps.
const BATCH_WAIT: Duration = Duration::from_secs(120);
const END_WAIT: Duration = Duration::from_secs(3_600);

/// Names the source among the tables.
const SOURCE: &str = "";

/// What a session is told for whole tables.
const BEGIN: &str = "BEGIN; SET LOCAL statement_timeout = 0; SET LOCAL enable_seqscan = on;
    SET LOCAL enable_hashjoin = on; SET LOCAL enable_mergejoin = on;";

pub(crate) struct Target {
    connections: Connections,
    tally: std::sync::Arc<Tally>,
}

impl Target {
    pub(crate) async fn open(url: &PostgresUrl) -> Result<Self, OpenError> {
        let connections = Connections::new(url, 1)?;
        connections.check().await?;
        Ok(Self {
            connections,
            tally: std::sync::Arc::default(),
        })
    }

    /// Makes the tables, or finds how many rows of each are there already.
    pub(crate) async fn begin(
        &self,
        source: &[u8; 32],
    ) -> Result<HashMap<String, u64>, TransferError> {
        let prepare = |migrations| schema::prepare(&self.connections, migrations);
        let is_fresh = match prepare(Migrations::Refuse).await {
            Ok(_) => true,
            Err(OpenError::OlderSchema { found: 0, .. }) => {
                let made = prepare(Migrations::Apply).await;
                made.map_err(TransferError::Target)?;
                true
            }
            Err(OpenError::Unfinished) => false,
            // Somebody's.
            Err(OpenError::UnknownSchema | OpenError::OlderSchema { .. }) => {
                return Err(TransferError::NotEmpty);
            }
            Err(error) => return Err(TransferError::Target(error)),
        };
        let beginning = async {
            if is_fresh && !self.mark(source).await? {
                return Ok(None);
            }
            self.noted().await.map(Some)
        };
        let noted = within(END_WAIT, beginning).await;
        let noted = noted.map_err(|fault| TransferError::Write(fault.into()))?;
        let (found, copied) = noted.ok_or(TransferError::NotEmpty)?;
        if found == source {
            Ok(copied)
        } else {
            Err(TransferError::OtherSource)
        }
    }

    async fn transaction(&self) -> Result<Tx, Fault> {
        let client = self.connections.get().await?;
        let tx = Tx::new(client, std::sync::Arc::clone(&self.tally));
        tx.begin(BEGIN).await?;
        Ok(tx)
    }

    /// Marks the empty schema as unfinished; `false` if it has rows.
    async fn mark(&self, source: &[u8; 32]) -> Result<bool, Fault> {
        let tx = self.transaction().await?;
        for table in TABLES {
            let sql = format!("SELECT EXISTS (SELECT FROM {})", table.name);
            if tx.client()?.query_one(&sql, &[]).await?.try_get(0)? {
                tx.roll_back().await;
                return Ok(false);
            }
        }
        let sql = format!(
            "CREATE TABLE {COPY_MARK} (
                 name text PRIMARY KEY, rows bigint NOT NULL, source bytea NOT NULL)"
        );
        tx.client()?.batch_execute(&sql).await?;
        let sql = format!("INSERT INTO {COPY_MARK} VALUES ($1, 0, $2)");
        let source: &[u8] = source;
        tx.client()?.execute(&sql, &[&SOURCE, &source]).await?;
        tx.commit().await?;
        Ok(true)
    }

    /// The source that is noted, and the rows of each table.
    async fn noted(&self) -> Result<(Vec<u8>, HashMap<String, u64>), Fault> {
        let client = self.connections.get().await?;
        let sql = format!("SELECT name, rows, source FROM {COPY_MARK}");
        let (mut source, mut copied) = (Vec::new(), HashMap::new());
        for row in client.query(&sql, &[]).await? {
            let name: String = row.try_get(0)?;
            if name == SOURCE {
                source = row.try_get(2)?;
            } else {
                copied.insert(name, super::convert::number(&row, 1)?);
            }
        }
        Ok((source, copied))
    }

    /// Writes a batch; `rows` of the table are there then.
    pub(crate) async fn append(
        &self,
        table: &Table,
        batch: &Batch,
        rows: u64,
    ) -> Result<(), TransferError> {
        let written = within(BATCH_WAIT, self.write(table, batch, rows)).await;
        written.map_err(|fault| TransferError::Write(fault.into()))
    }

    async fn write(&self, table: &Table, batch: &Batch, rows: u64) -> Result<(), Fault> {
        let tx = self.transaction().await?;
        let names: Vec<_> = table.columns.iter().map(|(name, _)| *name).collect();
        let types: Vec<_> = table.columns.iter().map(|(_, kind)| kind.of()).collect();
        let sql = format!(
            "COPY {} ({}) FROM STDIN BINARY",
            table.name,
            names.join(", ")
        );
        let sink = tx.client()?.copy_in(&sql).await?;
        let mut writer = pin!(BinaryCopyInWriter::new(sink, &types));
        for cells in batch {
            let cells: Vec<&(dyn ToSql + Sync)> = cells
                .iter()
                .map(|cell| cell as &(dyn ToSql + Sync))
                .collect();
            writer.as_mut().write(&cells).await?;
        }
        writer.finish().await?;
        let note = format!(
            "INSERT INTO {COPY_MARK} VALUES ($1, $2, '')
             ON CONFLICT (name) DO UPDATE SET rows = excluded.rows"
        );
        let rows = super::convert::signed(rows);
        tx.client()?.execute(&note, &[&table.name, &rows]).await?;
        tx.commit().await
    }

    /// Counts and checks everything; the database is a store from then on.
    pub(crate) async fn finish(&self, wanted: &[(&'static str, u64)]) -> Result<(), TransferError> {
        let ending = within(END_WAIT, self.end(wanted)).await;
        match ending {
            Ok(None) => Ok(()),
            Ok(Some(differs)) => Err(differs),
            Err(fault) => Err(TransferError::Write(StoreError::from(fault))),
        }
    }

    async fn end(&self, wanted: &[(&'static str, u64)]) -> Result<Option<TransferError>, Fault> {
        let tx = self.transaction().await?;
        for (table, wanted) in wanted {
            let sql = format!("SELECT count(*) FROM {table}");
            let row = tx.client()?.query_one(&sql, &[]).await?;
            let found = super::convert::number(&row, 0)?;
            if found != *wanted {
                tx.roll_back().await;
                return Ok(Some(TransferError::Count {
                    table,
                    found,
                    wanted: *wanted,
                }));
            }
        }
        tx.commit().await?;
        let tx = self.transaction().await?;
        integrity::check(&tx).await?;
        tx.commit().await?;
        let tx = self.transaction().await?;
        for table in TABLES.iter().filter(|table| table.has_identity()) {
            let sql = format!(
                "SELECT setval(pg_get_serial_sequence('{0}', 'id'),
                     (SELECT coalesce(max(id), 0) + 1 FROM {0}), false)",
                table.name
            );
            tx.client()?.query_one(&sql, &[]).await?;
        }
        let sql = format!("DROP TABLE {COPY_MARK}");
        tx.client()?.batch_execute(&sql).await?;
        tx.commit().await?;
        // Plans for the tables as they are now.
        let client = self.connections.get().await?;
        client
            .batch_execute("SET statement_timeout = 0; ANALYZE; SET statement_timeout = '7s'")
            .await?;
        Ok(None)
    }
}

impl Kind {
    const fn of(self) -> Type {
        match self {
            Self::Long => Type::INT8,
            Self::Integer => Type::INT4,
            Self::Short => Type::INT2,
            Self::Flag => Type::BOOL,
            Self::Text => Type::TEXT,
            Self::Bytes => Type::BYTEA,
            Self::Uuid => Type::UUID,
        }
    }
}

impl ToSql for Cell {
    fn to_sql(
        &self,
        kind: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        match (self, kind) {
            (Self::Null, _) => return Ok(IsNull::Yes),
            (Self::Number(number), &Type::INT8) => out.put_i64(*number),
            (Self::Number(number), &Type::INT4) => out.put_i32(i32::try_from(*number)?),
            (Self::Number(number), &Type::INT2) => out.put_i16(i16::try_from(*number)?),
            (Self::Number(number), &Type::BOOL) => out.put_u8(u8::from(*number != 0)),
            (Self::Text(text), &Type::TEXT) => out.put_slice(text.as_bytes()),
            (Self::Bytes(bytes), &Type::BYTEA) => out.put_slice(bytes),
            (Self::Bytes(bytes), &Type::UUID) if bytes.len() == 16 => out.put_slice(bytes),
            _ => return Err("a value is not of its column's type".into()),
        }
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}
