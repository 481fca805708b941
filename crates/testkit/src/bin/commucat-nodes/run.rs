//! The run: people on all nodes, traffic, faults; and the verdict.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use commucat_client::Client;
use commucat_testkit::checker::{self, Verdict};
use commucat_testkit::history::{Act, Key};
use commucat_testkit::people::{Circle, PREPARATION, Room};
use commucat_testkit::random::Random;
use commucat_testkit::recorder::Recorder;
use commucat_testkit::traffic::{Manner, Phase, Player, STILL_WAIT, Way, read_all, settle};
use tokio::sync::{Barrier, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::domain::Domain;
use crate::faults::{Count, happen};
use crate::say;

/// One device in so many comes and goes.
const COMING_AND_GOING: usize = 5;

/// Accounts of the group.
const GROUP_MAX: usize = 5;

/// Longest pause between two faults.
const PAUSE_MS: u64 = 4_000;

/// What is run.
pub(crate) struct Plan {
    pub(crate) lasts: Duration,
    pub(crate) accounts: usize,
    pub(crate) devices: usize,
    pub(crate) rests_ms: u64,
}

/// Runs the suite; the line of figures.
pub(crate) async fn run(plan: &Plan, seed: u64) -> Result<String> {
    let mut random = Random::new(seed);
    let started = Instant::now();
    let mut domain = Domain::start().await?;
    let directory = tempfile::tempdir()?;
    let names: Vec<String> = (0..plan.accounts)
        .map(|one| format!("person{one}"))
        .collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let first = domain.servers.first().context("no server")?;
    let circle = Circle::gather(first, directory.path(), &names, plan.devices).await?;
    let rooms = rooms(&circle).await?;
    say(&format!(
        "{} devices in {} rooms on {} nodes after {:.1} s",
        circle.seats.len(),
        rooms.len(),
        domain.servers.len(),
        started.elapsed().as_secs_f64()
    ));

    let recorder = Recorder::new(rooms.iter().map(|room| room.seats.clone()).collect());
    let mut count = Count::new();
    let judged = async {
        let stage = (&circle, rooms.as_slice(), &recorder);
        let clients = live(&mut domain, stage, plan, (&mut random, &mut count)).await?;
        compare(&recorder, &clients, &rooms).await?;
        for server in &domain.servers {
            let log = std::fs::read_to_string(server.stderr_file())?;
            ensure!(!log.contains("panicked"), "a server panicked");
        }
        anyhow::Ok(())
    };
    let judged = judged.await;
    let history = recorder.history();
    let verdict = checker::check(&history);
    let line = line(&count, &verdict);
    let kept = std::env::temp_dir().join(format!("commucat-nodes-{seed}"));
    std::fs::create_dir_all(&kept)?;
    history.write(&kept.join("history.jsonl"))?;
    if judged.is_ok() && verdict.is_good() && verdict.acknowledged > 0 {
        return Ok(format!("{line}\nhistory in {}", kept.display()));
    }
    keep(&domain, &verdict, &kept)?;
    if let Err(error) = judged {
        say(&format!("{error:#}"));
    }
    say(&line);
    bail!("seed {seed}, history in {}", kept.display())
}

/// Each account talks with the next one, and a few in a group.
async fn rooms(circle: &Circle) -> Result<Vec<Room>> {
    let accounts = circle.names.len();
    let mut rooms = Vec::new();
    let group: Vec<usize> = (0..accounts.min(GROUP_MAX)).collect();
    rooms.push(circle.group_of(&group).await?);
    for one in 0..accounts {
        rooms.push(circle.pair(one, (one + 1) % accounts).await?);
    }
    Ok(rooms)
}

fn line(count: &Count, verdict: &Verdict) -> String {
    let faults: u32 = count.values().sum();
    let kinds: Vec<String> = count
        .iter()
        .map(|(fault, times)| format!("{fault:?} {times}"))
        .collect();
    format!(
        "nodes: {faults} faults ({}), {} sent, {} acknowledged, {} lost, {} twice, {} out of order, \
         {} from nowhere",
        kinds.join(", "),
        verdict.sent,
        verdict.acknowledged,
        verdict.lost.len(),
        verdict.twice.len(),
        verdict.disordered.len(),
        verdict.alien.len(),
    )
}

/// Writes verdict and logs beside the history.
fn keep(domain: &Domain, verdict: &Verdict, directory: &Path) -> Result<()> {
    std::fs::write(directory.join("verdict"), format!("{verdict:#?}\n"))?;
    for (number, server) in domain.servers.iter().enumerate() {
        let log = directory.join(format!("server-{number}.log"));
        std::fs::copy(server.stderr_file(), log)?;
    }
    Ok(())
}

/// Lets the devices talk while things happen; returns when all is quiet.
async fn live(
    domain: &mut Domain,
    (circle, rooms, recorder): (&Circle, &[Room], &Recorder),
    plan: &Plan,
    (random, count): (&mut Random, &mut Count),
) -> Result<Vec<Client>> {
    let (phase, told) = watch::channel(Phase::Talk);
    let drained = Arc::new(Barrier::new(circle.seats.len() + 1));
    let mut players = JoinSet::new();
    for (device, seat) in circle.seats.iter().enumerate() {
        let manner = if device % COMING_AND_GOING == COMING_AND_GOING - 1 {
            Manner::ComesAndGoes
        } else {
            Manner::Stays
        };
        let way = Way {
            manner,
            rests_ms: plan.rests_ms,
            phase: told.clone(),
            drained: Arc::clone(&drained),
        };
        let player = Player::new(circle, device, (rooms, recorder), &way, random)?;
        let client = seat.client.clone();
        players.spawn(async move { anyhow::Ok((device, player.live(client).await?)) });
    }

    let played = async {
        let ends = Instant::now() + plan.lasts;
        let mut turn = 0;
        while Instant::now() < ends {
            progress(recorder).await?;
            sleep(random.wait(PAUSE_MS)).await;
            let fault = happen(domain, random, turn).await?;
            *count.entry(fault).or_default() += 1;
            turn += 1;
        }
        progress(recorder).await?;
        phase.send_replace(Phase::Listen);
        all_quiet(recorder, &drained).await?;
        // What a server held back or would send again shows itself before the last words.
        for server in &mut domain.servers {
            server.kill().await?;
            server.restart().await?;
        }
        phase.send_replace(Phase::Last);
        all_quiet(recorder, &drained).await?;
        phase.send_replace(Phase::End);
        anyhow::Ok(())
    };
    tokio::select! {
        done = played => done?,
        Some(ended) = players.join_next() => {
            ended??;
            bail!("a device ended too early");
        }
    }
    let mut clients = Vec::new();
    while let Some(ended) = players.join_next().await {
        clients.push(ended??);
    }
    clients.sort_by_key(|(device, _)| *device);
    Ok(clients.into_iter().map(|(_, client)| client).collect())
}

/// Waits until something is acknowledged.
async fn progress(recorder: &Recorder) -> Result<()> {
    let mut progress = recorder.progress();
    let before = progress.borrow().acknowledged;
    let more = progress.wait_for(|progress| progress.acknowledged > before);
    let seen = timeout(STILL_WAIT, more).await;
    drop(seen.context("nothing is acknowledged any more")??);
    Ok(())
}

/// Waits until the servers have custody of everything, then until all devices have it.
async fn all_quiet(recorder: &Recorder, drained: &Barrier) -> Result<()> {
    drained.wait().await;
    settle(recorder).await
}

/// Compares what the devices showed with the histories that they keep.
async fn compare(recorder: &Recorder, clients: &[Client], rooms: &[Room]) -> Result<()> {
    let history = recorder.history();
    for (device, client) in clients.iter().enumerate() {
        for (room, one) in rooms.iter().enumerate() {
            if !one.seats.contains(&device) {
                continue;
            }
            let kept = read_all(client, &one.name).await?;
            let kept = kept.iter().filter(|(text, _)| text != PREPARATION);
            let kept: Vec<_> = kept.map(|(text, _)| Key::parse(text)).collect();
            let shown = history.entries.iter().filter_map(|entry| match entry.act {
                Act::Show(key) if entry.device == device && key.room == room => Some(Some(key)),
                Act::Send(_) | Act::Ack(_) | Act::Show(_) | Act::ShowUnknown => None,
            });
            ensure!(
                shown.eq(kept),
                "device {device} keeps another history of room {room} than it showed"
            );
        }
        client.shutdown().await;
    }
    Ok(())
}
