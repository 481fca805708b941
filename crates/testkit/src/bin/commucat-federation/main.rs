//! Three domains on one machine: people of each talk, in pairs and in a group, while servers are
//! killed. Everything acknowledged arrives once and in order, or its author is told that it does not:
//! of a domain that is blocked, or away for too long. And who leaves a group can come back.

mod cases;

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use commucat_client::{Client, ClientError, Decision, Tick};
use commucat_proto::id::GroupId;
use commucat_testkit::people::{STEP_WAIT, invite, settings, told, until};
use commucat_testkit::program::say;
use commucat_testkit::server::{Options, Server};

/// Runs the suite.
#[derive(Debug, Parser)]
struct Args {
    /// Messages each way in each step.
    #[arg(long, default_value_t = 20)]
    messages: usize,
}

/// A domain with its only person.
struct Home {
    name: &'static str,
    server: Server,
    client: Client,
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    let place = tempfile::Builder::new().prefix("cc-").tempdir()?;
    let mut homes = start(place.path()).await?;
    introduce(&homes).await?;
    say(&format!("{} domains, {} people", homes.len(), homes.len()));

    let room = pair(&homes).await?;
    both_ways(&homes, &room, "online", args.messages).await?;
    say("a pair across two domains talks");

    killed(&mut homes, &room, 1, args.messages).await?;
    say("messages to a killed domain arrive when it is back");
    killed(&mut homes, &room, 0, args.messages).await?;
    say("messages through a killed hub arrive when it is back");

    let group = group(&homes).await?;
    for (index, home) in homes.iter().enumerate() {
        let text = format!("hello from {}", home.name);
        home.client.send(&group, &text).await.map_err(told)?;
        for other in homes
            .iter()
            .enumerate()
            .filter(|(other, _)| *other != index)
        {
            arrives(&other.1.client, &group, std::slice::from_ref(&text)).await?;
        }
    }
    say("a group of three domains talks");
    say("a member of another domain than the hub's added the third");

    cases::returned(&homes, &group).await?;
    say("a message that the hub cannot hand on comes back to its author's domain");
    cases::leaves(&homes, &group).await?;
    say("a member of another domain leaves, and comes back");
    cases::blocked(&homes, &room).await?;
    say("messages between domains that do not talk come back at once");
    cases::expires(&mut homes, &room).await?;
    say("messages that waited too long for a domain come back");

    for home in &mut homes {
        let status = home.server.terminate().await?;
        ensure!(status.success(), "{} ends with {status}", home.name);
    }
    say("federation: passed");
    Ok(())
}

/// Starts the domains, which vouch for each other by one file of certificates.
async fn start(place: &Path) -> Result<Vec<Home>> {
    let ca = place.join("ca.pem");
    fs::write(&ca, "")?;
    let mut servers = Vec::new();
    for _ in 0..3 {
        let options = Options::default().for_load().federated(&ca);
        servers.push(Server::start(options).await?);
    }
    let mut all = String::new();
    for server in &servers {
        all.push_str(&fs::read_to_string(server.certificate_file())?);
    }
    fs::write(&ca, all)?;
    let mut homes = Vec::new();
    for (mut server, name) in servers.into_iter().zip(["alice", "bob", "carol"]) {
        server.terminate().await?;
        server.restart().await?;
        let invite = invite(&server, 1).await?;
        let client = Client::join(settings(place, name), &invite).await;
        let client = client
            .map_err(told)
            .with_context(|| format!("{name} does not join"))?;
        client.connected(STEP_WAIT).await.map_err(told)?;
        homes.push(Home {
            name,
            server,
            client,
        });
    }
    Ok(homes)
}

/// Everybody adds everybody by the contact link, and nothing else.
async fn introduce(homes: &[Home]) -> Result<()> {
    for one in homes {
        let link = one.client.me().await.map_err(told)?.contact_link;
        for other in homes.iter().filter(|other| other.name != one.name) {
            let added = other.client.add_contact(&link, one.name).await;
            added.map_err(told)?;
        }
    }
    Ok(())
}

/// Lets in whom a person does not know by name yet.
async fn admit(homes: &[Home], client: &Client) -> Result<(), ClientError> {
    for request in client.requests().await? {
        for home in homes {
            if home.client.me().await?.account == request.from {
                let petname = home.name.to_owned();
                let decision = Decision::Accept { petname };
                match client.decide(request.from.as_str(), decision).await {
                    // Several requests of one account are decided together.
                    Ok(()) | Err(ClientError::Unknown { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
        }
    }
    Ok(())
}

async fn joined(homes: &[Home], members: usize, name: &str) -> Result<()> {
    for home in homes.iter().take(members) {
        until(&home.client, "in its conversation", async |client| {
            admit(homes, client).await?;
            let all = client.conversations().await?;
            let is_there = all
                .iter()
                .any(|one| hex(&one.id) == name && one.ready && one.devices == members);
            Ok(is_there.then_some(()))
        })
        .await
        .with_context(|| home.name)?;
    }
    Ok(())
}

/// The conversation of alice and bob; alice's domain is its hub.
async fn pair(homes: &[Home]) -> Result<String> {
    let alice = homes.first().context("nobody")?;
    let sent = alice
        .client
        .send("bob", "preparation")
        .await
        .map_err(told)?;
    let room = hex(&sent.conversation);
    joined(homes, 2, &room).await?;
    Ok(room)
}

/// Alice makes a group with bob, and bob, whose domain is not its hub, adds carol.
async fn group(homes: &[Home]) -> Result<String> {
    let (alice, bob) = two(homes)?;
    let made = alice.create_group("everybody", &["bob"]).await;
    let group = hex(&made.map_err(told)?);
    joined(homes, 2, &group).await?;
    // A conversation of two is a group for bob once its name has come.
    until(bob, "the group's name", async |client| {
        let all = client.conversations().await?;
        Ok(all
            .iter()
            .any(|one| one.group && one.name == "everybody")
            .then_some(()))
    })
    .await?;
    bob.invite(&group, "carol").await.map_err(told)?;
    joined(homes, 3, &group).await?;
    Ok(group)
}

fn hex(group: &GroupId) -> String {
    data_encoding::HEXLOWER.encode(group.as_bytes())
}

/// Everything of `texts` is shown once, in this order.
async fn arrives(client: &Client, room: &str, texts: &[String]) -> Result<()> {
    until(client, "messages", async |client| {
        let shown = client.history(room, 0, 10_000).await?;
        let shown: Vec<_> = shown
            .into_iter()
            .filter(|message| texts.contains(&message.text))
            .map(|message| message.text)
            .collect();
        Ok((shown == texts).then_some(()))
    })
    .await
}

async fn send_all(client: &Client, room: &str, what: &str, count: usize) -> Result<Vec<String>> {
    let mut texts = Vec::new();
    for number in 0..count {
        let text = format!("{what} {number}");
        client.send(room, &text).await.map_err(told)?;
        texts.push(text);
    }
    Ok(texts)
}

async fn both_ways(homes: &[Home], room: &str, what: &str, count: usize) -> Result<()> {
    let (alice, bob) = two(homes)?;
    let there = send_all(alice, room, &format!("{what}: alice"), count).await?;
    let back = send_all(bob, room, &format!("{what}: bob"), count).await?;
    arrives(bob, room, &there).await?;
    arrives(alice, room, &back).await
}

fn two(homes: &[Home]) -> Result<(&Client, &Client)> {
    match homes {
        [alice, bob, ..] => Ok((&alice.client, &bob.client)),
        _ => anyhow::bail!("nobody"),
    }
}

/// Kills a domain, lets the other one's person write and hear that the messages are safe, and starts
/// it again.
async fn killed(homes: &mut [Home], room: &str, victim: usize, count: usize) -> Result<()> {
    let home = homes.get_mut(victim).context("no such domain")?;
    let what = format!("while {} is down", home.name);
    home.server.kill().await?;
    let (alice, bob) = two(homes)?;
    let (writer, reader) = if victim == 0 {
        (bob, alice)
    } else {
        (alice, bob)
    };
    let texts = send_all(writer, room, &what, count).await?;
    let safe = writer.send(room, "last").await.map_err(told)?;
    let wait = Duration::from_secs(30);
    writer
        .wait(safe, Tick::Stored, wait)
        .await
        .map_err(told)
        .context("nobody has custody though the outbox is there")?;
    let (writer, reader) = (writer.clone(), reader.clone());
    let home = homes.get_mut(victim).context("no such domain")?;
    home.server.restart().await?;
    reader.connected(STEP_WAIT).await.map_err(told)?;
    arrives(&reader, room, &texts).await?;
    drop(writer);
    both_ways(homes, room, &format!("after {what}"), count).await
}
