//! The scenarios, each one run from a new server to its row.

mod connections;
mod queue;
mod restart;
mod traffic;

use anyhow::{Result, bail, ensure};

use crate::args::{Args, Peer, Scenario};
use crate::host::Host;
use crate::report::Row;

/// Runs it once.
///
/// # Errors
///
/// If anything does not work; a message that is lost is no error but a figure.
pub(crate) async fn run(args: &Args) -> Result<Row> {
    let bare = args.peer != Peer::Commucat;
    let talks = matches!(
        args.scenario,
        Scenario::Pairs | Scenario::Fanout | Scenario::Latency
    );
    ensure!(!bare || talks, "`--peer` is for pairs, fanout and latency");
    ensure!(
        args.peer != Peer::RelayAcked || args.scenario != Scenario::Fanout,
        "`--peer relay-acked` is for pairs and latency"
    );
    let mut host = Host::start(args).await?;
    match args.scenario {
        Scenario::Pairs
        | Scenario::Latency
        | Scenario::Fanout
        | Scenario::Nodes
        | Scenario::Federation => traffic::run(args, &host).await,
        Scenario::Start => restart::start(args, &mut host).await,
        Scenario::Idle => connections::idle(args, &mut host).await,
        Scenario::Churn => connections::churn(args, &host).await,
        Scenario::Offline => queue::offline(args, &host).await,
        Scenario::Drain => queue::drain(args, &host).await,
        Scenario::Relay => bail!("the relay is no scenario"),
    }
}
