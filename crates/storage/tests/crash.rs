//! Kills a spooling process again and again: nothing that it said to be stored may be lost, and no
//! position may be given out twice.
//!
//! The process that is killed is this binary itself, started with a directory as its argument.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use commucat_proto::id::{AccountKey, DedupeKey, DeviceId, GroupId, NoiseKey, QueueId};
use commucat_proto::time::Timestamp;
use commucat_storage::{
    Admission, Content, Delivery, DeviceList, EntryKind, ListedDevice, Location, NewEntry, Options,
    QueueLimits, QueuePosition, Spooled, Store,
};

const CYCLES: u64 = 10;
/// Answers read before the process is killed; more in each cycle, so that it dies at other moments.
const ANSWERS_BEFORE_KILL: u64 = 20;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    match std::env::args_os().nth(1) {
        // Test runners pass flags; only we pass a directory.
        Some(argument) if Path::new(&argument).is_dir() => spool_for_ever(argument.into()).await,
        _ => kill_again_and_again().await,
    }
}

async fn kill_again_and_again() -> Result<(), Box<dyn std::error::Error>> {
    let directory = tempfile::tempdir()?;
    let mut acknowledged: BTreeMap<u64, u64> = BTreeMap::new();
    for cycle in 0..CYCLES {
        let mut child = Command::new(std::env::current_exe()?)
            .arg(directory.path())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut lines = BufReader::new(child.stdout.take().ok_or("no pipe")?).lines();
        for _ in 0..ANSWERS_BEFORE_KILL + 7 * cycle {
            let line = lines.next().ok_or("the process ended by itself")??;
            note(&mut acknowledged, &line)?;
        }
        child.kill()?;
        child.wait()?;
        // What it managed to say before it died counts too.
        for line in lines.map_while(Result::ok) {
            note(&mut acknowledged, &line)?;
        }
        verify(directory.path(), &acknowledged).await?;
    }
    let mut out = std::io::stdout();
    writeln!(
        out,
        "kills: {CYCLES} cycles, {} acknowledged, 0 lost, 0 twice",
        acknowledged.len()
    )?;
    Ok(())
}

/// Notes an answer `position number`; a line cut off by the kill is none.
fn note(acknowledged: &mut BTreeMap<u64, u64>, line: &str) -> Result<(), String> {
    let Some(answer) = line.strip_suffix('.') else {
        return Ok(());
    };
    let (position, number) = answer.split_once(' ').ok_or("a line without a space")?;
    let position = position.parse().map_err(|_| "no position")?;
    let number = number.parse().map_err(|_| "no number")?;
    match acknowledged.insert(position, number) {
        None => Ok(()),
        Some(_) => Err(format!("position {position} was given out twice")),
    }
}

async fn verify(
    directory: &Path,
    acknowledged: &BTreeMap<u64, u64>,
) -> Result<(), Box<dyn std::error::Error>> {
    let store = open(directory.to_owned()).await?;
    store.check_integrity().await?;
    let queue = queue(&store).await?;
    let page = store
        .page(&queue, QueuePosition::START, usize::MAX, usize::MAX - 1)
        .await?;
    let stored: BTreeMap<u64, Bytes> = page
        .ok_or("the queue is gone")?
        .rows
        .into_iter()
        .filter_map(|row| match row.content {
            Content::Frame { body, .. } => Some((row.position.get(), body)),
            Content::Gap | Content::Corrupt => None,
        })
        .collect();
    for (position, number) in acknowledged {
        if stored.get(position) != Some(&entry(*number).body) {
            return Err(format!("position {position} was acknowledged and is lost").into());
        }
    }
    store.close().await;
    Ok(())
}

/// Spools from several tasks at once, so that commits hold several requests, and prints what is
/// acknowledged.
async fn spool_for_ever(directory: PathBuf) -> Result<(), Box<dyn std::error::Error>> {
    let store = open(directory).await?;
    let queue = queue(&store).await?;
    let start = store
        .queue_state(&queue)
        .await?
        .ok_or("the queue is gone")?
        .head
        .get();
    let mut tasks = tokio::task::JoinSet::new();
    for lane in 0..8 {
        let store = store.clone();
        tasks.spawn(async move {
            for round in 0.. {
                let number = start + lane + 8 * round;
                let delivery = Delivery {
                    queue,
                    entries: vec![entry(number)],
                };
                let Ok(done) = store.spool(vec![delivery], Timestamp::from_millis(1)).await else {
                    return;
                };
                // A number may repeat one that an earlier process stored without saying so.
                let outcome = done.first().and_then(|done| done.outcomes.first()).copied();
                if let Some(Spooled::Stored(position)) = outcome {
                    let line = format!("{} {number}.\n", position.get());
                    if std::io::stdout().write_all(line.as_bytes()).is_err() {
                        return;
                    }
                }
            }
        });
    }
    tasks.join_all().await;
    Ok(())
}

async fn open(directory: PathBuf) -> Result<Store, commucat_storage::OpenError> {
    let limits = QueueLimits {
        bytes: u64::MAX / 4,
        entries: u64::MAX / 4,
    };
    let options = Options {
        lock_wait: Duration::from_secs(5),
        queues: limits,
        ..Options::default()
    };
    Store::open(Location::Sqlite { directory }, options).await
}

/// The queue of the only device, which is registered at first.
async fn queue(store: &Store) -> Result<QueueId, Box<dyn std::error::Error>> {
    let noise_key = NoiseKey::new([1; 32]);
    let device = DeviceId::of_key(&noise_key);
    let listed = ListedDevice {
        device: device.clone(),
        noise_key,
        not_before: Timestamp::ZERO,
        not_after: Timestamp::from_millis(u64::MAX),
    };
    let list = DeviceList {
        account_key: AccountKey::new([1; 32]),
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
    let body = Bytes::from(vec![number.to_le_bytes(); 40].concat());
    let mut key = [0; 16];
    key[..8].copy_from_slice(&number.to_be_bytes());
    NewEntry {
        key: DedupeKey::new(key),
        kind: EntryKind::Message,
        group: GroupId::new([number.to_le_bytes()[0]; 32]),
        body,
    }
}
