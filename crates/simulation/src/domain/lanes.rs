//! Queues in use: each lane's effects carried out, transactions, timers.

use std::time::Duration;

use commucat_proto::id::DedupeKey;
use commucat_routing::lane::{Effect, Envelope, Lane, Row, SentEntry, Settings};
use commucat_routing::peer::{BATCH_BYTES, PeerLane};
use commucat_routing::ticket::Outcome;

use super::commit::AfterCommit;
use super::{Domain, LegId, Machine, Mailbox};
use crate::outside::{Index, Inside, Outside};
use crate::plant::Plant;
use crate::store::{Place, Write, Written};

/// A transaction that runs.
#[derive(Debug)]
pub(super) struct Transaction {
    pub(super) write: Write,
    after: After,
    tries: u32,
}

/// What follows when it has ended.
#[derive(Debug)]
enum After {
    Spool(Place),
    Nothing,
    Commit(Box<AfterCommit>),
    Departed(commucat_proto::id::GroupId),
    /// The planted bug: a leg of an entry that went past its mailbox.
    Outside(LegId, Place),
}

/// Events of one request, few enough that there is often more than one request.
const EVENTS_OF_BATCH: usize = 8;

/// After this many tries a batch is given up.
const TRIES_MAX: u32 = 6;

impl Domain {
    /// Runs one operation of a lane, made if there is none, and carries its effects out.
    pub(super) fn with_lane<R>(
        &mut self,
        out: &mut Outside,
        place: Place,
        operation: impl FnOnce(&mut Lane<LegId>, &mut Vec<Effect<LegId>>) -> R,
    ) -> R {
        let mut effects = Vec::new();
        let result = operation(self.mailbox(out, place).lane(), &mut effects);
        self.carry_out_all(out, place, effects);
        result
    }

    /// The same for the lane of a peer, with the rules for its requests.
    pub(super) fn with_peer<R>(
        &mut self,
        out: &mut Outside,
        (peer, lane): (Index, u8),
        operation: impl FnOnce(&mut PeerLane<LegId>, &mut Vec<Effect<LegId>>) -> R,
    ) -> Option<R> {
        let place = Place::Peer(peer, lane);
        let mut effects = Vec::new();
        let result = match &mut self.mailbox(out, place).machine {
            Machine::Peer(peer) => operation(peer, &mut effects),
            Machine::Device(_) => return None,
        };
        self.carry_out_all(out, place, effects);
        Some(result)
    }

    fn mailbox(&mut self, out: &Outside, place: Place) -> &mut Mailbox {
        let settings = settings(out, place);
        self.process.lanes.entry(place).or_insert_with(|| Mailbox {
            machine: match place {
                Place::Device(_) => Machine::Device(Lane::new(settings)),
                Place::Peer(..) => Machine::Peer(PeerLane::new(settings)),
            },
            session: None,
        })
    }

    /// Carries effects out, and forgets the lane if nothing is in it.
    pub(super) fn carry_out_all(
        &mut self,
        out: &mut Outside,
        place: Place,
        effects: Vec<Effect<LegId>>,
    ) {
        for effect in effects {
            self.carry_out(out, place, effect);
        }
        let idle = self.process.lanes.get_mut(&place).is_some_and(|mailbox| {
            mailbox.look().attachment().is_none()
                && mailbox.look().is_empty()
                && mailbox.lane().close_if_idle()
        });
        if idle {
            self.process.lanes.remove(&place);
        }
        self.arm(out);
    }

    /// Hands one entry to its lane.
    pub(super) fn append(
        &mut self,
        out: &mut Outside,
        place: Place,
        envelope: Envelope,
        leg: LegId,
    ) {
        if self.planted_append(out, place, &envelope, leg) {
            return;
        }
        let now = out.instant();
        if let Place::Peer(peer, lane) = place {
            self.open_peer(out, peer, lane);
        }
        let closed = self.with_lane(out, place, |lane, effects| {
            lane.append(envelope, leg, now, effects).err()
        });
        if let Some(closed) = closed {
            // Lanes close only when they leave the map.
            self.resolve(out, closed.leg, Outcome::Failed);
        }
    }

    /// The mistakes that are made when an entry comes; whether one was.
    fn planted_append(
        &mut self,
        out: &mut Outside,
        place: Place,
        envelope: &Envelope,
        leg: LegId,
    ) -> bool {
        match out.plant {
            Some(Plant::EarlyAckOfRepeat) => {
                let is_held = self.holds(place, &envelope.key);
                if is_held {
                    self.resolve(out, leg, Outcome::Delivered);
                }
                is_held
            }
            Some(Plant::SpoolOfTail) => {
                let mailbox = self.process.lanes.get(&place);
                let holds = mailbox.is_some_and(|mailbox| {
                    mailbox.look().attachment().is_some() && !mailbox.look().is_settled()
                });
                if holds && out.random.chance(300) {
                    self.insert_past(out, place, envelope.clone(), leg);
                    return true;
                }
                false
            }
            Some(Plant::SpoolOutside) => {
                let mailbox = self.process.lanes.get(&place);
                let offline = mailbox.is_none_or(|mailbox| mailbox.look().attachment().is_none());
                if offline && matches!(place, Place::Device(_)) {
                    self.insert_past(out, place, envelope.clone(), leg);
                    return true;
                }
                false
            }
            _ => false,
        }
    }

    /// Whether a ticket waits for an entry with this key.
    fn holds(&self, place: Place, key: &DedupeKey) -> bool {
        self.legs_of(place, key).len() > 1
    }

    fn insert_past(&mut self, out: &mut Outside, place: Place, envelope: Envelope, leg: LegId) {
        let write = Write::Spool(place, vec![envelope], Vec::new());
        self.begin(out, write, After::Outside(leg, place));
    }

    fn carry_out(&mut self, out: &mut Outside, place: Place, effect: Effect<LegId>) {
        match effect {
            Effect::Resolve(leg, outcome) => self.resolve(out, leg, outcome),
            Effect::Wake(_) => self.wake(out, place),
            Effect::Spool(batch) => self.spool(out, place, batch),
            Effect::Delete(row) => self.delete(out, place, row),
            Effect::Replaced(_) => {}
        }
    }

    /// Whoever reads the lane has something to do.
    fn wake(&self, out: &mut Outside, place: Place) {
        match place {
            Place::Peer(peer, lane) => self.later(out, 0, Inside::PeerPump(peer, lane)),
            Place::Device(_) => {
                let mailbox = self.process.lanes.get(&place);
                if let Some(connection) = mailbox.and_then(|mailbox| mailbox.session) {
                    self.later(out, 0, Inside::Pump(connection));
                }
            }
        }
    }

    fn spool(&mut self, out: &mut Outside, place: Place, batch: Vec<Envelope>) {
        let early = if out.has(Plant::EarlyPositions) {
            self.store.allocate(place, batch.len())
        } else {
            Vec::new()
        };
        let keys: Vec<_> = batch.iter().map(|envelope| envelope.key).collect();
        self.begin(out, Write::Spool(place, batch, early), After::Spool(place));
        if out.has(Plant::AckBeforeCommit) {
            for key in keys {
                for leg in self.legs_of(place, &key) {
                    self.resolve(out, leg, Outcome::Stored);
                }
            }
        }
    }

    fn delete(&mut self, out: &mut Outside, place: Place, row: Row) {
        self.process
            .deletes
            .insert((place, row.position.get(), row.key));
        self.begin(out, Write::Delete(place, vec![row]), After::Nothing);
    }

    pub(super) fn begin_commit(&mut self, out: &mut Outside, write: Write, after: AfterCommit) {
        self.begin(out, write, After::Commit(Box::new(after)));
    }

    pub(super) fn begin_departure(
        &mut self,
        out: &mut Outside,
        write: Write,
        group: commucat_proto::id::GroupId,
    ) {
        self.begin(out, write, After::Departed(group));
    }

    fn begin(&mut self, out: &mut Outside, write: Write, after: After) {
        let id = self.number();
        let transaction = Transaction {
            write,
            after,
            tries: 0,
        };
        self.process.transactions.insert(id, transaction);
        let wait = out.disk();
        self.later(out, wait, Inside::Transaction(id));
    }

    /// A transaction commits, or fails with or without having been carried out.
    pub(super) fn transaction_ends(&mut self, out: &mut Outside, id: u64) {
        let Some(mut transaction) = self.process.transactions.remove(&id) else {
            return;
        };
        let fails = !out.calm && out.random.chance(out.scenario.store_faults);
        let repeats = matches!(transaction.after, After::Spool(_) | After::Nothing);
        if fails && repeats {
            // The outcome is unknown: the same again.
            if out.random.chance(500) {
                self.store.write(&transaction.write, out.plant, out.now);
            }
            transaction.tries += 1;
            if transaction.tries < TRIES_MAX {
                let wait = out.random.between(20, 1_000);
                self.process.transactions.insert(id, transaction);
                self.later(out, wait, Inside::Transaction(id));
            } else if let After::Spool(place) = transaction.after {
                self.with_lane(out, place, Lane::spool_failed);
            }
            return;
        }
        let written = self.store.write(&transaction.write, out.plant, out.now);
        self.written(out, transaction, written);
    }

    fn written(&mut self, out: &mut Outside, transaction: Transaction, written: Written) {
        match (transaction.after, written) {
            (After::Spool(place), Written::Spooled(results)) => {
                self.with_lane(out, place, |lane, effects| lane.spooled(results, effects));
            }
            (After::Nothing, _) => {
                if let Write::Delete(place, rows) = transaction.write {
                    for row in rows {
                        self.process
                            .deletes
                            .remove(&(place, row.position.get(), row.key));
                    }
                }
            }
            (After::Commit(after), written) => {
                let full = match written {
                    Written::Changed(full) => Some(full),
                    _ => None,
                };
                self.committed(out, *after, full);
            }
            (After::Departed(group), _) => {
                self.process.departing.remove(&group);
                self.forget_view(&group);
            }
            (After::Outside(leg, place), Written::Spooled(_)) => {
                self.resolve(out, leg, Outcome::Stored);
                if out.has(Plant::SpoolOfTail) && self.process.lanes.contains_key(&place) {
                    self.with_lane(out, place, Lane::poke);
                }
            }
            (After::Spool(_) | After::Outside(..), _) => {}
        }
    }

    /// The far end has these entries.
    pub(super) fn acked(&mut self, out: &mut Outside, place: Place, entries: Vec<SentEntry>) {
        self.with_lane(out, place, |lane, effects| lane.acked(entries, effects));
    }

    /// Rows were inserted past the lane.
    pub(super) fn poke(&mut self, out: &mut Outside, place: Place) {
        if let Place::Peer(peer, lane) = place {
            self.open_peer(out, peer, lane);
        }
        let planted = out.has(Plant::CommitWithoutPoke) && matches!(place, Place::Device(_));
        if !planted && self.process.lanes.contains_key(&place) {
            self.with_lane(out, place, Lane::poke);
        }
    }

    /// Looks at every timer.
    pub(super) fn tick(&mut self, out: &mut Outside) {
        self.process.tick_at = None;
        let now = out.instant();
        let due: Vec<_> = self
            .process
            .lanes
            .iter()
            .filter(|(_, mailbox)| mailbox.look().deadline().is_some_and(|at| at <= now))
            .map(|(place, _)| *place)
            .collect();
        for place in due {
            self.with_lane(out, place, |lane, effects| lane.tick(now, effects));
        }
        self.expire_tickets(out);
        self.tell_due_forks(out);
        self.arm(out);
    }

    /// Sets the timer for whatever is due next.
    pub(super) fn arm(&mut self, out: &mut Outside) {
        let process = &self.process;
        let lanes = process.lanes.values();
        let lanes = lanes.filter_map(|mailbox| mailbox.look().deadline());
        let tickets = process.tickets.values().map(|open| open.expires);
        let alarms = process.alarms.values().filter_map(|alarm| alarm.deadline());
        let Some(next) = lanes.chain(tickets).chain(alarms).min() else {
            return;
        };
        let now = out.instant();
        let armed = process.tick_at.is_some_and(|at| at <= next && at > now);
        if !armed {
            self.process.tick_at = Some(next.max(now + Duration::from_millis(1)));
            let wait = out.until(next).max(1);
            self.later(out, wait, Inside::Tick);
        }
    }
}

fn settings(out: &Outside, place: Place) -> Settings {
    match place {
        Place::Device(_) => Settings {
            window_bytes: out.scenario.window_bytes,
            acked_keys: 16,
            ..Settings::mailbox()
        },
        Place::Peer(..) => Settings {
            window_bytes: out.scenario.window_bytes,
            acked_keys: if out.has(Plant::PeerRemembersKeys) {
                16
            } else {
                Settings::peer().acked_keys
            },
            // Some events fill a request, as some thousand would.
            entry_bytes_min: BATCH_BYTES / EVENTS_OF_BATCH,
            ..Settings::peer()
        },
    }
}
