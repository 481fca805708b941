//! Writes what lanes spool into the outbox: batches of many lanes in one transaction.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use commucat_federation::event::Lane;
use commucat_routing::lane::{Envelope, Position, Spooled};
use commucat_routing::ticket::Reason;
use commucat_storage::{NewOutboxEntry, Outboxed, Store, StoreError};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout_at};
use tracing::{error, warn};

use super::outgoing::unpack;
use super::{Peer, Peers};
use crate::chain::chain;
use crate::clock;

/// How long after it was handed over a batch is tried; see `mailbox/spool.rs`.
const GIVE_UP: Duration = Duration::from_secs(14);

/// The longest pause between two tries.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Lanes in one transaction at most.
const BATCH: usize = 256;

/// Batches that wait for the writer: at most one per lane.
#[derive(Default)]
pub(super) struct Spooler {
    waiting: Mutex<Vec<Job>>,
    added: Notify,
    busy: AtomicBool,
}

struct Job {
    peer: Arc<Peer>,
    lane: Lane,
    batch: Vec<Envelope>,
    since: Instant,
}

impl Spooler {
    pub(super) fn push(&self, peer: Arc<Peer>, lane: Lane, batch: Vec<Envelope>) {
        self.waiting.lock().push(Job {
            peer,
            lane,
            batch,
            since: Instant::now(),
        });
        self.added.notify_one();
    }

    pub(super) fn is_idle(&self) -> bool {
        self.waiting.lock().is_empty() && !self.busy.load(Ordering::Acquire)
    }

    fn take(&self) -> Vec<Job> {
        let mut waiting = self.waiting.lock();
        self.busy.store(!waiting.is_empty(), Ordering::Release);
        let count = waiting.len().min(BATCH);
        waiting.drain(..count).collect()
    }
}

/// Runs until the server stops.
pub(super) async fn run(peers: Peers) {
    loop {
        let jobs = peers.0.spooler.take();
        if jobs.is_empty() {
            peers.0.settled.notify_waiters();
            tokio::select! {
                () = peers.0.spooler.added.notified() => continue,
                () = peers.0.stop.cancelled() => return,
            }
        }
        write(&peers, jobs).await;
    }
}

async fn write(peers: &Peers, jobs: Vec<Job>) {
    let entries: Vec<NewOutboxEntry> = jobs.iter().flat_map(entries).collect();
    let oldest = jobs.iter().map(|job| job.since).min();
    let give_up = oldest.unwrap_or_else(Instant::now) + GIVE_UP;
    match append(&peers.0.store, entries, give_up).await {
        Ok(results) => {
            let mut results = results.into_iter();
            for job in jobs {
                let count = job.batch.len();
                finish(peers, &job, results.by_ref().take(count).collect());
            }
        }
        Err(AppendError::Store(StoreError::Refused(cause))) if jobs.len() > 1 => {
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

/// Appends, again and again while the store is down: an unknown outcome is the same append again.
async fn append(
    store: &Store,
    entries: Vec<NewOutboxEntry>,
    give_up: Instant,
) -> Result<Vec<Outboxed>, AppendError> {
    let mut pause = Duration::from_millis(20);
    loop {
        match timeout_at(give_up, store.append_outbox(entries.clone(), clock::now())).await {
            Err(_) => return Err(AppendError::Late),
            Ok(Err(StoreError::Unavailable(cause))) if Instant::now() + pause < give_up => {
                warn!(error = %chain(&cause), "the store is down; events wait");
                sleep(pause).await;
                pause = (pause * 2).min(PAUSE_MAX);
            }
            Ok(result) => return Ok(result?),
        }
    }
}

/// Why events were given up.
#[derive(Debug, thiserror::Error)]
enum AppendError {
    /// The store does not answer in time; they may be written after all.
    #[error("the store does not answer")]
    Late,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
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

fn fail(peers: &Peers, job: &Job, failure: &AppendError) {
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
