//! Deletes acknowledged rows, many at once.
//!
//! A delete that is lost costs a repeat that the client drops; so it may wait for company, and is
//! never raced with anything.

use std::collections::HashSet;
use std::time::Duration;

use commucat_storage::RowId;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::Mailboxes;

/// How long a delete waits for company: one transaction for all that a drain acknowledges.
const COMPANY: Duration = Duration::from_millis(20);

/// After a failure the same rows are tried again.
const RETRY: Duration = Duration::from_secs(1);

/// Rows in one transaction at most.
const BATCH: usize = 4_096;

/// Rows to delete. Bounded by what sessions have sent and not seen acknowledged.
#[derive(Default)]
pub(super) struct Deletes {
    pending: Mutex<Pending>,
    added: Notify,
}

#[derive(Default)]
struct Pending {
    waiting: Vec<RowId>,
    /// Those waiting and those in the transaction that runs: read as if they were gone.
    gone: HashSet<RowId>,
}

impl Deletes {
    pub(super) fn push(&self, row: RowId) {
        let mut pending = self.pending.lock();
        if pending.gone.insert(row) {
            pending.waiting.push(row);
        }
        if pending.waiting.len() == 1 {
            self.added.notify_one();
        }
    }

    /// Whether `row` was acknowledged and may still be there.
    pub(super) fn holds(&self, row: &RowId) -> bool {
        self.pending.lock().gone.contains(row)
    }

    fn take(&self) -> Vec<RowId> {
        let mut pending = self.pending.lock();
        let count = pending.waiting.len().min(BATCH);
        pending.waiting.drain(..count).collect()
    }

    fn done(&self, rows: &[RowId]) {
        let mut pending = self.pending.lock();
        for row in rows {
            pending.gone.remove(row);
        }
    }
}

/// Runs until `stop`, then deletes what is left.
pub(super) async fn run(mailboxes: Mailboxes, stop: CancellationToken) {
    let deletes = &mailboxes.0.deletes;
    while !stop.is_cancelled() {
        tokio::select! {
            () = deletes.added.notified() => {}
            () = stop.cancelled() => {}
        }
        tokio::select! {
            () = sleep(COMPANY) => {}
            () = stop.cancelled() => {}
        }
        flush(&mailboxes, &stop).await;
    }
}

async fn flush(mailboxes: &Mailboxes, stop: &CancellationToken) {
    loop {
        let batch = mailboxes.0.deletes.take();
        if batch.is_empty() {
            return;
        }
        while let Err(error) = mailboxes.0.store.delete_exact(batch.clone()).await {
            warn!(error = %crate::chain::chain(&error), "cannot delete acknowledged entries");
            if stop.is_cancelled() {
                return;
            }
            sleep(RETRY).await;
        }
        mailboxes.0.deletes.done(&batch);
    }
}
