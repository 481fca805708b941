//! Measures what storing an entry for an offline device costs.
//!
//! `cargo run --release -p commucat-storage --example spool_rate -- [queues] [requests]`

use std::io::Write as _;
use std::time::{Duration, Instant};

use bytes::Bytes;
use commucat_proto::id::{AccountKey, DedupeKey, DeviceId, GroupId, NoiseKey, QueueId};
use commucat_proto::time::Timestamp;
use commucat_storage::{
    Admission, Delivery, DeviceList, EntryKind, ListedDevice, Location, NewEntry, Options,
    QueueLimits, Store,
};

/// Bytes of a message.
const BODY: usize = 400;
/// Requests on their way at once, as mailboxes would have them.
const LANES: u64 = 256;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args()
        .skip(1)
        .map(|argument| argument.parse::<u64>());
    let queues = arguments.next().transpose()?.unwrap_or(1_000);
    let requests = arguments.next().transpose()?.unwrap_or(50_000);
    let directory = tempfile::tempdir()?;
    let limits = QueueLimits {
        bytes: 1 << 40,
        entries: 1 << 40,
    };
    let options = Options {
        queues: limits,
        ..Options::default()
    };
    let location = Location::Sqlite {
        directory: directory.path().to_owned(),
    };
    let store = Store::open(location, options).await?;
    let mut ids = Vec::new();
    for number in 0..queues {
        ids.push(register(&store, number).await?);
    }

    let before = (store.counters(), Instant::now(), cpu()?);
    let mut lanes = tokio::task::JoinSet::new();
    for lane in 0..LANES {
        let (store, ids) = (store.clone(), ids.clone());
        lanes.spawn(async move {
            for number in (lane..requests).step_by(256) {
                let index = usize::try_from(number % queues).unwrap_or(0);
                let Some(queue) = ids.get(index).copied() else {
                    return;
                };
                let delivery = Delivery {
                    queue,
                    entries: vec![entry(number)],
                };
                if store.spool(vec![delivery], Timestamp::ZERO).await.is_err() {
                    return;
                }
            }
        });
    }
    lanes.join_all().await;
    report("spool", requests, before, &store)?;

    let before = (store.counters(), Instant::now(), cpu()?);
    let mut deleted = 0;
    for queue in &ids {
        let page = store
            .page(queue, Default::default(), usize::MAX, 10_000)
            .await?;
        let rows = page.unwrap_or_default().rows;
        let rows = rows.into_iter().map(|row| commucat_storage::RowId {
            queue: *queue,
            position: row.position,
            key: row.key,
        });
        deleted += store.delete_exact(rows.collect()).await?;
    }
    report("page and delete", deleted, before, &store)?;
    Ok(())
}

fn report(
    what: &str,
    entries: u64,
    (counters, clock, spent): (commucat_storage::Counters, Instant, Duration),
    store: &Store,
) -> Result<(), Box<dyn std::error::Error>> {
    let commits = store.counters().commits - counters.commits;
    let per_entry = |span: Duration| span.as_micros() / u128::from(entries.max(1));
    let (wall, cpu) = (clock.elapsed(), cpu()?.saturating_sub(spent));
    writeln!(
        std::io::stdout(),
        "{what}: {entries} entries, {commits} commits, {} us wall and {} us CPU an entry",
        per_entry(wall),
        per_entry(cpu),
    )?;
    Ok(())
}

/// CPU time of this process, from the kernel; ticks are 10 ms.
fn cpu() -> Result<Duration, Box<dyn std::error::Error>> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let (_, rest) = stat.rsplit_once(')').ok_or("no process name")?;
    let ticks = rest
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(str::parse::<u64>)
        .sum::<Result<u64, _>>()?;
    Ok(Duration::from_millis(ticks * 10))
}

async fn register(store: &Store, number: u64) -> Result<QueueId, Box<dyn std::error::Error>> {
    let key = *blake3::hash(&number.to_be_bytes()).as_bytes();
    let device = DeviceId::of_key(&NoiseKey::new(key));
    let listed = ListedDevice {
        device: device.clone(),
        noise_key: NoiseKey::new(key),
        not_before: Timestamp::ZERO,
        not_after: Timestamp::from_millis(u64::MAX),
    };
    let list = DeviceList {
        account_key: AccountKey::new(key),
        version: 1,
        signed: Bytes::from_static(b"list"),
        devices: vec![listed],
    };
    store
        .register(list, &device, Admission::Open, Timestamp::ZERO)
        .await?;
    Ok(store.device(&device).await?.ok_or("not registered")?.queue)
}

fn entry(number: u64) -> NewEntry {
    let hash = blake3::hash(&number.to_be_bytes());
    let body = hash
        .as_bytes()
        .iter()
        .copied()
        .cycle()
        .take(BODY)
        .collect::<Vec<u8>>();
    let mut key = [0; 16];
    key.copy_from_slice(hash.as_bytes().split_at(16).0);
    NewEntry {
        key: DedupeKey::new(key),
        kind: EntryKind::Message,
        group: GroupId::new([1; 32]),
        body: Bytes::from(body),
    }
}
