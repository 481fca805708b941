//! Between the columns of PostgreSQL and our types.

use std::error::Error;
use std::fmt;

use bytes::{BufMut as _, Bytes, BytesMut};
use commucat_proto::id::{DedupeKey, IdError, QueueId};
use commucat_proto::time::Timestamp;
use tokio_postgres::Row;
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, accepts, to_sql_checked};

use super::fault::Fault;
pub(super) use crate::stored::{checksum, length, millis, random_id, signed, unsigned};

/// 16 bytes as PostgreSQL keeps them best. Says nothing of them in logs.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(super) struct Uuid(pub(super) [u8; 16]);

impl fmt::Debug for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Uuid")
    }
}

impl From<QueueId> for Uuid {
    fn from(queue: QueueId) -> Self {
        Self(*queue.as_bytes())
    }
}

impl From<DedupeKey> for Uuid {
    fn from(key: DedupeKey) -> Self {
        Self(*key.as_bytes())
    }
}

impl ToSql for Uuid {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        out.put_slice(&self.0);
        Ok(IsNull::No)
    }

    accepts!(UUID);
    to_sql_checked!();
}

impl<'a> FromSql<'a> for Uuid {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(Self(raw.try_into()?))
    }

    accepts!(UUID);
}

pub(super) fn number(row: &Row, column: usize) -> Result<u64, Fault> {
    Ok(unsigned(row.try_get(column)?))
}

pub(super) fn time(row: &Row, column: usize) -> Result<Timestamp, Fault> {
    Ok(Timestamp::from_millis(number(row, column)?))
}

pub(super) fn queue_id(row: &Row, column: usize) -> Result<QueueId, Fault> {
    let Uuid(raw) = row.try_get(column)?;
    Ok(QueueId::new(raw))
}

pub(super) fn bytes(row: &Row, column: usize) -> Result<Bytes, Fault> {
    Ok(Bytes::copy_from_slice(row.try_get(column)?))
}

/// Reads bytes of a fixed number.
pub(super) fn fixed<const N: usize>(row: &Row, column: usize) -> Result<[u8; N], Fault> {
    let raw: &[u8] = row.try_get(column)?;
    raw.try_into().map_err(|_| Fault::corrupt("identifier"))
}

/// Reads an identifier kept as text.
pub(super) fn text_id<T>(
    row: &Row,
    column: usize,
    parse: impl FnOnce(&str) -> Result<T, IdError>,
) -> Result<T, Fault> {
    parse(row.try_get(column)?).map_err(|_| Fault::corrupt("identifier"))
}
