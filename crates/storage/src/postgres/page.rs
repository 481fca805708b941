//! Reading a queue.

use commucat_proto::id::{DedupeKey, GroupId, QueueId};
use tokio_postgres::Row as SqlRow;

use super::Postgres;
use super::convert::{Uuid, bytes, checksum, fixed, number, signed, time};
use super::fault::Fault;
use super::line::GAP;
use crate::StoreError;
use crate::store::queues::{Content, EntryKind, Page, QueuePosition, Row};

/// One statement, so that head and rows are of one moment; a row at least, for its head. `n` numbers
/// the rows after `$2`, `total` sums up their bytes, `found` counts them: one more than asked for, if
/// there is one.
const PAGE: &str =
    "SELECT q.next_position - 1, q.gap_shown, e.found, e.position, e.key, e.stored_at,
        e.kind, e.group_id, coalesce(e.checksum, e.body), coalesce(e.bytes, b.bytes)
    FROM queues AS q
    LEFT JOIN LATERAL (
        SELECT x.*, count(*) OVER () AS found, row_number() OVER upwards AS n,
            sum(x.length) OVER upwards AS total
        FROM (
            SELECT position, key, stored_at, kind, group_id, length, checksum, body, bytes
            FROM queue_entries WHERE queue = $1 AND position > $2
            ORDER BY position LIMIT $3::bigint + 1
        ) AS x
        WINDOW upwards AS (ORDER BY x.position ROWS UNBOUNDED PRECEDING)
    ) AS e ON e.n = 1 OR (e.n <= $3::bigint AND e.total <= $4::bigint)
    LEFT JOIN bodies AS b ON b.id = e.body
    WHERE q.queue = $1 AND NOT q.revoked
    ORDER BY e.position";

const MARK_SHOWN: &str =
    "UPDATE queues SET gap_shown = true WHERE queue = $1 AND gap_position = $2";

impl Postgres {
    pub(crate) async fn page(
        &self,
        queue: &QueueId,
        after: QueuePosition,
        bytes_max: usize,
        rows_max: usize,
    ) -> Result<Option<Page>, StoreError> {
        let id = Uuid::from(*queue);
        let rows_max = i64::try_from(rows_max.max(1)).unwrap_or(i64::MAX);
        // One row more must still be a number.
        let rows_max = rows_max.min(i64::MAX - 1);
        let bytes_max = i64::try_from(bytes_max).unwrap_or(i64::MAX);
        let after = signed(after.get());
        let found = self
            .query(PAGE, &[&id, &after, &rows_max, &bytes_max])
            .await?;
        let Some(read) = read_page(&found)? else {
            return Ok(None);
        };
        for row in &read.page.rows {
            match row.content {
                // Before the page is returned: from here on a refusal makes a new gap entry.
                Content::Gap if !read.gap_shown => {
                    let position = signed(row.position.get());
                    self.query(MARK_SHOWN, &[&id, &position]).await?;
                }
                Content::Corrupt => self.0.tally.count_corrupt(),
                Content::Gap | Content::Frame { .. } => {}
            }
        }
        Ok(Some(read.page))
    }
}

struct Read {
    page: Page,
    gap_shown: bool,
}

/// `None` if there is no such queue.
fn read_page(found: &[SqlRow]) -> Result<Option<Read>, Fault> {
    let Some(first) = found.first() else {
        return Ok(None);
    };
    let mut rows = Vec::with_capacity(found.len());
    for row in found {
        // A queue without entries is a row without one.
        if row.try_get::<_, Option<i64>>(3)?.is_some() {
            rows.push(read_row(row)?);
        }
    }
    let waiting: Option<i64> = first.try_get(2)?;
    let returned = i64::try_from(rows.len()).unwrap_or(i64::MAX);
    Ok(Some(Read {
        page: Page {
            rows,
            head: QueuePosition::new(number(first, 0)?),
            more: waiting.is_some_and(|waiting| waiting > returned),
        },
        gap_shown: first.try_get(1)?,
    }))
}

fn read_row(row: &SqlRow) -> Result<Row, Fault> {
    let Uuid(key) = row.try_get(4)?;
    let kind: i16 = row.try_get(6)?;
    let content = if kind == GAP {
        Content::Gap
    } else {
        read_frame(row, kind).unwrap_or(Content::Corrupt)
    };
    Ok(Row {
        position: QueuePosition::new(number(row, 3)?),
        key: DedupeKey::new(key),
        stored_at: time(row, 5)?,
        content,
    })
}

/// `None` if anything of it is missing or does not fit its checksum.
fn read_frame(row: &SqlRow, kind: i16) -> Option<Content> {
    let kind = u8::try_from(kind).ok().and_then(EntryKind::from_code)?;
    let group = fixed(row, 7).map(GroupId::new).ok()?;
    let Uuid(expected) = row.try_get(8).ok()?;
    let body = bytes(row, 9).ok()?;
    (checksum(&body) == expected).then_some(Content::Frame { kind, group, body })
}
