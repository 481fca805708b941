//! Devices that are registered, in their groups and connected, before anything is measured.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use crate::args::Args;
use crate::ccp::Device;
use crate::ccp::connect::{Keys, Target};
use crate::ccp::group;
use crate::report::say;

/// Handshakes at once.
const AT_ONCE: usize = 16;

/// A device with its keys.
pub(crate) struct Member {
    pub(crate) keys: Arc<Keys>,
    pub(crate) device: Device,
}

/// Registers so many accounts with one device each.
pub(crate) async fn register(target: &Target, count: usize) -> Result<Vec<Member>> {
    say(&format!("registering {count} devices"));
    stream::iter(0..count)
        .map(|_| async {
            let keys = Keys::new();
            let device = keys.register(target).await?;
            let keys = Arc::new(keys);
            anyhow::Ok(Member { keys, device })
        })
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await
}

/// Connects devices that are registered.
pub(crate) async fn connect(target: &Target, keys: &[Arc<Keys>]) -> Result<Vec<Device>> {
    stream::iter(keys)
        .map(|keys| keys.connect(target))
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await
}

/// Groups of `size` devices; in each the first is to send. Where there are several servers, the members
/// of a group are on them in turn, or all on the first one.
pub(crate) async fn groups(
    args: &Args,
    targets: &[Target],
    count: usize,
    size: usize,
) -> Result<Vec<Vec<Member>>> {
    let targets = if args.same_node {
        targets.get(..1).unwrap_or_default()
    } else {
        targets
    };
    let hub = targets.first().context("no server")?.domain.clone();
    let mut members = Vec::new();
    for (first, target) in targets.iter().enumerate() {
        let of_group = (first..size).step_by(targets.len()).count();
        members.push(register(target, count * of_group).await?.into_iter());
    }
    say(&format!("making {count} groups of {size}"));
    let mut groups = Vec::with_capacity(count);
    for _ in 0..count {
        let places = (0..size).map(|place| place % targets.len());
        let taken = places.filter_map(|at| members.get_mut(at)?.next());
        groups.push(taken.collect());
    }
    let payload = usize::try_from(args.payload)?;
    let made = stream::iter(groups).map(|members: Vec<Member>| {
        let hub = hub.clone();
        async move {
            let (keys, mut devices): (Vec<_>, Vec<_>) = members
                .into_iter()
                .map(|member| (member.keys, member.device))
                .unzip();
            group::make(&mut devices, &hub).await?;
            let members = keys.into_iter().zip(devices).map(|(keys, mut device)| {
                device.set_payload(payload);
                Member { keys, device }
            });
            anyhow::Ok(members.collect::<Vec<_>>())
        }
    });
    made.buffer_unordered(AT_ONCE).try_collect().await
}
