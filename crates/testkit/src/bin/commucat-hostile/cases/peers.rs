//! Other domains that lie, flood, keep silent and answer nonsense; domains that do not, beside them.

mod answers;
mod batches;
mod events;

use anyhow::{Result, ensure};
use commucat_admin::{Answer, Request};
use commucat_testkit::server::Server;

use crate::peer::{self, Document, Peer, Reply};
use crate::suite::Suite;

pub(super) async fn run(suite: &mut Suite) -> Result<()> {
    batches::run(suite).await?;
    events::run(suite).await?;
    answers::run(suite).await
}

/// A domain that answers as it should, and lies in what it sends.
async fn liar(suite: &Suite) -> Result<Peer> {
    Peer::appear(&suite.world.friend, Document::Good, Reply::Good).await
}

/// Asks a domain for a signed answer, as `commucat-cli peer ping` does.
async fn ping(server: &Server, domain: &str) -> Result<()> {
    let domain = domain.to_owned();
    let answer = server.ask(&Request::PingPeer { domain }).await?;
    ensure!(matches!(answer, Answer::Pinged(_)), "{answer:?}");
    Ok(())
}

/// Notes a case, after the server and a domain that means well have asked each other.
async fn record(suite: &mut Suite, name: &str, outcome: Result<(), String>) -> Result<()> {
    let world = &suite.world;
    let there = ping(&world.server, &world.friend.domain()).await;
    let back = ping(&world.friend, &world.server.domain()).await;
    let harmless = there.and(back);
    let outcome = outcome.and_then(|()| {
        harmless.map_err(|error| format!("another domain is not served: {error:#}"))
    });
    suite.record(name, outcome).await
}

/// A request that must be refused as a whole with this status, and counted with this cause.
async fn refused(
    suite: &mut Suite,
    name: &str,
    body: &[u8],
    (status, cause): (u16, &str),
) -> Result<()> {
    let server = &suite.world.server;
    let before = counted(server, cause).await?;
    let outcome = match peer::post(server, body).await {
        Ok((got, _)) if got == status => Ok(()),
        Ok((got, answer)) => Err(format!(
            "status {got}, not {status}: {}",
            String::from_utf8_lossy(&answer)
        )),
        Err(error) => Err(format!("{error:#}")),
    };
    let counted = counted(server, cause).await? > before;
    let outcome = outcome.and_then(|()| counted.then_some(()).ok_or("not counted".to_owned()));
    record(suite, name, outcome).await
}

/// How often requests or answers of others were refused for this cause.
async fn counted(server: &Server, cause: &str) -> Result<u64> {
    let label = format!("cause=\"{cause}\"");
    let metrics = server.metrics().await?;
    Ok(metrics.sum("commucat_peer_refused_total", &label))
}
