//! `commucat-domains`: three domains whose people talk in pairs and in a group, while domains are
//! killed, held and cut off from each other and everybody changes the group at once; shows that what
//! was acknowledged is shown once and in order, and that all agree on who is in the group.

mod churn;
mod faults;
mod homes;
mod run;

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use commucat_testkit::random::Random;

/// Three domains under traffic and faults
#[derive(Debug, Parser)]
struct Args {
    /// How long faults go on
    #[arg(long, default_value_t = 60)]
    seconds: u64,

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
    let filter = tracing_subscriber::EnvFilter::new(&args.log);
    let log = tracing_subscriber::fmt().with_env_filter(filter);
    log.with_writer(std::io::stderr).init();
    let done = async {
        let seed = args.seed.map_or_else(Random::seed, Ok)?;
        say(&format!("seed {seed}"));
        let plan = run::Plan {
            lasts: Duration::from_secs(args.seconds),
            devices: args.devices,
            rests_ms: args.rests,
        };
        say(&run::run(&plan, seed).await?);
        anyhow::Ok(())
    };
    match done.await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("failed: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn say(line: &str) {
    // Whoever closed the pipe does not want it.
    writeln!(std::io::stdout(), "{line}").ok();
}
