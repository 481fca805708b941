//! Limits that all nodes count together: what an address has used up at one node it has used up at the
//! others, also when Redis is gone afterwards; without Redis each node goes on by itself.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use commucat_client::{Client, ClientError};
use commucat_testkit::domain::Domain;
use commucat_testkit::people::settings;
use commucat_testkit::server::{START_WAIT, Server};
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};

/// Registrations of an address within an hour. Too few for a quarter: each is told.
const REGISTRATIONS: usize = 2;

/// What other nodes took out of common limits.
const TAKEN: &str = "commucat_cluster_taken_total";
const NODES: &str = "commucat_cluster_nodes";

/// Runs it; a line of figures.
pub(crate) async fn run() -> Result<String> {
    let mut domain = Domain::start_with(&["one", "two"], |options, _| {
        options
            .set(
                "limits.registrations_per_address",
                &REGISTRATIONS.to_string(),
            )
            // Clients go to the node whose invite they have.
            .set("server.endpoint", "")
    })
    .await?;
    let place = tempfile::tempdir()?;
    for server in &domain.servers {
        until(server, NODES, 2).await?;
    }
    let (one, two) = pair(&domain)?;

    for number in 0..REGISTRATIONS {
        join(place.path(), &format!("one-{number}"), one).await?;
    }
    until(two, TAKEN, u64::try_from(REGISTRATIONS)?).await?;
    ensure!(
        join(place.path(), "two", two).await.is_err(),
        "another node lets more registrations through"
    );

    let redis = Arc::clone(&domain.redis);
    spawn_blocking(move || redis.kill()).await??;
    ensure!(
        join(place.path(), "three", two).await.is_err(),
        "a node forgets without Redis what others took"
    );
    let first = domain.servers.first_mut().context("no node")?;
    first.kill().await?;
    first.restart().await?;
    let (one, _) = pair(&domain)?;
    for number in 0..REGISTRATIONS {
        join(place.path(), &format!("alone-{number}"), one).await?;
    }
    ensure!(
        join(place.path(), "four", one).await.is_err(),
        "a node that is alone has no limit"
    );
    Ok(format!(
        "limits: {REGISTRATIONS} registrations at one node are all that another one allows; without Redis each \
         counts by itself"
    ))
}

fn pair(domain: &Domain) -> Result<(&Server, &Server)> {
    match domain.servers.as_slice() {
        [one, two] => Ok((one, two)),
        _ => anyhow::bail!("not two nodes"),
    }
}

/// Opens an account at one node.
async fn join(place: &Path, name: &str, server: &Server) -> Result<(), ClientError> {
    let invite = server.invite(1).await;
    let invite = invite.map_err(|error| ClientError::Http(format!("{error:#}")))?;
    let client = Client::join(settings(place, name), &invite).await?;
    client.shutdown().await;
    Ok(())
}

/// Waits until a metric of the server says so much.
async fn until(server: &Server, name: &str, least: u64) -> Result<()> {
    let waiting = async {
        while server.metrics().await?.sum(name, "") < least {
            sleep(Duration::from_millis(50)).await;
        }
        anyhow::Ok(())
    };
    let waited = timeout(START_WAIT, waiting).await;
    waited.with_context(|| format!("{name} is not {least}"))?
}
