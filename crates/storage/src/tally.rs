//! Counts what the store does.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::StoreError;
use crate::store::Counters;

#[derive(Debug, Default)]
pub(crate) struct Tally {
    commits: AtomicU64,
    rows: AtomicU64,
    write_requests: AtomicU64,
    reads: AtomicU64,
    corrupt: AtomicU64,
    failures: AtomicU64,
}

impl Tally {
    pub(crate) fn count_commit(&self, rows: u64) {
        self.commits.fetch_add(1, Ordering::Relaxed);
        self.rows.fetch_add(rows, Ordering::Relaxed);
    }

    pub(crate) fn count_write_request(&self) {
        self.write_requests.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_read(&self) {
        self.reads.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a request that the store could not carry out, if that is what `error` says.
    pub(crate) fn count_failure(&self, error: &StoreError) {
        if matches!(error, StoreError::Unavailable(_)) {
            self.failures.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn count_corrupt(&self) {
        self.corrupt.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn snapshot(&self) -> Counters {
        Counters {
            commits: self.commits.load(Ordering::Relaxed),
            rows: self.rows.load(Ordering::Relaxed),
            write_requests: self.write_requests.load(Ordering::Relaxed),
            reads: self.reads.load(Ordering::Relaxed),
            corrupt: self.corrupt.load(Ordering::Relaxed),
            failures: self.failures.load(Ordering::Relaxed),
        }
    }
}
