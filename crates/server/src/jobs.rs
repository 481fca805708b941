//! What runs by the clock: expiry, key renewal, figures for the metrics.

use std::time::Duration;

use commucat_ledger::{Change, Hash, Ledger};
use commucat_storage::{Store, StoreError, SweepCursor};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::chain::chain;
use crate::clock;
use crate::hub::Hub;
use crate::keys::Keys;
use crate::mailbox::Mailboxes;
use crate::metrics::Metrics;
use crate::peers::Peers;

/// Between two runs of expiry at the most; each run writes its clock, and an idle server should leave
/// its disk alone.
const EXPIRY_PERIOD: Duration = Duration::from_secs(600);

/// Between two looks at what the mailboxes hold.
const FIGURES_PERIOD: Duration = Duration::from_secs(1);

/// Between two looks for devices that acknowledge nothing more: so long an author may take to repeat
/// what it sent.
const ACKED_KEYS_PERIOD: Duration = Duration::from_secs(600);

/// Between two looks for fork alarms that are due.
const FORKS_PERIOD: Duration = Duration::from_secs(10);

/// Between two looks at the keys: whether another process changed them, whether one ends soon.
const KEYS_PERIOD: Duration = Duration::from_secs(5);

/// What the jobs act on.
pub(crate) struct Jobs {
    pub(crate) store: Store,
    pub(crate) mailboxes: Mailboxes,
    pub(crate) peers: Peers,
    pub(crate) hub: Hub,
    pub(crate) keys: Keys,
    pub(crate) ledger: Ledger,
    pub(crate) metrics: Metrics,
    pub(crate) ttl: Duration,
}

impl Jobs {
    /// Starts them all; they end after `stop`.
    pub(crate) fn start(&self, tasks: &TaskTracker, stop: &CancellationToken) {
        let waiting = Waiting {
            store: self.store.clone(),
            mailboxes: self.mailboxes.clone(),
            peers: self.peers.clone(),
        };
        tasks.spawn(expiry(waiting, self.ttl, stop.clone()));
        tasks.spawn(forks(self.hub.clone(), stop.clone()));
        tasks.spawn(acked_keys(self.mailboxes.clone(), stop.clone()));
        tasks.spawn(figures(
            self.mailboxes.clone(),
            self.peers.clone(),
            self.metrics.clone(),
            stop.clone(),
        ));
        let renewal = match self.mailboxes.cluster() {
            Some(_) => Renewal::ByOperator,
            None => Renewal::ByItself,
        };
        let (own, ledger) = (self.keys.clone(), self.ledger.clone());
        tasks.spawn(keys(own, ledger, renewal, stop.clone()));
    }
}

/// Lets entries, logs, packages and invites expire, in bounded steps, until `stop`.
async fn expiry(waiting: Waiting, ttl: Duration, stop: CancellationToken) {
    let mut period = interval((ttl / 2).min(EXPIRY_PERIOD));
    period.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last = Instant::now();
    loop {
        tokio::select! {
            _ = period.tick() => {}
            () = stop.cancelled() => return,
        }
        let elapsed = last.elapsed();
        last = Instant::now();
        if let Err(failure) = expire(&waiting, ttl, elapsed, &stop).await {
            warn!(error = %chain(&failure), "expiry stopped; it goes on at its next run");
        }
    }
}

/// What holds entries that expire.
struct Waiting {
    store: Store,
    mailboxes: Mailboxes,
    peers: Peers,
}

async fn expire(
    waiting: &Waiting,
    ttl: Duration,
    elapsed: Duration,
    stop: &CancellationToken,
) -> Result<(), StoreError> {
    let Waiting {
        store,
        mailboxes,
        peers,
    } = waiting;
    let clock = store.advance_clock(clock::now(), elapsed).await?;
    let mut cursor = Some(SweepCursor::default());
    while let Some(from) = cursor.filter(|_| !stop.is_cancelled()) {
        let step = store.expire_entries(clock, ttl, from).await?;
        mailboxes.metrics().expired.inc_by(step.entries);
        for (queue, _) in &step.gaps {
            mailboxes.poke(queue);
        }
        cursor = step.next;
    }
    let mut cursor = Some(SweepCursor::default());
    while let Some(from) = cursor.filter(|_| !stop.is_cancelled()) {
        cursor = store.sweep_groups(clock, from).await?;
    }
    while !stop.is_cancelled() && store.sweep_expired(clock).await? {}
    if !stop.is_cancelled() {
        peers.expire(clock, ttl).await?;
    }
    Ok(())
}

/// Tells of fork alarms that became due, until `stop`.
async fn forks(hub: Hub, stop: CancellationToken) {
    let mut period = interval(FORKS_PERIOD);
    period.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = period.tick() => hub.tell_due_forks(std::time::Instant::now()).await,
            () = stop.cancelled() => return,
        }
    }
}

/// Lets mailboxes forget acknowledged keys that nobody will repeat any more, until `stop`.
async fn acked_keys(mailboxes: Mailboxes, stop: CancellationToken) {
    let mut period = interval(ACKED_KEYS_PERIOD);
    period.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = period.tick() => mailboxes.forget_old_keys(),
            () = stop.cancelled() => return,
        }
    }
}

/// Brings what the mailboxes hold into the metrics, until `stop`.
async fn figures(mailboxes: Mailboxes, peers: Peers, metrics: Metrics, stop: CancellationToken) {
    let mut period = interval(FIGURES_PERIOD);
    period.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = period.tick() => {}
            () = stop.cancelled() => return,
        }
        metrics
            .mailbox_bytes
            .set(i64::try_from(mailboxes.memory()).unwrap_or(i64::MAX));
        metrics
            .peers_resting
            .set(i64::try_from(peers.resting()).unwrap_or(i64::MAX));
        metrics
            .mailboxes
            .set(i64::try_from(mailboxes.len()).unwrap_or(i64::MAX));
    }
}

/// Who renews a key that ends soon.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Renewal {
    ByItself,
    /// Several nodes have copies of the keys: each would make another one.
    ByOperator,
}

/// Takes up keys that another process made, and renews those that end soon, until `stop`.
async fn keys(keys: Keys, ledger: Ledger, renewal: Renewal, stop: CancellationToken) {
    let mut period = interval(KEYS_PERIOD);
    period.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = period.tick() => {}
            () = stop.cancelled() => return,
        }
        let reloaded = keys.reload();
        let renewed = match renewal {
            Renewal::ByItself => keys.maintain(clock::now()),
            Renewal::ByOperator => Ok(false),
        };
        for result in [reloaded, renewed] {
            if let Err(failure) = result {
                warn!(error = %chain(&failure), "the keys could not be read again");
            }
        }
        if let Some(serial) = keys.take_unrecorded() {
            info!("the server's keys have changed");
            let statement = Hash::of_body(&keys.statement().body);
            let change = Change::ServerKeysChanged { serial, statement };
            let recorded = tokio::select! {
                recorded = ledger.record(clock::now(), change) => recorded,
                () = stop.cancelled() => return,
            };
            if let Err(failure) = recorded {
                warn!(error = %chain(&failure), "the ledger did not take a key change");
            }
        }
    }
}
