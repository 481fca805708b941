//! Everything that a hostile client can do, against one real server on which two honest devices chat.
//!
//! Each case ends with a documented error or a close; after each the server still runs, has not
//! panicked, and the honest pair exchanges a message.

#![expect(
    clippy::too_many_lines,
    reason = "a table of cases is read in one piece"
)]
#![expect(
    clippy::cognitive_complexity,
    reason = "cases come one after another, by name"
)]
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "all else that a server may say is a finding"
)]

mod carrier;
mod cases;
mod cbor;
mod client;
mod clock;
mod peer;
mod suite;
mod wire;
mod world;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use commucat_testkit::program::say;
use commucat_testkit::server::{Options, Server};

use self::suite::Suite;
use self::world::World;

/// Tries hostile input of every kind against a real server.
#[derive(Debug, Parser)]
#[command(name = "commucat-hostile")]
struct Args {
    /// Only these parts (clear, identity, tunnel, frames, payloads, groups, carriers, peers, floods).
    parts: Vec<String>,
    /// Says each case.
    #[arg(long, short)]
    verbose: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    match Box::pin(run(Args::parse())).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            say(&format!("FAIL  {error:#}"));
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> Result<bool> {
    let options = Options::default()
        .for_load()
        .set("limits.request_rate", "20")
        .set("limits.request_burst", "30000")
        .set("limits.handshake_timeout", "5s")
        .set("limits.tls_timeout", "3s");
    let place = tempfile::Builder::new().prefix("cc-").tempdir()?;
    let ca = place.path().join("ca.pem");
    std::fs::write(&ca, "")?;
    let mut server = Server::start(options.federated(&ca)).await?;
    let mut friend = Server::start(Options::default().federated(&ca)).await?;
    let mut certificates = String::new();
    for server in [&mut server, &mut friend] {
        certificates.push_str(&std::fs::read_to_string(server.certificate_file())?);
        server.terminate().await?;
    }
    // They vouch for each other.
    std::fs::write(&ca, certificates)?;
    server.restart().await?;
    friend.restart().await?;
    let mut suite = Suite::new(World::new(server, friend).await?, args.verbose);
    Box::pin(cases::run(&mut suite, &args.parts)).await?;
    suite.finish().await
}
