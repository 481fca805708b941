//! `commucat-bench`: what one message and one connection cost the server.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a load generator looks at the few frames and scenarios that concern it"
)]
#![expect(
    clippy::cast_precision_loss,
    reason = "counts of a run are far below 2^53"
)]

mod args;
mod ccp;
mod clock;
mod cluster;
mod host;
mod load;
mod nats;
mod process;
mod relay;
mod report;
mod scenario;
mod setup;
mod socket;
mod stream;
mod tally;
mod wire;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser as _;

use crate::args::{Args, Scenario};
use crate::report::say;

fn main() -> ExitCode {
    match start(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("Error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn start(args: &Args) -> Result<()> {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if args.threads > 0 {
        runtime.worker_threads(args.threads);
    }
    runtime.enable_all().build()?.block_on(measure(args))
}

async fn measure(args: &Args) -> Result<()> {
    if args.scenario == Scenario::Relay {
        return relay::serve().await;
    }
    if !args.json {
        report::head()?;
    }
    let mut rows = Vec::new();
    for _ in 0..args.runs {
        let row = scenario::run(args).await?;
        row.print(args)?;
        rows.push(row);
    }
    report::median(&rows);
    Ok(())
}
