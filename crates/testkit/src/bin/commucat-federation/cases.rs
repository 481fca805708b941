//! What its author is told of a message that does not arrive, and a member of another domain that
//! leaves and comes back.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use commucat_admin::{PeerStanding, Request};
use commucat_client::{Client, Event, Tick, UndeliveredReason};
use commucat_testkit::people::{STEP_WAIT, told, until};
use tokio::time::timeout;

use crate::{Home, arrives, hex, joined};

/// `limits.relay_ttl` at its shortest, with the time between two looks for what has expired.
const TTL: &str = "1m";
const TTL_WAIT: Duration = Duration::from_secs(180);

/// A domain that is blocked, by either side: whoever writes hears it at once, and everything flows
/// again afterwards.
pub(crate) async fn blocked(homes: &[Home], room: &str) -> Result<()> {
    let [alice, bob, ..] = homes else {
        bail!("nobody")
    };
    for (blocks, other) in [(bob, alice), (alice, bob)] {
        stand(blocks, other, PeerStanding::Blocked).await?;
        for writer in [alice, bob] {
            let text = format!("{} while {} blocks", writer.name, blocks.name);
            comes_back(&writer.client, room, &text, UndeliveredReason::Blocked)
                .await
                .with_context(|| text)?;
        }
        stand(blocks, other, PeerStanding::Active).await?;
        for (writer, reader) in [(alice, bob), (bob, alice)] {
            let text = format!("{} after {} blocked", writer.name, blocks.name);
            says(&writer.client, room, &text, &[&reader.client]).await?;
        }
    }
    Ok(())
}

/// The hub cannot hand a message on: its author is in another domain, and hears it from there.
pub(crate) async fn returned(homes: &[Home], group: &str) -> Result<()> {
    let [alice, bob, carol] = homes else {
        bail!("nobody")
    };
    stand(alice, carol, PeerStanding::Blocked).await?;
    let text = "not for everybody".to_owned();
    comes_back(&bob.client, group, &text, UndeliveredReason::Blocked).await?;
    arrives(&alice.client, group, std::slice::from_ref(&text)).await?;
    stand(alice, carol, PeerStanding::Active).await?;
    let all = [&alice.client, &carol.client];
    says(&bob.client, group, "for everybody again", &all).await?;
    let history = carol.client.history(group, 0, 10_000).await.map_err(told)?;
    ensure!(
        history.iter().all(|message| message.text != text),
        "a message that came back has arrived"
    );
    Ok(())
}

/// A member of another domain than the hub's leaves, is away, and is added again.
pub(crate) async fn leaves(homes: &[Home], group: &str) -> Result<()> {
    let [alice, bob, carol] = homes else {
        bail!("nobody")
    };
    bob.client.leave(group).await.map_err(told)?;
    says(&alice.client, group, "who is there?", &[&carol.client]).await?;
    for home in [alice, carol] {
        until(&home.client, "a group without who left", async |client| {
            let all = client.conversations().await?;
            let is_two =
                |one: &commucat_client::Conversation| hex(&one.id) == group && one.devices == 2;
            Ok(all.iter().any(is_two).then_some(()))
        })
        .await
        .context(home.name)?;
    }
    let between = "between us".to_owned();
    says(&carol.client, group, &between, &[&alice.client]).await?;
    alice.client.invite(group, "bob").await.map_err(told)?;
    joined(homes, 3, group).await?;
    says(
        &alice.client,
        group,
        "welcome back",
        &[&bob.client, &carol.client],
    )
    .await?;
    says(
        &bob.client,
        group,
        "here again",
        &[&alice.client, &carol.client],
    )
    .await?;
    let history = bob.client.history(group, 0, 10_000).await.map_err(told)?;
    ensure!(
        history.iter().all(|message| message.text != between),
        "who had left reads what was said meanwhile"
    );
    Ok(())
}

/// A domain is away for longer than messages wait: their authors hear it, both of what the hub could
/// not hand on and of what did not reach the hub.
pub(crate) async fn expires(homes: &mut [Home], room: &str) -> Result<()> {
    let [alice, bob, carol] = homes else {
        bail!("nobody")
    };
    let at_bob = bob.client.send("carol", "preparation").await;
    let at_bob = hex(&at_bob.map_err(told)?.conversation);
    until(
        &carol.client,
        "a conversation whose hub is away soon",
        async |client| {
            let all = client.conversations().await?;
            let is_ready =
                |one: &commucat_client::Conversation| hex(&one.id) == at_bob && one.ready;
            Ok(all.iter().any(is_ready).then_some(()))
        },
    )
    .await?;
    bob.server.kill().await?;
    for home in [&mut *alice, &mut *carol] {
        home.server.terminate().await?;
        home.server.set("limits.relay_ttl", TTL);
        home.server.restart().await?;
        home.client.connected(STEP_WAIT).await.map_err(told)?;
    }
    let why = UndeliveredReason::Expired;
    tokio::try_join!(
        comes_back_within(TTL_WAIT, &alice.client, room, "through the hub", why),
        comes_back_within(TTL_WAIT, &carol.client, &at_bob, "to the hub", why),
    )?;
    bob.server.restart().await?;
    bob.client.connected(STEP_WAIT).await.map_err(told)?;
    says(&alice.client, room, "after all", &[&bob.client]).await?;
    says(&carol.client, &at_bob, "after all this", &[&bob.client]).await
}

async fn stand(who: &Home, of: &Home, standing: PeerStanding) -> Result<()> {
    let domain = of.server.domain();
    let request = Request::SetPeer { domain, standing };
    who.server.ask(&request).await?;
    Ok(())
}

async fn says(writer: &Client, room: &str, text: &str, readers: &[&Client]) -> Result<()> {
    writer.send(room, text).await.map_err(told)?;
    for reader in readers {
        arrives(reader, room, &[text.to_owned()])
            .await
            .with_context(|| text.to_owned())?;
    }
    Ok(())
}

async fn comes_back(writer: &Client, room: &str, text: &str, why: UndeliveredReason) -> Result<()> {
    comes_back_within(STEP_WAIT, writer, room, text, why).await
}

/// Writes, and waits until the writer is told that the message did not arrive; it is not in the
/// outbox any more then.
async fn comes_back_within(
    wait: Duration,
    writer: &Client,
    room: &str,
    text: &str,
    why: UndeliveredReason,
) -> Result<()> {
    let mut events = writer.subscribe();
    let sent = writer.send(room, text).await.map_err(told)?;
    let comes = async {
        loop {
            let event = events.next().await.context("the client has stopped")?;
            if let Event::Undelivered {
                message, reason, ..
            } = event
                && message == sent.message
            {
                ensure!(reason == why, "came back because of {reason:?}");
                return anyhow::Ok(());
            }
        }
    };
    timeout(wait, comes)
        .await
        .context("nobody is told that a message does not arrive")??;
    writer
        .wait(sent, Tick::Stored, STEP_WAIT)
        .await
        .map_err(told)
        .context("what came back is still in the outbox")?;
    Ok(())
}
