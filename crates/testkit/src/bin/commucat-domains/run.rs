//! The run: people of all domains, traffic, faults, changes of the group; and the verdict.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use commucat_client::Client;
use commucat_testkit::checker::{self, Verdict};
use commucat_testkit::people::{Circle, Room, invite};
use commucat_testkit::program::say;
use commucat_testkit::random::Random;
use commucat_testkit::recorder::Recorder;
use commucat_testkit::report::{self, no_panic};
use commucat_testkit::stage::{Director, Stage};
use commucat_testkit::traffic::Manner;
use tokio::time::sleep;

use crate::churn::Guests;
use crate::faults::{Count, Most, happen};
use crate::homes::Homes;

/// The people, one of each domain.
const NAMES: [&str; 3] = ["alice", "bob", "carol"];

/// Longest pause between two faults.
const PAUSE_MS: u64 = 1_500;

/// A fault that is no cut lasts at most this part of the run.
const FAULT_PART: u32 = 15;

/// What is run.
pub(crate) struct Plan {
    pub(crate) lasts: Duration,
    pub(crate) cut_max: Duration,
    pub(crate) devices: usize,
    pub(crate) rests_ms: u64,
}

/// What came of it, beside the history.
#[derive(Default)]
struct Outcome {
    count: Count,
    /// From the end of the last fault until everything was with everybody.
    healed: Duration,
    /// Where all agree at the end.
    position: u64,
}

/// Runs the suite; the line of figures.
pub(crate) async fn run(plan: &Plan, seed: u64) -> Result<String> {
    let mut random = Random::new(seed);
    let started = Instant::now();
    let directory = tempfile::Builder::new().prefix("cc-").tempdir()?;
    let mut homes = Homes::start(directory.path(), &mut random).await?;
    let circle = gather(&homes, directory.path(), plan.devices).await?;
    let rooms = [
        circle.group().await?,
        circle.pair(0, 1).await?,
        circle.pair(1, 2).await?,
        circle.pair(2, 0).await?,
    ];
    let guests = Guests::arrive(&homes, &circle, directory.path()).await?;
    say(&format!(
        "{} devices in {} rooms of {} domains with {} servers after {:.1} s",
        circle.seats.len(),
        rooms.len(),
        homes.all.len(),
        homes.servers().count(),
        started.elapsed().as_secs_f64()
    ));

    let recorder = Recorder::new(rooms.iter().map(|room| room.seats.clone()).collect());
    let stage = Stage {
        circle: &circle,
        rooms: &rooms,
        recorder: &recorder,
        rests_ms: plan.rests_ms,
    };
    let mut outcome = Outcome::default();
    let judged = async {
        let clients = live(
            &mut homes,
            (stage, &guests),
            plan,
            (&mut random, &mut outcome),
        )
        .await?;
        let [group, ..] = &rooms;
        outcome.position = guests.settle((&circle, &clients), group).await?;
        stage.compare(&clients).await?;
        for server in homes.servers() {
            no_panic(&server.stderr_file())?;
        }
        anyhow::Ok(())
    };
    let judged = judged.await;
    let history = recorder.history();
    let verdict = checker::check(&history);
    let line = line(&outcome, &verdict);
    if judged.is_ok() && verdict.is_good() && verdict.acknowledged > 0 {
        return Ok(line);
    }
    let name = format!("commucat-domains-{seed}");
    let kept = report::keep(&name, (&history, &verdict), homes.servers())?;
    if let Err(error) = judged {
        say(&format!("{error:#}"));
    }
    say(&line);
    bail!("seed {seed}, history in {}", kept.display())
}

/// One person in each domain.
async fn gather(homes: &Homes, directory: &Path, devices: usize) -> Result<Circle> {
    let mut invites = Vec::new();
    for home in &homes.all {
        invites.push(invite(home.server()?, 1).await?);
    }
    let people: Vec<_> = NAMES
        .into_iter()
        .zip(invites.iter().map(String::as_str))
        .collect();
    Circle::gather_by(directory, &people, devices).await
}

/// Lets the devices talk while things happen; returns when all is quiet.
async fn live(
    homes: &mut Homes,
    (stage, guests): (Stage<'_>, &Guests),
    plan: &Plan,
    (random, outcome): (&mut Random, &mut Outcome),
) -> Result<Vec<Client>> {
    // The second devices come and go.
    let manner = |device| {
        if device % plan.devices == 1 {
            Manner::ComesAndGoes
        } else {
            Manner::Stays
        }
    };
    let (director, mut cast) = stage.begin(random, manner)?;
    let played = async {
        trouble(homes, &director, (stage, guests), plan, (random, outcome)).await?;
        let healed = Instant::now();
        director.listen().await?;
        outcome.healed = healed.elapsed();
        // What a server held back or would send again shows itself before the last words.
        for server in homes.servers_mut() {
            server.kill().await?;
            server.restart().await?;
        }
        director.last_words().await?;
        director.end();
        anyhow::Ok(())
    };
    cast.during(played).await?;
    cast.clients().await
}

async fn trouble(
    homes: &mut Homes,
    director: &Director,
    (stage, guests): (Stage<'_>, &Guests),
    plan: &Plan,
    (random, outcome): (&mut Random, &mut Outcome),
) -> Result<()> {
    let ends = Instant::now() + plan.lasts;
    let most = Most {
        cut: plan.cut_max,
        other: plan.lasts / FAULT_PART,
    };
    let group: &Room = stage.rooms.first().context("no group")?;
    let mut turn = 0;
    while Instant::now() < ends {
        director.progress().await?;
        // Half of the changes are made while something is wrong.
        if turn % 2 == 0 {
            guests.come(stage.circle, group).await?;
        } else {
            guests.go(stage.circle, group).await?;
        }
        sleep(random.wait(PAUSE_MS)).await;
        let fault = happen(homes, random, (turn, most)).await?;
        *outcome.count.entry(fault).or_default() += 1;
        turn += 1;
    }
    director.progress().await?;
    Ok(())
}

fn line(outcome: &Outcome, verdict: &Verdict) -> String {
    let faults: u32 = outcome.count.values().sum();
    let kinds = outcome.count.iter();
    let kinds: Vec<String> = kinds
        .map(|(fault, times)| format!("{fault:?} {times}"))
        .collect();
    format!(
        "domains: {faults} faults ({}), {} sent, {} acknowledged, {} shown, {} lost, {} twice, {} out of order, {} from \
         nowhere; all with everybody {:.1} s after the last fault; all agree at position {}",
        kinds.join(", "),
        verdict.sent,
        verdict.acknowledged,
        verdict.shown,
        verdict.lost.len(),
        verdict.twice.len(),
        verdict.disordered.len(),
        verdict.alien.len(),
        outcome.healed.as_secs_f64(),
        outcome.position,
    )
}
