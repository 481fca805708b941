//! Deletes acknowledged rows, many at once.
//!
//! A delete that is lost costs a repeat that the client drops; so it may wait for company, and is
//! never raced with anything.

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
    rows: Mutex<Vec<RowId>>,
    added: Notify,
}

impl Deletes {
    pub(super) fn push(&self, row: RowId) {
        let mut rows = self.rows.lock();
        rows.push(row);
        if rows.len() == 1 {
            self.added.notify_one();
        }
    }

    fn take(&self) -> Vec<RowId> {
        let mut rows = self.rows.lock();
        let count = rows.len().min(BATCH);
        rows.drain(..count).collect()
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
    }
}
