//! The engine: sessions, mailboxes, hub and accounts, put together.

use std::sync::Arc;

use commucat_config::{Config, Registration};
use commucat_ledger::Ledger;
use commucat_proto::frame::ack::SessionLimits;
use commucat_proto::id::Domain;
use commucat_routing::lane::Settings;
use commucat_routing::pipeline;
use commucat_storage::{ClaimBudgets, Store};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::accounts::{self, Accounts, Policy};
use crate::carrier::{Carrier, Serve};
use crate::cluster::{Cluster, Surroundings};
use crate::federation::PeerClient;
use crate::hub::Hub;
use crate::jobs::Jobs;
use crate::keys::Keys;
use crate::limit::Buckets;
use crate::mailbox::Mailboxes;
use crate::metrics::Metrics;
use crate::peers::{Departure, Inbox, Peers};
use crate::router::Router;
use crate::session::{self, Budgets, Drain, Rules, Sessions};

/// The bound over all windows where the machine does not say how much memory it has.
const MEMORY_UNKNOWN: usize = 512 << 20;

/// What the engine is made of.
#[derive(Debug)]
pub struct Parts {
    /// The settings.
    pub config: Arc<Config>,
    /// The domain's keys.
    pub keys: Keys,
    /// Durable state.
    pub store: Store,
    /// The record of key changes.
    pub ledger: Ledger,
    /// What is counted.
    pub metrics: Metrics,
    /// Limits that all nodes have in common.
    pub buckets: Buckets,
    /// The other nodes of this domain.
    pub nodes: Nodes,
    /// What carries events to other domains.
    pub client: PeerClient,
}

/// The other nodes of this domain, if there may be any.
#[derive(Clone, Default)]
pub struct Nodes(pub(crate) Option<Cluster>);

impl std::fmt::Debug for Nodes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Nodes").finish_non_exhaustive()
    }
}

/// Serves sessions.
pub struct Engine {
    sessions: Sessions,
    nodes: Option<(Cluster, Surroundings)>,
    inbox: Inbox,
    /// Taken by the task that follows them.
    departures: Mutex<Option<mpsc::Receiver<Departure>>>,
    jobs: Jobs,
    drain: Drain,
    running: TaskTracker,
    background: TaskTracker,
    stop: CancellationToken,
}

impl Engine {
    /// Puts the engine together; nothing runs yet.
    #[must_use]
    #[expect(clippy::too_many_lines, reason = "every part is named once, in order")]
    pub fn new(parts: Parts) -> Arc<Self> {
        let Parts {
            config,
            keys,
            store,
            ledger,
            metrics,
            buckets,
            nodes,
            client,
        } = parts;
        let (background, drain) = (TaskTracker::new(), Drain::default());
        let mailboxes = Mailboxes::new(
            store.clone(),
            settings(&config),
            memory(&config),
            metrics.clone(),
        );
        if let Some(cluster) = &nodes.0 {
            mailboxes.join(cluster.clone());
        }
        let stop = CancellationToken::new();
        let (peers, departures) = Peers::new(
            (config.server.domain.clone(), keys.clone()),
            (store.clone(), mailboxes.clone()),
            client,
            metrics.clone(),
            (background.clone(), stop.clone()),
        );
        let router = Router::new(
            keys.clone(),
            store.clone(),
            mailboxes.clone(),
            peers.clone(),
        );
        let accounts = Accounts::new(
            (policy(&config), buckets.clone()),
            keys.clone(),
            store.clone(),
            ledger.clone(),
            router.clone(),
        );
        let hub = Hub::new(
            router.clone(),
            store.clone(),
            background.clone(),
            (
                size(config.limits.group_handles.into()),
                session::rate(config.limits.submit_rate, config.limits.submit_burst),
                buckets.clone(),
            ),
            metrics.forks.clone(),
        );
        let rules = Arc::new(rules(&config));
        let budgets = Budgets::new(&rules, buckets);
        let around = Surroundings {
            budgets: budgets.clone(),
            mailboxes: mailboxes.clone(),
            router: router.clone(),
            hub: hub.clone(),
            store: store.clone(),
        };
        let inbox = Inbox::new(
            router,
            hub.clone(),
            accounts.clone(),
            background.clone(),
            size(config.limits.max_payload.bytes()),
        );
        Arc::new(Self {
            nodes: nodes.0.map(|cluster| (cluster, around)),
            inbox,
            departures: Mutex::new(Some(departures)),
            sessions: Sessions {
                keys: keys.clone(),
                accounts,
                hub: hub.clone(),
                mailboxes: mailboxes.clone(),
                peers: peers.clone(),
                metrics: metrics.clone(),
                rules,
                drain: drain.clone(),
                tasks: background.clone(),
                budgets,
            },
            jobs: Jobs {
                store,
                mailboxes,
                peers,
                hub,
                keys,
                ledger,
                metrics,
                ttl: config.limits.relay_ttl,
            },
            drain,
            running: TaskTracker::new(),
            background,
            stop,
        })
    }

    /// The router, for tests of several nodes.
    #[cfg(test)]
    pub(crate) fn router(&self) -> &Router {
        self.inbox.router()
    }

    /// The mailboxes, for tests of several nodes.
    #[cfg(test)]
    pub(crate) fn mailboxes(&self) -> &Mailboxes {
        &self.sessions.mailboxes
    }

    /// Ends all tasks at once, as the end of the process would.
    #[cfg(test)]
    pub(crate) fn kill(&self) {
        self.stop.cancel();
    }

    /// A request of `domain` was verified: it is there.
    pub(crate) fn heard(&self, domain: &Domain) {
        self.sessions.peers.heard(domain);
    }

    /// The other domains in use.
    pub(crate) const fn peers(&self) -> &Peers {
        &self.sessions.peers
    }

    /// What takes events of other domains.
    pub(crate) fn inbox(&self) -> &Inbox {
        &self.inbox
    }

    /// The part that administration acts on.
    pub(crate) fn accounts(&self) -> &Accounts {
        &self.sessions.accounts
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Engine(..)")
    }
}

impl Serve for Engine {
    fn start(self: Arc<Self>) {
        self.sessions.mailboxes.start(&self.background, &self.stop);
        if let Some((cluster, around)) = &self.nodes {
            cluster.start(around, &self.background, &self.stop);
        }
        self.sessions.peers.start();
        if let Some(departures) = self.departures.lock().take() {
            let hub = self.sessions.hub.clone();
            let stop = self.stop.clone();
            self.background
                .spawn(hub.follow_departures(departures, stop));
        }
        self.jobs.start(&self.background, &self.stop);
    }

    fn serve(self: Arc<Self>, carrier: Carrier) -> impl Future<Output = ()> + Send + 'static {
        let session = self.sessions.clone().serve(carrier);
        self.running.track_future(session)
    }

    async fn drain(self: Arc<Self>) {
        // Reading stops; what is in memory goes to disk; then each author has its answers and each
        // session its farewell.
        self.drain.begin();
        if let Some((cluster, around)) = &self.nodes {
            cluster.leave(&around.mailboxes);
        }
        self.sessions.mailboxes.drain().await;
        self.sessions.peers.drain().await;
        self.drain.finish();
        self.running.close();
        self.running.wait().await;
        self.stop.cancel();
        self.background.close();
        self.background.wait().await;
    }

    fn is_ready(&self) -> bool {
        !self.drain.has_begun()
    }
}

fn policy(config: &Config) -> Policy {
    Policy {
        registration: match config.server.registration {
            Registration::Invite => accounts::Registration::Invite,
            Registration::Open => accounts::Registration::Open,
            Registration::Closed => accounts::Registration::Closed,
        },
        budgets: ClaimBudgets {
            per_capability: config.limits.claims_per_capability.into(),
            per_domain: config.limits.claims_per_domain.into(),
        },
    }
}

fn settings(config: &Config) -> Settings {
    Settings {
        hold: config.limits.ack_wait,
        window_bytes: size(config.limits.window_bytes.bytes()),
        ..Settings::mailbox()
    }
}

/// The bound over all windows: as configured, else a quarter of the machine's memory.
fn memory(config: &Config) -> usize {
    match config.limits.mailbox_memory {
        Some(memory) => size(memory.bytes()),
        None => machine_memory().map_or(MEMORY_UNKNOWN, |bytes| bytes / 4),
    }
}

/// What Linux says the machine has.
fn machine_memory() -> Option<usize> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("MemTotal:"))?;
    let kib: usize = line.split_whitespace().nth(1)?.parse().ok()?;
    kib.checked_mul(1024)
}

fn rules(config: &Config) -> Rules {
    let limits = &config.limits;
    Rules {
        handshake_timeout: limits.handshake_timeout,
        keepalive: limits.keepalive,
        keepalive_idle: limits.keepalive_idle,
        write_timeout: limits.write_timeout,
        padding: config.server.padding,
        unacked: pipeline::Limits {
            frames: usize::try_from(limits.unacked).unwrap_or(usize::MAX),
            bytes: size(limits.unacked_bytes.bytes()),
        },
        submit_rate: limits.submit_rate,
        submit_burst: limits.submit_burst,
        announced: SessionLimits {
            max_payload: limits.max_payload.bytes(),
            queue_entries: limits.queue_entries.into(),
            queue_bytes: limits.queue_bytes.bytes(),
            keepalive: limits.keepalive.as_secs(),
            relay_ttl: limits.relay_ttl.as_secs(),
            group_handles: limits.group_handles.into(),
            unacked_frames: limits.unacked.into(),
            unacked_bytes: limits.unacked_bytes.bytes(),
        },
    }
}

fn size(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests;
