//! `commucat-moves`: makes a backup under traffic, loses the server, puts the backup back and looks
//! at what the devices show; and copies a store to PostgreSQL.

mod copy;
mod restore;
mod story;

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser;

/// Back up and put back a server with real clients, and judge what they show
#[derive(Debug, Parser)]
struct Args {
    /// Messages before the backup, while it is made, and after it, each
    #[arg(long, default_value_t = 200)]
    messages: u64,

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
        say(&restore::run(args.messages).await?);
        say(&copy::run(args.messages).await?);
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
