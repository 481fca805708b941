//! Writes what lanes spool into the outbox: batches of many lanes in one transaction.

use std::sync::Arc;
use std::time::Duration;

use commucat_federation::event::Lane;
use commucat_routing::lane::{Envelope, Position, Spooled};
use commucat_routing::ticket::Reason;
use commucat_storage::{NewOutboxEntry, Outboxed, Store, StoreError};
use tokio::time::Instant;
use tracing::{error, warn};

use super::outgoing::unpack;
use super::{Peer, Peers};
use crate::chain::chain;
use crate::clock;
use crate::spool::{SpoolError, Turn, Waiting, insist};

/// How long after it was handed over a batch is tried; see `mailbox/spool.rs`.
const GIVE_UP: Duration = Duration::from_secs(14);

/// Lanes in one transaction at most.
const BATCH: usize = 256;

/// Batches that wait for the writer.
pub(super) type Spooler = Waiting<Job>;

/// What a lane spools.
pub(super) struct Job {
    pub(super) peer: Arc<Peer>,
    pub(super) lane: Lane,
    pub(super) batch: Vec<Envelope>,
}

/// Runs until the server stops.
pub(super) async fn run(peers: Peers) {
    loop {
        let Some(turn) = peers.0.spooler.take(BATCH) else {
            peers.0.settled.notify_waiters();
            tokio::select! {
                () = peers.0.spooler.added() => continue,
                () = peers.0.stop.cancelled() => return,
            }
        };
        write(&peers, turn).await;
    }
}

async fn write(peers: &Peers, Turn { jobs, since }: Turn<Job>) {
    let entries: Vec<NewOutboxEntry> = jobs.iter().flat_map(entries).collect();
    let give_up = since + GIVE_UP;
    match append(&peers.0.store, entries, give_up).await {
        Ok(results) => {
            let mut results = results.into_iter();
            for job in jobs {
                let count = job.batch.len();
                finish(peers, &job, results.by_ref().take(count).collect());
            }
        }
        Err(SpoolError::Store(StoreError::Refused(cause))) if jobs.len() > 1 => {
            // One bad entry must not fail the lanes of all: each by itself.
            warn!(error = %cause, "events were refused; their lanes are tried one by one");
            for job in jobs {
                match append(&peers.0.store, entries_of(&job), give_up).await {
                    Ok(results) => finish(peers, &job, results),
                    Err(failure) => fail(peers, &job, &failure),
                }
            }
        }
        Err(failure) => {
            for job in jobs {
                fail(peers, &job, &failure);
            }
        }
    }
}

async fn append(
    store: &Store,
    entries: Vec<NewOutboxEntry>,
    give_up: Instant,
) -> Result<Vec<Outboxed>, SpoolError> {
    insist(give_up, || {
        store.append_outbox(entries.clone(), clock::now())
    })
    .await
}

fn finish(peers: &Peers, job: &Job, results: Vec<Outboxed>) {
    let Some(queue) = job.peer.queue(job.lane) else {
        return;
    };
    let metrics = peers.metrics();
    metrics
        .outboxed
        .inc_by(u64::try_from(results.len()).unwrap_or(u64::MAX));
    let outcomes = results.into_iter().map(|result| match result {
        Outboxed::Stored(at) | Outboxed::Repeat(at) => Spooled::Stored(Position::new(at.get())),
        Outboxed::Full => Spooled::Refused(Reason::Full),
    });
    peers.with_lane(&job.peer, queue, |lane, effects| {
        lane.lane().spooled(outcomes, effects);
    });
}

fn fail(peers: &Peers, job: &Job, failure: &SpoolError) {
    peers.metrics().store_failures.inc();
    error!(error = %chain(failure), count = job.batch.len(), "events could not be stored; their authors keep them");
    if let Some(queue) = job.peer.queue(job.lane) {
        peers.with_lane(&job.peer, queue, |lane, effects| {
            lane.lane().spool_failed(effects);
        });
    }
}

fn entries_of(job: &Job) -> Vec<NewOutboxEntry> {
    entries(job).collect()
}

/// The stored form of a lane's batch; every body was packed here.
fn entries(job: &Job) -> impl Iterator<Item = NewOutboxEntry> + '_ {
    job.batch.iter().filter_map(|envelope| {
        let (return_to, event) = unpack(&envelope.body)?;
        let lane = job.peer.queue(job.lane)?.name(&job.peer);
        Some(NewOutboxEntry {
            lane,
            key: envelope.key,
            event,
            return_to,
        })
    })
}
