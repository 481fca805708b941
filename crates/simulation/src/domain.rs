//! One domain: a store that survives, and a process that does not.
//!
//! Queues, tickets, groups and sessions follow the machines of `commucat_routing`, which the server
//! runs too; what the server does with tasks, locks and sockets is done here with events.

mod accounts;
mod commit;
mod custody;
mod hub;
mod inbound;
mod lanes;
pub(crate) mod liar;
mod notice;
mod peers;
mod requests;
mod sessions;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use commucat_crypto::server_keys::DomainSecret;
use commucat_proto::id::{
    DedupeKey, Domain as DomainId, DomainKey, GroupId, Handle, MessageId, QueueId, SealedRef,
};
use commucat_proto::time::Timestamp;
use commucat_routing::hub::{Alarm, Entry, Limiter, Rate};
use commucat_routing::lane::Lane;
use commucat_routing::peer::PeerLane;

use self::custody::{Held, Open};
use self::hub::View;
use self::inbound::Inbound;
use self::lanes::Transaction;
use self::peers::{Flight, PeerState};
use self::sessions::Session;
use crate::outside::{Connection, Event, Index, Inside, Outside};
use crate::store::{Device, Place, Reference, Store};

/// A part of a ticket that a lane holds.
pub(super) type LegId = u64;
/// A ticket.
pub(super) type TicketId = u64;

/// Nodes of one domain: each has its own look at the groups, all share everything else.
const NODES: usize = 2;

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Domain {
    pub(crate) index: Index,
    pub(crate) names: Vec<DomainId>,
    /// The keys of all domains, pinned.
    keys: Vec<DomainKey>,
    secret: DomainSecret,
    pub(crate) store: Store,
    pub(crate) up: bool,
    pub(crate) incarnation: u64,
    /// How far its wall clock is ahead of the true time.
    pub(crate) skew_ms: u64,
    process: Process,
    numbers: u64,
}

/// What a crash takes away.
#[derive(Debug)]
struct Process {
    lanes: BTreeMap<Place, Mailbox>,
    sessions: BTreeMap<Connection, Session>,
    tickets: BTreeMap<TicketId, Open>,
    legs: BTreeMap<LegId, Held>,
    transactions: BTreeMap<u64, Transaction>,
    /// Rows whose deletion is under way.
    deletes: BTreeSet<(Place, u64, DedupeKey)>,
    views: Vec<BTreeMap<GroupId, View>>,
    commits: Limiter<Handle>,
    alarms: BTreeMap<GroupId, Alarm>,
    /// Groups from which members are being taken out.
    departing: BTreeSet<GroupId>,
    peers: BTreeMap<(Index, u8), PeerState>,
    flights: BTreeMap<u64, Flight>,
    inbound: BTreeMap<u64, Inbound>,
    tick_at: Option<Instant>,
}

/// A queue in use, and the connection that reads it.
#[derive(Debug)]
struct Mailbox {
    machine: Machine,
    session: Option<Connection>,
}

/// The rules of a queue, or of a lane to a peer.
#[derive(Debug)]
enum Machine {
    Device(Lane<LegId>),
    Peer(PeerLane<LegId>),
}

impl Mailbox {
    const fn lane(&mut self) -> &mut Lane<LegId> {
        match &mut self.machine {
            Machine::Device(lane) => lane,
            Machine::Peer(peer) => peer.lane(),
        }
    }

    const fn look(&self) -> &Lane<LegId> {
        match &self.machine {
            Machine::Device(lane) => lane,
            Machine::Peer(peer) => peer.look(),
        }
    }
}

impl Process {
    fn new() -> Self {
        Self {
            lanes: BTreeMap::new(),
            sessions: BTreeMap::new(),
            tickets: BTreeMap::new(),
            legs: BTreeMap::new(),
            transactions: BTreeMap::new(),
            deletes: BTreeSet::new(),
            views: (0..NODES).map(|_| BTreeMap::new()).collect(),
            commits: Limiter::new(Rate::COMMIT),
            alarms: BTreeMap::new(),
            departing: BTreeSet::new(),
            peers: BTreeMap::new(),
            flights: BTreeMap::new(),
            inbound: BTreeMap::new(),
            tick_at: None,
        }
    }
}

impl Domain {
    pub(crate) fn new(
        index: Index,
        names: Vec<DomainId>,
        (secret, keys): (DomainSecret, Vec<DomainKey>),
    ) -> Self {
        Self {
            index,
            names,
            keys,
            secret,
            store: Store::default(),
            up: true,
            incarnation: 0,
            skew_ms: 0,
            process: Process::new(),
            // Identifiers of two domains never meet.
            numbers: u64::try_from(index).unwrap_or(0) << 48,
        }
    }

    /// Registers a device, as `crates/server/src/accounts` would after its handshake.
    pub(crate) fn register(&mut self, device: &commucat_proto::id::DeviceId, stored: Device) {
        self.store.open_queue(stored.queue);
        self.store.devices.insert(device.clone(), stored);
    }

    /// A reference to a queue of this domain, for one group and hub.
    pub(crate) fn mint(
        &mut self,
        out: &mut Outside,
        queue: QueueId,
        group: GroupId,
        hub: Index,
    ) -> SealedRef {
        let reference = SealedRef::new(out.random.bytes());
        let issued = out.now;
        let opened = Reference {
            queue,
            group,
            hub,
            issued,
        };
        self.store.references.insert(reference, opened);
        reference
    }

    /// Whether the device behind an entry has left the group since its reference was made.
    pub(crate) fn has_left(&self, entry: &Entry, group: &GroupId) -> bool {
        let opened = self.store.references.get(&entry.sealed_ref);
        opened.is_some_and(|opened| {
            let left = self.store.left.get(&(opened.queue, *group));
            left.is_some_and(|left| opened.issued <= *left)
        })
    }

    pub(crate) fn name(&self) -> Option<&DomainId> {
        self.names.get(self.index)
    }

    /// Its wall clock.
    fn clock(&self, out: &Outside) -> Timestamp {
        let time = out.time().as_millis();
        Timestamp::from_millis(time.saturating_add(self.skew_ms))
    }

    fn index_of(&self, name: &DomainId) -> Option<Index> {
        self.names.iter().position(|other| other == name)
    }

    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    /// Everything in memory is gone; what a transaction was about to do happened or did not.
    pub(crate) fn crash(&mut self, out: &mut Outside) {
        let index = self.index;
        out.note(|| format!("domain {index} crashes"));
        self.up = false;
        self.incarnation += 1;
        let process = std::mem::replace(&mut self.process, Process::new());
        for transaction in process.transactions.into_values() {
            if out.random.chance(500) {
                self.store.write(&transaction.write, out.plant, out.now);
            }
        }
        for connection in process.sessions.into_keys() {
            out.cut_link(connection);
        }
    }

    /// The process starts: peers are sent what waits for them.
    pub(crate) fn start(&mut self, out: &mut Outside) {
        let index = self.index;
        out.note(|| format!("domain {index} starts"));
        self.up = true;
        for (peer, lane) in self.store.outboxes() {
            self.open_peer(out, peer, lane);
        }
    }

    /// Something inside the process.
    pub(crate) fn inside(&mut self, out: &mut Outside, what: Inside) {
        match what {
            Inside::Pump(connection) => self.pump(out, connection),
            Inside::Read(connection, after) => self.read_page(out, connection, after),
            Inside::Page(connection, page) => self.page_arrives(out, connection, page),
            Inside::Transaction(id) => self.transaction_ends(out, id),
            Inside::Tick => self.tick(out),
            Inside::PeerPump(peer, lane) => self.peer_pump(out, peer, lane),
            Inside::PeerRead(peer, lane, reading, after) => {
                self.peer_reads(out, (peer, lane), reading, after);
            }
            Inside::PeerTimeout(flight) => self.flight_fails(out, flight),
            Inside::PeerRetry(peer, lane) => self.peer_retries(out, peer, lane),
        }
    }

    /// Lets something happen inside this process later.
    fn later(&self, out: &mut Outside, delay: u64, what: Inside) {
        out.after(delay, Event::Inside(self.index, self.incarnation, what));
    }

    /// Whether nothing is held, spooled or on its way.
    pub(crate) fn is_quiet(&self) -> bool {
        let process = &self.process;
        process.tickets.is_empty()
            && process.transactions.is_empty()
            && process.flights.is_empty()
            && self.store.outboxes().is_empty()
            && process
                .lanes
                .values()
                .all(|mailbox| mailbox.look().is_settled())
    }

    /// The job that lets go of what has waited for too long.
    pub(crate) fn expire(&mut self, out: &mut Outside) {
        let horizon = out.now.saturating_sub(out.scenario.ttl_ms);
        for place in self.store.expire(horizon, (out.plant, out.now)) {
            out.note(|| format!("entries of {place:?} expire"));
            self.poke(out, place);
        }
    }

    /// The job that cuts the logs of groups: of each a few entries are left, and those that are `asked`
    /// about.
    pub(crate) fn prune(&mut self, out: &mut Outside, asked: &BTreeSet<MessageId>) {
        for kept in self.store.groups.values_mut() {
            let left = out.random.below(3);
            let mut first = (kept.group.head + 1).saturating_sub(left);
            let mut asked = kept
                .log
                .iter()
                .filter(|entry| asked.contains(&entry.message));
            if let Some(entry) = asked.next() {
                first = first.min(entry.position);
            }
            kept.first_kept = kept.first_kept.max(first);
        }
        let index = self.index;
        out.note(|| format!("domain {index} cuts its logs"));
    }

    /// Puts memory under pressure: every window is spooled.
    pub(crate) fn spool_all(&mut self, out: &mut Outside) {
        let places: Vec<_> = self.process.lanes.keys().copied().collect();
        for place in places {
            self.with_lane(out, place, Lane::spool_now);
        }
    }
}
