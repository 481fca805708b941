//! A world of two nodes, one author, one queue and a network that forgets: who is in it, and how
//! effects are carried out.

use std::collections::{BTreeMap, VecDeque};
use std::hash::{Hash, Hasher};
use std::time::{Duration, Instant};

use commucat_proto::id::QueueId;

use super::bugs::Bug;
use super::lane_store::{Connection, Insert, Item, Rows, envelope, item};
use super::lane_world::Author;
use crate::lane::{Effect, Lane, Settings};
use crate::link::{
    self, Act, Answer, Dispatch, Incarnation, Incoming, Local, Moment, Parcel, Reading,
};
use crate::ticket::Outcome;

/// What the author sends, and how much goes wrong.
#[derive(Clone, Copy, Debug, Hash)]
pub(super) struct Plan {
    pub(super) items: &'static [Item],
    /// Messages between the nodes that get lost.
    pub(super) drops: u8,
    /// Messages between the nodes that come twice.
    pub(super) repeats: u8,
    /// Times that all routes are forgotten.
    pub(super) flushes: u8,
    /// Times that the device goes to the other node, leaving a session behind.
    pub(super) device_moves: u8,
    /// Times that the author goes to the other node.
    pub(super) author_moves: u8,
    /// Nodes that are killed.
    pub(super) crashes: u8,
    /// Times that a node finds no way to the others for a while.
    pub(super) partings: u8,
    /// Times that a node runs out of patience although an answer is under way.
    pub(super) late: u8,
    pub(super) bug: Option<Bug>,
}

/// Who waits for an entry in a lane.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) enum Leg {
    Ticket(u8),
    Far {
        from: Incarnation,
        attempt: u64,
        number: u64,
    },
}

#[derive(Clone, Debug, Hash)]
pub(super) enum Message {
    Parcel(Incarnation, Parcel),
    Answer(Incarnation, Answer),
    Broken(Incarnation, u64),
    Wake,
    /// A device connected there, at that moment.
    Attached(Incarnation, u64),
}

#[derive(Clone)]
pub(super) struct Node {
    pub(super) life: u8,
    pub(super) dispatch: Dispatch<Leg>,
    pub(super) lane: Option<Lane<Leg>>,
    pub(super) incoming: BTreeMap<Incarnation, Incoming>,
    pub(super) spool: Option<Insert>,
    pub(super) asking: bool,
    /// On the wire to this node.
    pub(super) wire: VecDeque<Message>,
}

#[derive(Clone, Copy, Hash)]
pub(super) struct Custody {
    pub(super) node: usize,
    pub(super) channel: u8,
    pub(super) item: Item,
}

/// A connection of the device: the node, and when it was made.
#[derive(Clone)]
pub(super) struct Session {
    pub(super) node: usize,
    pub(super) stamp: u64,
    pub(super) connection: Connection,
}

#[derive(Clone)]
pub(super) struct LinkWorld {
    pub(super) plan: Plan,
    pub(super) now: Instant,
    pub(super) nodes: [Node; 2],
    pub(super) author: Author,
    pub(super) author_at: usize,
    pub(super) legs: BTreeMap<u8, Custody>,
    pub(super) rows: Rows,
    pub(super) route: Option<(u64, Incarnation)>,
    pub(super) stamps: u64,
    pub(super) session: Option<Session>,
    pub(super) old: Option<Session>,
    pub(super) shown: Vec<Item>,
}

pub(super) fn queue() -> QueueId {
    QueueId::new([9; QueueId::LEN])
}

impl Hash for LinkWorld {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let last = self.rows.last;
        self.plan.hash(state);
        for node in &self.nodes {
            (node.life, node.asking, &node.incoming, &node.spool).hash(state);
            node.wire.hash(state);
            node.dispatch.digest(state);
            match &node.lane {
                Some(lane) => lane.digest(last, state),
                None => 0_u8.hash(state),
            }
        }
        let author = &self.author;
        (&author.acked, &author.sent, &author.answers, self.author_at).hash(state);
        for (id, custody) in &self.legs {
            (id, custody.item, custody.channel == author.channel).hash(state);
        }
        (self.route, self.stamps, &self.shown).hash(state);
        self.rows.digest(state);
        for session in [&self.session, &self.old] {
            match session {
                Some(session) => {
                    (session.node, session.stamp).hash(state);
                    let lane = self.nodes[session.node].lane.as_ref();
                    session.connection.digest(last, lane, state);
                }
                None => 0_u8.hash(state),
            }
        }
    }
}

impl Node {
    pub(super) fn new(life: u8, bug: Option<Bug>) -> Self {
        let mut dispatch = Dispatch::new(link::Settings::with_hold(Duration::from_millis(1)));
        dispatch.planted = bug;
        Self {
            life,
            dispatch,
            lane: None,
            incoming: BTreeMap::new(),
            spool: None,
            asking: false,
            wire: VecDeque::new(),
        }
    }

    pub(super) fn local(&self) -> Local {
        let lane = self.lane.as_ref();
        Local {
            attached: lane.is_some_and(|lane| lane.attachment().is_some()),
            settled: lane.is_none_or(Lane::is_settled),
        }
    }
}

impl LinkWorld {
    pub(super) fn new(plan: Plan) -> Self {
        Self {
            plan,
            now: Instant::now(),
            nodes: [Node::new(1, plan.bug), Node::new(1, plan.bug)],
            author: Author {
                items: plan.items,
                acked: Vec::new(),
                sent: Vec::new(),
                answers: Vec::new(),
                channel: 0,
            },
            author_at: 0,
            legs: BTreeMap::new(),
            rows: Rows::new(None),
            route: None,
            stamps: 0,
            session: None,
            old: None,
            shown: Vec::new(),
        }
    }

    pub(super) fn incarnation(&self, node: usize) -> Incarnation {
        let node_byte = u8::try_from(node).unwrap_or_default() * 16;
        Incarnation::new([node_byte + self.nodes[node].life; Incarnation::LEN])
    }

    /// Puts a message for one life of the other node on the wire; nobody hears those for another.
    pub(super) fn send(&mut self, from: usize, to: Incarnation, message: Message) {
        let other = 1 - from;
        if self.incarnation(other) == to {
            self.nodes[other].wire.push_back(message);
        }
    }

    pub(super) fn broadcast(&mut self, from: usize, message: Message) {
        self.nodes[1 - from].wire.push_back(message);
    }

    /// Lets a node's dispatch act.
    pub(super) fn with_dispatch(
        &mut self,
        at: usize,
        run: impl FnOnce(&mut Dispatch<Leg>, Moment<'_>, &mut Vec<Act<Leg>>),
    ) -> Result<(), String> {
        let node = &mut self.nodes[at];
        let local = node.local();
        let mut acts = Vec::new();
        let moment = Moment {
            now: self.now,
            look: &|_| local,
        };
        run(&mut node.dispatch, moment, &mut acts);
        for act in acts {
            match act {
                Act::Here {
                    envelope,
                    leg,
                    reading,
                    ..
                } => self.append(at, envelope, leg, reading)?,
                Act::Send { to, parcel } => {
                    let from = self.incarnation(at);
                    self.send(at, to, Message::Parcel(from, parcel));
                }
                Act::Ask(_) => self.nodes[at].asking = true,
                Act::Resolve(leg, outcome) => self.resolve(at, leg, outcome)?,
            }
        }
        Ok(())
    }

    /// Appends to a node's lane.
    pub(super) fn append(
        &mut self,
        at: usize,
        envelope: crate::lane::Envelope,
        leg: Leg,
        reading: Reading,
    ) -> Result<(), String> {
        let (now, no_sync) = (self.now, self.plan.bug == Some(Bug::NoSync));
        self.with_lane(at, |lane, out| {
            if reading == Reading::StoreFirst && !no_sync {
                lane.poke(out);
            }
            assert!(
                lane.append(envelope, leg, now, out).is_ok(),
                "a closed lane in the map"
            );
        })
    }

    /// Runs something on a node's lane, made if there is none, and carries out its effects.
    pub(super) fn with_lane(
        &mut self,
        at: usize,
        run: impl FnOnce(&mut Lane<Leg>, &mut Vec<Effect<Leg>>),
    ) -> Result<(), String> {
        let settings = Settings {
            hold: Duration::ZERO,
            acked_keys: 8,
            ..Settings::mailbox()
        };
        let lane = self.nodes[at]
            .lane
            .get_or_insert_with(|| Lane::new(settings));
        let mut effects = Vec::new();
        run(lane, &mut effects);
        for effect in effects {
            match effect {
                Effect::Resolve(leg, outcome) => self.resolve(at, leg, outcome)?,
                Effect::Wake(attachment) => {
                    if let Some(session) = &mut self.session
                        && session.node == at
                        && crate::lane::Attachment::new(session.stamp) == attachment
                    {
                        session.connection.runnable = true;
                    }
                }
                Effect::Spool(batch) => {
                    if self.nodes[at].spool.is_some() {
                        return Err("two transactions of one lane".to_owned());
                    }
                    let items = batch.iter().map(|envelope| item(&envelope.key)).collect();
                    self.nodes[at].spool = Some(self.rows.begin(items));
                }
                Effect::Delete(row) => self.rows.plan_delete(row),
                Effect::Replaced(_) => {}
            }
        }
        let node = &mut self.nodes[at];
        if node.lane.as_mut().is_some_and(Lane::close_if_idle) {
            node.lane = None;
        }
        if node.dispatch.is_waiting() && (node.local().settled || node.local().attached) {
            self.with_dispatch(at, |dispatch, at, out| {
                dispatch.settled(queue(), at, out);
            })?;
        }
        Ok(())
    }

    /// The author's frame arrives at its node.
    pub(super) fn accept(&mut self, item: Item) -> Result<(), String> {
        let reading = if self.author.sent.is_empty() {
            Reading::StoreFirst
        } else {
            Reading::GoOn
        };
        self.author.sent.push(item);
        let id = (0..)
            .find(|id| !self.legs.contains_key(id))
            .unwrap_or_default();
        self.legs.insert(
            id,
            Custody {
                node: self.author_at,
                channel: self.author.channel,
                item,
            },
        );
        self.with_dispatch(self.author_at, |dispatch, at, out| {
            let entry = (queue(), envelope(item), Leg::Ticket(id));
            dispatch.append(entry, reading, at, out);
        })
    }

    fn resolve(&mut self, at: usize, leg: Leg, outcome: Outcome) -> Result<(), String> {
        let id = match leg {
            Leg::Ticket(id) => id,
            Leg::Far {
                from,
                attempt,
                number,
            } => {
                let me = self.incarnation(at);
                let away = !self.nodes[at].local().attached;
                let answer = Answer {
                    attempt,
                    number,
                    outcome,
                    away,
                };
                self.send(at, from, Message::Answer(me, answer));
                return Ok(());
            }
        };
        let Some(custody) = self.legs.remove(&id) else {
            return Err(format!("leg {id} resolved twice"));
        };
        let item = custody.item;
        let is_safe = |item: Item| self.rows.holds(item) || self.shown.contains(&item);
        if outcome == Outcome::Stored && !is_safe(item) {
            return Err(format!("{item} is called stored without a row"));
        }
        if outcome == Outcome::Delivered && !self.shown.contains(&item) {
            return Err(format!("{item} is called delivered and is not"));
        }
        let is_older = |other: &&Custody| {
            other.channel == custody.channel && other.item < item && !is_safe(other.item)
        };
        if outcome != Outcome::Failed
            && let Some(older) = self.legs.values().find(is_older)
        {
            return Err(format!("{item} is resolved before {}", older.item));
        }
        if custody.channel == self.author.channel {
            match outcome {
                Outcome::Failed => self.author.rebind(),
                Outcome::Delivered
                | Outcome::Relayed
                | Outcome::Stored
                | Outcome::Gone
                | Outcome::Refused(_) => self.author.answers.push(item),
            }
        }
        Ok(())
    }
}
