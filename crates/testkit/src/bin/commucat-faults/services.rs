//! PostgreSQL and Redis under two nodes: restarted, stopped where they are, cut off, flushed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use commucat_testkit::company::Company;
use commucat_testkit::domain::Domain;
use commucat_testkit::program::say;
use commucat_testkit::random::Random;
use commucat_testkit::server::Server;
use commucat_testkit::stage::Director;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use crate::{ACCOUNTS, DEVICES, MANNERS, hindered, judge, memory, told, total};

const NAMES: [&str; 2] = ["one", "two"];

const FAILURES: &str = "commucat_store_failures_total";
const CONNECTED: &str = "commucat_cluster_connected";

/// What happens.
#[derive(Clone, Copy, Debug)]
enum Fault {
    PostgresRestarts,
    PostgresStandsStill,
    PostgresCutsConnections,
    RedisRestarts,
    RedisForgets,
    RedisStandsStill,
}

const ALL: [Fault; 6] = [
    Fault::PostgresRestarts,
    Fault::PostgresStandsStill,
    Fault::PostgresCutsConnections,
    Fault::RedisRestarts,
    Fault::RedisForgets,
    Fault::RedisStandsStill,
];

/// Runs them all.
pub(crate) async fn run(pause: Duration, seed: u64) -> Result<()> {
    let mut random = Random::new(seed);
    let domain = Domain::start(&NAMES).await?;
    let first = domain.servers.first().context("no server")?;
    let company = Company::gather(first, ACCOUNTS, DEVICES).await?;
    let played = company.play(MANNERS, &mut random, async |director, _| {
        for fault in ALL {
            director.progress().await?;
            one(&domain, director, fault, pause).await?;
        }
        director.listen().await?;
        director.last_words().await
    });
    let played = played.await;
    judge("services", seed, &company, &domain.servers, played)
}

/// One fault, and what it came to.
async fn one(domain: &Domain, director: &Director, fault: Fault, pause: Duration) -> Result<()> {
    let servers = domain.servers.as_slice();
    let (before, failures) = (director.acknowledged(), total(servers, FAILURES).await?);
    let begun = Instant::now();
    happen(domain, fault, pause).await?;
    let lasted = begun.elapsed();
    let meanwhile = director.acknowledged().saturating_sub(before);
    let again = director.progress().await?;
    hindered(servers, None).await?;
    say(&format!(
        "{fault:?}: {:.1} s, {meanwhile} acknowledged meanwhile, {} requests to the store failed, goes on \
         after {:.1} s, {} MiB at most",
        lasted.as_secs_f64(),
        total(servers, FAILURES).await?.saturating_sub(failures),
        again.as_secs_f64(),
        memory::peak(servers)?,
    ));
    Ok(())
}

async fn happen(domain: &Domain, fault: Fault, pause: Duration) -> Result<()> {
    match fault {
        Fault::PostgresRestarts | Fault::PostgresStandsStill | Fault::PostgresCutsConnections => {
            happen_to_postgres(domain, fault, pause).await
        }
        Fault::RedisRestarts | Fault::RedisForgets | Fault::RedisStandsStill => {
            happen_to_redis(domain, fault, pause).await
        }
    }
}

async fn happen_to_postgres(domain: &Domain, fault: Fault, pause: Duration) -> Result<()> {
    let (postgres, servers) = (domain.postgres, domain.servers.as_slice());
    if matches!(fault, Fault::PostgresCutsConnections) {
        spawn_blocking(|| postgres.cut_connections()).await??;
        return Ok(());
    }
    if matches!(fault, Fault::PostgresRestarts) {
        spawn_blocking(|| postgres.kill()).await??;
        let seen = hindered(servers, Some("store")).await;
        spawn_blocking(|| postgres.resurrect()).await??;
        return seen;
    }
    let before = total(servers, FAILURES).await?;
    spawn_blocking(|| postgres.pause()).await??;
    sleep(pause).await;
    // What waited for the store is given up after 13 s, and the operator can see it.
    let seen = told(servers, (FAILURES, "the store failed"), |value| {
        value > before
    });
    let seen = async {
        seen.await?;
        hindered(servers, Some("store")).await
    };
    let seen = seen.await;
    spawn_blocking(|| postgres.resume()).await??;
    seen
}

async fn happen_to_redis(domain: &Domain, fault: Fault, pause: Duration) -> Result<()> {
    let servers = domain.servers.as_slice();
    let (breaks, mends) = (Arc::clone(&domain.redis), Arc::clone(&domain.redis));
    if matches!(fault, Fault::RedisForgets) {
        spawn_blocking(move || breaks.ask("FLUSHALL")).await??;
        return Ok(());
    }
    if matches!(fault, Fault::RedisRestarts) {
        spawn_blocking(move || breaks.kill()).await??;
        let seen = away(servers).await;
        spawn_blocking(move || mends.resurrect()).await??;
        seen?;
    } else {
        spawn_blocking(move || breaks.pause()).await??;
        sleep(pause).await;
        let seen = away(servers).await;
        spawn_blocking(move || mends.resume()).await??;
        seen?;
    }
    there(servers).await
}

async fn away(servers: &[Server]) -> Result<()> {
    let told = told(servers, (CONNECTED, "Redis is away"), |nodes| nodes == 0);
    told.await?;
    hindered(servers, Some("redis")).await
}

async fn there(servers: &[Server]) -> Result<()> {
    let all = u64::try_from(servers.len())?;
    let told = told(servers, (CONNECTED, "Redis is there"), |nodes| nodes == all);
    told.await.map(drop)
}
