//! The outbox in PostgreSQL.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use bytes::Bytes;
use commucat_proto::id::{DedupeKey, Domain};
use commucat_proto::time::Timestamp;
use tokio_postgres::Row;

use super::convert::{Uuid, bytes, length, millis, number, signed, text_id, time, unsigned};
use super::fault::Fault;
use super::tx::Tx;
use super::{Postgres, transact};
use crate::store::outbox::{
    NewOutboxEntry, NodeId, OutboxContent, OutboxLane, OutboxLimits, OutboxPage, OutboxRow,
    OutboxRowId, OutboxState, Outboxed,
};
use crate::store::queues::QueuePosition;
use crate::stored::outbox_checksum;
use crate::{ExpiryClock, StoreError};

const MAKE_LANES: &str = "INSERT INTO outbox_lanes (peer, lane, next_position)
    SELECT t.peer, t.lane, $3 FROM unnest($1::text[], $2::smallint[]) WITH ORDINALITY
        AS t (peer, lane, n) ORDER BY t.n ON CONFLICT DO NOTHING";
/// All lanes of the peers: what one of them may hold is a matter of all.
const LOCK_LANES: &str = "SELECT id, peer, lane, next_position, entries, bytes FROM outbox_lanes
    WHERE peer = ANY ($1::text[]) ORDER BY peer, lane FOR UPDATE";
const KNOWN: &str = "SELECT o.lane, o.key, o.position
    FROM unnest($1::bigint[], $2::uuid[]) AS t (lane, key)
    JOIN outbox AS o ON o.lane = t.lane AND o.key = t.key";
const INSERT: &str =
    "INSERT INTO outbox (lane, position, key, checksum, event, return_to, stored_at)
    SELECT t.*, $7 FROM unnest($1::bigint[], $2::bigint[], $3::uuid[], $4::uuid[], $5::bytea[],
        $6::bytea[]) AS t";
const CHANGE_LANES: &str = "UPDATE outbox_lanes AS l SET next_position = l.next_position + t.given,
        entries = l.entries + t.entries, bytes = l.bytes + t.bytes
    FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[])
        AS t (id, given, entries, bytes)
    WHERE l.id = t.id";
const DELETE: &str = "DELETE FROM outbox AS o
    USING unnest($1::bigint[], $2::bigint[], $3::uuid[]) AS t (lane, position, key)
    WHERE o.lane = t.lane AND o.position = t.position AND o.key = t.key
    RETURNING o.lane, octet_length(o.event)";
/// As for pages of queues.
const PAGE: &str = "SELECT l.next_position - 1, e.found, e.position, e.key, e.stored_at,
        e.checksum, e.event, e.return_to
    FROM outbox_lanes AS l
    LEFT JOIN LATERAL (
        SELECT x.*, count(*) OVER () AS found, row_number() OVER upwards AS n,
            sum(octet_length(x.event)) OVER upwards AS total
        FROM (
            SELECT position, key, stored_at, checksum, event, return_to FROM outbox
            WHERE lane = l.id AND position > $3 ORDER BY position LIMIT $4::bigint + 1
        ) AS x
        WINDOW upwards AS (ORDER BY x.position ROWS UNBOUNDED PRECEDING)
    ) AS e ON e.n = 1 OR (e.n <= $4::bigint AND e.total <= $5::bigint)
    WHERE l.peer = $1 AND l.lane = $2 ORDER BY e.position";
const EXPIRED: &str = "SELECT l.peer, l.lane, e.position, e.key, e.stored_at, e.checksum, e.event,
        e.return_to
    FROM outbox_lanes AS l
    CROSS JOIN LATERAL (
        SELECT x.* FROM outbox AS x WHERE x.lane = l.id AND x.stored_at <= $1
        ORDER BY x.position LIMIT $2::bigint
    ) AS e
    WHERE l.entries > 0 AND (SELECT y.stored_at FROM outbox AS y WHERE y.lane = l.id
        ORDER BY y.position LIMIT 1) <= $1
    ORDER BY l.peer, l.lane, e.position LIMIT $2::bigint";
const HOLD: &str = "INSERT INTO outbox_holders AS h (peer, node, held_until)
    VALUES ($1, $2, (extract(epoch FROM clock_timestamp()) * 1000)::bigint + $3)
    ON CONFLICT (peer) DO UPDATE SET node = excluded.node, held_until = excluded.held_until
    WHERE h.node = excluded.node
        OR h.held_until <= (extract(epoch FROM clock_timestamp()) * 1000)::bigint
    RETURNING node";

impl Postgres {
    pub(crate) async fn append_outbox(
        &self,
        entries: Vec<NewOutboxEntry>,
        now: Timestamp,
    ) -> Result<Vec<Outboxed>, StoreError> {
        let entries: Vec<_> = entries.iter().collect();
        transact!(self, tx => append(&tx, self.0.outbox, &entries, now))
    }

    pub(crate) async fn outbox_page(
        &self,
        lane: &OutboxLane,
        after: QueuePosition,
        bytes_max: usize,
        rows_max: usize,
    ) -> Result<OutboxPage, StoreError> {
        let rows_max = i64::try_from(rows_max.max(1)).unwrap_or(i64::MAX);
        let rows_max = rows_max.min(i64::MAX - 1);
        let bytes_max = i64::try_from(bytes_max).unwrap_or(i64::MAX);
        let found = self
            .query(
                PAGE,
                &[
                    &lane.peer.as_str(),
                    &i16::from(lane.number),
                    &signed(after.get()),
                    &rows_max,
                    &bytes_max,
                ],
            )
            .await?;
        Ok(self.read_page(&found)?)
    }

    pub(crate) async fn delete_outbox(&self, rows: Vec<OutboxRowId>) -> Result<u64, StoreError> {
        transact!(self, tx => delete(&tx, &rows))
    }

    pub(crate) async fn outbox_states(&self) -> Result<Vec<OutboxState>, StoreError> {
        let found = self
            .query(
                "SELECT peer, lane, next_position - 1, entries, bytes FROM outbox_lanes
                 WHERE entries > 0 ORDER BY peer, lane",
                &[],
            )
            .await?;
        let states: Result<_, Fault> = found
            .iter()
            .map(|row| {
                Ok(OutboxState {
                    lane: read_lane(row, 0)?,
                    head: QueuePosition::new(number(row, 2)?),
                    entries: number(row, 3)?,
                    bytes: number(row, 4)?,
                })
            })
            .collect();
        Ok(states?)
    }

    pub(crate) async fn outbox_expired(
        &self,
        clock: ExpiryClock,
        ttl: Duration,
        rows_max: usize,
    ) -> Result<Vec<(OutboxLane, OutboxRow)>, StoreError> {
        // Nothing is old enough while the clock shows less than the time to live.
        if clock.time().since(Timestamp::ZERO) < ttl {
            return Ok(Vec::new());
        }
        let horizon = millis(clock.time().saturating_sub(ttl));
        let rows_max = i64::try_from(rows_max).unwrap_or(i64::MAX);
        let found = self.query(EXPIRED, &[&horizon, &rows_max]).await?;
        let rows: Result<_, Fault> = found
            .iter()
            .map(|row| Ok((read_lane(row, 0)?, self.read_row(row, 2)?)))
            .collect();
        Ok(rows?)
    }

    pub(crate) async fn hold_outbox(
        &self,
        peer: &Domain,
        node: NodeId,
        lease: Duration,
    ) -> Result<bool, StoreError> {
        let lease = i64::try_from(lease.as_millis()).unwrap_or(i64::MAX);
        transact!(self, tx => async {
            let held = tx.change(HOLD, &[&peer.as_str(), &Uuid(node), &lease]).await?;
            Ok::<_, Fault>(!held.is_empty())
        })
    }

    fn read_page(&self, found: &[Row]) -> Result<OutboxPage, Fault> {
        let Some(first) = found.first() else {
            return Ok(OutboxPage::default());
        };
        let waiting: Option<i64> = first.try_get(1)?;
        let mut rows = Vec::with_capacity(found.len());
        for row in found {
            // A lane without entries is a row without one.
            if row.try_get::<_, Option<i64>>(2)?.is_some() {
                rows.push(self.read_row(row, 2)?);
            }
        }
        let returned = i64::try_from(rows.len()).unwrap_or(i64::MAX);
        Ok(OutboxPage {
            rows,
            head: QueuePosition::new(number(first, 0)?),
            more: waiting.is_some_and(|waiting| waiting > returned),
        })
    }

    /// Reads position, key, time, checksum, event and return from column `first` on.
    fn read_row(&self, row: &Row, first: usize) -> Result<OutboxRow, Fault> {
        let Uuid(key) = row.try_get(first + 1)?;
        let Uuid(stored) = row.try_get(first + 3)?;
        let event = bytes(row, first + 4)?;
        let return_to: Option<&[u8]> = row.try_get(first + 5)?;
        let content = if stored == outbox_checksum(&event, return_to) {
            let return_to = return_to.map(Bytes::copy_from_slice);
            OutboxContent::Event { event, return_to }
        } else {
            self.0.tally.count_corrupt();
            OutboxContent::Corrupt
        };
        Ok(OutboxRow {
            position: QueuePosition::new(number(row, first)?),
            key: DedupeKey::new(key),
            stored_at: time(row, first + 2)?,
            content,
        })
    }
}

fn read_lane(row: &Row, first: usize) -> Result<OutboxLane, Fault> {
    let number: i16 = row.try_get(first + 1)?;
    Ok(OutboxLane {
        peer: text_id(row, first, Domain::parse)?,
        number: u8::try_from(number).map_err(|_| Fault::corrupt("outbox_lanes"))?,
    })
}

/// A locked lane.
struct Lane {
    id: i64,
    next: i64,
    /// Differences: positions given out, entries, bytes.
    given: i64,
    entries: i64,
    bytes: i64,
}

/// Locked lanes, and what their peers hold: entries and bytes.
struct Lanes {
    lanes: BTreeMap<OutboxLane, Lane>,
    peers: HashMap<Domain, (i64, i64)>,
}

impl Lanes {
    async fn lock(tx: &Tx, wanted: &BTreeSet<&OutboxLane>) -> Result<Self, Fault> {
        let peers: BTreeSet<&str> = wanted.iter().map(|lane| lane.peer.as_str()).collect();
        let peers: Vec<&str> = peers.into_iter().collect();
        let mut locked = Self {
            lanes: BTreeMap::new(),
            peers: HashMap::new(),
        };
        for row in tx.query(LOCK_LANES, &[&peers]).await? {
            let lane = read_lane(&row, 1)?;
            let sums = locked.peers.entry(lane.peer.clone()).or_default();
            sums.0 += row.try_get::<_, i64>(4)?;
            sums.1 += row.try_get::<_, i64>(5)?;
            let found = Lane {
                id: row.try_get(0)?,
                next: row.try_get(3)?,
                given: 0,
                entries: 0,
                bytes: 0,
            };
            locked.lanes.insert(lane, found);
        }
        Ok(locked)
    }

    fn id(&self, lane: &OutboxLane) -> Option<i64> {
        self.lanes.get(lane).map(|lane| lane.id)
    }

    async fn save(&self, tx: &Tx) -> Result<(), Fault> {
        let changed = self.lanes.values().filter(|lane| lane.entries != 0);
        let (mut ids, mut given) = (Vec::new(), Vec::new());
        let (mut entries, mut bytes) = (Vec::new(), Vec::new());
        for lane in changed {
            ids.push(lane.id);
            given.push(lane.given);
            entries.push(lane.entries);
            bytes.push(lane.bytes);
        }
        if !ids.is_empty() {
            tx.execute(CHANGE_LANES, &[&ids, &given, &entries, &bytes])
                .await?;
        }
        Ok(())
    }
}

/// Rows to be inserted, as columns.
#[derive(Default)]
struct NewRows<'a> {
    lane: Vec<i64>,
    position: Vec<i64>,
    key: Vec<Uuid>,
    checksum: Vec<Uuid>,
    event: Vec<&'a [u8]>,
    return_to: Vec<Option<&'a [u8]>>,
}

/// Appends in the running transaction, in order.
pub(super) async fn append(
    tx: &Tx,
    limits: OutboxLimits,
    entries: &[&NewOutboxEntry],
    now: Timestamp,
) -> Result<Vec<Outboxed>, Fault> {
    if entries.is_empty() {
        return Ok(Vec::new());
    }
    let wanted: BTreeSet<&OutboxLane> = entries.iter().map(|entry| &entry.lane).collect();
    let peers: Vec<&str> = wanted.iter().map(|lane| lane.peer.as_str()).collect();
    let numbers: Vec<i16> = wanted.iter().map(|lane| i16::from(lane.number)).collect();
    tx.query(MAKE_LANES, &[&peers, &numbers, &millis(now).max(1)])
        .await?;
    let mut lanes = Lanes::lock(tx, &wanted).await?;
    let mut known = known(tx, &lanes, entries).await?;
    let mut rows = NewRows::default();
    let mut done = Vec::with_capacity(entries.len());
    for entry in entries {
        let peer = lanes.peers.get_mut(&entry.lane.peer);
        let (Some(lane), Some(sums)) = (lanes.lanes.get_mut(&entry.lane), peer) else {
            return Err(Fault::corrupt("outbox_lanes"));
        };
        let key = Uuid::from(entry.key);
        if let Some(position) = known.get(&(lane.id, key)) {
            done.push(Outboxed::Repeat(QueuePosition::new(unsigned(*position))));
            continue;
        }
        let size = length(&entry.event);
        let is_full =
            sums.0 >= signed(limits.entries) || sums.1.saturating_add(size) > signed(limits.bytes);
        if is_full {
            done.push(Outboxed::Full);
            continue;
        }
        let position = lane.next + lane.given;
        rows.lane.push(lane.id);
        rows.position.push(position);
        rows.key.push(key);
        let return_to = entry.return_to.as_deref();
        rows.checksum
            .push(Uuid(outbox_checksum(&entry.event, return_to)));
        rows.event.push(&entry.event);
        rows.return_to.push(return_to);
        known.insert((lane.id, key), position);
        *sums = (sums.0 + 1, sums.1 + size);
        lane.given += 1;
        lane.entries += 1;
        lane.bytes += size;
        done.push(Outboxed::Stored(QueuePosition::new(unsigned(position))));
    }
    if !rows.lane.is_empty() {
        insert(tx, &rows, now).await?;
        lanes.save(tx).await?;
    }
    Ok(done)
}

async fn insert(tx: &Tx, rows: &NewRows<'_>, now: Timestamp) -> Result<(), Fault> {
    tx.execute(
        INSERT,
        &[
            &rows.lane,
            &rows.position,
            &rows.key,
            &rows.checksum,
            &rows.event,
            &rows.return_to,
            &millis(now),
        ],
    )
    .await?;
    Ok(())
}

/// Where those of the entries are that wait already.
async fn known(
    tx: &Tx,
    lanes: &Lanes,
    entries: &[&NewOutboxEntry],
) -> Result<HashMap<(i64, Uuid), i64>, Fault> {
    let (mut ids, mut keys) = (Vec::new(), Vec::new());
    for entry in entries {
        if let Some(id) = lanes.id(&entry.lane) {
            ids.push(id);
            keys.push(Uuid::from(entry.key));
        }
    }
    let mut known = HashMap::new();
    for row in tx.query(KNOWN, &[&ids, &keys]).await? {
        known.insert((row.try_get(0)?, row.try_get(1)?), row.try_get(2)?);
    }
    Ok(known)
}

async fn delete(tx: &Tx, rows: &[OutboxRowId]) -> Result<u64, Fault> {
    let wanted: BTreeSet<&OutboxLane> = rows.iter().map(|row| &row.lane).collect();
    let mut lanes = Lanes::lock(tx, &wanted).await?;
    let (mut ids, mut positions, mut keys) = (Vec::new(), Vec::new(), Vec::new());
    for row in rows {
        if let Some(id) = lanes.id(&row.lane) {
            ids.push(id);
            positions.push(signed(row.position.get()));
            keys.push(Uuid::from(row.key));
        }
    }
    let deleted = tx.change(DELETE, &[&ids, &positions, &keys]).await?;
    let mut sums: HashMap<i64, (i64, i64)> = HashMap::new();
    for row in &deleted {
        let (id, size): (i64, i32) = (row.try_get(0)?, row.try_get(1)?);
        let sums = sums.entry(id).or_default();
        *sums = (sums.0 - 1, sums.1 - i64::from(size));
    }
    for lane in lanes.lanes.values_mut() {
        (lane.entries, lane.bytes) = sums.get(&lane.id).copied().unwrap_or_default();
    }
    lanes.save(tx).await?;
    Ok(u64::try_from(deleted.len()).unwrap_or(u64::MAX))
}
