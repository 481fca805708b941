//! Random operations on a few queues: every counter stays true, and no body is left behind or lost.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use commucat_proto::id::{AccountKey, DedupeKey, DeviceId, GroupId, NoiseKey, QueueId};
use commucat_proto::time::Timestamp;
use commucat_storage::{
    Admission, Content, Delivery, DeviceList, EntryKind, ListedDevice, Location, NewEntry, Options,
    QueueLimits, QueuePosition, RowId, Store, SweepCursor,
};
use rusqlite::Connection;
use tempfile::tempdir;

const QUEUES: u64 = 5;
const STEPS: u64 = 250;
const SEEDS: u64 = 4;

/// Each query counts what would be wrong.
const CHECKS: &[(&str, &str)] = &[
    (
        "counters of queues",
        "SELECT count(*) FROM queues AS q WHERE
             entries <> (SELECT count(*) FROM queue_entries AS e WHERE e.queue = q.id AND kind <> 0)
             OR bytes <> (SELECT coalesce(sum(length), 0) FROM queue_entries AS e WHERE e.queue = q.id)
             OR invites <> (SELECT count(*) FROM queue_entries AS e WHERE e.queue = q.id AND kind = 11)
             OR left_marks <> (SELECT count(*) FROM queue_groups AS g
                               WHERE g.queue = q.id AND left_at IS NOT NULL)
             OR gap_position IS NOT
                 (SELECT position FROM queue_entries AS e WHERE e.queue = q.id AND kind = 0)
             OR next_position <=
                 (SELECT coalesce(max(position), 0) FROM queue_entries AS e WHERE e.queue = q.id)",
    ),
    (
        "counters of groups",
        "SELECT count(*) FROM queue_groups AS g WHERE
             (entries = 0 AND left_at IS NULL)
             OR entries <> (SELECT count(*) FROM queue_entries AS e WHERE e.grp = g.id)
             OR bytes <> (SELECT coalesce(sum(length), 0) FROM queue_entries AS e WHERE e.grp = g.id)",
    ),
    (
        "entries without group or body",
        "SELECT count(*) FROM queue_entries WHERE kind <> 0
             AND (grp NOT IN (SELECT id FROM queue_groups) OR body NOT IN (SELECT id FROM bodies))",
    ),
    (
        "bodies without entry",
        "SELECT count(*) FROM bodies WHERE id NOT IN
             (SELECT body FROM queue_entries WHERE body IS NOT NULL)",
    ),
    (
        "shares of bodies",
        "SELECT count(*) FROM bodies AS b WHERE
             coalesce((SELECT refs FROM shared_bodies WHERE body = b.id), 1)
             <> (SELECT count(*) FROM queue_entries AS e WHERE e.body = b.id)",
    ),
    (
        "shares of nothing",
        "SELECT count(*) FROM shared_bodies WHERE refs < 2 OR body NOT IN (SELECT id FROM bodies)",
    ),
];

#[tokio::test]
async fn counters_and_bodies_stay_true_whatever_happens() {
    for seed in 1..=SEEDS {
        let directory = tempdir().unwrap();
        let mut world = World::new(directory.path(), seed).await;

        for _ in 0..STEPS {
            world.step().await;
        }
        world.store.check_integrity().await.unwrap();
        check(directory.path(), seed);

        world.empty().await;
        check(directory.path(), seed);
        assert_eq!(
            count(directory.path(), "SELECT count(*) FROM bodies"),
            0,
            "seed {seed}"
        );
    }
}

struct World {
    store: Store,
    queues: Vec<QueueId>,
    random: u64,
    now: u64,
}

impl World {
    async fn new(directory: &Path, seed: u64) -> Self {
        let location = Location::Sqlite {
            directory: directory.to_owned(),
        };
        let queues = QueueLimits {
            bytes: 4_000,
            entries: 40,
        };
        let options = Options {
            queues,
            ..Options::default()
        };
        let store = Store::open(location, options).await.unwrap();
        let mut queues = Vec::new();
        for number in 0..QUEUES {
            queues.push(register(&store, number).await);
        }
        Self {
            store,
            queues,
            random: seed,
            now: 1_000,
        }
    }

    /// A number below `bound`, from a small generator (Numerical Recipes' LCG).
    fn pick(&mut self, bound: u64) -> u64 {
        self.random = self
            .random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) % bound
    }

    fn queue(&mut self) -> QueueId {
        let index = self.pick(QUEUES);
        self.queues[usize::try_from(index).unwrap()]
    }

    async fn step(&mut self) {
        self.now += self.pick(50);
        match self.pick(20) {
            0 => self.leave().await,
            1 => self.expire().await,
            2 => self.revoke().await,
            3..=8 => self.acknowledge().await,
            _ => self.spool().await,
        }
    }

    async fn spool(&mut self) {
        let mut deliveries = Vec::new();
        for _ in 0..=self.pick(4) {
            let entries = (0..=self.pick(4)).map(|_| self.entry()).collect();
            deliveries.push(Delivery {
                queue: self.queue(),
                entries,
            });
        }
        let expected = deliveries.len();
        let done = self.store.spool(deliveries, self.now()).await.unwrap();
        assert_eq!(done.len(), expected);
    }

    /// One of few entries, so that repeats and shared bodies are frequent.
    fn entry(&mut self) -> NewEntry {
        let (group, number) = (self.pick(6), self.pick(40));
        let kind = match self.pick(4) {
            0 => EntryKind::GroupInvite,
            1 => EntryKind::KeyUpdate,
            2 => EntryKind::GroupEvent,
            _ => EntryKind::Message,
        };
        let size = usize::try_from(4 + number * 7).unwrap();
        let mut key = [0; 16];
        key[..2].copy_from_slice(&[group, number].map(|part| u8::try_from(part).unwrap()));
        NewEntry {
            key: DedupeKey::new(key),
            kind,
            group: GroupId::new([u8::try_from(group).unwrap(); 32]),
            body: Bytes::from(vec![u8::try_from(number).unwrap(); size]),
        }
    }

    async fn acknowledge(&mut self) {
        let queue = self.queue();
        let rows = usize::try_from(1 + self.pick(20)).unwrap();
        let page = self
            .store
            .page(&queue, QueuePosition::START, 9_999, rows)
            .await
            .unwrap();
        let Some(page) = page else { return };
        assert!(page.rows.iter().all(|row| row.content != Content::Corrupt));
        let rows = page.rows.iter().map(|row| RowId {
            queue,
            position: row.position,
            key: row.key,
        });
        let deleted = self.store.delete_exact(rows.collect()).await.unwrap();
        assert_eq!(deleted, u64::try_from(page.rows.len()).unwrap());
    }

    async fn leave(&mut self) {
        let (queue, group) = (self.queue(), u8::try_from(self.pick(6)).unwrap());
        self.store
            .leave_group(&queue, &GroupId::new([group; 32]), self.now())
            .await
            .unwrap();
    }

    async fn expire(&mut self) {
        let clock = self
            .store
            .advance_clock(self.now(), Duration::from_secs(1))
            .await
            .unwrap();
        let mut cursor = Some(SweepCursor::default());
        while let Some(next) = cursor {
            let ttl = Duration::from_millis(500);
            cursor = self
                .store
                .expire_entries(clock, ttl, next)
                .await
                .unwrap()
                .next;
        }
    }

    /// A device leaves and comes back with another queue.
    async fn revoke(&mut self) {
        let number = self.pick(QUEUES);
        let key = AccountKey::new([u8::try_from(number).unwrap(); 32]);
        let device = device(number).device;
        let empty = DeviceList {
            account_key: key,
            version: 2,
            signed: Bytes::from_static(b"empty"),
            devices: vec![],
        };
        self.store.put_list(empty, &device).await.unwrap();
        self.queues[usize::try_from(number).unwrap()] = register(&self.store, number).await;
    }

    /// Acknowledges everything and lets revoked queues be emptied.
    async fn empty(&mut self) {
        for queue in self.queues.clone() {
            let all = self
                .store
                .page(&queue, QueuePosition::START, usize::MAX, 9_999)
                .await;
            let rows = all.unwrap().unwrap().rows.into_iter();
            let rows = rows.map(|row| RowId {
                queue,
                position: row.position,
                key: row.key,
            });
            self.store.delete_exact(rows.collect()).await.unwrap();
        }
        self.expire().await;
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.now)
    }
}

fn device(number: u64) -> ListedDevice {
    let noise_key = NoiseKey::new([u8::try_from(number).unwrap(); 32]);
    ListedDevice {
        device: DeviceId::of_key(&noise_key),
        noise_key,
        not_before: Timestamp::ZERO,
        not_after: Timestamp::ZERO,
    }
}

async fn register(store: &Store, number: u64) -> QueueId {
    let listed = device(number);
    let id = listed.device.clone();
    let list = DeviceList {
        account_key: AccountKey::new([u8::try_from(number).unwrap(); 32]),
        version: 1,
        signed: Bytes::from_static(b"list"),
        devices: vec![listed],
    };
    store
        .register(list, &id, Admission::Open, Timestamp::ZERO)
        .await
        .unwrap();
    store.device(&id).await.unwrap().unwrap().queue
}

fn check(directory: &Path, seed: u64) {
    for (what, query) in CHECKS {
        assert_eq!(count(directory, query), 0, "{what}, seed {seed}");
    }
}

fn count(directory: &Path, query: &str) -> u64 {
    let connection = Connection::open(directory.join("store.sqlite3")).unwrap();
    connection.query_row(query, [], |row| row.get(0)).unwrap()
}
