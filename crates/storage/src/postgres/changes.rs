//! What a transaction writes about queues, gathered and sent as one statement for each table.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use commucat_proto::id::{DedupeKey, GroupId, QueueId};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::convert::{Uuid, checksum, fixed, length, queue_id};
use super::fault::Fault;
use super::line::{Gap, Line};
use super::pipeline::{Parameters, Pipeline};
use super::tx::Tx;

/// The columns that [`Removed::read`] takes, of `queue_entries AS e`.
macro_rules! removed_columns {
    () => {
        "e.queue, e.position, e.key, e.kind, e.length, e.group_id, e.body"
    };
}
pub(super) use removed_columns;

const DROP_GAPS: &str = "DELETE FROM queue_entries AS e
    USING unnest($1::uuid[], $2::bigint[]) AS t (queue, position)
    WHERE e.queue = t.queue AND e.position = t.position";
const INSERT_ENTRIES: &str = "INSERT INTO queue_entries
        (queue, position, key, kind, stored_at, length, body, checksum, group_id, bytes)
    SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::uuid[], $4::smallint[], $5::bigint[],
        $6::integer[], $7::uuid[], $8::uuid[], $9::bytea[], $10::bytea[])";
const UPDATE_QUEUES: &str = "UPDATE queues AS q SET next_position = t.next_position,
        entries = t.entries, bytes = t.bytes, invites = t.invites, gap_position = t.gap_position,
        gap_shown = t.gap_shown, left_marks = t.left_marks
    FROM unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[],
        $7::boolean[], $8::bigint[]) AS t (queue, next_position, entries, bytes, invites,
        gap_position, gap_shown, left_marks)
    WHERE q.queue = t.queue";
const ADD_TO_GROUPS: &str = "INSERT INTO queue_groups AS g (queue, group_id, entries, bytes)
    SELECT * FROM unnest($1::uuid[], $2::bytea[], $3::bigint[], $4::bigint[])
    ON CONFLICT (queue, group_id)
    DO UPDATE SET entries = g.entries + excluded.entries, bytes = g.bytes + excluded.bytes";
const TAKE_FROM_GROUPS: &str = "UPDATE queue_groups AS g
    SET entries = g.entries + t.entries, bytes = g.bytes + t.bytes
    FROM unnest($1::uuid[], $2::bytea[], $3::bigint[], $4::bigint[])
        AS t (queue, group_id, entries, bytes)
    WHERE g.queue = t.queue AND g.group_id = t.group_id
        AND (g.entries + t.entries > 0 OR g.left_at IS NOT NULL)";
/// A row that would say nothing any more.
const DROP_GROUPS: &str = "DELETE FROM queue_groups AS g
    USING unnest($1::uuid[], $2::bytea[], $3::bigint[]) AS t (queue, group_id, entries)
    WHERE g.queue = t.queue AND g.group_id = t.group_id
        AND g.entries + t.entries <= 0 AND g.left_at IS NULL";
/// In the order of ids, as everybody locks them.
const SHARE_BODIES: &str = "INSERT INTO shared_bodies AS s (body, refs)
    SELECT * FROM unnest($1::uuid[], $2::bigint[])
    ON CONFLICT (body) DO UPDATE SET refs = s.refs + excluded.refs";
const INSERT_BODIES: &str = "INSERT INTO bodies (id, bytes)
    SELECT * FROM unnest($1::uuid[], $2::bytea[]) ON CONFLICT DO NOTHING";
const LOCK_SHARED: &str = "SELECT body FROM shared_bodies WHERE body = ANY ($1::uuid[])
    ORDER BY body FOR UPDATE";
const RELEASE_BODIES: &str = "UPDATE shared_bodies AS s SET refs = s.refs - t.refs
    FROM unnest($1::uuid[], $2::bigint[]) AS t (body, refs) WHERE s.body = t.body";
const DROP_BODIES: &str = "DELETE FROM bodies AS b USING shared_bodies AS s
    WHERE s.body = ANY ($1::uuid[]) AND s.refs <= 0 AND b.id = s.body";
const DROP_SHARED: &str = "DELETE FROM shared_bodies WHERE body = ANY ($1::uuid[]) AND refs <= 0";

/// An entry to be inserted.
pub(super) struct Inserted {
    pub(super) queue: QueueId,
    pub(super) position: i64,
    pub(super) key: DedupeKey,
    pub(super) kind: i16,
    pub(super) stored_at: i64,
    /// Group and body; a gap entry has none.
    pub(super) frame: Option<(GroupId, Bytes)>,
}

/// What a deleted row says about itself.
pub(super) struct Removed {
    pub(super) queue: QueueId,
    pub(super) position: i64,
    pub(super) key: DedupeKey,
    pub(super) kind: i16,
    pub(super) length: i64,
    group: Option<GroupId>,
    body: Option<Uuid>,
}

impl Removed {
    /// Reads a row of [`removed_columns`].
    pub(super) fn read(row: &Row) -> Result<Self, Fault> {
        let Uuid(key) = row.try_get(2)?;
        let length: i32 = row.try_get(4)?;
        let group: Option<&[u8]> = row.try_get(5)?;
        Ok(Self {
            queue: queue_id(row, 0)?,
            position: row.try_get(1)?,
            key: DedupeKey::new(key),
            kind: row.try_get(3)?,
            length: i64::from(length),
            group: group.map(|_| fixed(row, 5)).transpose()?.map(GroupId::new),
            body: row.try_get(6)?,
        })
    }
}

/// What is to be written.
#[derive(Default)]
pub(super) struct Changes {
    rows: Vec<Inserted>,
    gaps: Vec<(QueueId, i64)>,
    /// Differences of `(entries, bytes)`.
    groups: BTreeMap<(QueueId, GroupId), (i64, i64)>,
    /// Entries gone, by the shared body that they had.
    released: BTreeMap<Uuid, i64>,
}

/// How a transaction goes on after its changes.
#[derive(Clone, Copy, Eq, PartialEq)]
pub(super) enum After {
    /// It is committed in the same round trip.
    Commit,
    /// More statements follow.
    GoOn,
}

impl Changes {
    pub(super) fn insert(&mut self, row: Inserted) {
        if let Some((group, body)) = &row.frame {
            self.change_group(row.queue, *group, 1, length(body));
        }
        self.rows.push(row);
    }

    pub(super) fn drop_gap(&mut self, queue: QueueId, position: i64) {
        self.gaps.push((queue, position));
    }

    /// A row is gone, and what it used with it.
    pub(super) fn release(&mut self, row: &Removed) {
        if let Some(group) = row.group {
            self.change_group(row.queue, group, -1, -row.length);
        }
        if let Some(body) = row.body {
            *self.released.entry(body).or_default() += 1;
        }
    }

    fn change_group(&mut self, queue: QueueId, group: GroupId, entries: i64, bytes: i64) {
        let sums = self.groups.entry((queue, group)).or_default();
        sums.0 += entries;
        sums.1 += bytes;
    }

    /// Writes everything in one round trip, the counters of `lines` too.
    pub(super) async fn write<'a>(
        &self,
        tx: &Tx,
        lines: impl Iterator<Item = &'a Line>,
        after: After,
    ) -> Result<(), Fault> {
        let tables = Tables::of(self, lines);
        let statements = tables.statements();
        let mut prepared = Vec::with_capacity(statements.len());
        // First all of this: what is prepared in between would be sent too late.
        for (sql, parameters) in statements {
            prepared.push((tx.prepare(sql).await?, parameters));
        }
        let mut pipeline = Pipeline::new(tx);
        for (statement, parameters) in prepared {
            pipeline.execute(statement, parameters);
        }
        if after == After::Commit {
            pipeline.plain("COMMIT");
        }
        pipeline.run().await.map(drop)
    }
}

/// The changes as columns.
#[derive(Default)]
struct Tables<'a> {
    gaps: (Vec<Uuid>, Vec<i64>),
    entries: Entries<'a>,
    queues: Queues,
    grown: Groups<'a>,
    shrunk: Groups<'a>,
    shared: (Vec<Uuid>, Vec<i64>, Vec<&'a [u8]>),
    released: (Vec<Uuid>, Vec<i64>),
}

#[derive(Default)]
struct Entries<'a> {
    queue: Vec<Uuid>,
    position: Vec<i64>,
    key: Vec<Uuid>,
    kind: Vec<i16>,
    stored_at: Vec<i64>,
    length: Vec<i32>,
    body: Vec<Option<Uuid>>,
    checksum: Vec<Option<Uuid>>,
    group: Vec<Option<&'a [u8]>>,
    bytes: Vec<Option<&'a [u8]>>,
}

#[derive(Default)]
struct Queues {
    queue: Vec<Uuid>,
    next: Vec<i64>,
    entries: Vec<i64>,
    bytes: Vec<i64>,
    invites: Vec<i64>,
    gap: Vec<Option<i64>>,
    gap_shown: Vec<bool>,
    left_marks: Vec<i64>,
}

#[derive(Default)]
struct Groups<'a> {
    queue: Vec<Uuid>,
    group: Vec<&'a [u8]>,
    entries: Vec<i64>,
    bytes: Vec<i64>,
}

impl<'a> Tables<'a> {
    fn of<'l>(changes: &'a Changes, lines: impl Iterator<Item = &'l Line>) -> Self {
        let mut tables = Self::default();
        for (queue, position) in &changes.gaps {
            tables.gaps.0.push(Uuid::from(*queue));
            tables.gaps.1.push(*position);
        }
        tables.lay_out_entries(&changes.rows);
        for line in lines.filter(|line| line.changed) {
            tables.queues.push(line);
        }
        for ((queue, group), (entries, bytes)) in &changes.groups {
            let side = if *entries >= 0 {
                &mut tables.grown
            } else {
                &mut tables.shrunk
            };
            side.queue.push(Uuid::from(*queue));
            side.group.push(group.as_bytes());
            side.entries.push(*entries);
            side.bytes.push(*bytes);
        }
        tables.released = changes.released.iter().map(|(&id, &n)| (id, n)).unzip();
        tables
    }

    /// A body that several of these entries have is stored once, beside them.
    fn lay_out_entries(&mut self, rows: &'a [Inserted]) {
        let mut ids = Vec::with_capacity(rows.len());
        let mut uses: HashMap<Uuid, (i64, &'a Bytes)> = HashMap::new();
        for row in rows {
            let id = row.frame.as_ref().map(|(_, body)| {
                let id = Uuid(checksum(body));
                uses.entry(id).or_insert((0, body)).0 += 1;
                id
            });
            ids.push(id);
        }
        let shared: BTreeMap<_, _> = uses.into_iter().filter(|(_, uses)| uses.0 > 1).collect();
        for (row, id) in rows.iter().zip(ids) {
            let table = &mut self.entries;
            let is_shared = id.is_some_and(|id| shared.contains_key(&id));
            let body = row.frame.as_ref().map(|(_, body)| &body[..]);
            table.queue.push(Uuid::from(row.queue));
            table.position.push(row.position);
            table.key.push(Uuid::from(row.key));
            table.kind.push(row.kind);
            table.stored_at.push(row.stored_at);
            let size = body.map_or(0, <[u8]>::len);
            table.length.push(i32::try_from(size).unwrap_or(i32::MAX));
            table.body.push(id.filter(|_| is_shared));
            table.checksum.push(id.filter(|_| !is_shared));
            let group = row.frame.as_ref().map(|(group, _)| &group.as_bytes()[..]);
            table.group.push(group);
            table.bytes.push(body.filter(|_| !is_shared));
        }
        for (id, (count, body)) in shared {
            self.shared.0.push(id);
            self.shared.1.push(count);
            self.shared.2.push(body);
        }
    }

    /// The statements that have something to do, in their order.
    fn statements(&self) -> Vec<(&'static str, Parameters<'_>)> {
        let Self {
            entries: e,
            queues: q,
            grown,
            shrunk,
            ..
        } = self;
        let mut all: Vec<(usize, &'static str, Parameters<'_>)> = vec![
            (
                self.gaps.0.len(),
                DROP_GAPS,
                vec![&self.gaps.0, &self.gaps.1],
            ),
            (
                e.queue.len(),
                INSERT_ENTRIES,
                vec![
                    &e.queue,
                    &e.position,
                    &e.key,
                    &e.kind,
                    &e.stored_at,
                    &e.length,
                    &e.body,
                    &e.checksum,
                    &e.group,
                    &e.bytes,
                ],
            ),
            (
                q.queue.len(),
                UPDATE_QUEUES,
                vec![
                    &q.queue,
                    &q.next,
                    &q.entries,
                    &q.bytes,
                    &q.invites,
                    &q.gap,
                    &q.gap_shown,
                    &q.left_marks,
                ],
            ),
            (grown.queue.len(), ADD_TO_GROUPS, grown.parameters()),
            (shrunk.queue.len(), DROP_GROUPS, shrunk.parameters_of_drop()),
            (shrunk.queue.len(), TAKE_FROM_GROUPS, shrunk.parameters()),
        ];
        let (ids, counts, bodies) = &self.shared;
        all.push((ids.len(), SHARE_BODIES, vec![ids, counts]));
        all.push((ids.len(), INSERT_BODIES, vec![ids, bodies]));
        let (ids, counts) = &self.released;
        all.push((ids.len(), LOCK_SHARED, vec![ids]));
        all.push((ids.len(), RELEASE_BODIES, vec![ids, counts]));
        all.push((ids.len(), DROP_BODIES, vec![ids]));
        all.push((ids.len(), DROP_SHARED, vec![ids]));
        all.into_iter()
            .filter(|(rows, ..)| *rows > 0)
            .map(|(_, sql, parameters)| (sql, parameters))
            .collect()
    }
}

impl Queues {
    fn push(&mut self, line: &Line) {
        self.queue.push(Uuid::from(line.queue));
        self.next.push(line.next);
        self.entries.push(line.entries);
        self.bytes.push(line.bytes);
        self.invites.push(line.invites);
        self.gap.push(line.gap.map(|gap| gap.position));
        self.gap_shown
            .push(line.gap.is_some_and(|Gap { shown, .. }| shown));
        self.left_marks.push(line.left_marks);
    }
}

impl Groups<'_> {
    fn parameters(&self) -> Parameters<'_> {
        let all: [&(dyn ToSql + Sync); 4] = [&self.queue, &self.group, &self.entries, &self.bytes];
        all.to_vec()
    }

    fn parameters_of_drop(&self) -> Parameters<'_> {
        let all: [&(dyn ToSql + Sync); 3] = [&self.queue, &self.group, &self.entries];
        all.to_vec()
    }
}
