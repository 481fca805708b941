//! Messages for devices that are away, and devices that come back.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::task::JoinSet;

use super::traffic::{collect, sending};
use crate::args::Args;
use crate::ccp::connect::{Keys, Target};
use crate::host::{Host, Sample};
use crate::load::{Job, Run, drive};
use crate::report::{Row, expected, say};
use crate::setup;
use crate::tally::{Seen, read};

const LOOK: Duration = Duration::from_millis(5);
/// Longest time without any progress.
const STUCK: Duration = Duration::from_secs(30);

/// What is stored when the senders are done.
struct Stored {
    target: Target,
    /// Each receiver, with its sender's id.
    away: Vec<(u32, Arc<Keys>)>,
    from: Sample,
    to: Sample,
}

pub(super) async fn offline(args: &Args, host: &Host) -> Result<Row> {
    let stored = store(args, host).await?;
    let row = Row::between(args, host, &stored.from, &stored.to).per(
        read(&host.tally.sent),
        &stored.from,
        &stored.to,
    );
    // That nothing was lost shows when it is fetched.
    let seen = fetch(host, &stored).await?;
    let mut row = row.judged(seen, expected(host, 1));
    (row.p50_us, row.p99_us) = (None, None);
    Ok(row)
}

pub(super) async fn drain(args: &Args, host: &Host) -> Result<Row> {
    let stored = store(args, host).await?;
    say("draining");
    let from = host.sample().await?;
    let seen = fetch(host, &stored).await?;
    let to = host.sample().await?;
    let mut row = Row::between(args, host, &from, &to)
        .per(to.deliveries - from.deliveries, &from, &to)
        .judged(seen, expected(host, 1));
    (row.p50_us, row.p99_us) = (None, None);
    Ok(row)
}

/// Only fills the store; readings before and after.
pub(super) async fn fill(args: &Args, host: &Host) -> Result<(Sample, Sample)> {
    let stored = store(args, host).await?;
    Ok((stored.from, stored.to))
}

/// Sends everything to receivers that are not there.
async fn store(args: &Args, host: &Host) -> Result<Stored> {
    let targets = host.targets().await?;
    let target = targets.first().context("no server")?.clone();
    let pairs = (args.devices() / 2).max(1);
    let groups = setup::groups(args, &targets, usize::try_from(pairs)?, 2).await?;
    let run = Run::new(&host.tally);
    let (mut senders, mut away) = (JoinSet::new(), Vec::new());
    let mut ready = Vec::new();
    for (id, mut group) in (0..).zip(groups) {
        let receiver = group.pop().context("a group of one")?;
        away.push((id, receiver.keys));
        drop(receiver.device);
        let sender = group.pop().context("a group of one")?;
        let job = Job {
            sending: Some(sending(args, id, pairs, 1)),
            ..Job::default()
        };
        ready.push((sender.device, job));
    }
    // Until the server has seen that they went.
    tokio::time::sleep(Duration::from_secs(1)).await;
    say("sending to devices that are away");
    let from = host.sample().await?;
    for (device, job) in ready {
        senders.spawn(drive(device, job, run.clone()));
    }
    let quota = args.count().unwrap_or_default() / u64::from(pairs) * u64::from(pairs);
    tokio::select! {
        done = reaches(quota, || read(&host.tally.acknowledged)) => done?,
        ended = senders.join_next() => {
            ended.context("no senders")???;
            bail!("a sender ended");
        }
    }
    let to = host.sample().await?;
    run.over.cancel();
    collect(senders).await?;
    Ok(Stored {
        target,
        away,
        from,
        to,
    })
}

/// Connects the receivers and takes everything.
async fn fetch(host: &Host, stored: &Stored) -> Result<Vec<Seen>> {
    let run = Run::new(&host.tally);
    let mut devices = JoinSet::new();
    for (id, keys) in &stored.away {
        let (id, keys, target, run) = (*id, Arc::clone(keys), stored.target.clone(), run.clone());
        devices.spawn(async move {
            let device = keys.connect(&target).await?;
            let job = Job {
                from: Some(id),
                ..Job::default()
            };
            drive(device, job, run).await
        });
    }
    tokio::select! {
        done = reaches(expected(host, 1), || read(&host.tally.deliveries)) => done?,
        ended = devices.join_next() => {
            ended.context("no receivers")???;
            bail!("a receiver ended");
        }
    }
    // The last acknowledgements belong to it.
    tokio::time::sleep(Duration::from_millis(300)).await;
    run.over.cancel();
    collect(devices).await
}

/// Waits until a counter is there, or stands still.
async fn reaches(goal: u64, counter: impl Fn() -> u64) -> Result<()> {
    let (mut last, mut moved) = (counter(), tokio::time::Instant::now());
    while last < goal {
        tokio::time::sleep(LOOK).await;
        let now = counter();
        if now != last {
            (last, moved) = (now, tokio::time::Instant::now());
        } else if moved.elapsed() > STUCK {
            say(&format!(
                "{last} of {goal} have come, and nothing more comes"
            ));
            return Ok(());
        }
    }
    Ok(())
}
