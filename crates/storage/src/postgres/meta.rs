//! Small values and the stored clock in PostgreSQL.

use std::time::Duration;

use bytes::Bytes;
use commucat_proto::time::Timestamp;

use super::convert::{bytes, fixed};
use super::fault::Fault;
use super::tx::Tx;
use super::{Postgres, transact};
use crate::store::meta::MetaKey;
use crate::{ExpiryClock, StoreError};

const CLOCK: &str = "expiry clock";
/// Who advanced the clock last (16 bytes), and when by the database's clock (8 bytes, milliseconds).
const CLOCK_TURN: &str = "expiry clock turn";

impl Postgres {
    pub(crate) async fn meta(&self, key: MetaKey) -> Result<Option<Bytes>, StoreError> {
        let found = self
            .row("SELECT value FROM meta WHERE name = $1", &[&key.as_str()])
            .await?;
        Ok(found.map(|row| bytes(&row, 0)).transpose()?)
    }

    pub(crate) async fn set_meta(&self, key: MetaKey, value: Bytes) -> Result<(), StoreError> {
        transact!(self, tx => put(&tx, key.as_str(), &value))
    }
}

/// Several nodes advance one clock, each by the time since it did so last. Added up that would be too
/// much: a node that finds that another one was the last adds no more than the database has seen pass
/// since.
pub(super) async fn advance_clock(
    tx: &Tx,
    node: [u8; 16],
    wall: Timestamp,
    elapsed: Duration,
) -> Result<ExpiryClock, Fault> {
    // Made if need be, so that there is a row to lock.
    let lock = "INSERT INTO meta AS m (name, value) VALUES ($1, '') ON CONFLICT (name)
         DO UPDATE SET value = m.value
         RETURNING value, (extract(epoch FROM clock_timestamp()) * 1000)::bigint";
    let turn = tx.one(lock, &[&CLOCK_TURN]).await?;
    let now: i64 = turn.try_get(1)?;
    let last: &[u8] = turn.try_get(0)?;
    let passed = match last.split_at_checked(node.len()) {
        Some((by, at)) if by != node => {
            let at = at.try_into().map(i64::from_be_bytes).unwrap_or(now);
            Duration::from_millis(u64::try_from(now - at).unwrap_or(0)).min(elapsed)
        }
        _ => elapsed,
    };
    let stored = tx
        .row("SELECT value FROM meta WHERE name = $1", &[&CLOCK])
        .await?;
    let time = match stored {
        None => wall,
        Some(row) => {
            let stored = Timestamp::from_millis(u64::from_be_bytes(fixed(&row, 0)?));
            wall.min(stored.saturating_add(passed.saturating_mul(2)))
        }
    };
    put(tx, CLOCK, &time.as_millis().to_be_bytes()).await?;
    let mut turn = node.to_vec();
    turn.extend(now.to_be_bytes());
    put(tx, CLOCK_TURN, &turn).await?;
    Ok(ExpiryClock(time))
}

pub(super) async fn put(tx: &Tx, name: &str, value: &[u8]) -> Result<(), Fault> {
    tx.execute(
        "INSERT INTO meta (name, value) VALUES ($1, $2)
         ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        &[&name, &value],
    )
    .await?;
    Ok(())
}
