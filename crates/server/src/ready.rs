//! Whether the server can do what it is for, and what stands in its way.
//!
//! The store is judged by what its users met, and by a look at it now and then: an empty transaction,
//! which writes nothing. Only while it fails something is written, to see that it takes it again.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use commucat_ledger::Ledger;
use commucat_storage::{Counters, Store};
use parking_lot::Mutex;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::api::Probe;
use crate::carrier::Serve as _;
use crate::clock;
use crate::cluster::Cluster;
use crate::engine::Engine;
use crate::metrics::Metrics;
use crate::metrics::label::{Hindrance, Label as _};

/// Between two looks at what failed; and, while the store fails, between two tries.
const LOOK: Duration = Duration::from_secs(1);
/// Looks between two empty transactions while all is well.
const LOOKS_BETWEEN_PINGS: u32 = 5;

/// What readiness depends on.
pub(crate) struct Readiness {
    engine: Arc<Engine>,
    ledger: Ledger,
    store: Store,
    metrics: Metrics,
    nodes: Nodes,
    store_fails: AtomicBool,
    /// Failures of the store up to the last look.
    failures: AtomicU64,
    /// What the metrics have been told of the store.
    seen: Mutex<Counters>,
}

/// Whether the domain may have further nodes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Nodes {
    /// This server is alone.
    One,
    /// They meet in Redis.
    ThroughRedis,
}

impl Nodes {
    pub(crate) const fn of(cluster: Option<&Cluster>) -> Self {
        match cluster {
            Some(_) => Self::ThroughRedis,
            None => Self::One,
        }
    }
}

impl fmt::Debug for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Readiness(..)")
    }
}

impl Readiness {
    pub(crate) fn new(
        (engine, nodes): (Arc<Engine>, Nodes),
        (store, ledger): (Store, Ledger),
        metrics: Metrics,
    ) -> Arc<Self> {
        Arc::new(Self {
            engine,
            ledger,
            store,
            metrics,
            nodes,
            store_fails: AtomicBool::new(false),
            failures: AtomicU64::new(0),
            seen: Mutex::default(),
        })
    }

    /// Looks again and again until `stop`.
    pub(crate) async fn watch(self: Arc<Self>, stop: CancellationToken) {
        let mut period = interval(LOOK);
        period.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut looks = 0_u32;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = period.tick() => {}
            }
            looks = looks.wrapping_add(1);
            self.look(looks.is_multiple_of(LOOKS_BETWEEN_PINGS)).await;
        }
    }

    /// One look; with `ping` also at a store of which nothing is known to fail.
    async fn look(&self, ping: bool) {
        let failures = self.store_failures();
        if self.failures.swap(failures, Ordering::Relaxed) != failures {
            self.store_fails.store(true, Ordering::Relaxed);
        } else if self.store_fails.load(Ordering::Relaxed) {
            // Time stands still for the clock of expiry: this is not its run.
            let taken = self.store.advance_clock(clock::now(), Duration::ZERO).await;
            self.store_fails.store(taken.is_err(), Ordering::Relaxed);
            // The failure of this try is none that somebody met.
            self.failures
                .store(self.store_failures(), Ordering::Relaxed);
        } else if ping && self.store.ping().await.is_err() {
            self.store_fails.store(true, Ordering::Relaxed);
        }
        self.tell();
    }

    /// As the store counts them, and as those who spool met them; some twice, which does not matter.
    fn store_failures(&self) -> u64 {
        let met = self.metrics.store_failures.get();
        self.store.counters().failures.saturating_add(met)
    }

    fn tell(&self) {
        for (cause, gauge) in self.metrics.not_ready.each() {
            gauge.set(i64::from(self.is_met(*cause)));
        }
    }

    fn is_met(&self, cause: Hindrance) -> bool {
        match cause {
            Hindrance::Draining => !self.engine.is_ready(),
            Hindrance::Store => self.store_fails.load(Ordering::Relaxed),
            Hindrance::Ledger => self.ledger.status().failing,
            Hindrance::Redis => {
                self.nodes == Nodes::ThroughRedis && self.metrics.cluster_connected.get() == 0
            }
        }
    }
}

impl Probe for Readiness {
    fn hindrance(&self) -> Option<Hindrance> {
        Hindrance::ALL
            .iter()
            .copied()
            .find(|cause| self.is_met(*cause))
    }

    fn refresh(&self, metrics: &Metrics) {
        self.tell();
        let mut seen = self.seen.lock();
        let now = self.store.counters();
        metrics
            .store_commits
            .inc_by(now.commits.saturating_sub(seen.commits));
        metrics
            .store_rows
            .inc_by(now.rows.saturating_sub(seen.rows));
        *seen = now;
    }
}

#[cfg(test)]
mod tests;
