//! Other domains: what goes to them, in eight lanes each, and what they send.
//!
//! The rules of a lane are those of [`PeerLane`]; here each has a lock, a task that carries out what
//! it says, and the outbox. `worker` is that task, `spool` writes the outbox, `settle` deals with
//! answers and with what comes back, `rest` is the back-off of a peer, `lease` is the right to send to it, which of
//! several nodes one has at a time, `request` asks it for something, `inbox` takes what it sends.

mod inbox;
mod lane;
mod lease;
mod outgoing;
mod request;
mod rest;
mod settle;
mod spool;
mod worker;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use commucat_crypto::secret::random_bytes;
use commucat_federation::event::Lane;
use commucat_proto::id::{Domain, GroupId, Handle};
use commucat_routing::lane::{Closed, Effect, Position};
use commucat_routing::ticket::Outcome;
use commucat_storage::{NodeId, OutboxState, Store};
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::warn;

pub(crate) use self::inbox::Inbox;
use self::lane::PeerQueue;
use self::lease::Lease;
pub(crate) use self::outgoing::{AuthorOf, Outgoing, PeerLeg, ReturnTo};
use self::request::Hints;
use self::rest::Rest;
use self::spool::Spooler;
use crate::chain::chain;
use crate::federation::PeerClient;
use crate::keys::Keys;
use crate::mailbox::Mailboxes;
use crate::metrics::Metrics;

/// Requests and tags in flight to one peer (CCP-1 section 8).
const REQUESTS_MAX: usize = 32;

/// Domains in use at once; those at rest make room.
const PEERS_MAX: usize = 4_096;

/// Between two looks for what other nodes have put into the outbox.
const LOOK_PERIOD: Duration = Duration::from_secs(1);

/// Members found gone that wait for the hub; see [`Peers::depart`].
const DEPARTURES_MAX: usize = 256;

/// Members of a group of this domain that are gone.
pub(crate) type Departure = (GroupId, Vec<Handle>);

/// All peers in use. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Peers(Arc<Shared>);

struct Shared {
    domain: Domain,
    /// Stands for this run of the process where nodes take turns.
    node: NodeId,
    keys: Keys,
    store: Store,
    mailboxes: Mailboxes,
    client: PeerClient,
    metrics: Metrics,
    peers: Mutex<HashMap<Domain, Arc<Peer>>>,
    spooler: Spooler,
    departures: mpsc::Sender<Departure>,
    tasks: TaskTracker,
    stop: CancellationToken,
    /// Nothing is sent any more: everything goes to the outbox.
    draining: AtomicBool,
    /// A lane was emptied, or a batch written.
    settled: Notify,
}

/// One other domain in use.
pub(crate) struct Peer {
    domain: Domain,
    lanes: Vec<PeerQueue>,
    rest: Rest,
    lease: Lease,
    requests: Semaphore,
    hints: Hints,
}

impl Peers {
    /// No peer is in use yet, and nothing runs before [`Peers::start`].
    pub(crate) fn new(
        (domain, keys): (Domain, Keys),
        (store, mailboxes): (Store, Mailboxes),
        client: PeerClient,
        metrics: Metrics,
        (tasks, stop): (TaskTracker, CancellationToken),
    ) -> (Self, mpsc::Receiver<Departure>) {
        let (departures, departed) = mpsc::channel(DEPARTURES_MAX);
        let shared = Shared {
            domain,
            node: random_bytes(),
            keys,
            store,
            mailboxes,
            client,
            metrics,
            peers: Mutex::default(),
            spooler: Spooler::default(),
            departures,
            tasks,
            stop,
            draining: AtomicBool::new(false),
            settled: Notify::new(),
        };
        (Self(Arc::new(shared)), departed)
    }

    /// Starts what runs, and takes up what an earlier run left in the outbox.
    pub(crate) fn start(&self) {
        let peers = self.clone();
        self.0.tasks.spawn(spool::run(peers.clone()));
        self.0.tasks.spawn(async move { peers.take_up().await });
    }

    /// This domain.
    pub(crate) fn domain(&self) -> &Domain {
        &self.0.domain
    }

    /// Hands an event to its peer's lane, which answers through `leg`. Never waits.
    pub(crate) fn send(&self, domain: &Domain, outgoing: Outgoing, leg: PeerLeg, now: Instant) {
        let Some(lane) = outgoing.lane() else {
            return;
        };
        // Where there are too many peers, the leg fails as it is dropped.
        let Some(peer) = self.peer(domain) else {
            return;
        };
        let Some(queue) = peer.queue(lane) else {
            return;
        };
        peer.lease.used(now);
        let envelope = outgoing.envelope();
        self.rouse(&peer, queue, |lane, effects| {
            // Only a lane that has drained is closed: the leg fails as it is dropped.
            if let Err(Closed { leg, .. }) = lane.lane().append(envelope, leg, now, effects) {
                effects.push(Effect::Resolve(leg, Outcome::Failed));
            }
        });
    }

    /// Rows were inserted for `domain` past its lane of `group`, before the result is told.
    pub(crate) fn poke(&self, domain: &Domain, group: &GroupId) {
        let Some(peer) = self.peer(domain) else {
            return;
        };
        if let Some(queue) = peer.queue(Lane::of(group)) {
            self.rouse(&peer, queue, |lane, effects| lane.lane().poke(effects));
        }
    }

    /// The author of what comes next may have been on another node before, which put what came
    /// earlier into the outbox: that goes first.
    pub(crate) fn read_outbox_first(&self, domain: &Domain, group: &GroupId) {
        if !self.is_only_node() {
            self.poke(domain, group);
        }
    }

    /// Something came from `domain`, authenticated: it is there, so what waits for it is tried.
    pub(crate) fn heard(&self, domain: &Domain) {
        let peer = self.0.peers.lock().get(domain).cloned();
        if let Some(peer) = peer
            && peer.rest.is_over()
        {
            peer.wake_all();
        }
    }

    /// Stops sending, and puts everything that is in memory into the outbox; returns when every
    /// ticket that waited for it has its answer.
    pub(crate) async fn drain(&self) {
        self.0.draining.store(true, Ordering::Release);
        loop {
            let settled = self.0.settled.notified();
            let mut all_settled = true;
            let peers: Vec<_> = self.0.peers.lock().values().cloned().collect();
            for peer in &peers {
                for queue in &peer.lanes {
                    self.with_lane(peer, queue, |lane, effects| {
                        lane.failed(effects);
                        lane.lane().drain(effects);
                    });
                    all_settled &= queue.is_settled();
                }
            }
            if all_settled && self.0.spooler.is_idle() {
                break;
            }
            settled.await;
        }
        self.release().await;
    }

    /// What is counted.
    pub(crate) fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// Peers whose back-off runs.
    pub(crate) fn resting(&self) -> usize {
        let peers = self.0.peers.lock();
        peers.values().filter(|peer| peer.rest.is_on()).count()
    }

    fn is_draining(&self) -> bool {
        self.0.draining.load(Ordering::Acquire)
    }

    /// The peer of that name; `None` if there are [`PEERS_MAX`] others in use.
    fn peer(&self, domain: &Domain) -> Option<Arc<Peer>> {
        let mut peers = self.0.peers.lock();
        if let Some(peer) = peers.get(domain) {
            return Some(Arc::clone(peer));
        }
        if peers.len() >= PEERS_MAX {
            // Whoever holds one of them now gets a new one next time, and nothing is in the old.
            peers.retain(|_, peer| Arc::strong_count(peer) > 1 || !peer.is_at_rest());
        }
        if peers.len() >= PEERS_MAX {
            return None;
        }
        let peer = Arc::new(Peer {
            domain: domain.clone(),
            lanes: Lane::all().map(PeerQueue::new).collect(),
            rest: Rest::default(),
            lease: Lease::default(),
            requests: Semaphore::new(REQUESTS_MAX),
            hints: Hints::default(),
        });
        peers.insert(domain.clone(), Arc::clone(&peer));
        Some(peer)
    }

    /// Sends what an earlier run left, and on from there what other nodes put into the outbox; the
    /// store may be down for a while.
    async fn take_up(&self) {
        loop {
            let pause = match self.0.store.outbox_states().await {
                Ok(states) => {
                    for state in states {
                        self.take_up_lane(&state);
                    }
                    if self.is_only_node() {
                        return;
                    }
                    LOOK_PERIOD
                }
                Err(failure) => {
                    warn!(error = %chain(&failure), "cannot read the outbox");
                    worker::PAGE_PAUSE
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.0.stop.cancelled() => return,
            }
        }
    }

    fn take_up_lane(&self, state: &OutboxState) {
        let Some(peer) = self.peer(&state.lane.peer) else {
            return;
        };
        let Some(queue) = Lane::new(state.lane.number).and_then(|lane| peer.queue(lane)) else {
            return;
        };
        let head = Position::new(state.head.get());
        self.rouse(&peer, queue, |lane, effects| {
            lane.lane().poll(head, effects);
        });
    }
}

impl Peer {
    fn is_at_rest(&self) -> bool {
        self.lanes.iter().all(PeerQueue::is_at_rest)
    }

    fn queue(&self, lane: Lane) -> Option<&PeerQueue> {
        self.lanes.get(usize::from(lane.number()))
    }

    fn wake_all(&self) {
        for queue in &self.lanes {
            queue.wake();
        }
    }
}
