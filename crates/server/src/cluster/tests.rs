//! Two nodes in this process, on one store and a Redis server of their own.

mod faults;
mod leaving;
mod origins;

use std::time::Duration;

use commucat_config::Sources;
use commucat_ledger::{Ledger, NullSink};
use commucat_proto::error::Title;
use commucat_proto::id::{DedupeKey, Handle, MessageId, SealedRef};
use commucat_routing::lane::{Delivery, Pumped};
use commucat_routing::pipeline::Limits;
use commucat_routing::ticket::Status as Custody;
use commucat_services::Redis as Server;
use commucat_services::redis::prefix;
use commucat_storage::{Location, Options, QueuePosition};
use tokio::time::{sleep, timeout};

use super::*;
use crate::carrier::Serve as _;
use crate::clock;
use crate::custody::{self, Author, Frame};
use crate::engine::{Engine, Nodes as Others, Parts};
use crate::fixtures;
use crate::mailbox::Attached;
use crate::session::Link;

const GROUP: GroupId = GroupId::new([1; 32]);

/// Far longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

struct World {
    store: Store,
    /// The queue of a registered device: a node looks every two seconds whether the store still has
    /// those that are attached, and ends the others.
    queue: QueueId,
    keys: Keys,
    prefix: String,
    _place: tempfile::TempDir,
}

struct Node {
    queue: QueueId,
    engine: Arc<Engine>,
    cluster: Cluster,
    mailboxes: Mailboxes,
    metrics: Metrics,
}

impl World {
    async fn new() -> Self {
        let place = tempfile::tempdir().unwrap();
        let location = Location::Sqlite {
            directory: place.path().join("data"),
        };
        let domain = commucat_proto::id::Domain::parse("localhost").unwrap();
        let store = Store::open(location, Options::default()).await.unwrap();
        Self {
            queue: fixtures::device(&store, 5).await.queue,
            store,
            keys: Keys::open(&place.path().join("keys"), &domain, clock::now()).unwrap(),
            prefix: prefix().unwrap(),
            _place: place,
        }
    }

    /// A node that reaches the others.
    async fn node(&self, name: &str) -> Node {
        let redis = tokio::task::spawn_blocking(Server::shared);
        let url = redis.await.unwrap().unwrap().url();
        // On a busy machine nothing here shall go to the store for lateness.
        let node = self.node_at(name, &url, "5s");
        until("a node reaches Redis", || {
            node.metrics.cluster_connected.get() == 1
        })
        .await;
        node
    }

    /// A node that may not reach anybody yet.
    fn node_at(&self, name: &str, url: &str, hold: &str) -> Node {
        let sources = Sources::default()
            .with_flag("storage.redis_url", url)
            .with_flag("storage.redis_prefix", &self.prefix)
            .with_flag("server.node_id", name)
            .with_flag("limits.ack_wait", hold);
        let config = Config::load(&sources).unwrap();
        let (metrics, keys) = (Metrics::new(), self.keys.clone());
        let drain = CancellationToken::new();
        let buckets = Buckets::shared(&config.limits, [7; 32]);
        let own = (keys.clone(), buckets.clone());
        let cluster = Cluster::open(&config, own, metrics.clone(), drain);
        let cluster = cluster.unwrap().unwrap();
        let (ledger, _worker) = Ledger::start(NullSink::default()).unwrap();
        let client = crate::federation::client(
            &config,
            keys.clone(),
            self.store.clone(),
            (metrics.clone(), buckets.clone()),
        );
        let engine = Engine::new(Parts {
            config: Arc::new(config),
            keys,
            store: self.store.clone(),
            ledger,
            metrics: metrics.clone(),
            buckets,
            client: client.unwrap(),
            nodes: Others(Some(cluster.clone())),
        });
        Arc::clone(&engine).start();
        Node {
            queue: self.queue,
            mailboxes: engine.mailboxes().clone(),
            engine,
            cluster,
            metrics,
        }
    }
}

impl Node {
    /// The world's device connects here, and Redis knows it.
    async fn attach(&self) -> (Attached, Link) {
        let link = Link::new();
        let attached = self.mailboxes.attach(self.queue, link.clone());
        until("the route is announced", || {
            let attached = self.cluster.0.attached.lock();
            attached
                .get(&self.queue)
                .is_some_and(|here| here.stamp.is_some())
        })
        .await;
        (attached, link)
    }

    /// An author of this node sends a message to the world's device.
    fn send(&self, number: u8) -> Link {
        let author = Link::new();
        let limits = Limits {
            frames: 10,
            bytes: 1_000,
        };
        author.begin(1, 1, 5, limits).unwrap();
        let frame = Frame {
            author: Author::Device {
                link: author.clone(),
                sequence: 1,
                queue: QueueId::new([9; 16]),
                reference: SealedRef::new([0; 65]),
            },
            group: GROUP,
            message: MessageId::new([number; 16]),
            key: DedupeKey::new([number; 16]),
            recipients: Arc::new([Handle::new([4; 32])]),
            since: Instant::now(),
        };
        let envelope = Envelope {
            key: DedupeKey::new([number; 16]),
            group: Some(GROUP),
            frame: 5,
            body: Bytes::from_static(b"hello"),
        };
        custody::accept(frame, self.engine.router(), |leg| {
            self.mailboxes
                .append(self.queue, envelope, leg(0), Instant::now());
        });
        author
    }
}

async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let waited = timeout(PATIENCE, async {
        while !is_so() {
            sleep(Duration::from_millis(2)).await;
        }
    });
    assert!(waited.await.is_ok(), "{what}: not within {PATIENCE:?}");
}

/// What the device gets, once there is something.
async fn receive(attached: &Attached, link: &Link) -> Vec<Delivery> {
    let receiving = async {
        let mut sends = Vec::new();
        loop {
            match attached.pump(10_000, &mut sends) {
                Pumped::ReadPage { after } => {
                    let page = attached.read_page(after, 10_000, clock::now(), &mut sends);
                    page.await.unwrap();
                }
                Pumped::Idle if sends.is_empty() => link.woken().await,
                Pumped::Idle | Pumped::Detached => return sends,
                Pumped::More | Pumped::Emptied | Pumped::Full | Pumped::Reading => {}
            }
        }
    };
    timeout(PATIENCE, receiving).await.unwrap()
}

async fn custody_of(author: &Link) -> Vec<Custody> {
    let mut told = Vec::new();
    until("the author is answered", || {
        told.extend(author.take().acks.into_iter().map(|ack| ack.status));
        !told.is_empty()
    })
    .await;
    told
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_crosses_nodes_without_the_store() {
    let world = World::new().await;
    let (one, two) = (world.node("one").await, world.node("two").await);
    let (attached, device) = two.attach().await;

    let author = one.send(1);
    let sends = receive(&attached, &device).await;
    attached.acked(sends.iter().map(Delivery::sent).collect());

    assert_eq!(sends.len(), 1);
    assert_eq!(custody_of(&author).await, [Custody::Delivered]);
    let heads = world.store.queue_heads(vec![world.queue]).await.unwrap();
    assert_eq!(heads, [Some(QueuePosition::new(0))]);
    assert!(one.cluster.0.core.lock().dispatch.is_idle());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newer_connection_of_a_device_replaces_the_one_on_another_node() {
    let world = World::new().await;
    let (one, two) = (world.node("one").await, world.node("two").await);
    let (_older, old_link) = one.attach().await;

    let (_newer, new_link) = two.attach().await;
    let mut ended = None;
    until("the older one hears of it", || {
        ended = old_link.take().ending;
        ended.is_some()
    })
    .await;

    assert_eq!(ended, Some(Title::Replaced));
    assert_eq!(new_link.take().ending, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_ends_leaves_its_routes_to_others() {
    let world = World::new().await;
    let (one, two) = (world.node("one").await, world.node("two").await);
    let (attached, _link) = two.attach().await;
    let first = one.send(1);
    drop(attached);
    assert_eq!(custody_of(&first).await.len(), 1);

    timeout(PATIENCE, Arc::clone(&two.engine).drain())
        .await
        .unwrap();
    let (attached, device) = one.attach().await;
    let author = one.send(2);
    // The first message comes from the store, the second from memory.
    let mut got = Vec::new();
    while got.len() < 2 {
        let sends = receive(&attached, &device).await;
        attached.acked(sends.iter().map(Delivery::sent).collect());
        got.extend(sends.into_iter().map(|sent| sent.envelope.key));
    }

    assert_eq!(got, [1, 2].map(|number| DedupeKey::new([number; 16])));
    assert_eq!(custody_of(&author).await, [Custody::Delivered]);
    until("the other node is forgotten", || {
        one.cluster.nodes().len() == 1
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_queue_ends_on_every_node() {
    let world = World::new().await;
    let (one, two) = (world.node("one").await, world.node("two").await);
    let (_attached, device) = two.attach().await;

    one.mailboxes.revoke(&world.queue);
    let mut ended = None;
    until("the session hears of it", || {
        ended = device.take().ending;
        ended.is_some()
    })
    .await;

    assert_eq!(ended, Some(Title::Revoked));
}
