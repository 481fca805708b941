//! `commucat-domains`: three domains whose people talk in pairs and in a group, while domains are
//! killed, held and cut off from each other and everybody changes the group at once; shows that what
//! was acknowledged is shown once and in order, and that all agree on who is in the group.

mod churn;
mod faults;
mod homes;
mod run;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use commucat_testkit::program::{self, say};

/// Three domains under traffic and faults
#[derive(Debug, Parser)]
struct Args {
    /// How long faults go on
    #[arg(long, default_value_t = 60)]
    seconds: u64,

    /// Longest time that two domains do not reach each other, in seconds; by default a quarter of
    /// the run
    #[arg(long)]
    cut: Option<u64>,

    /// Devices of each person
    #[arg(long, default_value_t = 2)]
    devices: usize,

    /// Longest rest of a device between two messages, in milliseconds
    #[arg(long, default_value_t = 600)]
    rests: u64,

    /// Repeat the random choices of another run
    #[arg(long)]
    seed: Option<u64>,

    /// Level of the clients' log, or filters, on stderr
    #[arg(long, default_value = "error")]
    log: String,
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    let work = async {
        let seed = program::seed(args.seed)?;
        let plan = run::Plan {
            lasts: Duration::from_secs(args.seconds),
            cut_max: Duration::from_secs(args.cut.unwrap_or(args.seconds / 4)),
            devices: args.devices,
            rests_ms: args.rests,
        };
        say(&run::run(&plan, seed).await?);
        anyhow::Ok(())
    };
    program::run(&args.log, work).await
}
