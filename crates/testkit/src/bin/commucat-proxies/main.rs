//! `commucat-proxies`: a chat through nginx and HAProxy with the examples of `ops`, passing TLS through and ending it,
//! then a search of all that the proxy wrote and has in memory.

mod chat;
mod memory;
mod proxy;

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use commucat_services::port;
use commucat_testkit::canary::{Canary, Hit, Place, Searcher};
use commucat_testkit::program::say;
use commucat_testkit::server::{Options, Server};

use self::proxy::{Case, Proxy};

/// Chat through each proxy of the examples, then search what the proxy keeps
#[derive(Debug, Parser)]
struct Args {
    /// Only the examples whose names contain this
    #[arg(value_name = "NAME", default_value = "")]
    only: String,
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    let mut is_good = true;
    for case in Case::ALL {
        if !case.name().contains(&args.only) {
            continue;
        }
        match Box::pin(run(case)).await {
            Ok((line, hits)) => {
                for hit in &hits {
                    say(&format!("{} in {} ({})", hit.canary, hit.place, hit.form));
                }
                say(&format!("{}: {line}", case.name()));
                is_good &= hits.is_empty();
            }
            Err(error) => {
                say(&format!("{}: failed: {error:#}", case.name()));
                is_good = false;
            }
        }
    }
    if is_good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

async fn run(case: Case) -> Result<(String, Vec<Hit>)> {
    let certificates = tempfile::tempdir()?;
    proxy::make_certificate(certificates.path())?;
    let port = port::free()?;
    let server = Server::start(options(case, port, certificates.path())).await?;
    let mut proxy = Proxy::start(case, port, server.port(), certificates.path()).await?;

    let talked = Box::pin(chat::run(&server)).await;
    let (chat, canaries) = talked.with_context(|| proxy.told())?;
    let visit = Visit::new(case, &canaries)?;
    if case.ends_tls() {
        proxy.upgrade().await?;
        proxy.visit(&visit.path).await?;
        let metrics = proxy.get("/metrics").await?;
        ensure!(
            metrics.starts_with("HTTP/1.1 404"),
            "/metrics is for the public"
        );
    }
    if !case.ends_tls() {
        limits_see_clients(&proxy).await?;
    }
    // The devices are connected now: what the proxy holds for them is in its memory.
    let mut places = memory::of(proxy.pid()?)?;
    let memory: usize = places.iter().map(|place| place.bytes.len()).sum();
    chat.end().await;
    proxy.stop().await?;
    places.append(&mut proxy.files()?);

    let count = canaries.len();
    let searcher = Searcher::new(canaries)?;
    ensure!(searcher.blind_spots() == 0, "planted values were not found");
    visit.check(case, &places)?;
    ensure!(
        !proxy.told().contains("buffered to a temporary file"),
        "the proxy collects bodies in files"
    );
    let mut hits: Vec<_> = places
        .iter()
        .flat_map(|place| searcher.hits(place))
        .collect();
    hits.sort_unstable();
    let line = format!(
        "{} messages, {count} canaries, {} places, {} MiB of memory, {} hits",
        chat::MESSAGES,
        places.len(),
        memory.div_ceil(1024 * 1024),
        hits.len()
    );
    Ok((line, hits))
}

/// Connections that one address may have; more than the chat has from its own.
const PER_ADDRESS: usize = 12;

/// Fills up one address behind the proxy: it is refused then, and others are not.
async fn limits_see_clients(proxy: &Proxy) -> Result<()> {
    let (greedy, other) = (Ipv4Addr::new(127, 0, 0, 2), Ipv4Addr::new(127, 0, 0, 3));
    let mut held = Vec::new();
    for _ in 0..PER_ADDRESS {
        held.push(proxy.connect_from(greedy).await?);
    }
    let more = proxy.connect_from(greedy).await;
    ensure!(more.is_err(), "an address has more connections than it may");
    let served = proxy.connect_from(other).await;
    served.context("one address behind the proxy shuts out another")?;
    drop(held);
    Ok(())
}

fn options(case: Case, port: u16, certificates: &Path) -> Options {
    let proxies = if case.ends_tls() {
        "server.trusted_proxies"
    } else {
        "server.proxy_protocol"
    };
    let file = |name: &str| certificates.join(name).display().to_string();
    Options::default()
        .set("server.endpoint", &format!("localhost:{port}"))
        .set(proxies, "127.0.0.1")
        .set("limits.connections_per_address", &PER_ADDRESS.to_string())
        // Connections that ask nothing are held for a while.
        .set("limits.tls_timeout", "1m")
        .set("server.tls_certificate", &file("fullchain.pem"))
        .set("server.tls_key", &file("key.pem"))
}

/// What must be found, or the search finds nothing because it looks nowhere.
struct Visit {
    path: String,
}

impl Visit {
    fn new(case: Case, canaries: &[Canary]) -> Result<Self> {
        ensure!(canaries.len() > 10, "there is little to look for");
        let path = format!("/visited-{}-{}", case.name(), std::process::id());
        Ok(Self { path })
    }

    fn check(&self, case: Case, places: &[Place]) -> Result<()> {
        let control = Searcher::new(vec![Canary::text(
            "visited path",
            commucat_testkit::canary::Allowed::Nowhere,
            &self.path,
        )])?;
        let in_log = places
            .iter()
            .filter(|place| place.name.contains("log") || place.name.contains("stdout"))
            .any(|place| control.is_in("visited path", place));
        ensure!(
            in_log == case.ends_tls(),
            "the proxy's log shows requests if and only if it ends TLS"
        );
        let name = Canary::text(
            "its own configuration",
            commucat_testkit::canary::Allowed::Nowhere,
            case.in_memory(),
        );
        let known = Searcher::new(vec![name])?;
        let in_memory = places
            .iter()
            .filter(|place| place.name.starts_with("memory"))
            .any(|place| known.is_in("its own configuration", place));
        ensure!(in_memory, "the memory that was searched is not the proxy's");
        Ok(())
    }
}
