//! What the writers of both durable places, queues and outbox, share: batches that wait for their turn,
//! and patience with a store that is down.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use commucat_storage::StoreError;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout_at};
use tracing::warn;

use crate::chain::chain;

/// Before the second try; each pause is twice the one before.
const PAUSE_MIN: Duration = Duration::from_millis(20);

/// The longest pause between two tries.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Batches that wait for the writer: at most one for each lane, which bounds them.
pub(crate) struct Waiting<J> {
    jobs: Mutex<Vec<(J, Instant)>>,
    added: Notify,
    busy: AtomicBool,
}

/// What is written in one transaction.
pub(crate) struct Turn<J> {
    pub(crate) jobs: Vec<J>,
    /// When the oldest of them was handed over.
    pub(crate) since: Instant,
}

impl<J> Default for Waiting<J> {
    fn default() -> Self {
        Self {
            jobs: Mutex::default(),
            added: Notify::new(),
            busy: AtomicBool::new(false),
        }
    }
}

impl<J> Waiting<J> {
    pub(crate) fn push(&self, job: J) {
        self.jobs.lock().push((job, Instant::now()));
        self.added.notify_one();
    }

    /// Whether nothing waits, and nothing that was taken is still being written.
    pub(crate) fn is_idle(&self) -> bool {
        self.jobs.lock().is_empty() && !self.busy.load(Ordering::Acquire)
    }

    /// The oldest `count` at most; `None`, and idle from then on, if there is none.
    pub(crate) fn take(&self, count: usize) -> Option<Turn<J>> {
        let mut waiting = self.jobs.lock();
        self.busy.store(!waiting.is_empty(), Ordering::Release);
        let &(_, since) = waiting.first()?;
        let count = waiting.len().min(count);
        let jobs = waiting.drain(..count).map(|(job, _)| job).collect();
        Some(Turn { jobs, since })
    }

    /// Waits until something was pushed since the last wait. Cancel safe.
    pub(crate) async fn added(&self) {
        self.added.notified().await;
    }
}

/// Why a batch was given up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SpoolError {
    /// The store does not answer in time; the batch may be written after all.
    #[error("the store does not answer")]
    Late,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Writes, again and again while the store is down: after an unknown outcome the same write is
/// repeated, so it has to be one that may come twice.
///
/// # Errors
///
/// [`SpoolError`]: it was refused, or `give_up` has come.
pub(crate) async fn insist<T, F>(
    give_up: Instant,
    mut write: impl FnMut() -> F,
) -> Result<T, SpoolError>
where
    F: Future<Output = Result<T, StoreError>>,
{
    let mut pause = PAUSE_MIN;
    loop {
        match timeout_at(give_up, write()).await {
            Err(_) => return Err(SpoolError::Late),
            Ok(Err(StoreError::Unavailable(cause))) if Instant::now() + pause < give_up => {
                warn!(error = %chain(&cause), "the store is down; what is to be written waits");
                sleep(pause).await;
                pause = (pause * 2).min(PAUSE_MAX);
            }
            Ok(result) => return Ok(result?),
        }
    }
}
