//! What is outside of every process: time, chance, the network between them, and the judge.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use commucat_proto::frame::Frame;
use commucat_proto::time::Timestamp;
use commucat_routing::lane::{Page, Position};

use crate::judge::Judge;
use crate::peer::{Answer, Batch, Event as PeerEvent};
use crate::plant::Plant;
use crate::random::Random;
use crate::scenario::Scenario;

/// The wall clock's time at the beginning, in unix milliseconds.
const BEGINNING: u64 = 1_800_000_000_000;

/// A connection of a client; never used twice.
pub(crate) type Connection = u64;
/// A client or a domain, by its place in the world.
pub(crate) type Index = usize;

/// Something that happens at a certain time.
#[derive(Debug)]
pub(crate) enum Event {
    /// A frame arrives at a server.
    Up(Connection, Frame),
    /// Frames arrive at a client.
    Down(Connection, Vec<Frame>),
    /// The server notices that a connection is gone.
    UpEnds(Connection),
    /// The client notices that a connection is gone.
    DownEnds(Connection),
    /// A client connects.
    Connect(Index),
    /// A client looks around.
    Wake(Index),
    /// A client does what its script says.
    Act(Index),
    /// Something inside a process, of one incarnation only.
    Inside(Index, u64, Inside),
    /// A batch of events arrives at another domain.
    Batch(Batch),
    /// An answer to a batch arrives.
    Answer(Answer),
    /// Something goes wrong.
    Fault,
    /// A client connects anew while the server still has its old connection.
    Again(Index),
    /// A client that was away is back.
    Back(Index),
    /// A domain's process dies.
    Crash(Index),
    /// A domain that is down starts.
    Start(Index),
    /// The network between two domains works again.
    Heal(Index, Index),
}

/// What a process waits for.
#[derive(Debug)]
pub(crate) enum Inside {
    /// A session writes what there is.
    Pump(Connection),
    /// The store reads a page.
    Read(Connection, Position),
    /// A page arrives at the session that asked for it.
    Page(Connection, Option<Page>),
    /// A transaction ends.
    Transaction(u64),
    /// Timers are looked at.
    Tick,
    /// A peer's lane sends.
    PeerPump(Index, u8),
    /// The page that a peer's lane asked for is read.
    PeerRead(Index, u8, u64, Position),
    /// No answer came for a batch.
    PeerTimeout(u64),
    /// A peer's lane tries again.
    PeerRetry(Index, u8),
}

/// One connection between a client and its domain: two ordered streams.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Link {
    pub(crate) client: Index,
    pub(crate) domain: Index,
    pub(crate) incarnation: u64,
    up_at: u64,
    down_at: u64,
    /// What the client sends gets nowhere.
    is_lost: bool,
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Outside {
    pub(crate) now: u64,
    start: Instant,
    agenda: BTreeMap<(u64, u64), Event>,
    order: u64,
    pub(crate) random: Random,
    pub(crate) plant: Option<Plant>,
    pub(crate) scenario: Scenario,
    pub(crate) judge: Judge,
    pub(crate) links: BTreeMap<Connection, Link>,
    connections: Connection,
    /// Events between domains; what travels and what outboxes hold is a number of one of them.
    pub(crate) events: Vec<PeerEvent>,
    /// Ordered pairs of domains between which nothing gets through.
    pub(crate) cut: Vec<(Index, Index)>,
    /// Nothing goes wrong any more.
    pub(crate) calm: bool,
    printing: bool,
    digest: blake3::Hasher,
    pub(crate) steps: u64,
}

impl Outside {
    pub(crate) fn new(seed: u64, scenario: Scenario, plant: Option<Plant>, printing: bool) -> Self {
        Self {
            now: 0,
            start: Instant::now(),
            agenda: BTreeMap::new(),
            order: 0,
            random: Random::new(seed),
            plant,
            scenario,
            judge: Judge::default(),
            links: BTreeMap::new(),
            connections: 0,
            events: Vec::new(),
            cut: Vec::new(),
            calm: false,
            printing,
            digest: blake3::Hasher::new(),
            steps: 0,
        }
    }

    pub(crate) fn has(&self, plant: Plant) -> bool {
        self.plant == Some(plant)
    }

    pub(crate) fn instant(&self) -> Instant {
        self.start + Duration::from_millis(self.now)
    }

    /// Milliseconds from now to `at`.
    pub(crate) fn until(&self, at: Instant) -> u64 {
        let wait = at.saturating_duration_since(self.instant());
        u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)
    }

    pub(crate) const fn time(&self) -> Timestamp {
        Timestamp::from_millis(BEGINNING + self.now)
    }

    /// Lets `event` happen after `delay` milliseconds.
    pub(crate) fn after(&mut self, delay: u64, event: Event) {
        self.order += 1;
        self.agenda
            .insert((self.now.saturating_add(delay), self.order), event);
    }

    /// The next thing that happens not later than `limit`; time moves on to it.
    pub(crate) fn next(&mut self, limit: u64) -> Option<Event> {
        let first = self.agenda.first_entry()?;
        let at = first.key().0;
        if at > limit {
            return None;
        }
        self.now = at;
        self.steps += 1;
        Some(first.remove())
    }

    /// Notes what happens, for whoever reads the trace, and for the comparison of two runs.
    pub(crate) fn note(&mut self, line: impl FnOnce() -> String) {
        if self.printing || cfg!(test) {
            let line = format!("{:>9} {}", self.now, line());
            self.digest.update(line.as_bytes());
            if self.printing {
                print(&line);
            }
        }
    }

    /// What all notes so far come to.
    pub(crate) fn digest(&self) -> [u8; 32] {
        *self.digest.finalize().as_bytes()
    }

    /// Opens a connection.
    pub(crate) fn connect(&mut self, client: Index, domain: Index, incarnation: u64) -> Connection {
        self.connections += 1;
        let link = Link {
            client,
            domain,
            incarnation,
            up_at: self.now,
            down_at: self.now,
            is_lost: false,
        };
        self.links.insert(self.connections, link);
        self.connections
    }

    /// A frame from a client: behind everything that it sent before.
    pub(crate) fn up(&mut self, connection: Connection, frame: Frame) {
        let delay = self.delay();
        let now = self.now;
        let link = self.links.get_mut(&connection);
        let Some(link) = link.filter(|link| !link.is_lost) else {
            return;
        };
        link.up_at = link.up_at.max(now + delay);
        let at = link.up_at;
        self.after(at - now, Event::Up(connection, frame));
    }

    /// Frames to a client: behind everything that was sent to it before.
    pub(crate) fn down(&mut self, connection: Connection, frames: Vec<Frame>) {
        if frames.is_empty() {
            return;
        }
        let delay = self.delay();
        let now = self.now;
        let Some(link) = self.links.get_mut(&connection) else {
            return;
        };
        link.down_at = link.down_at.max(now + delay);
        let at = link.down_at;
        self.after(at - now, Event::Down(connection, frames));
    }

    /// From now on nothing that a client sends on this connection arrives.
    pub(crate) fn lose_up(&mut self, connection: Connection) {
        if let Some(link) = self.links.get_mut(&connection) {
            link.is_lost = true;
        }
    }

    /// A connection breaks: each end notices at its own time, and what arrives before is taken.
    pub(crate) fn cut_link(&mut self, connection: Connection) {
        let (up, down) = (self.random.below(400), self.random.below(400));
        self.after(up, Event::UpEnds(connection));
        self.after(down, Event::DownEnds(connection));
    }

    /// How long something takes on a client's connection.
    fn delay(&mut self) -> u64 {
        if self.random.chance(20) && !self.calm {
            self.random.between(50, 800)
        } else {
            self.random.between(1, 15)
        }
    }

    /// How long a transaction takes.
    pub(crate) fn disk(&mut self) -> u64 {
        if self.random.chance(30) && !self.calm {
            self.random.between(50, 1_500)
        } else {
            self.random.between(1, 10)
        }
    }

    /// How often something from one domain reaches another, and after how long each time.
    pub(crate) fn crossing(&mut self, from: Index, to: Index) -> Vec<u64> {
        if self.cut.contains(&(from, to)) {
            return Vec::new();
        }
        let faults = self.scenario.peer_faults;
        if self.calm || !self.random.chance(faults) {
            return vec![self.random.between(2, 25)];
        }
        match self.random.below(4) {
            0 => Vec::new(),
            1 => vec![self.random.between(2, 25), self.random.between(2, 30_000)],
            _ => vec![self.random.between(25, 15_000)],
        }
    }

    /// Notes a value that travels between domains; its number.
    pub(crate) fn keep(&mut self, event: PeerEvent) -> u64 {
        self.events.push(event);
        u64::try_from(self.events.len() - 1).unwrap_or(u64::MAX)
    }

    /// The value with this number.
    pub(crate) fn kept(&self, number: u64) -> Option<&PeerEvent> {
        self.events.get(usize::try_from(number).ok()?)
    }
}

#[expect(clippy::print_stdout, reason = "the trace is what was asked for")]
fn print(line: &str) {
    println!("{line}");
}
