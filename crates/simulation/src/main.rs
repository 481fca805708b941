//! `commucat-simulation`: seed after seed, until one shows something that must not happen.

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use clap::Parser;
use commucat_simulation::plant::Plant;
use commucat_simulation::{Counts, Report, Trace, run};

/// Plays domains, clients and faults in virtual time
#[derive(Debug, Parser)]
#[command(version, about)]
struct Args {
    /// How many seeds to play
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// The first of them
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// Play this seed only
    #[arg(long)]
    seed: Option<u64>,
    /// Print what happens (with --seed)
    #[arg(long, requires = "seed")]
    trace: bool,
    /// Plant a mistake, which has to be found
    #[arg(long)]
    plant: Option<Plant>,
    /// Plant every mistake, one after the other; each has to be found
    #[arg(long, conflicts_with_all = ["plant", "seed"])]
    plants: bool,
    /// Threads
    #[arg(long, default_value_t = 2)]
    jobs: u64,
}

fn main() -> ExitCode {
    let args = Args::parse();
    if let Some(seed) = args.seed {
        return one(seed, args.plant, args.trace);
    }
    if args.plants {
        let found = Plant::all().iter().filter(|plant| planted(&args, **plant));
        let (found, all) = (found.count(), Plant::all().len());
        say(&format!(
            "planted mistakes: {found} of {all} found within {} seeds each",
            args.seeds
        ));
        return if found == all {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        };
    }
    match args.plant {
        Some(plant) if planted(&args, plant) => ExitCode::SUCCESS,
        Some(_) => ExitCode::FAILURE,
        None => clean(&args),
    }
}

/// Plays one seed.
fn one(seed: u64, plant: Option<Plant>, trace: bool) -> ExitCode {
    let trace = if trace { Trace::Print } else { Trace::Silent };
    match run(seed, plant, trace) {
        Some(report) => {
            say(&format!("seed {seed}: {report:?}"));
            if report.complaint.is_none() {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
        None => ExitCode::FAILURE,
    }
}

/// Plays seeds in which nothing may be found.
fn clean(args: &Args) -> ExitCode {
    let started = Instant::now();
    let totals = Mutex::new(Totals::default());
    let found = search(args, None, |report| {
        totals
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .add(report);
    });
    let totals = totals.into_inner().unwrap_or_else(PoisonError::into_inner);
    if let Some((seed, complaint)) = found {
        say(&format!("seed {seed}: {complaint}"));
        say(&format!("again: commucat-simulation --seed {seed} --trace"));
        return ExitCode::FAILURE;
    }
    say(&format!(
        "simulation: {} seeds, {} events, {} virtual minutes, {} texts, {} shown, {} too late, {} refused or expired, {} told of gaps, {} commits, {} came in from outside, {} told of forks, {} faults, 0 findings in {:.1} s",
        args.seeds,
        totals.steps,
        totals.time_ms / 60_000,
        totals.counts.texts,
        totals.counts.shown,
        totals.counts.late,
        totals.counts.dropped,
        totals.counts.gaps,
        totals.counts.commits,
        totals.counts.came_in,
        totals.counts.forks,
        totals.counts.faults,
        started.elapsed().as_secs_f64(),
    ));
    ExitCode::SUCCESS
}

/// Plays seeds until the planted mistake is found.
fn planted(args: &Args, plant: Plant) -> bool {
    let found = search(args, Some(plant), |_| {});
    match &found {
        Some((seed, complaint)) => say(&format!("{}: seed {seed}: {complaint}", plant.name())),
        None => say(&format!(
            "{}: NOT FOUND in {} seeds",
            plant.name(),
            args.seeds
        )),
    }
    found.is_some()
}

/// The lowest seed of those played that shows something; all are played if none does.
fn search(
    args: &Args,
    plant: Option<Plant>,
    each: impl Fn(&Report) + Sync,
) -> Option<(u64, String)> {
    let next = AtomicU64::new(args.first);
    let found: Mutex<Option<(u64, String)>> = Mutex::new(None);
    let end = args.first.saturating_add(args.seeds);
    std::thread::scope(|scope| {
        for _ in 0..args.jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        return;
                    }
                    let Some(report) = run(seed, plant, Trace::Silent) else {
                        return;
                    };
                    each(&report);
                    if let Some(complaint) = report.complaint {
                        next.store(end, Ordering::Relaxed);
                        let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
                        if found.as_ref().is_none_or(|(other, _)| seed < *other) {
                            *found = Some((seed, complaint));
                        }
                    }
                }
            });
        }
    });
    found.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// What all seeds came to.
#[derive(Debug, Default)]
struct Totals {
    counts: Counts,
    steps: u64,
    time_ms: u64,
}

impl Totals {
    const fn add(&mut self, report: &Report) {
        self.steps += report.steps;
        self.time_ms += report.time_ms;
        self.counts.texts += report.counts.texts;
        self.counts.acked += report.counts.acked;
        self.counts.shown += report.counts.shown;
        self.counts.late += report.counts.late;
        self.counts.dropped += report.counts.dropped;
        self.counts.gaps += report.counts.gaps;
        self.counts.commits += report.counts.commits;
        self.counts.came_in += report.counts.came_in;
        self.counts.forks += report.counts.forks;
        self.counts.faults += report.counts.faults;
    }
}

#[expect(clippy::print_stdout, reason = "the result is what was asked for")]
fn say(line: &str) {
    println!("{line}");
}
