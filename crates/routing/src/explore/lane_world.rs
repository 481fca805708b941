//! A world of authors, one queue with its lane, one store and one device.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::time::{Duration, Instant};

use super::bugs::Bug;
use super::lane_store::{Connection, Insert, Item, Rows, envelope, item};
use crate::lane::{Delivery, Effect, Lane, Settings, Spooled};
use crate::ticket::{Leg, Outcome, Ticket, Verdict};

/// What authors send, in which order, and how much goes wrong.
#[derive(Clone, Copy, Debug, Hash)]
pub(super) struct Plan {
    /// Each author's items; from [`COMMITS`] on they are commits, inserted past the mailbox.
    pub(super) authors: &'static [&'static [Item]],
    pub(super) crashes: u8,
    pub(super) device_breaks: u8,
    pub(super) author_breaks: u8,
    pub(super) store_faults: u8,
    pub(super) expiries: u8,
    /// Acknowledged keys that the lane remembers.
    pub(super) acked_keys: usize,
    pub(super) unacked_max: usize,
    pub(super) bug: Option<Bug>,
}

/// Items from here on are commits.
pub(super) const COMMITS: Item = 100;

#[derive(Clone)]
pub(super) struct Author {
    pub(super) items: &'static [Item],
    /// Of `items`, those acknowledged to the author.
    pub(super) acked: Vec<Item>,
    /// Those sent on the present channel.
    pub(super) sent: Vec<Item>,
    /// Answers on the wire.
    pub(super) answers: Vec<Item>,
    /// Changes when the channel is unbound or the connection breaks.
    pub(super) channel: u8,
}

#[derive(Clone)]
pub(super) struct Custody {
    ticket: Ticket,
    leg: Leg,
    pub(super) author: usize,
    channel: u8,
    pub(super) item: Item,
}

/// A commit's transaction and what follows it.
#[derive(Clone)]
pub(super) struct HubCommit {
    pub(super) insert: Insert,
    pub(super) committed: bool,
    pub(super) author: usize,
    pub(super) channel: u8,
    pub(super) item: Item,
}

#[derive(Clone)]
pub(super) struct LaneWorld {
    pub(super) plan: Plan,
    pub(super) now: Instant,
    pub(super) authors: Vec<Author>,
    pub(super) lane: Option<Lane<u8>>,
    pub(super) legs: BTreeMap<u8, Custody>,
    pub(super) rows: Rows,
    pub(super) spool: Option<Insert>,
    pub(super) hub: Option<HubCommit>,
    /// Items of commits that are in the log.
    pub(super) log: Vec<Item>,
    /// The planted bug: an insert past the mailbox, with its leg.
    pub(super) outside: Option<(Insert, u8)>,
    /// What the device has stored and shown, in order.
    pub(super) shown: Vec<Item>,
    pub(super) connection: Option<Connection>,
    /// A replaced connection whose session still runs.
    pub(super) old: Option<Connection>,
}

impl Hash for LaneWorld {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let plan = self.plan;
        (plan.crashes, plan.device_breaks, plan.author_breaks).hash(state);
        (plan.store_faults, plan.expiries).hash(state);
        for author in &self.authors {
            (&author.acked, &author.sent, &author.answers).hash(state);
        }
        for (id, custody) in &self.legs {
            let is_present = self.authors[custody.author].channel == custody.channel;
            (id, custody.author, custody.item, is_present).hash(state);
            (&custody.ticket, &custody.leg).hash(state);
        }
        if let Some(hub) = &self.hub {
            let is_present = self.authors[hub.author].channel == hub.channel;
            (&hub.insert, hub.committed, hub.item, is_present).hash(state);
        }
        (&self.spool, &self.log, &self.outside, &self.shown).hash(state);
        self.rows.digest(state);
        let (last, lane) = (self.rows.last, self.lane.as_ref());
        for connection in [&self.connection, &self.old] {
            match connection {
                Some(connection) => connection.digest(last, lane, state),
                None => 0_u8.hash(state),
            }
        }
        if plan.bug == Some(Bug::BareSequence) {
            self.connection
                .as_ref()
                .map(|present| present.unacked.last_sent())
                .hash(state);
            self.old.as_ref().map(|old| old.received).hash(state);
        }
        match lane {
            Some(lane) => lane.digest(last, state),
            None => 0_u8.hash(state),
        }
    }
}

impl LaneWorld {
    pub(super) fn new(plan: Plan) -> Self {
        let author = |items: &&'static [Item]| Author {
            items,
            acked: Vec::new(),
            sent: Vec::new(),
            answers: Vec::new(),
            channel: 0,
        };
        Self {
            plan,
            now: Instant::now(),
            authors: plan.authors.iter().map(author).collect(),
            lane: None,
            legs: BTreeMap::new(),
            rows: Rows::new(plan.bug),
            spool: None,
            hub: None,
            log: Vec::new(),
            outside: None,
            shown: Vec::new(),
            connection: None,
            old: None,
        }
    }

    /// Runs something on the lane, made if there is none, and carries out its effects.
    pub(super) fn with_lane(
        &mut self,
        run: impl FnOnce(&mut Lane<u8>, &mut Vec<Effect<u8>>),
    ) -> Result<(), String> {
        let (settings, bug) = (self.settings(), self.plan.bug);
        let lane = self.lane.get_or_insert_with(|| {
            let mut lane = Lane::new(settings);
            lane.planted = bug;
            lane
        });
        let mut effects = Vec::new();
        run(lane, &mut effects);
        for effect in effects {
            match effect {
                Effect::Resolve(leg, outcome) => self.resolve(leg, outcome)?,
                Effect::Wake(attachment) => {
                    if let Some(connection) = &mut self.connection {
                        connection.runnable |=
                            crate::lane::Attachment::new(connection.attachment) == attachment;
                    }
                }
                Effect::Spool(batch) => {
                    if self.spool.is_some() {
                        return Err("two transactions of one lane".to_owned());
                    }
                    let items = batch.iter().map(|envelope| item(&envelope.key)).collect();
                    self.spool = Some(self.rows.begin(items));
                }
                Effect::Delete(row) => self.rows.plan_delete(row),
                Effect::Replaced(_) => {}
            }
        }
        Ok(())
    }

    fn settings(&self) -> Settings {
        Settings {
            hold: Duration::ZERO,
            acked_keys: self.plan.acked_keys,
            ..Settings::mailbox()
        }
    }

    /// An author's frame arrives: it gets a ticket and goes to its queue.
    pub(super) fn accept(&mut self, author: usize, item: Item) -> Result<(), String> {
        let channel = self.authors[author].channel;
        self.authors[author].sent.push(item);
        if item >= COMMITS {
            if self.log.contains(&item) {
                self.authors[author].answers.push(item);
                return Ok(());
            }
            let insert = self.rows.begin(vec![item]);
            self.hub = Some(HubCommit {
                insert,
                committed: false,
                author,
                channel,
                item,
            });
            return Ok(());
        }
        let (mut ticket, guard) = Ticket::new();
        let leg = ticket.add(0);
        let id = (0..).find(|id| !self.legs.contains_key(id)).unwrap();
        if ticket.settle(guard, Outcome::Delivered).is_some() {
            return Err("a ticket was done before its leg".to_owned());
        }
        self.legs.insert(
            id,
            Custody {
                ticket,
                leg,
                author,
                channel,
                item,
            },
        );
        if self.plan.bug == Some(Bug::SpoolOutside)
            && self.connection.is_none()
            && self.outside.is_none()
        {
            self.outside = Some((self.rows.begin(vec![item]), id));
            return Ok(());
        }
        let now = self.now;
        self.with_lane(|lane, out| {
            assert!(
                lane.append(envelope(item), id, now, out).is_ok(),
                "a closed lane in the map"
            );
        })
    }

    pub(super) fn resolve(&mut self, id: u8, outcome: Outcome) -> Result<(), String> {
        let Some(mut custody) = self.legs.remove(&id) else {
            return Err(format!("leg {id} resolved twice"));
        };
        let item = custody.item;
        if outcome == Outcome::Stored && !self.rows.holds(item) && !self.shown.contains(&item) {
            return Err(format!("{item} is called stored without a row"));
        }
        if outcome == Outcome::Delivered && !self.shown.contains(&item) {
            return Err(format!(
                "{item} is called delivered and the device does not have it"
            ));
        }
        let is_older = |other: &&Custody| {
            let is_safe = self.rows.holds(other.item) || self.shown.contains(&other.item);
            let items = self.authors[custody.author].items;
            let place = |item| items.iter().position(|there| *there == item);
            !is_safe
                && other.author == custody.author
                && other.channel == custody.channel
                && place(other.item) < place(item)
        };
        if outcome != Outcome::Failed
            && let Some(older) = self.legs.values().find(is_older)
        {
            return Err(format!("{item} is resolved before {}", older.item));
        }
        let verdict = custody.ticket.settle(custody.leg.clone(), outcome);
        self.answer(&custody, verdict.as_ref());
        Ok(())
    }

    /// The deadline of a ticket passes; its leg goes on.
    pub(super) fn expire(&mut self, id: u8) {
        let Some(custody) = self.legs.get_mut(&id) else {
            return;
        };
        let verdict = custody.ticket.expire();
        let custody = custody.clone();
        self.answer(&custody, verdict.as_ref());
    }

    fn answer(&mut self, custody: &Custody, verdict: Option<&Verdict>) {
        let author = &mut self.authors[custody.author];
        if author.channel != custody.channel {
            return;
        }
        match verdict {
            Some(Verdict::Done(_)) => author.answers.push(custody.item),
            Some(Verdict::Failed) => author.rebind(),
            Some(Verdict::Return(_)) | None => {}
        }
    }

    pub(super) fn spooled(&mut self) -> Result<(), String> {
        let Some(insert) = self.spool.take() else {
            return Ok(());
        };
        let positions = self.rows.commit(&insert);
        self.with_lane(|lane, out| lane.spooled(positions.into_iter().map(Spooled::Stored), out))
    }

    /// The device stores what arrives, and shows it unless it knows the key.
    pub(super) fn receive(&mut self) -> Result<(), String> {
        let Some(connection) = &mut self.connection else {
            return Ok(());
        };
        let item = connection.down.remove(0);
        connection.received += 1;
        if self.shown.contains(&item) {
            return Ok(());
        }
        for author in &self.authors {
            let earlier = author.items.iter().take_while(|there| **there != item);
            if author.items.contains(&item)
                && let Some(missing) = earlier
                    .into_iter()
                    .find(|there| !self.shown.contains(there))
            {
                return Err(format!("{item} is shown before {missing}"));
            }
        }
        self.shown.push(item);
        Ok(())
    }

    /// What is acknowledged is on the device or on disk; what is deleted is on the device.
    pub(super) fn nothing_is_lost(&self) -> Result<(), String> {
        let answered = self
            .authors
            .iter()
            .flat_map(|author| author.acked.iter().chain(&author.answers));
        for item in answered {
            if !self.shown.contains(item) && !self.rows.holds(*item) {
                return Err(format!("{item} is acknowledged and lost"));
            }
        }
        Ok(())
    }
}

impl Author {
    /// The channel is bound anew, or the connection: everything unacknowledged goes out again.
    pub(super) fn rebind(&mut self) {
        self.channel += 1;
        self.sent.clear();
    }

    /// The next item to send: the oldest unacknowledged one not sent yet. Commits wait for all
    /// answers, and everything waits for a commit's.
    pub(super) fn next(&self) -> Option<Item> {
        let is_open = |item: &&Item| !self.acked.contains(*item);
        let waits_for_commit = self
            .sent
            .iter()
            .filter(is_open)
            .any(|item| *item >= COMMITS);
        let next = *self
            .items
            .iter()
            .filter(is_open)
            .find(|item| !self.sent.contains(*item))?;
        let all_answered = !self.sent.iter().any(|item| is_open(&item));
        (!waits_for_commit && (next < COMMITS || all_answered)).then_some(next)
    }
}

/// Puts what a session was given on the wire.
pub(super) fn send(connection: &mut Connection, sends: &[Delivery]) {
    for delivery in sends {
        connection.unacked.sent(delivery.sent(), 1);
        connection.down.push(item(&delivery.envelope.key));
    }
}
