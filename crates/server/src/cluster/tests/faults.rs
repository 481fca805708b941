//! Authors on two nodes, a device that goes from node to node, and a Redis that is flushed and killed
//! meanwhile; a node dies too. What is acknowledged arrives, in each author's order.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicU32, AtomicUsize};

use parking_lot::RwLock;
use tokio::task::JoinSet;

use super::*;

const AUTHORS: u8 = 4;
/// Faults that happen before the authors have said all.
const TROUBLES: u32 = 16;
/// Frames that an author has unanswered.
const WINDOW: usize = 8;
/// Without any progress for so long the test gives up.
const STUCK: Duration = Duration::from_secs(30);

/// Which nodes there are now; a killed one is replaced in its place.
type Slots = Arc<RwLock<Vec<Arc<Node>>>>;

/// A message: its author and its number.
type Name = (u8, u32);

fn key(name: Name) -> DedupeKey {
    let mut raw = [0; 16];
    raw[0] = name.0;
    raw[1..5].copy_from_slice(&name.1.to_be_bytes());
    DedupeKey::new(raw)
}

fn name(key: &DedupeKey) -> Name {
    let [author, a, b, c, d, ..] = *key.as_bytes();
    (author, u32::from_be_bytes([a, b, c, d]))
}

/// One author: sends everything, reconnects when its node is gone or a frame failed.
struct Author {
    number: u8,
    queue: QueueId,
    slots: Slots,
    random: u64,
    progress: Arc<Progress>,
}

/// How far the test is.
#[derive(Default)]
struct Progress {
    troubles: AtomicU32,
    /// Messages of authors that have said all.
    said: AtomicUsize,
    finished: AtomicUsize,
}

impl Progress {
    fn goes_on(&self) -> bool {
        self.troubles.load(Ordering::Acquire) < TROUBLES
    }

    /// All messages, when there will be no more.
    fn total(&self) -> Option<usize> {
        let is_over = self.finished.load(Ordering::Acquire) == usize::from(AUTHORS);
        is_over.then(|| self.said.load(Ordering::Acquire))
    }
}

impl Author {
    fn below(&mut self, bound: u64) -> u64 {
        // xorshift64*: any spread will do.
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        self.random.wrapping_mul(0x2545_f491_4f6c_dd1d) % bound
    }

    async fn send_all(mut self) {
        let mut next = 0;
        let mut unanswered: VecDeque<u32> = VecDeque::new();
        while self.progress.goes_on() || !unanswered.is_empty() {
            let slots = self.slots.read().clone();
            let at = usize::try_from(self.below(slots.len() as u64)).unwrap();
            let node = Arc::clone(&slots[at]);
            let link = Link::new();
            node.mailboxes.read_store_first(&self.queue);
            let mut frames = Vec::new();
            for number in &unanswered {
                self.put(&node, &link, *number, &mut frames);
            }
            let stays = Instant::now() + Duration::from_millis(100 + self.below(400));
            let mut moved = Instant::now();
            loop {
                while unanswered.len() < WINDOW && self.progress.goes_on() {
                    unanswered.push_back(next);
                    self.put(&node, &link, next, &mut frames);
                    next += 1;
                }
                let waiting = link.take();
                for range in &waiting.acks {
                    moved = Instant::now();
                    for sequence in range.first..range.first + range.count {
                        let number = frames[usize::try_from(sequence).unwrap() - 1];
                        unanswered.retain(|other| *other != number);
                    }
                }
                let is_gone = !Arc::ptr_eq(&self.slots.read()[at], &node);
                let failed = !waiting.control.is_empty();
                if is_gone || failed || unanswered.is_empty() && !self.progress.goes_on() {
                    break;
                }
                if Instant::now() > stays && self.below(3) == 0 {
                    break;
                }
                assert!(moved.elapsed() < STUCK, "author {} is stuck", self.number);
                sleep(Duration::from_millis(1)).await;
            }
        }
        let said = usize::try_from(next).unwrap();
        self.progress.said.fetch_add(said, Ordering::AcqRel);
        self.progress.finished.fetch_add(1, Ordering::AcqRel);
    }

    fn put(&self, node: &Node, link: &Link, number: u32, frames: &mut Vec<u32>) {
        frames.push(number);
        let sequence = u32::try_from(frames.len()).unwrap();
        let limits = Limits {
            frames: 10_000,
            bytes: 10_000_000,
        };
        link.begin(sequence, 1, 5, limits).unwrap();
        let key = key((self.number, number));
        let frame = Frame {
            author: custody::Author::Device {
                link: link.clone(),
                sequence,
                queue: QueueId::new([9; 16]),
                reference: SealedRef::new([0; 65]),
            },
            group: GROUP,
            message: MessageId::new(*key.as_bytes()),
            key,
            recipients: Arc::new([Handle::new([4; 32])]),
            since: Instant::now(),
        };
        let envelope = Envelope {
            key,
            group: Some(GROUP),
            frame: 5,
            body: Bytes::from_static(b"hello"),
        };
        custody::accept(frame, node.engine.router(), |leg| {
            node.mailboxes
                .append(self.queue, envelope, leg(0), Instant::now());
        });
    }
}

/// The device: connects anywhere, shows what it has not shown, acknowledges, goes on.
async fn device(queue: QueueId, slots: Slots, progress: Arc<Progress>) -> BTreeMap<u8, Vec<u32>> {
    let mut shown: BTreeMap<u8, Vec<u32>> = BTreeMap::new();
    let mut known = HashSet::new();
    let mut old = None;
    let (mut turn, mut moved) = (0_usize, Instant::now());
    while progress.total() != Some(known.len()) {
        let nodes = slots.read().clone();
        let node = Arc::clone(&nodes[turn % nodes.len()]);
        let link = Link::new();
        let attached = node.mailboxes.attach(queue, link.clone());
        // The session of the connection before ends when this one is there already.
        drop(old.take());
        turn += 1;
        let leaves = Instant::now() + Duration::from_millis(150);
        while Instant::now() < leaves {
            let mut sends = Vec::new();
            match attached.pump(100_000, &mut sends) {
                Pumped::ReadPage { after } => {
                    let page = attached.read_page(after, 100_000, clock::now(), &mut sends);
                    page.await.unwrap();
                }
                Pumped::Idle | Pumped::Full | Pumped::Reading => {
                    sleep(Duration::from_millis(1)).await;
                }
                Pumped::More | Pumped::Emptied => {}
                Pumped::Detached => break,
            }
            for delivery in &sends {
                let key = delivery.envelope.key;
                if known.insert(key) {
                    let (author, number) = name(&key);
                    shown.entry(author).or_default().push(number);
                    moved = Instant::now();
                }
            }
            attached.acked(sends.iter().map(Delivery::sent).collect());
        }
        assert!(
            moved.elapsed() < STUCK,
            "{} arrived, and nothing more comes",
            known.len()
        );
        old = Some(attached);
    }
    shown
}

/// Flushes Redis, kills it, kills a node, over and over.
async fn trouble(world: Arc<World>, redis: Arc<Server>, slots: Slots, progress: Arc<Progress>) {
    for turn in 0_u32.. {
        sleep(Duration::from_millis(120)).await;
        let redis = Arc::clone(&redis);
        match turn % 4 {
            0 | 2 => {
                let flush = tokio::task::spawn_blocking(move || redis.ask("FLUSHALL"));
                flush.await.unwrap().unwrap();
            }
            1 => {
                let restart = tokio::task::spawn_blocking(move || {
                    redis.kill().unwrap();
                    redis.resurrect().unwrap();
                });
                restart.await.unwrap();
            }
            _ => {
                let at = usize::try_from(turn / 4).unwrap() % 2;
                let dead = Arc::clone(&slots.read()[at]);
                // As by `kill -9`: its tasks are gone, and whatever it had in memory.
                dead.engine.kill();
                let another = Arc::new(world.node_at("again", &redis.url(), "100ms"));
                slots.write()[at] = another;
            }
        }
        progress.troubles.fetch_add(1, Ordering::AcqRel);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_and_order_is_kept_whatever_redis_forgets() {
    let redis = tokio::task::spawn_blocking(|| Server::start(&[]));
    let redis = Arc::new(redis.await.unwrap().unwrap());
    let world = Arc::new(World::new().await);
    let queue = world.queue;
    let mut nodes = Vec::new();
    for name in ["one", "two"] {
        nodes.push(Arc::new(world.node_at(name, &redis.url(), "100ms")));
    }
    let slots: Slots = Arc::new(RwLock::new(nodes));

    let progress = Arc::new(Progress::default());
    let mut authors = JoinSet::new();
    for number in 0..AUTHORS {
        let author = Author {
            number,
            queue,
            slots: Arc::clone(&slots),
            random: 0x9e37_79b9 + u64::from(number),
            progress: Arc::clone(&progress),
        };
        authors.spawn(author.send_all());
    }
    let tasks = TaskTracker::new();
    let device = tasks.spawn(device(queue, Arc::clone(&slots), Arc::clone(&progress)));
    let trouble = tasks.spawn(trouble(world, redis, slots, Arc::clone(&progress)));
    while let Some(done) = authors.join_next().await {
        done.unwrap();
    }
    let shown = device.await.unwrap();
    trouble.abort();

    let mut total = 0;
    for (author, numbers) in &shown {
        let in_order: Vec<u32> = (0..u32::try_from(numbers.len()).unwrap()).collect();
        assert_eq!(*numbers, in_order, "author {author}");
        total += numbers.len();
    }
    assert_eq!(Some(total), progress.total());
    assert!(total > 1_000, "{total} messages only");
}
