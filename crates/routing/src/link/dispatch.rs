//! The sending half of a node: the ways of its queues and its links to the other nodes.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::time::Instant;

use commucat_proto::id::QueueId;

use super::outgoing::{Outgoing, Sent};
use super::way::{Decision, Place, Route, Waiting, Way};
use super::{Answer, Incarnation, Local, Parcel, Reading, Settings};
#[cfg(test)]
use crate::explore::bugs::Bug;
use crate::lane::Envelope;
use crate::ticket::Outcome;

/// Ways remembered; at the bound those that are at rest are forgotten, which costs a look into the
/// store for each that is used again.
const WAYS_MAX: usize = 262_144;

/// Bytes on their way over one link; beyond, all of them are put into the store.
const LINK_BYTES_MAX: usize = 32 << 20;

/// Nodes known to be gone. An incarnation never comes back, so the oldest may be forgotten when its
/// routes have run out.
const GONE_MAX: usize = 1_024;

/// When something happens, and how the lanes of this node are then.
#[derive(Clone, Copy)]
pub struct Moment<'a> {
    /// The time.
    pub now: Instant,
    /// Looks at a lane of this node.
    pub look: &'a dyn Fn(&QueueId) -> Local,
}

impl std::fmt::Debug for Moment<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Moment")
            .field("now", &self.now)
            .finish_non_exhaustive()
    }
}

/// What the caller does, in the order given.
#[derive(Debug, Eq, PartialEq)]
pub enum Act<L> {
    /// Append to the lane of this node; with [`Reading::StoreFirst`] poke it before.
    Here {
        /// The queue.
        queue: QueueId,
        /// The entry.
        envelope: Envelope,
        /// Its leg.
        leg: L,
        /// Whether a live reader reads the store first.
        reading: Reading,
    },
    /// Send to another node; may get lost.
    Send {
        /// The node.
        to: Incarnation,
        /// What.
        parcel: Parcel,
    },
    /// Ask where the device of this queue is connected, and call [`Dispatch::routed`].
    Ask(QueueId),
    /// Tell the ticket.
    Resolve(L, Outcome),
}

/// Decides where entries go, and keeps those of which nobody has said what became of them.
///
/// Every entry of this node's authors passes [`Dispatch::append`]; entries that another node sent go
/// to the lane here directly, whoever the device is connected to.
#[derive(Clone, Debug)]
pub struct Dispatch<L> {
    settings: Settings,
    ways: HashMap<QueueId, Way<L>>,
    links: BTreeMap<Incarnation, Outgoing<L>>,
    /// Queues with waiting entries, by the time since when the oldest waits.
    waits: VecDeque<(Instant, QueueId)>,
    gone: HashSet<Incarnation>,
    attempts: u64,
    /// Whether other nodes are used at all.
    alone: bool,
    #[cfg(test)]
    pub(crate) planted: Option<Bug>,
}

impl<L> Dispatch<L> {
    /// Without links; nothing is known of any queue.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            ways: HashMap::new(),
            links: BTreeMap::new(),
            waits: VecDeque::new(),
            gone: HashSet::new(),
            attempts: 0,
            alone: false,
            #[cfg(test)]
            planted: None,
        }
    }

    /// Takes one entry of an author of this node.
    ///
    /// `reading` is [`Reading::StoreFirst`] for the first of a newly bound channel: its author may
    /// have been on another node before.
    pub fn append(
        &mut self,
        (queue, envelope, leg): (QueueId, Envelope, L),
        reading: Reading,
        at: Moment<'_>,
        out: &mut Vec<Act<L>>,
    ) {
        let alone = self.alone;
        let way = self.way(queue);
        if reading == Reading::StoreFirst {
            way.reading = reading;
        }
        if let Some(waiting) = &mut way.waiting {
            waiting.push(envelope, leg);
            if waiting.is_full() {
                self.flush(queue, at.now, out);
            }
            return;
        }
        if alone {
            self.emit((queue, envelope, leg), at.now, out);
            return;
        }
        match way.decide((at.look)(&queue), at.now) {
            Decision::Go => self.emit((queue, envelope, leg), at.now, out),
            decision @ (Decision::Ask | Decision::Rest) => {
                let mut waiting = Box::new(Waiting::new(at.now));
                waiting.push(envelope, leg);
                waiting.asked = decision == Decision::Ask;
                if waiting.asked {
                    out.push(Act::Ask(queue));
                }
                way.waiting = Some(waiting);
                self.waits.push_back((at.now, queue));
            }
        }
        self.relieve(at, out);
    }

    /// The answer to [`Act::Ask`], or an announcement: where the device of `queue` is connected.
    pub fn routed(
        &mut self,
        queue: QueueId,
        node: Option<Incarnation>,
        at: Moment<'_>,
        out: &mut Vec<Act<L>>,
    ) {
        let route = match node {
            Some(node) if !self.gone.contains(&node) => Route::Node(node),
            Some(_) | None => Route::Nobody(at.now),
        };
        if let Some(way) = self.ways.get_mut(&queue) {
            way.route = route;
            self.go_on(queue, at, out);
        }
    }

    /// The lane of `queue` here came to rest, or a device attached to it.
    pub fn settled(&mut self, queue: QueueId, at: Moment<'_>, out: &mut Vec<Act<L>>) {
        self.go_on(queue, at, out);
    }

    /// Rows were inserted into `queue` past its owner: the next entry says so.
    pub fn poked(&mut self, queue: &QueueId) {
        if let Some(way) = self.ways.get_mut(queue) {
            way.reading = Reading::StoreFirst;
        }
    }

    /// `node` holds everything up to `through`.
    pub fn held(&mut self, node: Incarnation, attempt: u64, through: u64) {
        if let Some(link) = self.links.get_mut(&node) {
            link.held(attempt, through);
        }
    }

    /// `node` says what became of a parcel.
    pub fn answered(
        &mut self,
        node: Incarnation,
        answer: Answer,
        at: Moment<'_>,
        out: &mut Vec<Act<L>>,
    ) {
        #[cfg(test)]
        let answer = self.misread(node, answer);
        if answer.outcome == Outcome::Failed {
            self.broken(node, answer.attempt, at, out);
            return;
        }
        let Some(link) = self.links.get_mut(&node) else {
            return;
        };
        let Some(sent) = link.answered(answer.attempt, answer.number) else {
            return;
        };
        out.push(Act::Resolve(sent.leg, answer.outcome));
        let Some(way) = self.ways.get_mut(&sent.queue) else {
            return;
        };
        way.unanswered = way.unanswered.saturating_sub(1);
        if answer.away && way.route == Route::Node(node) {
            way.route = Route::Unknown;
        }
        if way.unanswered == 0 {
            self.go_on(sent.queue, at, out);
        }
    }

    /// The planted bug: an answer is believed by its number alone.
    #[cfg(test)]
    fn misread(&self, node: Incarnation, mut answer: Answer) -> Answer {
        if self.planted == Some(Bug::AnswerByNumber)
            && let Some(link) = self.links.get(&node)
        {
            answer.attempt = link.attempt();
        }
        answer
    }

    /// `node` takes nothing more of `attempt`.
    pub fn broken(
        &mut self,
        node: Incarnation,
        attempt: u64,
        at: Moment<'_>,
        out: &mut Vec<Act<L>>,
    ) {
        let is_present = self
            .links
            .get(&node)
            .is_some_and(|link| link.attempt() == attempt);
        if is_present {
            self.give_up(node, at, out);
        }
    }

    /// `node` is gone or about to go: nothing is sent there any more.
    pub fn left(&mut self, node: Incarnation, at: Moment<'_>, out: &mut Vec<Act<L>>) {
        if self.gone.len() >= GONE_MAX {
            self.gone.clear();
        }
        self.gone.insert(node);
        self.give_up(node, at, out);
        self.links.remove(&node);
        let mut changed = Vec::new();
        for (queue, way) in &mut self.ways {
            if way.route == Route::Node(node) {
                way.route = Route::Unknown;
                if way.waiting.is_some() {
                    changed.push(*queue);
                }
            }
        }
        for queue in changed {
            self.go_on(queue, at, out);
        }
    }

    /// Puts everything into the lanes here, now and from now on: the network between the nodes is
    /// down, or this node stops. [`Dispatch::join`] ends it.
    pub fn part(&mut self, at: Moment<'_>, out: &mut Vec<Act<L>>) {
        self.alone = true;
        let nodes: Vec<Incarnation> = self.links.keys().copied().collect();
        for node in nodes {
            self.give_up(node, at, out);
        }
        for way in self.ways.values_mut() {
            way.place = Place::Here;
            way.reading = Reading::StoreFirst;
            way.route = Route::Unknown;
        }
        for (_, queue) in std::mem::take(&mut self.waits) {
            self.flush(queue, at.now, out);
        }
    }

    /// Where the device of `queue` is said to be connected.
    #[must_use]
    pub fn route(&self, queue: &QueueId) -> Option<Incarnation> {
        match self.ways.get(queue)?.route {
            Route::Node(node) => Some(node),
            Route::Nobody(_) | Route::Unknown => None,
        }
    }

    /// `node` was heard again: it is not gone after all.
    pub fn back(&mut self, node: Incarnation) {
        self.gone.remove(&node);
    }

    /// Other nodes are reachable (again).
    pub fn join(&mut self) {
        self.alone = false;
    }

    /// Whether everything goes into the lanes here.
    #[must_use]
    pub const fn is_alone(&self) -> bool {
        self.alone
    }

    /// When [`Dispatch::tick`] has something to do.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let waits = self
            .waits
            .front()
            .and_then(|(since, _)| since.checked_add(self.settings.hold));
        let links = self.links.values();
        let links = links.filter_map(|link| link.deadline(&self.settings));
        links.chain(waits).min()
    }

    /// Gives up links that have not answered in time, and lets nobody wait longer for its place.
    pub fn tick(&mut self, at: Moment<'_>, out: &mut Vec<Act<L>>) {
        let late = |link: &Outgoing<L>| {
            link.deadline(&self.settings)
                .is_some_and(|deadline| deadline <= at.now)
        };
        let late: Vec<Incarnation> = self
            .links
            .iter()
            .filter(|(_, link)| late(link))
            .map(|(node, _)| *node)
            .collect();
        for node in late {
            self.give_up(node, at, out);
        }
        while let Some((since, queue)) = self.waits.front().copied()
            && since
                .checked_add(self.settings.hold)
                .is_some_and(|deadline| deadline <= at.now)
        {
            self.waits.pop_front();
            if self.waits_since(&queue, since) {
                self.flush(queue, at.now, out);
            }
        }
        self.relieve(at, out);
    }

    /// Entries that wait for an answer of another node, or for their place.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.links.values().all(Outgoing::is_empty) && self.ways.values().all(Way::is_idle)
    }

    fn way(&mut self, queue: QueueId) -> &mut Way<L> {
        if self.ways.len() >= WAYS_MAX && !self.ways.contains_key(&queue) {
            self.ways.retain(|_, way| !way.is_idle());
        }
        #[cfg(test)]
        let early = self.planted == Some(Bug::PlaceChangedEarly);
        let way = self.ways.entry(queue).or_insert_with(Way::new);
        #[cfg(test)]
        {
            way.early = early;
        }
        way
    }

    /// Sends an entry to the present place of its queue.
    fn emit(
        &mut self,
        (queue, envelope, leg): (QueueId, Envelope, L),
        now: Instant,
        out: &mut Vec<Act<L>>,
    ) {
        let attempts = &mut self.attempts;
        let Some(way) = self.ways.get_mut(&queue) else {
            out.push(Act::Here {
                queue,
                envelope,
                leg,
                reading: Reading::StoreFirst,
            });
            return;
        };
        let reading = std::mem::replace(&mut way.reading, Reading::GoOn);
        match way.place {
            Place::Here => out.push(Act::Here {
                queue,
                envelope,
                leg,
                reading,
            }),
            Place::There(node) => {
                way.unanswered = way.unanswered.saturating_add(1);
                let link = self
                    .links
                    .entry(node)
                    .or_insert_with(|| Outgoing::new(next(attempts)));
                let parcel = link.send((queue, envelope, leg), reading, now);
                out.push(Act::Send { to: node, parcel });
            }
        }
    }

    /// Sends waiting entries on if their place is known by now.
    fn go_on(&mut self, queue: QueueId, at: Moment<'_>, out: &mut Vec<Act<L>>) {
        let Some(way) = self.ways.get_mut(&queue) else {
            return;
        };
        if self.alone {
            // What waits goes into the lanes here, all at once.
            return;
        }
        let Some(asked) = way.waiting.as_ref().map(|waiting| waiting.asked) else {
            return;
        };
        match way.decide((at.look)(&queue), at.now) {
            Decision::Go => self.flush(queue, at.now, out),
            Decision::Ask if !asked => {
                if let Some(waiting) = &mut way.waiting {
                    waiting.asked = true;
                }
                out.push(Act::Ask(queue));
            }
            Decision::Ask | Decision::Rest => {}
        }
    }

    /// Sends waiting entries to the present place, whatever is wanted.
    fn flush(&mut self, queue: QueueId, now: Instant, out: &mut Vec<Act<L>>) {
        let waiting = self.ways.get_mut(&queue).and_then(|way| way.waiting.take());
        let Some(waiting) = waiting else {
            return;
        };
        for (envelope, leg) in waiting.entries {
            self.emit((queue, envelope, leg), now, out);
        }
        while let Some((since, queue)) = self.waits.front()
            && !self.waits_since(queue, *since)
        {
            self.waits.pop_front();
        }
    }

    fn waits_since(&self, queue: &QueueId, since: Instant) -> bool {
        let waiting = self.ways.get(queue).and_then(|way| way.waiting.as_ref());
        waiting.is_some_and(|waiting| waiting.since == since)
    }

    /// Ends a link's attempt: everything unanswered goes into the lanes here, oldest first.
    fn give_up(&mut self, node: Incarnation, at: Moment<'_>, out: &mut Vec<Act<L>>) {
        let Some(link) = self.links.get_mut(&node) else {
            return;
        };
        let mut queues = Vec::new();
        let returned = link.give_up(next(&mut self.attempts));
        #[cfg(test)]
        let returned = crate::explore::bugs::turned_round(self.planted, returned);
        for sent in returned {
            if let Some(way) = self.ways.get_mut(&sent.queue) {
                if way.place == Place::There(node) {
                    way.place = Place::Here;
                    way.reading = Reading::StoreFirst;
                    way.route = Route::Unknown;
                    queues.push(sent.queue);
                }
                way.unanswered = way.unanswered.saturating_sub(1);
            }
            self.emit_here(sent, out);
        }
        for queue in queues {
            self.go_on(queue, at, out);
        }
    }

    fn emit_here(&mut self, sent: Sent<L>, out: &mut Vec<Act<L>>) {
        let way = self.ways.get_mut(&sent.queue);
        let reading = way.map_or(Reading::StoreFirst, |way| {
            std::mem::replace(&mut way.reading, Reading::GoOn)
        });
        out.push(Act::Here {
            queue: sent.queue,
            envelope: sent.envelope,
            leg: sent.leg,
            reading,
        });
    }

    /// A link that carries too much is given up.
    fn relieve(&mut self, at: Moment<'_>, out: &mut Vec<Act<L>>) {
        let heavy = self
            .links
            .iter()
            .find(|(_, link)| link.bytes() > LINK_BYTES_MAX)
            .map(|(node, _)| *node);
        if let Some(node) = heavy {
            self.give_up(node, at, out);
        }
    }
}

/// Attempts of all links are numbered together, so that a link that was forgotten goes on with a
/// higher number.
const fn next(attempts: &mut u64) -> u64 {
    *attempts = attempts.saturating_add(1);
    *attempts
}

#[cfg(test)]
impl<L: std::hash::Hash> Dispatch<L> {
    pub(crate) fn digest(&self, state: &mut impl std::hash::Hasher) {
        use std::hash::Hash;

        (self.alone, self.attempts).hash(state);
        for (queue, way) in &self.ways {
            (queue, way.place, way.unanswered, way.reading).hash(state);
            match way.route {
                Route::Unknown => 0_u8.hash(state),
                Route::Nobody(_) => 1_u8.hash(state),
                Route::Node(node) => (2_u8, node).hash(state),
            }
            if let Some(waiting) = &way.waiting {
                waiting.asked.hash(state);
                for (envelope, leg) in &waiting.entries {
                    (&envelope.key, leg).hash(state);
                }
            }
        }
        for (node, link) in &self.links {
            node.hash(state);
            link.digest(state);
        }
    }

    pub(crate) fn is_waiting(&self) -> bool {
        self.ways.values().any(|way| way.waiting.is_some())
    }
}
