//! Two people who talk: short and long texts, both ways, and one that waits while its reader is away.

use std::time::Duration;

use anyhow::{Context as _, Result};
use commucat_client::{Client, Tick};
use commucat_proto::id::from_base32;
use commucat_proto::link::{ContactLink, InviteLink};
use commucat_testkit::canary::{Allowed, Canary};
use commucat_testkit::people::{Circle, told, until};
use commucat_testkit::server::Server;
use data_encoding::{BASE32_NOPAD, HEXLOWER};
use tempfile::TempDir;

/// Texts that are sent.
pub(crate) const MESSAGES: usize = 6;
/// Longer than any buffer that a proxy has for a request.
const LONG: usize = 60_000;
const WAIT: Duration = Duration::from_secs(60);

/// Two clients that are still connected.
#[derive(Debug)]
pub(crate) struct Chat {
    clients: [Client; 2],
    _profiles: TempDir,
}

impl Chat {
    pub(crate) async fn end(self) {
        for client in self.clients {
            client.shutdown().await;
        }
    }
}

/// Lets them talk; what nobody between them may see.
pub(crate) async fn run(server: &Server) -> Result<(Chat, Vec<Canary>)> {
    let profiles = tempfile::tempdir()?;
    let names = [word("alice")?, word("bob")?];
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let mut canaries: Vec<_> = names
        .iter()
        .map(|name| Canary::text("petname", Allowed::Nowhere, name))
        .collect();
    let invite = InviteLink::parse(&server.invite(1).await?)?;
    canaries.push(bytes("invite token", invite.token.as_bytes()));

    let circle = Circle::gather(server, profiles.path(), &names, 1).await?;
    let room = circle.pair(0, 1).await?;
    canaries.push(Canary::text("group id", Allowed::Nowhere, &room.name));
    let raw = HEXLOWER.decode(room.name.as_bytes())?;
    canaries.push(bytes("group id, raw", &raw));
    let (alice, bob) = (circle.first(0)?.clone(), circle.first(1)?.clone());
    for client in [&alice, &bob] {
        note(client, &mut canaries).await?;
    }

    for (number, long) in [(0, false), (1, true)] {
        for (from, to) in [(&alice, &bob), (&bob, &alice)] {
            let text = text(number, long, &mut canaries)?;
            from.send(&room.name, &text).await.map_err(told)?;
            arrived(to, &room.name, &text).await?;
        }
    }
    bob.shutdown().await;
    let mut waiting = Vec::new();
    for number in [2, 3] {
        let text = text(number, false, &mut canaries)?;
        let sent = alice.send(&room.name, &text).await.map_err(told)?;
        alice.wait(sent, Tick::Stored, WAIT).await.map_err(told)?;
        waiting.push(text);
    }
    let seat = circle.seats.get(1).context("no second device")?;
    let bob = Client::open(seat.settings.clone()).await.map_err(told)?;
    for text in &waiting {
        arrived(&bob, &room.name, text).await?;
    }
    let clients = [alice, bob];
    let chat = Chat {
        clients,
        _profiles: profiles,
    };
    Ok((chat, canaries))
}

/// What identifies a device and its account.
async fn note(client: &Client, canaries: &mut Vec<Canary>) -> Result<()> {
    let me = client.me().await.map_err(told)?;
    for (kind, text) in [
        ("account id", me.account.as_str()),
        ("device id", me.device.as_str()),
    ] {
        canaries.push(Canary::text(kind, Allowed::Nowhere, text));
        let raw = from_base32(text).context("an id is no base32")?;
        canaries.push(bytes(&format!("{kind}, raw"), &raw));
    }
    let capability = ContactLink::parse(&me.contact_link)?.capability;
    canaries.push(bytes("capability", capability.as_bytes()));
    let phrase = client.recovery_phrase().await.map_err(told)?;
    canaries.push(Canary::text("recovery phrase", Allowed::Nowhere, &phrase));
    Ok(())
}

fn bytes(name: &str, bytes: &[u8]) -> Canary {
    Canary::bytes(name, Allowed::Nowhere, bytes)
}

/// A new text, which is a canary; a long one repeats it.
fn text(number: usize, long: bool, canaries: &mut Vec<Canary>) -> Result<String> {
    let word = word(&format!("text-{number}"))?;
    canaries.push(Canary::text("text", Allowed::Nowhere, &word));
    let times = if long { LONG / word.len() } else { 1 };
    Ok(word.repeat(times))
}

fn word(kind: &str) -> Result<String> {
    let mut random = [0; 10];
    getrandom::fill(&mut random)?;
    let random = BASE32_NOPAD.encode(&random).to_lowercase();
    Ok(format!("canary-{kind}-{random}"))
}

async fn arrived(client: &Client, room: &str, text: &str) -> Result<()> {
    until(client, "a text", async |client| {
        let history = client.history(room, 0, 1000).await?;
        let is_there = history.iter().any(|message| message.text == text);
        Ok(is_there.then_some(()))
    })
    .await
}
