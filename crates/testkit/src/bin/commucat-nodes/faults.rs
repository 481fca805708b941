//! What happens to a domain: nodes die and are drained, Redis forgets or restarts, PostgreSQL restarts.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use commucat_admin::{Answer, Request};
use commucat_testkit::domain::Domain;
use commucat_testkit::random::Random;
use commucat_testkit::server::{START_WAIT, Server};
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};

/// Names of the nodes.
pub(crate) const NAMES: [&str; 3] = ["one", "two", "three"];

/// Longest that a server is away.
const AWAY_MS: u64 = 1_200;

/// Longest that a node may take to end after it was asked.
const END_WAIT: Duration = Duration::from_secs(30);

/// One kind of fault.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Fault {
    /// `kill -9` of a node.
    Kill,
    /// SIGTERM.
    Terminate,
    /// `commucat-cli node drain`, asked of another node.
    Drain,
    /// FLUSHALL.
    Flush,
    /// Redis dies and comes back.
    RedisRestarts,
    /// PostgreSQL dies and comes back.
    PostgresRestarts,
}

/// As often as they come by.
const ALL: [Fault; 10] = [
    Fault::Kill,
    Fault::Flush,
    Fault::Drain,
    Fault::Kill,
    Fault::RedisRestarts,
    Fault::Terminate,
    Fault::Flush,
    Fault::PostgresRestarts,
    Fault::Kill,
    Fault::Drain,
];

/// How often each fault happened.
pub(crate) type Count = BTreeMap<Fault, u32>;

/// Lets one fault happen, and everything be up again.
pub(crate) async fn happen(domain: &mut Domain, random: &mut Random, turn: usize) -> Result<Fault> {
    // In turn, so that a short run has all of them; where and for how long is random.
    let fault = *ALL.get(turn % ALL.len()).context("no fault")?;
    let node = usize::try_from(random.below(u64::try_from(NAMES.len())?))?;
    let away = random.wait(AWAY_MS);
    match fault {
        Fault::Kill => {
            let server = domain.servers.get_mut(node).context("no node")?;
            server.kill().await?;
            come_back(server, away).await?;
        }
        Fault::Terminate => {
            let server = domain.servers.get_mut(node).context("no node")?;
            let status = server.terminate().await?;
            ensure!(status.success(), "SIGTERM ended with {status}");
            come_back(server, away).await?;
        }
        Fault::Drain => drain(domain, node, away).await?,
        Fault::Flush => {
            let redis = Arc::clone(&domain.redis);
            spawn_blocking(move || redis.ask("FLUSHALL")).await??;
        }
        Fault::RedisRestarts => {
            let redis = Arc::clone(&domain.redis);
            let (dies, lives) = (Arc::clone(&redis), redis);
            spawn_blocking(move || dies.kill()).await??;
            sleep(away).await;
            spawn_blocking(move || lives.resurrect()).await??;
        }
        Fault::PostgresRestarts => {
            let postgres = domain.postgres;
            spawn_blocking(|| postgres.kill()).await??;
            sleep(away).await;
            spawn_blocking(|| postgres.resurrect()).await??;
        }
    }
    Ok(fault)
}

async fn drain(domain: &mut Domain, node: usize, away: Duration) -> Result<()> {
    let name = NAMES.get(node).context("no node")?;
    let asked = domain
        .servers
        .get((node + 1) % NAMES.len())
        .context("no node")?;
    let request = Request::DrainNode {
        node: Some((*name).to_owned()),
    };
    // After a fault of Redis the nodes hear each other again within a few seconds.
    let asking = async {
        while !matches!(asked.ask(&request).await, Ok(Answer::Draining)) {
            sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(END_WAIT, asking)
        .await
        .context("no node knows the one to drain")?;
    let server = domain.servers.get_mut(node).context("no node")?;
    let ends = async {
        while server.is_running() {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(END_WAIT, ends)
        .await
        .context("a drained node does not end")?;
    come_back(server, away).await
}

async fn come_back(server: &mut Server, away: Duration) -> Result<()> {
    sleep(away).await;
    timeout(START_WAIT, server.restart()).await?
}
