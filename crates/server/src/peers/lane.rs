//! One lane of a peer: its lock, its wake, and the effects of what is done to it.

use std::sync::Arc;
use std::time::Instant;

use commucat_federation::event::Lane;
use commucat_proto::id::DedupeKey;
use commucat_routing::lane::{Effect, Position, Row, SentEntry, Settings};
use commucat_routing::peer::PeerLane;
use commucat_storage::{OutboxLane, OutboxRowId, QueuePosition};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::outgoing::PeerLeg;
use super::{Peer, Peers, spool, worker};

/// A lane with what belongs to it.
pub(super) struct PeerQueue {
    pub(super) number: Lane,
    state: Mutex<State>,
    /// Rows that are settled: deleted before the next page is read.
    deletes: Mutex<Vec<Row>>,
    pub(super) woken: Notify,
}

struct State {
    lane: PeerLane<PeerLeg>,
    /// Whether its task runs.
    runs: bool,
}

impl PeerQueue {
    pub(super) fn new(number: Lane) -> Self {
        Self {
            number,
            state: Mutex::new(State {
                lane: PeerLane::new(Settings::peer()),
                runs: false,
            }),
            deletes: Mutex::default(),
            woken: Notify::new(),
        }
    }

    pub(super) fn wake(&self) {
        self.woken.notify_one();
    }

    pub(super) fn is_settled(&self) -> bool {
        self.state.lock().lane.look().is_settled()
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.state.lock().lane.look().deadline()
    }

    pub(super) fn name(&self, peer: &Peer) -> OutboxLane {
        OutboxLane {
            peer: peer.domain.clone(),
            number: self.number.number(),
        }
    }

    /// The rows to delete, once.
    pub(super) fn take_deletes(&self, peer: &Peer) -> Vec<OutboxRowId> {
        let rows = std::mem::take(&mut *self.deletes.lock());
        rows.iter().map(|row| self.row_id(peer, *row)).collect()
    }

    /// Rows that could not be deleted: later.
    pub(super) fn put_deletes_back(&self, rows: &[OutboxRowId]) {
        let row = |row: &OutboxRowId| Row {
            position: Position::new(row.position.get()),
            key: row.key,
        };
        self.deletes.lock().extend(rows.iter().map(row));
    }

    /// Whether a row is settled and may still be there.
    pub(super) fn is_deleted(&self, position: QueuePosition, key: &DedupeKey) -> bool {
        let deletes = self.deletes.lock();
        deletes
            .iter()
            .any(|row| row.position.get() == position.get() && row.key == *key)
    }

    fn row_id(&self, peer: &Peer, row: Row) -> OutboxRowId {
        OutboxRowId {
            lane: self.name(peer),
            position: QueuePosition::new(row.position.get()),
            key: row.key,
        }
    }

    /// See [`PeerLane::settle`]; the caller carries the effects out.
    pub(super) fn settle(&self, effects: &mut Vec<Effect<PeerLeg>>) -> Option<SentEntry> {
        self.state.lock().lane.settle(effects)
    }

    /// Whether nothing runs for it and nothing is in memory.
    pub(super) fn is_at_rest(&self) -> bool {
        let state = self.state.lock();
        !state.runs && state.lane.look().is_empty()
    }

    /// Ends its task, if nothing is in memory: what comes next starts another.
    pub(super) fn ends(&self) -> bool {
        let mut state = self.state.lock();
        state.runs = !state.lane.look().is_empty();
        !state.runs
    }
}

impl Peers {
    /// Runs one operation of a lane whose task runs from now on, if it did not; the lane holds what
    /// comes in memory, unless its peer is left alone, or left to another node.
    pub(super) fn rouse<R>(
        &self,
        peer: &Arc<Peer>,
        queue: &PeerQueue,
        operation: impl FnOnce(&mut PeerLane<PeerLeg>, &mut Vec<Effect<PeerLeg>>) -> R,
    ) -> R {
        let mut effects = Vec::new();
        let is_left_alone = self.is_draining() || peer.rest.is_on() || !self.may_send(peer);
        // One lock for all: a task that ends looks whether anything came.
        let mut state = queue.state.lock();
        if !is_left_alone {
            state.lane.connect(&mut effects);
        }
        let result = operation(&mut state.lane, &mut effects);
        let is_new = !std::mem::replace(&mut state.runs, true);
        drop(state);
        self.carry_out(peer, queue, effects);
        if is_new {
            let (peers, peer, number) = (self.clone(), Arc::clone(peer), queue.number);
            self.0.tasks.spawn(worker::run(peers, peer, number));
        }
        queue.wake();
        result
    }

    /// Runs one operation of the lane, then its effects, with no lock held.
    pub(super) fn with_lane<R>(
        &self,
        peer: &Arc<Peer>,
        queue: &PeerQueue,
        operation: impl FnOnce(&mut PeerLane<PeerLeg>, &mut Vec<Effect<PeerLeg>>) -> R,
    ) -> R {
        let mut effects = Vec::new();
        let result = operation(&mut queue.state.lock().lane, &mut effects);
        self.carry_out(peer, queue, effects);
        result
    }

    pub(super) fn carry_out(
        &self,
        peer: &Arc<Peer>,
        queue: &PeerQueue,
        effects: Vec<Effect<PeerLeg>>,
    ) {
        for effect in effects {
            match effect {
                Effect::Resolve(leg, outcome) => leg.resolve(outcome),
                Effect::Wake(_) => queue.wake(),
                Effect::Spool(batch) => self.0.spooler.push(spool::Job {
                    peer: Arc::clone(peer),
                    lane: queue.number,
                    batch,
                }),
                Effect::Delete(row) => {
                    queue.deletes.lock().push(row);
                    queue.wake();
                }
                // A lane is detached before it is attached again.
                Effect::Replaced(_) => {}
            }
        }
    }
}
