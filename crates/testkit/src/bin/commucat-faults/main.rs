//! `commucat-faults`: what a domain depends on breaks, one thing after the other, under traffic; shows
//! that nothing acknowledged is lost or shown twice, that `/readyz` and metrics tell, that memory stays bounded and
//! that the service comes back by itself.

mod disk;
mod memory;
mod services;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use clap::{Parser, ValueEnum};
use commucat_testkit::company::{Company, Manners};
use commucat_testkit::program::{self, say};
use commucat_testkit::report::{figures, no_panic};
use commucat_testkit::server::Server;
use commucat_testkit::server::metrics::Metrics;
use tokio::time::{sleep, timeout};

/// Break PostgreSQL, Redis and the disk under traffic, one by one
#[derive(Debug, Parser)]
struct Args {
    /// How long PostgreSQL and Redis are stopped where they are, in seconds
    #[arg(long, default_value_t = 20)]
    pause: u64,

    /// Only these
    #[arg(long, value_enum)]
    only: Option<Part>,

    /// Repeat the random choices of another run
    #[arg(long)]
    seed: Option<u64>,

    /// Level of the clients' log, or filters, on stderr
    #[arg(long, default_value = "error")]
    log: String,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Part {
    /// PostgreSQL and Redis under two nodes.
    Services,
    /// A full disk under the embedded store.
    Disk,
}

/// People of a part.
const ACCOUNTS: usize = 3;
const DEVICES: usize = 2;

/// Half of the devices come and go, so that the store is used at all times.
const MANNERS: Manners = Manners {
    comes_and_goes: 2,
    rests_ms: 40,
};

/// What stands in the way of serving, by its cause.
const NOT_READY: &str = "commucat_not_ready";

/// Longest that a metric may take to tell.
const TELL_WAIT: Duration = Duration::from_secs(60);

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    let work = async {
        let seed = program::seed(args.seed)?;
        if args.only != Some(Part::Disk) {
            Box::pin(services::run(Duration::from_secs(args.pause), seed)).await?;
        }
        if args.only != Some(Part::Services) {
            Box::pin(disk::run(seed)).await?;
        }
        anyhow::Ok(())
    };
    program::run(&args.log, work).await
}

/// Judges a part that was played: `played` is what came of it.
fn judge(
    part: &str,
    seed: u64,
    company: &Company,
    servers: &[Server],
    played: Result<()>,
) -> Result<()> {
    let (verdict, kept) = company.judge(&format!("commucat-faults-{part}-{seed}"), servers)?;
    say(&format!("{part}: {}", figures(&verdict)));
    let kept = || format!("{part}, seed {seed}, history in {}", kept.display());
    played.with_context(kept)?;
    ensure!(verdict.is_good() && verdict.acknowledged > 0, kept());
    for server in servers {
        no_panic(&server.stderr_file())?;
    }
    Ok(())
}

/// Waits until the metrics of the servers together say something; the sum of their values.
async fn told(
    servers: &[Server],
    (name, what): (&str, &str),
    is_told: impl Fn(u64) -> bool,
) -> Result<u64> {
    let waiting = async {
        loop {
            let value = total(servers, name).await?;
            if is_told(value) {
                return anyhow::Ok(value);
            }
            sleep(Duration::from_millis(100)).await;
        }
    };
    let told = timeout(TELL_WAIT, waiting).await;
    told.with_context(|| format!("{name} does not tell that {what}"))?
}

/// Waits until `/readyz` and the metrics of all servers say alike that this is in their way, or nothing.
async fn hindered(servers: &[Server], cause: Option<&str>) -> Result<()> {
    let waiting = async {
        while !are_hindered(servers, cause).await? {
            sleep(Duration::from_millis(100)).await;
        }
        anyhow::Ok(())
    };
    let said = timeout(TELL_WAIT, waiting).await;
    said.with_context(|| format!("the servers do not say what is in their way: {cause:?}"))?
}

async fn are_hindered(servers: &[Server], cause: Option<&str>) -> Result<bool> {
    for server in servers {
        let label = cause.map_or_else(String::new, |cause| format!("cause=\"{cause}\""));
        let metrics = server.metrics().await?;
        let is_told = metrics.sum(NOT_READY, &label) == u64::from(cause.is_some());
        if !is_told || server.hindrance().await?.as_deref() != cause {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The sum of a metric over servers.
async fn total(servers: &[Server], name: &str) -> Result<u64> {
    let mut sum = 0;
    for server in servers {
        let metrics: Metrics = server.metrics().await?;
        sum += metrics.sum(name, "");
    }
    Ok(sum)
}
