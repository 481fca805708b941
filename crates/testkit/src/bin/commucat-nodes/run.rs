//! The run: people on all nodes, traffic, faults; and the verdict.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use commucat_testkit::company::{Company, Manners};
use commucat_testkit::domain::Domain;
use commucat_testkit::program::say;
use commucat_testkit::random::Random;
use commucat_testkit::report::{figures, no_panic};
use tokio::time::sleep;

use crate::faults::{Count, NAMES, happen};

/// One device in so many comes and goes.
const COMING_AND_GOING: usize = 5;

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
    let mut domain = Domain::start(&NAMES).await?;
    let first = domain.servers.first().context("no server")?;
    let company = Company::gather(first, plan.accounts, plan.devices).await?;
    say(&format!(
        "{} devices in {} rooms on {} nodes after {:.1} s",
        company.devices(),
        company.rooms(),
        domain.servers.len(),
        started.elapsed().as_secs_f64()
    ));

    let mut count = Count::new();
    let played = live(&mut domain, &company, plan, (&mut random, &mut count)).await;
    let (verdict, kept) = company.judge(&format!("commucat-nodes-{seed}"), &domain.servers)?;
    let line = line(&count, &figures(&verdict));
    if let Err(error) = played {
        say(&format!("{error:#}"));
    } else if verdict.is_good() && verdict.acknowledged > 0 {
        return Ok(format!("{line}\nhistory in {}", kept.display()));
    }
    say(&line);
    bail!("seed {seed}, history in {}", kept.display())
}

fn line(count: &Count, figures: &str) -> String {
    let faults: u32 = count.values().sum();
    let kinds: Vec<String> = count
        .iter()
        .map(|(fault, times)| format!("{fault:?} {times}"))
        .collect();
    format!("nodes: {faults} faults ({}), {figures}", kinds.join(", "))
}

/// Lets the devices talk while things happen; returns when all is quiet and compared.
async fn live(
    domain: &mut Domain,
    company: &Company,
    plan: &Plan,
    (random, count): (&mut Random, &mut Count),
) -> Result<()> {
    let manners = Manners {
        comes_and_goes: COMING_AND_GOING,
        rests_ms: plan.rests_ms,
    };
    company
        .play(manners, random, async |director, random| {
            let ends = Instant::now() + plan.lasts;
            let mut turn = 0;
            while Instant::now() < ends {
                director.progress().await?;
                sleep(random.wait(PAUSE_MS)).await;
                let fault = happen(domain, random, turn).await?;
                *count.entry(fault).or_default() += 1;
                turn += 1;
            }
            director.progress().await?;
            director.listen().await?;
            for server in &mut domain.servers {
                server.kill().await?;
                server.restart().await?;
            }
            director.last_words().await
        })
        .await?;
    for server in &domain.servers {
        no_panic(&server.stderr_file())?;
    }
    Ok(())
}
