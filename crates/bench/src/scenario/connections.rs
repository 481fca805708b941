//! What a connection costs: to make, and to keep.

use std::time::Duration;

use anyhow::Result;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use crate::args::Args;
use crate::host::Host;
use crate::process;
use crate::report::{Row, say};
use crate::setup;

/// Connections made before memory is read first, so that code and caches are there.
const WARM_UP: usize = 20;
/// Time for the server to put away what connecting needed.
const REST: Duration = Duration::from_secs(2);

pub(super) async fn idle(args: &Args, host: &mut Host) -> Result<Row> {
    let count = usize::try_from(args.devices())?;
    let members = setup::register(&host.target().await?, count + WARM_UP).await?;
    let keys: Vec<_> = members.into_iter().map(|member| member.keys).collect();
    host.restart().await?;
    let target = host.target().await?;
    let (few, many) = keys.split_at(WARM_UP);
    let _warm = setup::connect(&target, few).await?;
    tokio::time::sleep(REST).await;
    let (from, before) = (host.sample().await?, process::resident_kib(host.pid)?);
    say(&format!("connecting {count} devices"));
    let _devices = setup::connect(&target, many).await?;
    tokio::time::sleep(REST).await;
    let (to, after) = (host.sample().await?, process::resident_kib(host.pid)?);
    let mut row = Row::between(args, host, &from, &to);
    row.idle_kib_per_connection = Some(after.saturating_sub(before) as f64 / count as f64);
    Ok(row)
}

pub(super) async fn churn(args: &Args, host: &Host) -> Result<Row> {
    let count = args.count().unwrap_or_default();
    let target = host.target().await?;
    let devices = usize::try_from(args.devices())?;
    let members = setup::register(&target, devices).await?;
    let keys: Vec<_> = members.into_iter().map(|member| member.keys).collect();
    say(&format!("connecting {count} times"));
    let from = host.sample().await?;
    let connects = stream::iter(keys.iter().cycle().take(usize::try_from(count)?))
        .map(|keys| async { keys.connect(&target).await.map(drop) });
    connects
        .buffer_unordered(usize::try_from(args.outstanding())?)
        .try_collect::<()>()
        .await?;
    let to = host.sample().await?;
    let mut row = Row::between(args, host, &from, &to).per(count, &from, &to);
    row.messages = count;
    row.socket_writes_per_delivery = None;
    Ok(row)
}
