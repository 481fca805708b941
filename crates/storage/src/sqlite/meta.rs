//! Small values and the stored clock in SQLite.

use std::time::Duration;

use bytes::Bytes;
use commucat_proto::time::Timestamp;
use rusqlite::{OptionalExtension as _, params};

use super::Sqlite;
use super::convert::bytes;
use super::writer::Tx;
use crate::store::meta::MetaKey;
use crate::{ExpiryClock, StoreError};

const CLOCK: &str = "expiry clock";

impl Sqlite {
    pub(crate) async fn meta(&self, key: MetaKey) -> Result<Option<Bytes>, StoreError> {
        self.read(move |connection| {
            let value = connection
                .prepare_cached("SELECT value FROM meta WHERE name = ?1")?
                .query_row([key.as_str()], |row| bytes(row, 0))
                .optional()?;
            Ok(value)
        })
        .await
    }

    pub(crate) async fn set_meta(&self, key: MetaKey, value: Bytes) -> Result<(), StoreError> {
        self.write(move |tx| put(tx, key.as_str(), &value)).await
    }
}

pub(super) fn advance_clock(
    tx: &Tx<'_>,
    wall: Timestamp,
    elapsed: Duration,
) -> Result<ExpiryClock, StoreError> {
    let stored: Option<[u8; 8]> =
        tx.row("SELECT value FROM meta WHERE name = ?1", [CLOCK], |row| {
            row.get(0)
        })?;
    let time = match stored {
        None => wall,
        Some(stored) => {
            let stored = Timestamp::from_millis(u64::from_be_bytes(stored));
            wall.min(stored.saturating_add(elapsed.saturating_mul(2)))
        }
    };
    put(tx, CLOCK, &time.as_millis().to_be_bytes())?;
    Ok(ExpiryClock(time))
}

pub(super) fn put(tx: &Tx<'_>, name: &str, value: &[u8]) -> Result<(), StoreError> {
    tx.execute(
        "INSERT INTO meta (name, value) VALUES (?1, ?2)
         ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        params![name, value],
    )?;
    Ok(())
}
