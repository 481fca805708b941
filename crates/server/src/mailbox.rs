//! Mailboxes: the queues in use, each with its window in memory and the only right to spool it.
//!
//! The rules are those of [`Lane`]; this file gives each lane a lock, a place in the map, a link to
//! the session that reads it, and carries out its effects. `spool` writes, `timers` watches `T`.

mod deletes;
mod spool;
#[cfg(test)]
mod tests;
mod timers;

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use commucat_proto::id::{DedupeKey, QueueId};
use commucat_routing::keyed::KeyedMap;
use commucat_routing::lane::{
    Attachment, Closed, Delivery, Effect, Envelope, Lane, Place, Position, Pumped, SentEntry,
    Settings,
};
use commucat_routing::link::{Local, Reading};
use commucat_storage::{RowId, Store};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::deletes::Deletes;
use self::spool::Spooler;
use self::timers::Timers;
use crate::cluster::{self, Cluster};
use crate::custody::Leg;
use crate::metrics::{Metrics, label};
use crate::session::{Batch, Link};

/// Locks that the map of mailboxes is split over, so that sessions on many cores seldom meet.
const SHARDS: usize = 64;

/// The most rows of one page.
const PAGE_ROWS: usize = 1_024;

/// All mailboxes in use. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Mailboxes(Arc<Shared>);

struct Shared {
    shards: Vec<Mutex<KeyedMap<QueueId, Arc<Mailbox>>>>,
    settings: Settings,
    memory: AtomicUsize,
    memory_max: usize,
    attachments: AtomicU64,
    emptied: Notify,
    store: Store,
    metrics: Metrics,
    spooler: Spooler,
    deletes: Deletes,
    timers: Timers,
    /// The other nodes of this domain, if there may be any.
    cluster: OnceLock<Cluster>,
}

/// What follows from an operation on a lane, for when no lock is held.
#[must_use = "legs would never end"]
pub(crate) struct Deferred {
    mailbox: Arc<Mailbox>,
    effects: Vec<Effect<Leg>>,
    settled: Settled,
}

/// What an operation has left behind, seen while its lock was held.
struct Settled {
    /// The session to wake.
    wake: Option<Link>,
    /// Whether the mailbox has no reason to stay.
    idle: bool,
}

/// One queue in use.
pub(crate) struct Mailbox {
    queue: QueueId,
    state: Mutex<State>,
}

struct State {
    lane: Lane<Leg>,
    link: Option<Link>,
    /// What this lane counts for in the memory of all.
    bytes: usize,
    /// Whether `timers` holds this mailbox.
    armed: bool,
    /// Whether the device acknowledged anything since [`Mailboxes::forget_old_keys`] looked.
    acked: bool,
}

impl Mailboxes {
    /// No mailbox is in use yet, and nothing runs before [`Mailboxes::start`].
    pub(crate) fn new(
        store: Store,
        settings: Settings,
        memory_max: usize,
        metrics: Metrics,
    ) -> Self {
        Self(Arc::new(Shared {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            settings,
            memory: AtomicUsize::new(0),
            memory_max,
            attachments: AtomicU64::new(1),
            emptied: Notify::new(),
            store,
            metrics,
            spooler: Spooler::default(),
            deletes: Deletes::default(),
            timers: Timers::default(),
            cluster: OnceLock::new(),
        }))
    }

    /// Starts the tasks that spool, delete and watch the time; they end after `stop`.
    pub(crate) fn start(&self, tasks: &TaskTracker, stop: &CancellationToken) {
        tasks.spawn(spool::run(self.clone(), stop.clone()));
        tasks.spawn(deletes::run(self.clone(), stop.clone()));
        tasks.spawn(timers::run(self.clone(), stop.clone()));
    }

    /// From now on entries may go to other nodes. Once, before anything runs.
    pub(crate) fn join(&self, cluster: Cluster) {
        self.0.cluster.set(cluster).ok();
    }

    /// The other nodes, if there may be any.
    pub(crate) fn cluster(&self) -> Option<&Cluster> {
        self.0.cluster.get()
    }

    /// Hands one entry to its queue's mailbox, here or on the node that has the device; `leg` hears
    /// what becomes of it. Never waits.
    pub(crate) fn append(&self, queue: QueueId, envelope: Envelope, leg: Leg, now: Instant) {
        self.append_in_batch((queue, envelope, leg), now, &mut Batch::new(now));
    }

    /// The same for one of many entries: the sessions that read them are woken with `batch`.
    pub(crate) fn append_in_batch(
        &self,
        entry: (QueueId, Envelope, Leg),
        now: Instant,
        batch: &mut Batch,
    ) {
        match self.cluster() {
            None => {
                let deferred = self.append_deferred(entry, Reading::GoOn, now);
                self.carry_out(deferred, batch);
            }
            Some(cluster) => cluster.append(self, entry),
        }
    }

    /// Appends to the mailbox here; what follows is carried out by the caller.
    pub(crate) fn append_deferred(
        &self,
        (queue, envelope, leg): (QueueId, Envelope, Leg),
        reading: Reading,
        now: Instant,
    ) -> Deferred {
        let mut given = Closed { envelope, leg };
        loop {
            let mailbox = self.find_or_open(queue);
            let Closed { envelope, leg } = given;
            let mut effects = Vec::new();
            let mut state = mailbox.state.lock();
            if reading == Reading::StoreFirst {
                state.lane.poke(&mut effects);
            }
            let result = state.lane.append(envelope, leg, now, &mut effects);
            let settled = self.settle(&mailbox, &mut state, &effects);
            drop(state);
            match result {
                Ok(()) => {
                    return Deferred {
                        mailbox,
                        effects,
                        settled,
                    };
                }
                // It left the map meanwhile; a revoked one is still in it and is put aside here.
                Err(closed) => given = closed,
            }
            self.remove_if_closed(&mailbox);
        }
    }

    /// Carries out what follows. May end legs: call it with no lock held.
    pub(crate) fn carry_out_deferred(&self, deferred: Deferred) {
        self.carry_out(deferred, &mut Batch::new(Instant::now()));
    }

    /// The lane of `queue` here, as the other nodes' business sees it.
    pub(crate) fn local(&self, queue: &QueueId) -> Local {
        let Some(mailbox) = self.find(queue) else {
            return cluster::UNUSED;
        };
        let state = mailbox.state.lock();
        Local {
            attached: state.lane.attachment().is_some(),
            settled: state.lane.is_settled(),
        }
    }

    /// Entries may be in the store of which the owner of `queue` has not heard: the author of what
    /// comes next may have been on another node before.
    pub(crate) fn read_store_first(&self, queue: &QueueId) {
        if let Some(cluster) = self.cluster() {
            cluster.poked(queue);
        }
    }

    /// Makes the connection behind `link` the reader of `queue`; an earlier one is replaced.
    pub(crate) fn attach(&self, queue: QueueId, link: Link) -> Attached {
        let id = Attachment::new(self.0.attachments.fetch_add(1, Ordering::Relaxed));
        loop {
            let mailbox = self.find_or_open(queue);
            let mut effects = Vec::new();
            let mut state = mailbox.state.lock();
            if state.lane.is_closed() {
                drop(state);
                self.remove_if_closed(&mailbox);
                continue;
            }
            let replaced = state.link.replace(link);
            state.lane.attach(id, &mut effects);
            let settled = self.settle(&mailbox, &mut state, &effects);
            drop(state);
            if let Some(replaced) = replaced {
                replaced.replaced();
            }
            self.follow(&mailbox, effects, settled);
            if let Some(cluster) = self.cluster() {
                cluster.attached(self, queue, id);
            }
            return Attached {
                mailboxes: self.clone(),
                mailbox,
                id,
            };
        }
    }

    /// Rows were inserted into `queue` past its mailbox: whoever reads it turns to the store.
    pub(crate) fn poke(&self, queue: &QueueId) {
        self.poke_here(queue);
        if let Some(cluster) = self.cluster() {
            cluster.wake_owner(*queue);
        }
    }

    /// The same for the mailbox here alone.
    pub(crate) fn poke_here(&self, queue: &QueueId) {
        if let Some(mailbox) = self.find(queue) {
            self.with_lane(&mailbox, Lane::poke);
        }
    }

    /// The store's last position of `queue`, from a periodic look.
    pub(crate) fn poll(&self, queue: &QueueId, head: Position) {
        if let Some(mailbox) = self.find(queue) {
            self.with_lane(&mailbox, |lane, effects| lane.poll(head, effects));
        }
    }

    /// The device's newer connection is on another node: this one ends.
    pub(crate) fn replaced_elsewhere(&self, queue: QueueId, attachment: Attachment) {
        let Some(mailbox) = self.find(&queue) else {
            return;
        };
        let mut effects = Vec::new();
        let mut state = mailbox.state.lock();
        let link = if state.lane.attachment() == Some(attachment) {
            state.link.take()
        } else {
            None
        };
        state.lane.detach(attachment, &mut effects);
        let settled = self.settle(&mailbox, &mut state, &effects);
        drop(state);
        if let Some(link) = link {
            link.replaced();
        }
        self.follow(&mailbox, effects, settled);
    }

    /// The queue is revoked, and the other nodes hear of it.
    pub(crate) fn revoke(&self, queue: &QueueId) {
        self.revoke_here(queue);
        if let Some(cluster) = self.cluster() {
            cluster.revoked(*queue);
        }
    }

    /// The queue is revoked: its connection ends, what is in memory is gone.
    pub(crate) fn revoke_here(&self, queue: &QueueId) {
        let Some(mailbox) = self.find(queue) else {
            return;
        };
        // Link and lane under one lock: a connection that attaches in between would never hear of it.
        let mut effects = Vec::new();
        let mut state = mailbox.state.lock();
        let link = state.link.take();
        state.lane.revoke(&mut effects);
        let settled = self.settle(&mailbox, &mut state, &effects);
        drop(state);
        if let Some(link) = link {
            link.revoked();
        }
        self.follow(&mailbox, effects, settled);
        self.remove_if_closed(&mailbox);
    }

    /// Whether a connection reads `queue` now; and its link.
    pub(crate) fn link(&self, queue: &QueueId) -> Option<Link> {
        self.find(queue)
            .and_then(|mailbox| mailbox.state.lock().link.clone())
    }

    /// Spools everything and holds nothing in memory from now on; returns when all is on disk and
    /// every ticket that waited for it has its answer.
    pub(crate) async fn drain(&self) {
        loop {
            let emptied = self.0.emptied.notified();
            let mut settled = true;
            for mailbox in self.all() {
                self.with_lane(&mailbox, Lane::drain);
                settled &= mailbox.state.lock().lane.is_settled();
            }
            if settled && self.0.spooler.is_idle() {
                return;
            }
            emptied.await;
        }
    }

    /// Forgets the acknowledged keys of devices that have acknowledged nothing since the last call:
    /// authors who would repeat such an entry have done so, and 80 KiB for each quiet device are
    /// too much.
    pub(crate) fn forget_old_keys(&self) {
        for mailbox in self.all() {
            let mut state = mailbox.state.lock();
            if !std::mem::take(&mut state.acked) {
                state.lane.forget_acked();
            }
        }
    }

    /// What is counted.
    pub(crate) fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// Bytes in the windows of all mailboxes.
    pub(crate) fn memory(&self) -> usize {
        self.0.memory.load(Ordering::Relaxed)
    }

    /// Mailboxes in use.
    pub(crate) fn len(&self) -> usize {
        self.0.shards.iter().map(|shard| shard.lock().len()).sum()
    }

    fn all(&self) -> Vec<Arc<Mailbox>> {
        self.0
            .shards
            .iter()
            .flat_map(|shard| shard.lock().values().cloned().collect::<Vec<_>>())
            .collect()
    }

    fn shard(&self, queue: &QueueId) -> Option<&Mutex<KeyedMap<QueueId, Arc<Mailbox>>>> {
        let [first, ..] = queue.as_bytes();
        self.0.shards.get(usize::from(*first) % SHARDS)
    }

    fn find(&self, queue: &QueueId) -> Option<Arc<Mailbox>> {
        self.shard(queue)?.lock().get(queue).cloned()
    }

    fn find_or_open(&self, queue: QueueId) -> Arc<Mailbox> {
        let open = || {
            Arc::new(Mailbox {
                queue,
                state: Mutex::new(State {
                    lane: Lane::new(self.0.settings),
                    link: None,
                    bytes: 0,
                    armed: false,
                    acked: false,
                }),
            })
        };
        match self.shard(&queue) {
            Some(shard) => Arc::clone(shard.lock().entry(queue).or_insert_with(open)),
            None => open(),
        }
    }

    /// Runs one operation of the lane, then its effects, with no lock held.
    fn with_lane<R>(
        &self,
        mailbox: &Arc<Mailbox>,
        operation: impl FnOnce(&mut Lane<Leg>, &mut Vec<Effect<Leg>>) -> R,
    ) -> R {
        let mut effects = Vec::new();
        let mut state = mailbox.state.lock();
        let result = operation(&mut state.lane, &mut effects);
        let settled = self.settle(mailbox, &mut state, &effects);
        drop(state);
        self.follow(mailbox, effects, settled);
        result
    }

    /// Brings memory and timer up to date after an operation, and looks at what it has left behind.
    fn settle(
        &self,
        mailbox: &Arc<Mailbox>,
        state: &mut State,
        effects: &[Effect<Leg>],
    ) -> Settled {
        let bytes = state.lane.bytes();
        if bytes > state.bytes {
            self.0
                .memory
                .fetch_add(bytes - state.bytes, Ordering::Relaxed);
        } else if bytes < state.bytes {
            self.0
                .memory
                .fetch_sub(state.bytes - bytes, Ordering::Relaxed);
        }
        let grown = bytes > state.bytes;
        state.bytes = bytes;
        if grown && self.memory() > self.0.memory_max {
            self.0.timers.all_now();
        }
        if !state.armed
            && let Some(deadline) = state.lane.deadline()
        {
            state.armed = true;
            self.0.timers.arm(deadline, Arc::clone(mailbox));
        }
        let wakes = |effect: &Effect<Leg>| matches!(effect, Effect::Wake(_));
        let wake = effects.iter().any(wakes).then(|| state.link.clone());
        Settled {
            wake: wake.flatten(),
            idle: state.lane.attachment().is_none() && state.lane.is_empty(),
        }
    }

    fn carry_out(&self, deferred: Deferred, batch: &mut Batch) {
        let Deferred {
            mailbox,
            effects,
            mut settled,
        } = deferred;
        if let Some(link) = settled.wake.take() {
            batch.wake(link);
        }
        self.follow(&mailbox, effects, settled);
    }

    fn follow(&self, mailbox: &Arc<Mailbox>, effects: Vec<Effect<Leg>>, settled: Settled) {
        if let Some(link) = settled.wake {
            link.wake();
        }
        let mut now = None;
        for effect in effects {
            match effect {
                Effect::Resolve(leg, outcome) => {
                    leg.resolve_at(outcome, *now.get_or_insert_with(Instant::now));
                }
                Effect::Spool(batch) => self.0.spooler.push(spool::Job {
                    mailbox: Arc::clone(mailbox),
                    batch,
                }),
                Effect::Delete(row) => {
                    self.0
                        .deletes
                        .push(row_id(mailbox.queue, row.position, row.key));
                }
                // `settle` found whom to wake; `attach` took the old link out.
                Effect::Wake(_) | Effect::Replaced(_) => {}
            }
        }
        if settled.idle {
            self.remove_if_closed(mailbox);
            self.0.emptied.notify_waiters();
        }
    }

    /// Removes a mailbox that is closed or has no reason to stay, under the lock of its shard.
    fn remove_if_closed(&self, mailbox: &Arc<Mailbox>) {
        let Some(shard) = self.shard(&mailbox.queue) else {
            return;
        };
        let mut shard = shard.lock();
        let is_this = shard
            .get(&mailbox.queue)
            .is_some_and(|there| Arc::ptr_eq(there, mailbox));
        if is_this && mailbox.state.lock().lane.close_if_idle() {
            shard.remove(&mailbox.queue);
        }
    }
}

fn row_id(queue: QueueId, position: Position, key: DedupeKey) -> RowId {
    RowId {
        queue,
        position: commucat_storage::QueuePosition::new(position.get()),
        key,
    }
}

/// One connection's hold on its queue. Dropping it detaches.
pub(crate) struct Attached {
    mailboxes: Mailboxes,
    mailbox: Arc<Mailbox>,
    id: Attachment,
}

impl Attached {
    /// See [`Lane::pump`].
    pub(crate) fn pump(&self, room: usize, sends: &mut Vec<Delivery>) -> Pumped {
        self.mailboxes
            .with_lane(&self.mailbox, |lane, _| lane.pump(self.id, room, sends))
    }

    /// Reads the next page after `after` and hands it to the lane.
    ///
    /// `None` if the store could not be read: pump again after a back-off.
    pub(crate) async fn read_page(
        &self,
        after: Position,
        room: usize,
        now: commucat_proto::time::Timestamp,
        sends: &mut Vec<Delivery>,
    ) -> Option<Pumped> {
        let page = spool::read_page(&self.mailboxes, self.mailbox.queue, after, room, now).await;
        self.mailboxes
            .with_lane(&self.mailbox, |lane, _| match page {
                Some(page) => Some(lane.page(self.id, page, sends)),
                None => {
                    lane.page_failed(self.id);
                    None
                }
            })
    }

    /// The device has these entries; also true if this connection was replaced meanwhile.
    pub(crate) fn acked(&self, entries: Vec<SentEntry>) {
        let from_memory = entries
            .iter()
            .filter(|entry| matches!(entry.place, Place::Window(_)));
        let from_memory = u64::try_from(from_memory.count()).unwrap_or(u64::MAX);
        let all = u64::try_from(entries.len()).unwrap_or(u64::MAX);
        let deliveries = &self.mailboxes.0.metrics.deliveries;
        deliveries.of(label::Path::Memory).inc_by(from_memory);
        deliveries
            .of(label::Path::Store)
            .inc_by(all.saturating_sub(from_memory));
        // Mostly each ends one leg.
        let mut effects = Vec::with_capacity(entries.len());
        let mut state = self.mailbox.state.lock();
        state.acked = true;
        state.lane.acked(entries, &mut effects);
        let settled = self.mailboxes.settle(&self.mailbox, &mut state, &effects);
        drop(state);
        self.mailboxes.follow(&self.mailbox, effects, settled);
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        let mut effects = Vec::new();
        let mut state = self.mailbox.state.lock();
        if state.lane.attachment() == Some(self.id) {
            state.link = None;
        }
        state.lane.detach(self.id, &mut effects);
        let settled = self.mailboxes.settle(&self.mailbox, &mut state, &effects);
        drop(state);
        self.mailboxes.follow(&self.mailbox, effects, settled);
        if let Some(cluster) = self.mailboxes.cluster() {
            cluster.detached(self.mailbox.queue, self.id);
        }
    }
}
