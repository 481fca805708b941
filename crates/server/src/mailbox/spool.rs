//! Spooling: batches of many mailboxes in one transaction; and reading pages back.

use std::sync::Arc;
use std::time::Duration;

use commucat_proto::id::{GroupId, QueueId};
use commucat_proto::time::Timestamp;
use commucat_routing::lane::{Envelope, Page, Position, Spooled};
use commucat_routing::ticket::Reason;
use commucat_storage::{
    Content, Delivery, EntryKind, NewEntry, QueuePosition, QueueSpooled, Refusal, Row, RowId,
    Store, StoreError,
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};

use super::{Mailbox, Mailboxes, PAGE_ROWS};
use crate::chain::chain;
use crate::clock;
use crate::events;
use crate::spool::{SpoolError, Turn, Waiting, insist};

/// How long after it was handed over a batch is tried. An entry may wait for the batch before its own
/// for as long again, and before it nine times `limits.ack_wait` for another node; all within a
/// ticket's deadline of 30 s, so that every ticket ends in time although none has a clock of its own.
const GIVE_UP: Duration = Duration::from_secs(13);

/// Mailboxes in one transaction at most.
const BATCH: usize = 1_024;

/// Batches that wait for the writer.
pub(super) type Spooler = Waiting<Job>;

/// What a mailbox spools.
pub(super) struct Job {
    pub(super) mailbox: Arc<Mailbox>,
    pub(super) batch: Vec<Envelope>,
}

/// Runs until `stop`, then writes what is left.
pub(super) async fn run(mailboxes: Mailboxes, stop: CancellationToken) {
    loop {
        let Some(turn) = mailboxes.0.spooler.take(BATCH) else {
            mailboxes.0.emptied.notify_waiters();
            tokio::select! {
                () = mailboxes.0.spooler.added() => continue,
                () = stop.cancelled() => return,
            }
        };
        write(&mailboxes, turn).await;
    }
}

async fn write(mailboxes: &Mailboxes, Turn { jobs, since }: Turn<Job>) {
    let deliveries: Vec<Delivery> = jobs.iter().map(delivery).collect();
    let give_up = since + GIVE_UP;
    let begun = Instant::now();
    let inserted = insert(&mailboxes.0.store, deliveries, give_up).await;
    mailboxes
        .0
        .metrics
        .store_seconds
        .observe(begun.elapsed().as_secs_f64());
    match inserted {
        Ok(results) => finish(mailboxes, jobs, results),
        Err(SpoolError::Store(StoreError::Refused(cause))) if jobs.len() > 1 => {
            // One bad entry must not fail the queues of all: each by itself.
            warn!(error = %cause, "a batch was refused; its queues are tried one by one");
            for job in jobs {
                let result = insert(&mailboxes.0.store, vec![delivery(&job)], give_up).await;
                match result {
                    Ok(results) => finish(mailboxes, vec![job], results),
                    Err(failure) => fail(mailboxes, vec![job], &failure),
                }
            }
        }
        Err(failure) => fail(mailboxes, jobs, &failure),
    }
}

async fn insert(
    store: &Store,
    deliveries: Vec<Delivery>,
    give_up: Instant,
) -> Result<Vec<QueueSpooled>, SpoolError> {
    insist(give_up, || store.spool(deliveries.clone(), clock::now())).await
}

fn finish(mailboxes: &Mailboxes, jobs: Vec<Job>, results: Vec<QueueSpooled>) {
    let entries: usize = results.iter().map(|result| result.outcomes.len()).sum();
    mailboxes.0.metrics.spool_batches.inc();
    mailboxes
        .0
        .metrics
        .spooled
        .inc_by(u64::try_from(entries).unwrap_or(u64::MAX));
    for (job, result) in jobs.into_iter().zip(results) {
        let outcomes = result.outcomes.into_iter().map(|outcome| match outcome {
            commucat_storage::Spooled::Stored(at) | commucat_storage::Spooled::Repeat(at) => {
                Spooled::Stored(Position::new(at.get()))
            }
            commucat_storage::Spooled::Refused(Refusal::Full) => Spooled::Refused(Reason::Full),
            commucat_storage::Spooled::Refused(Refusal::Gone) => Spooled::Gone,
        });
        mailboxes.with_lane(&job.mailbox, |lane, effects| {
            lane.spooled(outcomes, effects);
        });
        tell_nodes(mailboxes, &job.mailbox);
    }
}

fn fail(mailboxes: &Mailboxes, jobs: Vec<Job>, failure: &SpoolError) {
    mailboxes.0.metrics.store_failures.inc();
    error!(error = %chain(failure), count = jobs.len(), "entries could not be stored; their authors keep them");
    for job in jobs {
        mailboxes.with_lane(&job.mailbox, |lane, effects| lane.spool_failed(effects));
        tell_nodes(mailboxes, &job.mailbox);
    }
}

/// The device may be connected to another node, which has to look; and what waits here for this
/// queue to come to rest may go on.
fn tell_nodes(mailboxes: &Mailboxes, mailbox: &Mailbox) {
    let Some(cluster) = mailboxes.cluster() else {
        return;
    };
    let is_read_here = mailbox.state.lock().lane.attachment().is_some();
    if !is_read_here {
        cluster.wake_owner(mailbox.queue);
    }
    cluster.settled(mailboxes, mailbox.queue);
}

fn delivery(job: &Job) -> Delivery {
    Delivery {
        queue: job.mailbox.queue,
        entries: job.batch.iter().filter_map(new_entry).collect(),
    }
}

/// The stored form of an envelope; `None` for a frame type that is never durable.
pub(crate) fn new_entry(envelope: &Envelope) -> Option<NewEntry> {
    Some(NewEntry {
        key: envelope.key,
        kind: EntryKind::from_code(envelope.frame)?,
        group: envelope.group.unwrap_or(GroupId::new([0; 32])),
        body: envelope.body.clone(),
    })
}

/// Reads the next rows of `queue`; `None` if the store cannot be read.
pub(super) async fn read_page(
    mailboxes: &Mailboxes,
    queue: QueueId,
    after: Position,
    room: usize,
    now: Timestamp,
) -> Option<Page> {
    let mut from = QueuePosition::new(after.get());
    loop {
        let stored = match mailboxes.0.store.page(&queue, from, room, PAGE_ROWS).await {
            Ok(Some(stored)) => stored,
            // Revoked: the connection is told by whoever revoked it.
            Ok(None) => return Some(Page::default()),
            Err(failure) => {
                mailboxes.0.metrics.store_failures.inc();
                warn!(error = %chain(&failure), "cannot read a queue");
                return None;
            }
        };
        let (more, head) = (stored.more, Position::new(stored.head.get()));
        let last = stored.rows.last().map(|row| row.position);
        let (rows, damaged) = sort_rows(mailboxes, queue, stored.rows);
        if !damaged.is_empty() {
            error!(
                count = damaged.len(),
                "stored entries are damaged; their queues get a gap"
            );
            if let Err(failure) = mailboxes.0.store.replace_by_gap(damaged, now).await {
                debug!(error = %chain(&failure), "cannot replace damaged entries");
                return None;
            }
            // The gap entry came behind what was read.
            return Some(Page {
                rows,
                more: true,
                head,
            });
        }
        match last {
            Some(last) if rows.is_empty() && more => from = last,
            _ => return Some(Page { rows, more, head }),
        }
    }
}

/// Rows as envelopes, without those that were acknowledged and are deleted in a moment; and the
/// damaged ones.
fn sort_rows(
    mailboxes: &Mailboxes,
    queue: QueueId,
    stored: Vec<Row>,
) -> (Vec<(Position, Envelope)>, Vec<RowId>) {
    let mut rows = Vec::with_capacity(stored.len());
    let mut damaged = Vec::new();
    for row in stored {
        let id = RowId {
            queue,
            position: row.position,
            key: row.key,
        };
        if mailboxes.0.deletes.holds(&id) {
            continue;
        }
        let envelope = match row.content {
            Content::Frame { kind, group, body } => Envelope {
                key: row.key,
                group: Some(group),
                frame: kind.code(),
                body,
            },
            Content::Gap => events::gap(row.key),
            Content::Corrupt => {
                damaged.push(id);
                continue;
            }
        };
        rows.push((Position::new(row.position.get()), envelope));
    }
    (rows, damaged)
}
