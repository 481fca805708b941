//! The other nodes of this domain: entries for devices that are connected elsewhere.
//!
//! Nodes share the store and Redis and nothing else. The rules are those of `commucat_routing::link`;
//! this file gives them a lock and carries out what they say, `owner` takes what other nodes send,
//! `wire` is what they say to each other, `redis` where, `sender`, `listener` and `keeper` are the
//! tasks. What is in Redis is never the only copy, so it may vanish at any moment.

mod keeper;
mod listener;
mod nodes;
mod origin;
mod outbox;
mod owner;
mod redis;
mod sender;
mod wire;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use bytes::Bytes;
use commucat_config::Config;
use commucat_crypto::secret::{Secret, random_bytes};
use commucat_proto::id::{GroupId, Handle, QueueId};
use commucat_routing::hub::Tag;
use commucat_routing::lane::{Attachment, Envelope};
use commucat_routing::link::{
    Act, Answer, Dispatch, Incarnation, Local, Moment, Parcel, Reading, Settings,
};
use commucat_routing::ticket::Outcome;
use commucat_storage::Store;
use data_encoding::HEXLOWER;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::nodes::Nodes;
use self::outbox::{Outbox, Owed};
use self::owner::Owner;
use self::redis::Redis;
pub use self::redis::RedisFailure;
use self::wire::Item;
pub(crate) use self::wire::Status;
use crate::custody::Leg;
use crate::hub::Hub;
use crate::keys::Keys;
use crate::limit::Buckets;
use crate::mailbox::{Deferred, Mailboxes};
use crate::metrics::Metrics;
use crate::router::Router;
use crate::session::Budgets;

/// This node among the others. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Cluster(Arc<Inner>);

struct Inner {
    me: Incarnation,
    name: String,
    keys: Keys,
    redis: Redis,
    core: Mutex<Core>,
    owner: Mutex<Owner>,
    outbox: Mutex<Outbox>,
    attached: Mutex<HashMap<QueueId, Here>>,
    nodes: Mutex<Nodes>,
    ways: Mutex<Ways>,
    /// Something is to be sent, or a deadline came nearer.
    ready: Notify,
    /// Changes when commands go over another connection, perhaps to another server: who listens has to
    /// be heard there.
    moved: watch::Sender<()>,
    leaving: AtomicBool,
    /// Counted together with the other nodes.
    buckets: Buckets,
    /// Another node, or the operator through it, wants this one to end.
    drain: CancellationToken,
    metrics: Metrics,
}

/// What decides where entries go. Its acts are carried out while it is locked, so that entries of one
/// queue keep their order; what follows from them comes after.
struct Core {
    dispatch: Dispatch<Leg>,
    acts: Vec<Act<Leg>>,
}

/// A device that is connected here.
#[derive(Clone, Copy)]
struct Here {
    attachment: Attachment,
    since: Instant,
    /// What Redis' clock said when it connected; none before Redis knows of it.
    stamp: Option<u64>,
}

/// Whether other nodes can be heard and be spoken to.
#[derive(Clone, Copy, Default)]
struct Ways {
    hears: bool,
    speaks: bool,
}

/// What the tasks act on.
#[derive(Clone)]
pub(crate) struct Surroundings {
    pub(crate) mailboxes: Mailboxes,
    pub(crate) router: Router,
    pub(crate) hub: Hub,
    pub(crate) store: Store,
    pub(crate) budgets: Budgets,
}

/// Whether the address of Redis can be one; asks nobody.
pub(crate) fn check_address(url: &commucat_config::Secret) -> Result<(), RedisFailure> {
    Redis::open(url, "").map(drop)
}

impl Cluster {
    /// A node with the configured Redis; `None` if there is none. Nothing is connected yet. `drain`
    /// is cancelled when another node wants this one to end.
    ///
    /// # Errors
    ///
    /// [`RedisFailure`] if the address is not one.
    pub(crate) fn open(
        config: &Config,
        (keys, buckets): (Keys, Buckets),
        metrics: Metrics,
        drain: CancellationToken,
    ) -> Result<Option<Self>, RedisFailure> {
        let Some(url) = &config.storage.redis_url else {
            return Ok(None);
        };
        let me = Incarnation::new(random_bytes());
        let random_name = || HEXLOWER.encode(me.as_bytes().split_at(4).0);
        let hold = config.limits.ack_wait;
        Ok(Some(Self(Arc::new(Inner {
            me,
            name: config.server.node_id.clone().unwrap_or_else(random_name),
            keys,
            redis: Redis::open(url, &config.storage.redis_prefix)?,
            core: Mutex::new(Core {
                dispatch: Dispatch::new(Settings::with_hold(hold)),
                acts: Vec::new(),
            }),
            owner: Mutex::new(Owner::new(hold)),
            outbox: Mutex::default(),
            attached: Mutex::default(),
            nodes: Mutex::default(),
            ways: Mutex::default(),
            ready: Notify::new(),
            moved: watch::Sender::new(()),
            leaving: AtomicBool::new(false),
            buckets,
            drain,
            metrics,
        }))))
    }

    /// Starts the tasks; they end after `stop`.
    pub(crate) fn start(
        &self,
        around: &Surroundings,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) {
        // Alone until Redis was reached.
        self.act(&around.mailboxes, |dispatch, at, out| {
            dispatch.part(at, out);
        });
        tasks.spawn(sender::run(
            self.clone(),
            around.mailboxes.clone(),
            stop.clone(),
        ));
        tasks.spawn(listener::run(self.clone(), around.clone(), stop.clone()));
        tasks.spawn(keeper::run(self.clone(), around.clone(), stop.clone()));
    }

    /// Asks the node of that name to end; `false` if none is known.
    pub(crate) fn ask_to_drain(&self, name: &str) -> bool {
        if name == self.0.name {
            self.0.drain.cancel();
            return true;
        }
        let is_known = self.nodes().iter().any(|node| node.name == name);
        if is_known {
            self.tell_all(Item::Drain(name.to_owned()));
        }
        is_known
    }

    /// All nodes that were heard lately, this one first.
    pub(crate) fn nodes(&self) -> Vec<Status> {
        let mut all = vec![self.status()];
        all.extend(self.0.nodes.lock().all());
        all
    }

    fn status(&self) -> Status {
        Status {
            name: self.0.name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            keys: self.keys_mark(),
            sessions: u64::try_from(self.0.metrics.sessions.get()).unwrap_or(0),
            draining: self.0.leaving.load(Ordering::Acquire),
        }
    }

    /// The key under which nodes of this domain speak: whoever has the domain's secret has it.
    fn key(&self) -> Secret<32> {
        let seed = self.0.keys.domain_secret().seed();
        Secret::new(blake3::derive_key(
            "commucat 2026 nodes of one domain",
            seed.expose(),
        ))
    }

    /// Stands for all keys of the domain: the key file, by what is public of it.
    pub(crate) fn keys_mark(&self) -> [u8; 8] {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.0.keys.statement().body);
        let mut mark = [0; 8];
        hasher.finalize_xof().fill(&mut mark);
        mark
    }

    /// Takes one entry of an author of this node.
    pub(crate) fn append(&self, mailboxes: &Mailboxes, entry: (QueueId, Envelope, Leg)) {
        self.act(mailboxes, |dispatch, at, out| {
            dispatch.append(entry, Reading::GoOn, at, out);
        });
    }

    /// Entries may be in the store that the owner of `queue` has not heard of: its next entry says so.
    pub(crate) fn poked(&self, queue: &QueueId) {
        self.0.core.lock().dispatch.poked(queue);
    }

    /// Rows were inserted into `queue` past its owner, who may be another node.
    pub(crate) fn wake_owner(&self, queue: QueueId) {
        self.poked(&queue);
        self.tell_all(Item::Wake(queue));
    }

    /// A batch of `queue` is on disk, or its lane came to rest otherwise.
    pub(crate) fn settled(&self, mailboxes: &Mailboxes, queue: QueueId) {
        self.act(mailboxes, |dispatch, at, out| {
            dispatch.settled(queue, at, out);
        });
    }

    /// A device connected here.
    pub(crate) fn attached(&self, mailboxes: &Mailboxes, queue: QueueId, attachment: Attachment) {
        let here = Here {
            attachment,
            since: Instant::now(),
            stamp: None,
        };
        self.0.attached.lock().insert(queue, here);
        self.0.outbox.lock().announces.push(queue);
        self.settled(mailboxes, queue);
        self.0.ready.notify_one();
    }

    /// A connection has ended.
    pub(crate) fn detached(&self, queue: QueueId, attachment: Attachment) {
        let mut attached = self.0.attached.lock();
        let Some(here) = attached
            .get(&queue)
            .copied()
            .filter(|here| here.attachment == attachment)
        else {
            return;
        };
        attached.remove(&queue);
        drop(attached);
        if let Some(stamp) = here.stamp {
            self.0.outbox.lock().removes.push((queue, stamp));
            self.0.ready.notify_one();
        }
    }

    /// Passes an ephemeral frame on, to the device's node if that is known, or becomes so in a moment.
    pub(crate) fn hint(&self, queue: QueueId, group: GroupId, payload: Bytes) {
        let node = self.0.core.lock().dispatch.route(&queue);
        let hint = Item::Hint {
            queue,
            group,
            payload,
        };
        let mut outbox = self.0.outbox.lock();
        match node {
            Some(node) => outbox.letter(node, hint),
            None => outbox.hint(queue, hint),
        }
        drop(outbox);
        self.0.ready.notify_one();
    }

    /// The queue is revoked: the other nodes hear it.
    pub(crate) fn revoked(&self, queue: QueueId) {
        self.tell_all(Item::Revoked(queue));
    }

    /// The group's list has changed: the other nodes read it again.
    pub(crate) fn group_changed(&self, group: GroupId) {
        self.tell_all(Item::Group(group));
    }

    /// A device reported its history of a group, and may: the other nodes compare it with those of
    /// their own.
    pub(crate) fn tagged(&self, group: GroupId, handle: Handle, position: u64, tag: Tag) {
        self.tell_all(Item::Tag {
            group,
            handle,
            position,
            tag,
        });
    }

    /// This node takes nothing over links any more: what is under way is put into the store.
    pub(crate) fn leave(&self, mailboxes: &Mailboxes) {
        self.0.leaving.store(true, Ordering::Release);
        self.act(mailboxes, |dispatch, at, out| {
            dispatch.part(at, out);
        });
        self.tell_all(Item::Leaving);
    }

    /// A leg of another node's parcel has ended.
    pub(crate) fn answer(&self, parcel: &Far, outcome: Outcome) {
        let Far {
            from,
            queue,
            attempt,
            number,
            ..
        } = *parcel;
        if outcome == Outcome::Failed {
            // Nothing behind it may be taken; the sender puts all of it into the store.
            if self.0.owner.lock().failed(from, attempt) {
                self.0.outbox.lock().letter(from, Item::Broken { attempt });
            }
        } else {
            self.0.owner.lock().answered(from, attempt);
            let answer = Answer {
                attempt,
                number,
                outcome,
                away: false,
            };
            self.0.outbox.lock().answer(from, Owed { queue, answer });
        }
        self.0.ready.notify_one();
    }

    fn tell_all(&self, item: Item) {
        self.0.outbox.lock().tell_all(item);
        self.0.ready.notify_one();
    }

    /// Lets the dispatch act and carries out what it says.
    fn act(
        &self,
        mailboxes: &Mailboxes,
        run: impl FnOnce(&mut Dispatch<Leg>, Moment<'_>, &mut Vec<Act<Leg>>),
    ) {
        let now = Instant::now();
        let look = |queue: &QueueId| mailboxes.local(queue);
        let mut after = After::default();
        let mut sends = false;
        let mut core = self.0.core.lock();
        let Core { dispatch, acts } = &mut *core;
        run(dispatch, Moment { now, look: &look }, acts);
        for act in acts.drain(..) {
            match act {
                Act::Here {
                    queue,
                    envelope,
                    leg,
                    reading,
                } => {
                    let deferred = mailboxes.append_deferred((queue, envelope, leg), reading, now);
                    after.effects.push(deferred);
                }
                Act::Send { to, parcel } => {
                    self.0.metrics.parcels_sent.inc();
                    self.0.outbox.lock().letter(to, Item::Parcel(parcel));
                    sends = true;
                }
                Act::Ask(queue) => {
                    self.0.outbox.lock().asks.push(queue);
                    sends = true;
                }
                Act::Resolve(leg, outcome) => after.resolved.push((leg, outcome)),
            }
        }
        drop(core);
        if sends {
            self.0.ready.notify_one();
        }
        after.run(mailboxes);
    }

    /// What the tasks found out about Redis: with both directions other nodes are used.
    fn reach(&self, mailboxes: &Mailboxes, change: impl FnOnce(&mut Ways)) {
        let mut ways = self.0.ways.lock();
        let before = ways.hears && ways.speaks;
        change(&mut ways);
        let after = ways.hears && ways.speaks;
        drop(ways);
        if before == after {
            return;
        }
        self.0.metrics.cluster_connected.set(i64::from(after));
        if after {
            tracing::info!("Redis is there; other nodes are reachable");
            if !self.0.leaving.load(Ordering::Acquire) {
                self.0.core.lock().dispatch.join();
            }
            self.announce_all();
        } else {
            tracing::warn!(
                "Redis is away; entries for devices of other nodes go through the store"
            );
            self.act(mailboxes, |dispatch, at, out| {
                dispatch.part(at, out);
            });
        }
    }

    /// Announces every device that is connected here, (again).
    fn announce_all(&self) {
        let queues: Vec<QueueId> = self.0.attached.lock().keys().copied().collect();
        self.0.outbox.lock().announces.extend(queues);
        self.0.ready.notify_one();
    }

    /// A newer connection of the device is on another node.
    fn replace(&self, mailboxes: &Mailboxes, queue: QueueId, stamp: u64) {
        let mut attached = self.0.attached.lock();
        let is_older = |here: &Here| here.stamp.is_some_and(|own| own < stamp);
        let Some(here) = attached.get(&queue).copied().filter(is_older) else {
            return;
        };
        attached.remove(&queue);
        drop(attached);
        mailboxes.replaced_elsewhere(queue, here.attachment);
    }

    /// Another node's parcel has arrived.
    fn take(&self, mailboxes: &Mailboxes, from: Incarnation, parcel: Parcel) {
        use commucat_routing::link::Arrival;

        let Parcel {
            attempt,
            number,
            reading,
            queue,
            envelope,
        } = parcel;
        let now = Instant::now();
        let arrival = self.0.owner.lock().arrives(from, (attempt, number), now);
        match arrival {
            Arrival::Old => {}
            Arrival::Broken => {
                self.0.outbox.lock().letter(from, Item::Broken { attempt });
                self.0.ready.notify_one();
            }
            Arrival::Take => {
                self.0.metrics.parcels_taken.inc();
                let leg = Leg::far(Far {
                    cluster: self.clone(),
                    from,
                    queue,
                    attempt,
                    number,
                });
                let deferred = mailboxes.append_deferred((queue, envelope, leg), reading, now);
                mailboxes.carry_out_deferred(deferred);
            }
        }
    }
}

/// The leg of another node's parcel.
pub(crate) struct Far {
    cluster: Cluster,
    from: Incarnation,
    queue: QueueId,
    attempt: u64,
    number: u64,
}

impl Far {
    /// Tells the sender.
    pub(crate) fn end(&self, outcome: Outcome) {
        self.cluster.answer(self, outcome);
    }
}

/// What is done when no lock is held any more.
#[derive(Default)]
struct After {
    effects: Vec<Deferred>,
    resolved: Vec<(Leg, Outcome)>,
}

impl After {
    fn run(self, mailboxes: &Mailboxes) {
        for deferred in self.effects {
            mailboxes.carry_out_deferred(deferred);
        }
        for (leg, outcome) in self.resolved {
            leg.resolve(outcome);
        }
    }
}

/// A lane as the dispatch sees it; one that is not in use is at rest.
pub(crate) const UNUSED: Local = Local {
    attached: false,
    settled: true,
};

#[cfg(test)]
mod tests;
