//! `commucat-privacy`: sends unique values through every flow of a server that logs everything, then
//! searches whatever it keeps for them, in every form.

mod asker;
mod crossing;
mod domains;
mod flows;
mod learned;
mod names;
mod places;
mod watch;

use std::net::Ipv4Addr;
use std::process::ExitCode;

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use commucat_testkit::canary::{Hit, Kind, Place, Searcher};
use commucat_testkit::program::say;
use commucat_testkit::relay::Relay;
use commucat_testkit::server::{Backend, Options, Server};

use self::names::Names;
use self::watch::Watch;

/// The clients' address: nothing else on this machine has it.
const CLIENT: Ipv4Addr = Ipv4Addr::new(127, 7, 77, 7);

/// Send canaries through every flow, then search everything that the server keeps for them
#[derive(Debug, Parser)]
struct Args {
    /// Keep what was searched in this directory
    #[arg(long, value_name = "DIR")]
    keep: Option<std::path::PathBuf>,

    /// What keeps the server's durable state
    #[arg(long, value_enum, default_value_t)]
    backend: Backend,

    /// Servers of the domain; several share PostgreSQL and Redis
    #[arg(long, default_value_t = 1)]
    nodes: usize,

    /// Instead of one domain, a group over several: what its hub and a follower keep of each other's
    /// people, and what all of them tell each other
    #[arg(long, conflicts_with_all = ["backend", "nodes", "keep"])]
    domains: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    let ran = if args.domains {
        Box::pin(domains::run()).await
    } else {
        Box::pin(run(&args)).await
    };
    match ran {
        Ok((line, hits)) => {
            for hit in &hits {
                say(&format!("{} in {} ({})", hit.canary, hit.place, hit.form));
            }
            say(&line);
            if hits.is_empty() {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
        Err(error) => {
            say(&format!("failed: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

async fn run(args: &Args) -> Result<(String, Vec<Hit>)> {
    let mut relay = Relay::bind(CLIENT).await?;
    let watch = match args.nodes {
        ..2 => None,
        _ => Some(tokio::task::spawn_blocking(Watch::start).await??),
    };
    let mut options = Options::default()
        .for_load()
        .set("server.log", "trace")
        .set("server.endpoint", &format!("localhost:{}", relay.port()))
        .set("ledger.sink", "file");
    if let Some(watch) = &watch {
        ensure!(
            args.backend == Backend::Postgres,
            "several nodes need `--backend postgres`"
        );
        options = options.set("storage.redis_url", &watch.url());
    }
    let mut server = Server::start(options.clone().on(args.backend)).await?;
    let mut others = others(&server, &options, args.nodes).await?;
    let ports = others.iter().map(Server::port);
    relay.run(std::iter::once(server.port()).chain(ports).collect());
    let names = Names::new()?;
    let directory = tempfile::tempdir()?;

    let flows = flows::run(&mut server, &relay, directory.path(), &names).await;
    let (canaries, mut places) = match flows {
        Ok(done) => done,
        Err(error) => {
            let log = std::fs::read_to_string(server.stderr_file()).unwrap_or_default();
            let tail: Vec<_> = log.lines().rev().take(5).collect();
            return Err(error.context(format!("the server's last lines: {tail:#?}")));
        }
    };
    places.append(&mut places::of(&server, "at the end").await?);
    if let Some(watch) = &watch {
        places.append(&mut watch.places()?);
    }
    for server in std::iter::once(&mut server).chain(&mut others) {
        let status = server.terminate().await?;
        ensure!(status.success(), "the server ended with {status}");
        places.append(&mut places::files(server, "after the end")?);
    }
    if let Some(keep) = &args.keep {
        places::keep(&places, keep)?;
    }

    let searcher = Searcher::new(canaries)?;
    check_searcher(&searcher, &places)?;
    let mut hits: Vec<_> = places
        .iter()
        .flat_map(|place| searcher.hits(place))
        .collect();
    hits.sort_unstable();
    let line = format!(
        "privacy: {} canaries, {} places, {} hits",
        searcher.canaries(),
        places.len(),
        hits.len()
    );
    Ok((line, hits))
}

/// The other nodes of the domain of `first`, which has made keys and database.
async fn others(first: &Server, options: &Options, nodes: usize) -> Result<Vec<Server>> {
    let mut others = Vec::new();
    for _ in 1..nodes {
        let database = first.database().context("no database")?;
        let keys = first.data().join("keys");
        let options = options
            .clone()
            .set("storage.url", &database.url())
            .set("crypto.keys", keys.to_str().context("a path")?);
        others.push(Server::start(options).await?);
    }
    Ok(others)
}

/// No hits mean something only if the search would find them and searched where things are.
fn check_searcher(searcher: &Searcher, places: &[Place]) -> Result<()> {
    let missed = searcher.blind_spots();
    ensure!(missed == 0, "{missed} planted values were not found");
    let stored = |place: &&Place| place.kind == Kind::Store;
    for id in flows::STORED {
        let is_there = places
            .iter()
            .filter(stored)
            .any(|place| searcher.is_in(id, place));
        ensure!(is_there, "{id} is not in the store: is it the right one?");
    }
    let logs = places.iter().filter(|place| place.name.contains("stderr"));
    let largest = logs.map(|place| place.bytes.len()).max();
    let largest = largest.context("no log was searched")?;
    ensure!(
        largest > 0,
        "the log is empty although everything is logged"
    );
    Ok(())
}
