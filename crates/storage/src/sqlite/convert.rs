//! Between the integers and blobs of SQLite and our types.

use bytes::Bytes;
use commucat_proto::id::{IdError, QueueId};
use commucat_proto::time::Timestamp;
use rusqlite::{Row, RowIndex};

pub(super) use crate::stored::{checksum, half, length, millis, random_id, signed, unsigned};

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
