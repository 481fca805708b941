//! `commucat-nodes`: several servers of one domain behind a load balancer, traffic, and faults of every
//! kind; shows that nothing acknowledged is lost, nothing is shown twice and order is kept. Before that:
//! limits that the nodes count together, and the right to send to another domain.

mod faults;
mod lease;
mod limits;
mod run;

use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use commucat_testkit::program::{self, say};

/// Three servers on one PostgreSQL and one Redis, under traffic and faults
#[derive(Debug, Parser)]
struct Args {
    /// How long faults go on
    #[arg(long, default_value_t = 60)]
    seconds: u64,

    /// Accounts that talk
    #[arg(long, default_value_t = 15)]
    accounts: usize,

    /// Devices of each
    #[arg(long, default_value_t = 4)]
    devices: usize,

    /// Longest rest of a device between two messages, in milliseconds
    #[arg(long, default_value_t = 1_500)]
    rests: u64,

    /// Repeat the random choices of another run
    #[arg(long)]
    seed: Option<u64>,

    /// Only this
    #[arg(long, value_enum)]
    only: Option<Part>,

    /// Level of the clients' log, or filters, on stderr
    #[arg(long, default_value = "error")]
    log: String,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Part {
    /// Limits that nodes count together.
    Limits,
    /// The right to send to another domain.
    Lease,
    /// Traffic and faults of every kind.
    Faults,
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    let work = async {
        let seed = program::seed(args.seed)?;
        let wants = |part| args.only.is_none_or(|only| only == part);
        if wants(Part::Limits) {
            say(&limits::run().await?);
        }
        if wants(Part::Lease) {
            say(&Box::pin(lease::run()).await?);
        }
        if !wants(Part::Faults) {
            return Ok(());
        }
        let plan = run::Plan {
            lasts: Duration::from_secs(args.seconds),
            accounts: args.accounts,
            devices: args.devices,
            rests_ms: args.rests,
        };
        say(&run::run(&plan, seed).await?);
        anyhow::Ok(())
    };
    program::run(&args.log, work).await
}
