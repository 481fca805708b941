//! How long a server takes to start with a full store.

use anyhow::Result;

use super::queue;
use crate::args::Args;
use crate::host::Host;
use crate::report::{Row, say};
use crate::tally::read;

/// Fills the store, ends the server in order, and starts it again.
pub(super) async fn start(args: &Args, host: &mut Host) -> Result<Row> {
    let (from, to) = queue::fill(args, host).await?;
    let stored = read(&host.tally.acknowledged);
    say(&format!("starting with {stored} messages in the store"));
    let took = host.restart().await?;
    let mut row = Row::between(args, host, &from, &to);
    row.start_ms = took.map(|took| took.as_secs_f64() * 1e3);
    Ok(row)
}
