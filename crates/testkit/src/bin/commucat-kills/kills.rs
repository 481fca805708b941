//! The cycles: traffic, death or succession, another life; and the verdict.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use commucat_client::Client;
use commucat_testkit::checker::{self, Verdict};
use commucat_testkit::history::{Act, History, Key};
use commucat_testkit::people::{Circle, PREPARATION, Room};
use commucat_testkit::random::Random;
use commucat_testkit::recorder::Recorder;
use commucat_testkit::server::{Backend, Options, START_WAIT, Server};
use commucat_testkit::traffic::{Manner, Phase, Player, STILL_WAIT, Way, read_all, settle};
use tokio::sync::{Barrier, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::prober::{self, Tally};
use crate::{grouped, say};

const NAMES: [&str; 3] = ["alice", "bob", "carol"];
const DEVICES: usize = 2;
/// The second devices of the first two come and go.
const COMING_AND_GOING: [usize; 2] = [1, 3];
/// Longest that the traffic runs before a kill, once it runs, and that the server is away.
const RUNS_MS: u64 = 1_500;
const AWAY_MS: u64 = 250;
/// Longest from a kill while starting to the start.
const STARTS_MS: u64 = 300;

/// How the lives of the server end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Ends {
    /// Killed; once of it by SIGTERM.
    Kill,
    /// Another process takes over.
    Upgrade,
}

/// Runs the suite; the line of figures.
pub(crate) async fn run(
    (cycles, ends): (u32, Ends),
    seed: u64,
    backend: Backend,
) -> Result<String> {
    let mut random = Random::new(seed);
    let started = Instant::now();
    let mut server = Server::start(Options::default().for_load().on(backend)).await?;
    let directory = tempfile::tempdir()?;
    let circle = Circle::gather(&server, directory.path(), &NAMES, DEVICES).await?;
    let rooms = [
        circle.group().await?,
        circle.pair(0, 1).await?,
        circle.pair(1, 2).await?,
        circle.pair(0, 2).await?,
    ];
    say(&format!(
        "{} devices in {} rooms after {:.1} s",
        circle.seats.len(),
        rooms.len(),
        started.elapsed().as_secs_f64()
    ));

    let recorder = Recorder::new(rooms.iter().map(|room| room.seats.clone()).collect());
    let probes = Tally::default();
    let judged = async {
        let plan = (cycles, ends, &probes);
        let clients = live(&mut server, &circle, (&rooms, &recorder), plan, &mut random).await?;
        compare(&recorder, &clients, &rooms).await?;
        let log = std::fs::read_to_string(server.stderr_file())?;
        ensure!(!log.contains("panicked"), "the server panicked");
        anyhow::Ok(())
    };
    let judged = judged.await;
    let history = recorder.history();
    let verdict = checker::check(&history);
    let line = match ends {
        Ends::Kill => line(&format!("kills: {cycles} cycles"), &verdict),
        Ends::Upgrade => line(&format!("upgrade: {cycles} hand-overs, {probes}"), &verdict),
    };
    if judged.is_ok() && verdict.is_good() && verdict.acknowledged > 0 {
        return Ok(line);
    }
    let kept = keep(&history, &verdict, &server, seed)?;
    if let Err(error) = judged {
        say(&format!("{error:#}"));
    }
    say(&line);
    bail!("seed {seed}, history in {}", kept.display())
}

fn line(what: &str, verdict: &Verdict) -> String {
    let mut line = format!(
        "{what}, {} acknowledged, {} lost, {} twice",
        grouped(verdict.acknowledged),
        verdict.lost.len(),
        verdict.twice.len()
    );
    if !verdict.disordered.is_empty() || !verdict.alien.is_empty() {
        line.push_str(&format!(
            ", {} out of order, {} from nowhere",
            verdict.disordered.len(),
            verdict.alien.len()
        ));
    }
    line
}

/// Writes history, verdict and the server's log where they outlive the run.
fn keep(history: &History, verdict: &Verdict, server: &Server, seed: u64) -> Result<PathBuf> {
    let directory = std::env::temp_dir().join(format!("commucat-kills-{seed}"));
    std::fs::create_dir_all(&directory)?;
    history.write(&directory.join("history.jsonl"))?;
    std::fs::write(directory.join("verdict"), format!("{verdict:#?}\n"))?;
    std::fs::copy(server.stderr_file(), directory.join("server.log"))?;
    Ok(directory)
}

/// Lets the devices talk while the server dies and comes back; returns when all is quiet.
async fn live(
    server: &mut Server,
    circle: &Circle,
    (rooms, recorder): (&[Room], &Recorder),
    (cycles, ends, probes): (u32, Ends, &Tally),
    random: &mut Random,
) -> Result<Vec<Client>> {
    let (phase, told) = watch::channel(Phase::Talk);
    let drained = Arc::new(Barrier::new(circle.seats.len() + 1));
    let mut players = JoinSet::new();
    for (device, seat) in circle.seats.iter().enumerate() {
        let manner = if COMING_AND_GOING.contains(&device) {
            Manner::ComesAndGoes
        } else {
            Manner::Stays
        };
        let way = Way {
            manner,
            rests_ms: 0,
            phase: told.clone(),
            drained: Arc::clone(&drained),
        };
        let player = Player::new(circle, device, (rooms, recorder), &way, random)?;
        let client = seat.client.clone();
        players.spawn(async move { anyhow::Ok((device, player.live(client).await?)) });
    }

    let played = async {
        let port = server.port();
        let lives = async {
            for cycle in 0..cycles {
                let end = match ends {
                    Ends::Upgrade => End::Upgrade,
                    Ends::Kill if cycle == cycles / 2 => End::Term,
                    Ends::Kill => End::Kill,
                };
                one_cycle(server, recorder, random, end).await?;
            }
            anyhow::Ok(())
        };
        match ends {
            Ends::Kill => lives.await?,
            Ends::Upgrade => prober::during(lives, port, probes).await?,
        }
        phase.send_replace(Phase::Listen);
        all_quiet(recorder, &drained).await?;
        // What the server held back or would send again shows itself before the last words.
        server.kill().await?;
        server.restart().await?;
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

/// Waits until the server has custody of everything, then until all devices have it.
async fn all_quiet(recorder: &Recorder, drained: &Barrier) -> Result<()> {
    // Whoever has an outbox that does not empty gives up before.
    drained.wait().await;
    settle(recorder).await
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum End {
    Kill,
    Term,
    Upgrade,
}

/// One life of the server, from its running to its running again.
async fn one_cycle(
    server: &mut Server,
    recorder: &Recorder,
    random: &mut Random,
    end: End,
) -> Result<()> {
    // Most lives are long enough for acknowledgements, some end while the devices come back.
    let is_long = end != End::Kill || random.below(4) > 0;
    if is_long {
        let mut progress = recorder.progress();
        let before = progress.borrow().acknowledged;
        let more = progress.wait_for(|progress| progress.acknowledged > before);
        let seen = timeout(STILL_WAIT, more).await;
        drop(seen.context("nothing is acknowledged any more")??);
    }
    sleep(random.wait(if is_long { RUNS_MS } else { STARTS_MS })).await;
    ensure!(server.is_running(), "the server ended by itself");
    match end {
        End::Term => {
            let status = server.terminate().await?;
            ensure!(status.success(), "SIGTERM ended with {status}");
        }
        End::Kill => server.kill().await?,
        End::Upgrade => {
            let status = server.upgrade().await?;
            ensure!(
                status.success(),
                "a server that handed over ended with {status}"
            );
            return Ok(());
        }
    }
    sleep(random.wait(AWAY_MS)).await;
    if random.below(6) == 0 {
        // Killed while it starts.
        server.launch()?;
        sleep(random.wait(STARTS_MS)).await;
        server.kill().await?;
    }
    timeout(START_WAIT, server.restart()).await?
}

/// Compares what the devices showed with the histories that they keep.
async fn compare(recorder: &Recorder, clients: &[Client], rooms: &[Room]) -> Result<()> {
    for (device, client) in clients.iter().enumerate() {
        for (room, one) in rooms.iter().enumerate() {
            if !one.seats.contains(&device) {
                continue;
            }
            let kept = read_all(client, &one.name).await?;
            let kept = kept.iter().filter(|(text, _)| text != PREPARATION);
            let kept: Vec<_> = kept.map(|(text, _)| Key::parse(text)).collect();
            let history = recorder.history();
            let shown = history.entries.iter().filter_map(|entry| match entry.act {
                Act::Show(key) if entry.device == device && key.room == room => Some(Some(key)),
                Act::Send(_) | Act::Ack(_) | Act::Show(_) | Act::ShowUnknown => None,
            });
            let is_same = shown.eq(kept);
            ensure!(
                is_same,
                "device {device} keeps another history of room {room} than it showed"
            );
        }
        client.shutdown().await;
    }
    Ok(())
}
