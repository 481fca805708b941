//! Between the integers and blobs of SQLite and our types.

use bytes::Bytes;
use commucat_proto::id::{IdError, QueueId};
use commucat_proto::time::Timestamp;
use rusqlite::{Row, RowIndex};

use crate::StoreError;
use crate::error::BackendError;

/// For SQLite, whose integers are signed. Values beyond are no real sizes, places or times.
pub(super) fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// From SQLite; the schema holds no negative numbers of this kind.
pub(super) fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

/// A length, for SQLite.
pub(super) fn length(bytes: &[u8]) -> i64 {
    i64::try_from(bytes.len()).unwrap_or(i64::MAX)
}

pub(super) fn millis(time: Timestamp) -> i64 {
    signed(time.as_millis())
}

pub(super) fn time(row: &Row<'_>, column: impl RowIndex) -> rusqlite::Result<Timestamp> {
    row.get(column)
        .map(|millis| Timestamp::from_millis(unsigned(millis)))
}

pub(super) fn queue_id(row: &Row<'_>, column: impl RowIndex) -> rusqlite::Result<QueueId> {
    row.get(column).map(QueueId::new)
}

pub(super) fn bytes(row: &Row<'_>, column: impl RowIndex) -> rusqlite::Result<Bytes> {
    let raw = row.get_ref(column)?.as_blob()?;
    Ok(Bytes::copy_from_slice(raw))
}

/// Reads an identifier kept as text.
pub(super) fn text_id<T>(
    row: &Row<'_>,
    column: usize,
    parse: impl FnOnce(&str) -> Result<T, IdError>,
) -> rusqlite::Result<T> {
    let raw = row.get_ref(column)?;
    parse(raw.as_str()?).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(column, raw.data_type(), Box::new(error))
    })
}

/// What is stored beside bytes to notice damage: the first half of their BLAKE3.
pub(super) fn checksum(bytes: &[u8]) -> [u8; 16] {
    half(&blake3::hash(bytes))
}

pub(super) fn half(hash: &blake3::Hash) -> [u8; 16] {
    std::array::from_fn(|index| hash.as_bytes().get(index).copied().unwrap_or_default())
}

/// 16 random bytes from the operating system.
pub(super) fn random_id() -> Result<[u8; 16], StoreError> {
    let mut raw = [0; 16];
    getrandom::fill(&mut raw)
        .map_err(|_| StoreError::Unavailable(BackendError::text("no random bytes")))?;
    Ok(raw)
}
