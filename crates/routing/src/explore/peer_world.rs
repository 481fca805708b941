//! A world of one author, one lane to a peer, the network between, and the peer with its device.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::time::{Duration, Instant};

use super::bugs::Bug;
use super::lane_store::{Insert, Item, Rows, envelope, item};
use super::lane_world::{Author, COMMITS};
use crate::lane::{Effect, Page, Position, Settings, Spooled};
use crate::peer::{Next, PeerLane};
use crate::ticket::Outcome;

/// What the author sends, and how much goes wrong.
#[derive(Clone, Copy, Debug, Hash)]
pub(super) struct Plan {
    pub(super) items: &'static [Item],
    pub(super) crashes: u8,
    pub(super) peer_crashes: u8,
    /// Requests or answers that get lost; one that times out may arrive later.
    pub(super) losses: u8,
    /// Events that the peer wants later.
    pub(super) laters: u8,
    pub(super) author_breaks: u8,
    pub(super) store_faults: u8,
    pub(super) bug: Option<Bug>,
}

/// An item in the peer's queue for its device.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) struct Queued {
    pub(super) item: Item,
    pub(super) on_disk: bool,
}

/// A request that the peer has and not answered.
#[derive(Clone, Hash)]
pub(super) struct Taken {
    pub(super) items: Vec<Item>,
    /// How many of them, from the front, are to be answered with custody.
    pub(super) wanted: usize,
    /// Whether the sender still waits.
    pub(super) awaited: bool,
}

/// A request on the wire.
#[derive(Clone, Hash)]
pub(super) struct Request {
    pub(super) items: Vec<Item>,
    pub(super) is_fresh: bool,
}

#[derive(Clone)]
pub(super) struct PeerWorld {
    pub(super) plan: Plan,
    pub(super) now: Instant,
    pub(super) author: Author,
    pub(super) lane: Option<PeerLane<u8>>,
    /// Legs: the item, and the author's channel.
    pub(super) legs: BTreeMap<u8, (Item, u8)>,
    pub(super) rows: Rows,
    pub(super) spool: Option<Insert>,
    /// A commit's transaction, and whether it is committed.
    pub(super) commit: Option<(Insert, bool, Item, u8)>,
    pub(super) log: Vec<Item>,
    /// A page that was asked for.
    pub(super) read: Option<Position>,
    pub(super) runnable: bool,
    pub(super) request: Option<Request>,
    /// One that timed out and is still on its way.
    pub(super) late: Option<Request>,
    pub(super) taken: Option<Taken>,
    /// One that timed out at its sender while the peer deals with it.
    pub(super) orphan: Option<Taken>,
    /// The answer on the wire: so many events from the front are in custody.
    pub(super) answer: Option<usize>,
    pub(super) tried: Vec<Item>,
    pub(super) queue: Vec<Queued>,
    pub(super) shown: Vec<Item>,
}

impl Hash for PeerWorld {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.plan.hash(state);
        let author = &self.author;
        (&author.acked, &author.sent, &author.answers).hash(state);
        for (id, (item, channel)) in &self.legs {
            (id, item, *channel == author.channel).hash(state);
        }
        self.rows.digest(state);
        if let Some((insert, committed, item, channel)) = &self.commit {
            (insert, committed, item, *channel == author.channel).hash(state);
        }
        let last = self.rows.last;
        self.read.map(|after| last - after.get()).hash(state);
        (&self.spool, &self.log, self.runnable).hash(state);
        (&self.request, &self.late, &self.taken, &self.orphan).hash(state);
        (&self.answer, &self.queue, &self.shown).hash(state);
        if self.plan.bug == Some(Bug::OldCreated) {
            self.tried.hash(state);
        }
        match &self.lane {
            Some(lane) => lane.digest(last, state),
            None => 0_u8.hash(state),
        }
    }
}

impl PeerWorld {
    pub(super) fn new(plan: Plan) -> Self {
        Self {
            plan,
            now: Instant::now(),
            author: Author {
                items: plan.items,
                acked: Vec::new(),
                sent: Vec::new(),
                answers: Vec::new(),
                channel: 0,
            },
            lane: None,
            legs: BTreeMap::new(),
            rows: Rows::new(plan.bug),
            spool: None,
            commit: None,
            log: Vec::new(),
            read: None,
            runnable: false,
            request: None,
            late: None,
            taken: None,
            orphan: None,
            answer: None,
            tried: Vec::new(),
            queue: Vec::new(),
            shown: Vec::new(),
        }
    }

    /// Runs something on the lane, made if there is none, and carries out its effects.
    pub(super) fn with_lane(
        &mut self,
        run: impl FnOnce(&mut PeerLane<u8>, &mut Vec<Effect<u8>>),
    ) -> Result<(), String> {
        let bug = self.plan.bug;
        let lane = self.lane.get_or_insert_with(|| {
            let mut lane = PeerLane::new(Settings {
                hold: Duration::ZERO,
                ..Settings::peer()
            });
            lane.lane().planted = bug;
            lane
        });
        let mut effects = Vec::new();
        run(lane, &mut effects);
        for effect in effects {
            match effect {
                Effect::Resolve(leg, outcome) => self.resolve(leg, outcome)?,
                Effect::Wake(_) => self.runnable = true,
                Effect::Spool(batch) => {
                    if self.spool.is_some() {
                        return Err("two transactions of one lane".to_owned());
                    }
                    let items = batch.iter().map(|envelope| item(&envelope.key)).collect();
                    self.spool = Some(self.rows.begin(items));
                }
                Effect::Delete(row) => self.rows.plan_delete(row),
                Effect::Replaced(_) => return Err("a lane replaces itself".to_owned()),
            }
        }
        Ok(())
    }

    /// The author's frame arrives: it goes to the lane, or, a commit, past it.
    pub(super) fn accept(&mut self, item: Item) -> Result<(), String> {
        let channel = self.author.channel;
        self.author.sent.push(item);
        if item >= COMMITS {
            if self.log.contains(&item) {
                self.author.answers.push(item);
            } else {
                self.commit = Some((self.rows.begin(vec![item]), false, item, channel));
            }
            return Ok(());
        }
        let id = (0..).find(|id| !self.legs.contains_key(id)).unwrap();
        self.legs.insert(id, (item, channel));
        let now = self.now;
        let is_new = self.lane.is_none();
        if is_new {
            self.with_lane(PeerLane::connect)?;
            self.runnable = true;
        }
        self.with_lane(|lane, out| {
            let taken = lane.lane().append(envelope(item), id, now, out);
            assert!(taken.is_ok(), "a closed lane in the map");
        })
    }

    fn resolve(&mut self, id: u8, outcome: Outcome) -> Result<(), String> {
        let Some((item, channel)) = self.legs.remove(&id) else {
            return Err(format!("leg {id} resolved twice"));
        };
        if outcome == Outcome::Relayed && !self.peer_has(item) {
            return Err(format!("{item} is called relayed and the peer lost it"));
        }
        if outcome == Outcome::Stored && !self.rows.holds(item) && !self.peer_has(item) {
            return Err(format!("{item} is called stored without a row"));
        }
        if self.author.channel != channel {
            return Ok(());
        }
        if outcome == Outcome::Failed {
            self.author.rebind();
        } else {
            self.author.answers.push(item);
        }
        Ok(())
    }

    /// Whether the peer has custody: on disk, or its device has it.
    pub(super) fn peer_has(&self, item: Item) -> bool {
        let on_disk = |queued: &Queued| queued.item == item && queued.on_disk;
        self.shown.contains(&item) || self.queue.iter().any(on_disk)
    }

    pub(super) fn spooled(&mut self) -> Result<(), String> {
        let Some(insert) = self.spool.take() else {
            return Ok(());
        };
        let positions = self.rows.commit(&insert);
        let outcomes = positions.into_iter().map(Spooled::Stored);
        self.with_lane(|lane, out| lane.lane().spooled(outcomes, out))
    }

    /// The worker asks what to do.
    pub(super) fn works(&mut self) -> Result<(), String> {
        self.runnable = false;
        let Some(lane) = &mut self.lane else {
            return Err("a worker without a lane".to_owned());
        };
        let next = lane.pump();
        self.proceeds(next)
    }

    pub(super) fn page_arrives(&mut self) -> Result<(), String> {
        let (Some(after), Some(lane)) = (self.read.take(), &mut self.lane) else {
            return Ok(());
        };
        let page: Page = self.rows.page(after, 2);
        let next = lane.page(page);
        self.proceeds(next)
    }

    fn proceeds(&mut self, next: Next) -> Result<(), String> {
        match next {
            Next::Wait => {}
            Next::ReadPage { after } => self.read = Some(after),
            Next::Send(events) => {
                if self.request.is_some() || self.taken.is_some() || self.answer.is_some() {
                    return Err("two requests of one lane".to_owned());
                }
                let items: Vec<Item> = events
                    .iter()
                    .map(|event| item(&event.envelope.key))
                    .collect();
                let is_repeat = items.iter().any(|item| self.tried.contains(item));
                self.tried.extend(&items);
                let is_fresh = self.plan.bug != Some(Bug::OldCreated) || !is_repeat;
                self.request = Some(Request { items, is_fresh });
            }
        }
        Ok(())
    }

    /// A request arrives: its events are placed, in order; those not wanted now are not.
    pub(super) fn takes(&mut self, request: Request, wanted: usize, awaited: bool) -> Taken {
        let Request { items, is_fresh } = request;
        let wanted = if is_fresh { wanted } else { 0 };
        for item in items.iter().take(wanted) {
            let is_known = self.queue.iter().any(|queued| queued.item == *item);
            if !is_known && !self.shown.contains(item) {
                let item = *item;
                self.queue.push(Queued {
                    item,
                    on_disk: false,
                });
            }
        }
        Taken {
            items,
            wanted,
            awaited,
        }
    }

    /// Whether the peer's tickets of a request have ended.
    pub(super) fn is_done(&self, taken: &Taken) -> bool {
        self.plan.bug == Some(Bug::AnswerAtReceipt)
            || taken
                .items
                .iter()
                .take(taken.wanted)
                .all(|item| self.peer_has(*item))
    }

    /// The signed answer arrives: events are settled up to the first that is wanted later.
    pub(super) fn answered(&mut self, custody: usize) -> Result<(), String> {
        for _ in 0..custody {
            self.with_lane(|lane, out| {
                lane.settle(out);
            })?;
        }
        self.with_lane(|lane, out| {
            lane.landed(out);
        })?;
        self.runnable = true;
        Ok(())
    }

    /// The device takes the oldest entry.
    pub(super) fn shows(&mut self) -> Result<(), String> {
        let queued = self.queue.remove(0);
        let item = queued.item;
        if self.shown.contains(&item) {
            return Ok(());
        }
        let mut earlier = self.plan.items.iter().take_while(|there| **there != item);
        if let Some(missing) = earlier.find(|there| !self.shown.contains(there)) {
            return Err(format!("{item} is shown before {missing}"));
        }
        self.shown.push(item);
        Ok(())
    }

    pub(super) fn nothing_is_lost(&self) -> Result<(), String> {
        for item in self.author.acked.iter().chain(&self.author.answers) {
            if !self.rows.holds(*item) && !self.peer_has(*item) {
                return Err(format!("{item} is acknowledged and lost"));
            }
        }
        Ok(())
    }
}
