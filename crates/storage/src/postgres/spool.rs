//! Spooling: many queues in one transaction of two round trips.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use commucat_proto::id::{DedupeKey, GroupId, QueueId};
use commucat_proto::time::Timestamp;
use tokio_postgres::Row;

use super::changes::{After, Changes};
use super::connections::Connections;
use super::convert::{Uuid, fixed, queue_id};
use super::fault::{Fault, within};
use super::line::{self, Line};
use super::merge::Merge;
use super::pipeline::Pipeline;
use super::tx::Tx;
use super::{Postgres, TRANSACTION_WAIT, TRIES_MAX};
use crate::StoreError;
use crate::store::QueueLimits;
use crate::store::queues::{Delivery, NewEntry, QueuePosition, QueueSpooled, Refusal, Spooled};
use crate::tally::Tally;

const KNOWN_ENTRIES: &str = "SELECT e.queue, e.key, e.position
    FROM unnest($1::uuid[], $2::uuid[]) AS t (queue, key)
    JOIN queue_entries AS e ON e.queue = t.queue AND e.key = t.key";
const KNOWN_GROUPS: &str = "SELECT g.queue, g.group_id, g.entries, g.bytes
    FROM unnest($1::uuid[], $2::bytea[]) AS t (queue, group_id)
    JOIN queue_groups AS g ON g.queue = t.queue AND g.group_id = t.group_id";

impl Postgres {
    pub(crate) async fn spool(
        &self,
        deliveries: Vec<Delivery>,
        now: Timestamp,
    ) -> Result<Vec<QueueSpooled>, StoreError> {
        self.0.tally.count_write_request();
        if deliveries.is_empty() {
            return Ok(Vec::new());
        }
        self.0.spool.call((deliveries, now)).await
    }
}

/// The merged work.
pub(super) struct Spool {
    connections: Arc<Connections>,
    tally: Arc<Tally>,
    limits: QueueLimits,
}

impl Spool {
    pub(super) const fn new(
        connections: Arc<Connections>,
        tally: Arc<Tally>,
        limits: QueueLimits,
    ) -> Self {
        Self {
            connections,
            tally,
            limits,
        }
    }

    async fn attempt(
        &self,
        calls: &[(Vec<Delivery>, Timestamp)],
    ) -> Result<Vec<Vec<QueueSpooled>>, Fault> {
        let client = self.connections.get_for_merger().await?;
        let tx = Tx::new(client, Arc::clone(&self.tally));
        let all = calls.iter().flat_map(|(deliveries, _)| deliveries);
        let wanted = Wanted::of(all.map(|one| (one.queue, one.entries.as_slice())));
        let mut queues = Queues::load(&tx, &wanted, Begin::Here).await?;
        let mut answers = Vec::with_capacity(calls.len());
        for (deliveries, now) in calls {
            let appended: Result<Vec<_>, Fault> = deliveries
                .iter()
                .map(|one| queues.append(self.limits, one.queue, &one.entries, *now))
                .collect();
            answers.push(appended?);
        }
        queues.write(&tx, After::Commit).await?;
        tx.committed();
        Ok(answers)
    }
}

impl Merge for Spool {
    type Call = (Vec<Delivery>, Timestamp);
    type Answer = Vec<QueueSpooled>;

    fn rows((deliveries, _): &Self::Call) -> usize {
        deliveries.iter().map(|one| one.entries.len()).sum()
    }

    async fn run(&self, calls: &[Self::Call]) -> Result<Vec<Self::Answer>, StoreError> {
        let mut tries = 1;
        loop {
            match within(TRANSACTION_WAIT, self.attempt(calls)).await {
                Err(failed) if failed.is_conflict() && tries < TRIES_MAX => tries += 1,
                outcome => return Ok(outcome?),
            }
        }
    }
}

/// What must be known before entries are appended: queues, their entries with the same keys, and
/// what the groups use of them.
pub(super) struct Wanted<'a> {
    queues: Vec<Uuid>,
    keys: (Vec<Uuid>, Vec<Uuid>),
    groups: (Vec<Uuid>, Vec<&'a [u8]>),
}

impl<'a> Wanted<'a> {
    pub(super) fn of(appends: impl Iterator<Item = (QueueId, &'a [NewEntry])>) -> Self {
        let mut queues = BTreeSet::new();
        let mut groups = BTreeSet::new();
        let mut keys = (Vec::new(), Vec::new());
        for (queue, entries) in appends {
            let queue = Uuid::from(queue);
            queues.insert(queue);
            for entry in entries {
                keys.0.push(queue);
                keys.1.push(Uuid::from(entry.key));
                groups.insert((queue, &entry.group.as_bytes()[..]));
            }
        }
        Self {
            queues: queues.into_iter().collect(),
            keys,
            groups: groups.into_iter().unzip(),
        }
    }
}

/// Whether the transaction begins with the first round trip, or did before.
#[derive(Clone, Copy, Eq, PartialEq)]
pub(super) enum Begin {
    Here,
    Earlier,
}

impl Begin {
    /// Nothing at all is a statement too.
    pub(super) const fn statement(self) -> &'static str {
        match self {
            Self::Here => "BEGIN",
            Self::Earlier => "",
        }
    }
}

/// Locked queues of one transaction, and what is to be written about them.
pub(super) struct Queues {
    lines: BTreeMap<QueueId, Line>,
    pub(super) changes: Changes,
}

impl Queues {
    /// Locks the queues and reads what is wanted, in one round trip.
    pub(super) async fn load(tx: &Tx, wanted: &Wanted<'_>, begin: Begin) -> Result<Self, Fault> {
        let lock = tx.prepare(line::LOCK).await?;
        let known_groups = tx.prepare(KNOWN_GROUPS).await?;
        let known_entries = tx.prepare(KNOWN_ENTRIES).await?;
        let mut pipeline = Pipeline::new(tx);
        pipeline.plain(begin.statement());
        pipeline.query(lock, vec![&wanted.queues]);
        // These begin when the locks are held, and see what was committed until then.
        pipeline.query(known_groups, vec![&wanted.groups.0, &wanted.groups.1]);
        pipeline.query(known_entries, vec![&wanted.keys.0, &wanted.keys.1]);
        let answers = pipeline.run().await?;
        let [_, locked, groups, entries] = answers.as_slice() else {
            return Err(Fault::corrupt("answer"));
        };
        let mut queues = Self::of(locked)?;
        for row in groups {
            let group = GroupId::new(fixed(row, 1)?);
            if let Some(line) = queues.line(queue_id(row, 0)?) {
                line.group_uses(group, row.try_get(2)?, row.try_get(3)?);
            }
        }
        for row in entries {
            let Uuid(key) = row.try_get(1)?;
            if let Some(line) = queues.line(queue_id(row, 0)?) {
                line.holds(DedupeKey::new(key), row.try_get(2)?);
            }
        }
        Ok(queues)
    }

    /// Of the rows of [`line::LOCK`].
    pub(super) fn of(locked: &[Row]) -> Result<Self, Fault> {
        let lines = locked.iter().map(|row| {
            let line = Line::read(row)?;
            Ok((line.queue, line))
        });
        let lines: Result<_, Fault> = lines.collect();
        Ok(Self {
            lines: lines?,
            changes: Changes::default(),
        })
    }

    /// Locks these.
    pub(super) async fn lock(tx: &Tx, queues: &[Uuid]) -> Result<Self, Fault> {
        Self::of(&tx.query(line::LOCK, &[&queues]).await?)
    }

    pub(super) fn line(&mut self, queue: QueueId) -> Option<&mut Line> {
        self.lines.get_mut(&queue)
    }

    /// The queue and what is to be written.
    pub(super) fn parts(&mut self, queue: QueueId) -> Option<(&mut Line, &mut Changes)> {
        let line = self.lines.get_mut(&queue)?;
        Some((line, &mut self.changes))
    }

    /// Appends to one queue.
    pub(super) fn append(
        &mut self,
        limits: QueueLimits,
        queue: QueueId,
        entries: &[NewEntry],
        now: Timestamp,
    ) -> Result<QueueSpooled, Fault> {
        let Some((line, changes)) = self.parts(queue).filter(|(line, _)| !line.revoked) else {
            let gone = Spooled::Refused(Refusal::Gone);
            return Ok(QueueSpooled {
                queue,
                outcomes: vec![gone; entries.len()],
                head: QueuePosition::START,
            });
        };
        let outcomes: Result<Vec<_>, Fault> = entries
            .iter()
            .map(|entry| line.append(changes, limits, entry, now))
            .collect();
        Ok(QueueSpooled {
            queue,
            outcomes: outcomes?,
            head: line.head(),
        })
    }

    pub(super) async fn write(&self, tx: &Tx, after: After) -> Result<(), Fault> {
        self.changes.write(tx, self.lines.values(), after).await
    }
}
