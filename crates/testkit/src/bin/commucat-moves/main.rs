//! `commucat-moves`: makes a backup under traffic, loses the server, puts the backup back and looks
//! at what the devices show; and copies a store to PostgreSQL.

mod copy;
mod restore;
mod story;

use std::process::ExitCode;

use clap::Parser;
use commucat_testkit::program::{self, say};

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
    let work = async {
        say(&restore::run(args.messages).await?);
        say(&copy::run(args.messages).await?);
        anyhow::Ok(())
    };
    program::run(&args.log, work).await
}
