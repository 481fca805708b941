//! Messages between devices that are all there.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::task::JoinSet;

use crate::args::{Args, Peer, Scenario};
use crate::host::{Host, Sample};
use crate::load::{Credit, Job, Run, Sending, drive};
use crate::nats;
use crate::relay::Bare;
use crate::report::{Row, expected, say};
use crate::setup;
use crate::socket;
use crate::stream::Plain;
use crate::tally::{Seen, read};

/// Before anything is measured.
const WARM_UP: Duration = Duration::from_secs(1);
/// Longest wait for what is under way at the end.
const LAST_WAIT: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(5);

/// How many senders there are, and receivers of each.
#[derive(Clone, Copy)]
struct Shape {
    groups: u32,
    receivers: u32,
}

impl Shape {
    fn of(args: &Args) -> Self {
        if args.scenario == Scenario::Fanout {
            return Self {
                groups: 2,
                receivers: args.devices(),
            };
        }
        Self {
            groups: (args.devices() / 2).max(1),
            receivers: 1,
        }
    }
}

pub(super) async fn run(args: &Args, host: &Host) -> Result<Row> {
    let shape = Shape::of(args);
    let run = Run::new(&host.tally);
    let mut devices = match args.peer {
        Peer::Commucat => commucat(args, host, shape, &run).await?,
        Peer::Relay | Peer::RelayAcked | Peer::Nats => bare(args, host, shape, &run).await?,
    };
    let (from, to) = tokio::select! {
        measured = measure(args, host, &run) => measured?,
        ended = devices.join_next() => {
            ended.context("no devices")???;
            bail!("a device ended");
        }
    };
    run.enough.cancel();
    let receivers = u64::from(shape.receivers);
    let acknowledged = match args.peer {
        Peer::Commucat | Peer::RelayAcked => &host.tally.acknowledged,
        Peer::Relay | Peer::Nats => &host.tally.sent,
    };
    settle(host, receivers, acknowledged).await;
    run.over.cancel();
    let seen = collect(devices).await?;
    let row = Row::between(args, host, &from, &to);
    Ok(row
        .per(to.deliveries - from.deliveries, &from, &to)
        .judged(seen, expected(host, receivers)))
}

async fn measure(args: &Args, host: &Host, run: &Run) -> Result<(Sample, Sample)> {
    let Some(count) = args.count() else {
        tokio::time::sleep(WARM_UP).await;
        say("measuring");
        let from = host.sample().await?;
        tokio::time::sleep(args.measured()).await;
        return Ok((from, host.sample().await?));
    };
    let from = host.sample().await?;
    while read(&run.tally.sent) < count {
        tokio::time::sleep(LOOK).await;
    }
    settle(host, 1, &host.tally.acknowledged).await;
    Ok((from, host.sample().await?))
}

/// Waits for everything that was sent.
async fn settle(host: &Host, receivers: u64, acknowledged: &AtomicU64) {
    let all = async {
        while read(acknowledged) < read(&host.tally.sent)
            || read(&host.tally.deliveries) < expected(host, receivers)
        {
            tokio::time::sleep(LOOK).await;
        }
    };
    if tokio::time::timeout(LAST_WAIT, all).await.is_err() {
        say("not everything that was sent has come");
    }
}

pub(super) async fn collect(mut devices: JoinSet<Result<Seen>>) -> Result<Vec<Seen>> {
    let mut all = Vec::new();
    while let Some(ended) = devices.join_next().await {
        all.push(ended??);
    }
    Ok(all)
}

pub(super) fn sending(args: &Args, id: u32, groups: u32, receivers: u32) -> Sending {
    let groups_wide = u64::from(groups);
    Sending {
        id,
        outstanding: args.outstanding().into(),
        quota: args.count().map(|count| count / groups_wide),
        interval: args
            .rate()
            .map(|rate| Duration::from_secs(1) * groups / rate),
        receivers: receivers.into(),
    }
}

/// What the first device of a group does, and the others.
fn jobs(
    args: &Args,
    shape: Shape,
    id: u32,
    credit: Option<&Arc<Credit>>,
) -> impl Iterator<Item = Job> {
    let first = Job {
        sending: Some(sending(args, id, shape.groups, shape.receivers)),
        credit: credit.cloned(),
        from: None,
    };
    let credit = credit.cloned();
    let others = (0..shape.receivers).map(move |_| Job {
        sending: None,
        credit: credit.clone(),
        from: Some(id),
    });
    std::iter::once(first).chain(others)
}

async fn commucat(
    args: &Args,
    host: &Host,
    shape: Shape,
    run: &Run,
) -> Result<JoinSet<Result<Seen>>> {
    let targets = host.targets().await?;
    let size = usize::try_from(shape.receivers + 1)?;
    let groups = setup::groups(args, &targets, usize::try_from(shape.groups)?, size).await?;
    let mut devices = JoinSet::new();
    for (id, group) in (0..).zip(groups) {
        for (job, member) in jobs(args, shape, id, None).zip(group) {
            devices.spawn(drive(member.device, job, run.clone()));
        }
    }
    Ok(devices)
}

async fn bare(args: &Args, host: &Host, shape: Shape, run: &Run) -> Result<JoinSet<Result<Seen>>> {
    let payload = usize::try_from(args.payload)?;
    let (mut relayed, mut published) = (Vec::new(), Vec::new());
    for id in 0..shape.groups {
        let credit = (args.peer != Peer::RelayAcked).then(|| Arc::new(Credit::default()));
        for job in jobs(args, shape, id, credit.as_ref()) {
            let listens = job.from.is_some();
            let (address, connector) = (host.address, &host.connector);
            if args.peer == Peer::Nats {
                let (tls, codec) =
                    nats::connect(address, connector, &host.tally, id, listens).await?;
                published.push((tls, codec, job));
            } else {
                let mut tls = socket::connect(address, connector, &host.tally).await?;
                Bare::enter(&mut tls, id, listens).await?;
                relayed.push((tls, job));
            }
        }
    }
    // Neither keeps a message for a listener that it has not seen yet.
    tokio::time::sleep(WARM_UP).await;
    let mut devices = JoinSet::new();
    for (tls, codec, job) in published {
        devices.spawn(drive(Plain::new(tls, codec, payload), job, run.clone()));
    }
    for (tls, job) in relayed {
        let mut device = Plain::new(tls, Bare, payload);
        if args.peer == Peer::RelayAcked {
            device = device.acknowledged(job.from.is_some());
        }
        devices.spawn(drive(device, job, run.clone()));
    }
    Ok(devices)
}
