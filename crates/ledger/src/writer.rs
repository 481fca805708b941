//! The one writer of a ledger: an actor on a thread of its own, because sinks block.
//!
//! Many callers that wait become one append, hence one fsync. While the sink fails, the writer
//! repeats the same entries, and nobody is told that a change was recorded.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use std::{io, thread};

use commucat_proto::time::Timestamp;
use tokio::sync::{mpsc, oneshot};

use crate::entry::{Change, Entry};
use crate::sink::{Sink, SinkError};

/// Changes that may wait for the sink; beyond it, callers wait to get in.
const QUEUE_MAX: usize = 256;

/// Entries of one append.
const BATCH_MAX: usize = 64;

/// First pause after a failure; each further one is twice as long.
const RETRY_FIRST: Duration = Duration::from_millis(100);

/// Longest pause between two tries.
const RETRY_MAX: Duration = Duration::from_secs(10);

/// Why a change was not recorded.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum RecordError {
    /// The writer was stopped first.
    #[error("ledger was stopped before it kept the entry")]
    Stopped,
    /// The sink broke its contract; see [`crate::conformance`].
    #[error("ledger sink refuses the entry")]
    Refused,
}

/// How the writer fares.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Status {
    /// Entries kept since the start.
    pub kept: u64,
    /// Appends that failed since the start.
    pub failures: u64,
    /// Whether the last append failed: changes of keys wait until one succeeds.
    pub failing: bool,
}

/// Takes changes; cheap to clone.
#[derive(Clone, Debug)]
pub struct Ledger {
    requests: mpsc::Sender<Request>,
    state: Arc<State>,
}

impl Ledger {
    /// Starts the writer of `sink`.
    ///
    /// # Errors
    ///
    /// The system's, if it gives no thread.
    pub fn start(sink: impl Sink) -> io::Result<(Self, Worker)> {
        Self::start_with(sink, RETRY_FIRST)
    }

    fn start_with(sink: impl Sink, retry_first: Duration) -> io::Result<(Self, Worker)> {
        let (requests, receiver) = mpsc::channel(QUEUE_MAX);
        let (done, ended) = oneshot::channel();
        let state = Arc::new(State::default());
        let writer = Writer {
            sink,
            requests: receiver,
            state: Arc::clone(&state),
            retry_first,
        };
        thread::Builder::new()
            .name("ledger".to_owned())
            .spawn(move || {
                writer.run();
                // Nobody listens if the worker was dropped.
                done.send(()).ok();
            })?;
        let worker = Worker {
            requests: requests.downgrade(),
            state: Arc::clone(&state),
            ended,
        };
        Ok((Self { requests, state }, worker))
    }

    /// Records `change` and returns its index once the sink has kept it. Waits while the sink fails.
    ///
    /// A change that is recorded twice, because a crash came between this and the answer to the
    /// client, stands there twice; entries are statements of fact, and a repeat says nothing new.
    ///
    /// # Errors
    ///
    /// [`RecordError`]; the change may have been kept if the writer was stopped meanwhile.
    ///
    /// # Cancel safety
    ///
    /// The change may be recorded even if the future is dropped.
    pub async fn record(&self, at: Timestamp, change: Change) -> Result<u64, RecordError> {
        let (reply, answer) = oneshot::channel();
        let request = Request::Record(Record { at, change, reply });
        self.requests
            .send(request)
            .await
            .map_err(|_| RecordError::Stopped)?;
        answer.await.unwrap_or(Err(RecordError::Stopped))
    }

    /// How the writer fares, for metrics and readiness.
    #[must_use]
    pub fn status(&self) -> Status {
        Status {
            kept: self.state.kept.load(Ordering::Relaxed),
            failures: self.state.failures.load(Ordering::Relaxed),
            failing: self.state.failing.load(Ordering::Relaxed),
        }
    }
}

/// Ends the writer. Dropped instead, the writer ends with the last [`Ledger`].
#[derive(Debug)]
pub struct Worker {
    requests: mpsc::WeakSender<Request>,
    state: Arc<State>,
    ended: oneshot::Receiver<()>,
}

impl Worker {
    /// Records what was handed over before, but repeats no failed append any more, and waits until
    /// the writer has ended and closed the sink.
    pub async fn stop(self) {
        self.state.stop();
        if let Some(requests) = self.requests.upgrade() {
            // An error means that the writer has ended already.
            requests.send(Request::Stop).await.ok();
        }
        // Either way the writer is gone then.
        self.ended.await.ok();
    }
}

#[derive(Debug)]
enum Request {
    Record(Record),
    Stop,
}

#[derive(Debug)]
struct Record {
    at: Timestamp,
    change: Change,
    reply: oneshot::Sender<Result<u64, RecordError>>,
}

/// What handle, worker and writer share.
#[derive(Debug, Default)]
struct State {
    kept: AtomicU64,
    failures: AtomicU64,
    failing: AtomicBool,
    stopped: Mutex<bool>,
    stopping: Condvar,
}

impl State {
    fn stop(&self) {
        *self.stopped() = true;
        self.stopping.notify_all();
    }

    /// Waits for `pause`, or less if the writer is stopped; returns whether it is.
    fn pause(&self, pause: Duration) -> bool {
        let waited = self
            .stopping
            .wait_timeout_while(self.stopped(), pause, |stopped| !*stopped);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }

    fn stopped(&self) -> MutexGuard<'_, bool> {
        self.stopped.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Writer<S> {
    sink: S,
    requests: mpsc::Receiver<Request>,
    state: Arc<State>,
    retry_first: Duration,
}

impl<S: Sink> Writer<S> {
    fn run(mut self) {
        let mut batch = Vec::new();
        while let Some(Request::Record(first)) = self.requests.blocking_recv() {
            batch.push(first);
            let stop = self.take_waiting(&mut batch);
            self.keep(&mut batch);
            if stop {
                return;
            }
        }
    }

    /// Adds what waits already; returns whether the request to stop was among it.
    fn take_waiting(&mut self, batch: &mut Vec<Record>) -> bool {
        while batch.len() < BATCH_MAX {
            match self.requests.try_recv() {
                Ok(Request::Record(record)) => batch.push(record),
                Ok(Request::Stop) => return true,
                Err(_) => return false,
            }
        }
        false
    }

    fn keep(&mut self, batch: &mut Vec<Record>) {
        let first = self.sink.next_index();
        let (mut entries, mut replies) = (Vec::new(), Vec::new());
        for (index, record) in (first..).zip(batch.drain(..)) {
            entries.push(Entry::new(index, record.at, record.change));
            replies.push((index, record.reply));
        }
        let result = self.append(&entries);
        for (index, reply) in replies {
            // Whoever asked may have gone away.
            reply.send(result.map(|()| index)).ok();
        }
    }

    fn append(&mut self, entries: &[Entry]) -> Result<(), RecordError> {
        let mut pause = self.retry_first;
        loop {
            match self.sink.append(entries) {
                Ok(()) => {
                    let count = u64::try_from(entries.len()).unwrap_or(u64::MAX);
                    self.state.kept.fetch_add(count, Ordering::Relaxed);
                    if self.state.failing.swap(false, Ordering::Relaxed) {
                        tracing::info!("ledger sink takes entries again");
                    }
                    return Ok(());
                }
                Err(SinkError::Io(error)) => self.report(&error),
                Err(error @ SinkError::OutOfOrder { .. }) => {
                    tracing::error!(error = %error, "ledger sink breaks its contract");
                    return Err(RecordError::Refused);
                }
            }
            if self.state.pause(pause) {
                return Err(RecordError::Stopped);
            }
            pause = pause.saturating_mul(2).min(RETRY_MAX);
        }
    }

    /// Counts every failure, but logs only the first of a row.
    fn report(&self, error: &io::Error) {
        self.state.failures.fetch_add(1, Ordering::Relaxed);
        if !self.state.failing.swap(true, Ordering::Relaxed) {
            tracing::error!(
                error = %error,
                "ledger sink takes no entries; changes of keys wait until it does"
            );
        }
    }
}

#[cfg(test)]
mod tests;
