//! Every flow, with canaries: register, link, contacts, requests, messages, groups, receipts,
//! offline delivery, kill and restart, revocation, the operator's commands, plain HTTP.

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use commucat_client::vault::{Unlock, Vault};
use commucat_client::{Client, Decision, Settings, Tick};
use commucat_proto::id::{AccountId, DeviceId, GroupId, base32};
use commucat_proto::link::{ContactLink, InviteLink};
use commucat_testkit::canary::{Allowed, Canary, Place};
use commucat_testkit::people::{self, told, until};
use commucat_testkit::relay::Relay;
use commucat_testkit::server::Server;

use crate::names::Names;
use crate::{CLIENT, asker, places};

/// Canaries that must be found in the store, or it is not the right one.
pub(crate) const STORED: [&str; 3] = ["device id of alice-1", "account id of alice-1", "group id"];

pub(crate) const WAIT: Duration = Duration::from_secs(60);

/// What the flows share.
struct Stage<'a> {
    server: &'a mut Server,
    directory: &'a Path,
    names: &'a Names,
    canaries: Vec<Canary>,
    places: Vec<Place>,
}

/// Runs them; what to look for, and what the server kept on the way.
pub(crate) async fn run(
    server: &mut Server,
    relay: &Relay,
    directory: &Path,
    names: &Names,
) -> Result<(Vec<Canary>, Vec<Place>)> {
    let mut stage = Stage {
        server,
        directory,
        names,
        canaries: names.canaries(),
        places: Vec::new(),
    };
    stage.address()?;
    let [alice, bob, carol] = Box::pin(stage.join()).await?;
    Box::pin(stage.talk([&alice, &bob, &carol])).await?;
    let second = people::link(&alice, &stage.settings("alice-2")).await?;
    stage.note_ids(&second, "alice-2").await?;
    Box::pin(stage.talk_in_group([&alice, &bob, &carol])).await?;
    let bob = Box::pin(stage.talk_offline(&alice, bob)).await?;
    asker::ask(relay, names).await?;
    Box::pin(stage.operate(&carol)).await?;
    Box::pin(stage.part(&alice, &bob, &second)).await?;
    for (client, name) in [
        (alice, "alice-1"),
        (second, "alice-2"),
        (bob, "bob"),
        (carol, "carol"),
    ] {
        client.shutdown().await;
        stage.note_keys(name)?;
    }
    Ok((stage.canaries, stage.places))
}

impl Stage<'_> {
    fn settings(&self, name: &str) -> Settings {
        people::settings(self.directory, name)
    }

    fn bytes(&mut self, name: &str, allowed: Allowed, bytes: &[u8]) {
        self.canaries.push(Canary::bytes(name, allowed, bytes));
    }

    fn text(&mut self, name: &str, allowed: Allowed, text: &str) {
        self.canaries.push(Canary::text(name, allowed, text));
    }

    /// The clients' address in the forms in which it may be written.
    fn address(&mut self) -> Result<()> {
        let mapped = CLIENT.to_ipv6_mapped();
        self.text("client address", Allowed::Nowhere, &CLIENT.to_string());
        self.bytes("client address, raw", Allowed::Nowhere, &CLIENT.octets());
        let [.., last, end] = mapped.segments();
        let text = format!("::ffff:{last:x}:{end:x}");
        self.text("client address, IPv6", Allowed::Nowhere, &text);
        ensure!(
            CLIENT.is_loopback() && CLIENT != Ipv4Addr::LOCALHOST,
            "wrong address"
        );
        Ok(())
    }

    async fn join(&mut self) -> Result<[Client; 3]> {
        let first = self.server.first_invite()?;
        let token = InviteLink::parse(&first)?.token;
        self.bytes(
            "token of the first invite",
            Allowed::Terminal,
            token.as_bytes(),
        );
        let shown = token_text(&first)?;
        self.text("link of the first invite", Allowed::Terminal, &shown);
        let invite = self.server.invite(2).await?;
        let token = InviteLink::parse(&invite)?.token;
        self.bytes("invite token", Allowed::Nowhere, token.as_bytes());
        self.text(
            "invite token, text",
            Allowed::Nowhere,
            &token_text(&invite)?,
        );

        let alice = self.join_one("alice-1", &first).await?;
        let bob = self.join_one("bob", &invite).await?;
        let carol = self.join_one("carol", &invite).await?;
        let refused = Client::join(self.settings("late"), &invite).await;
        ensure!(refused.is_err(), "an invite for two opens a third account");
        Ok([alice, bob, carol])
    }

    async fn join_one(&mut self, name: &str, invite: &str) -> Result<Client> {
        let joined = Client::join(self.settings(name), invite).await;
        let client = joined
            .map_err(told)
            .with_context(|| format!("{name} does not join"))?;
        client.connected(WAIT).await.map_err(told)?;
        let phrase = client.recovery_phrase().await.map_err(told)?;
        self.text(
            &format!("recovery phrase of {name}"),
            Allowed::Nowhere,
            &phrase,
        );
        // One word alone is a word of the language.
        let words: Vec<_> = phrase.split(' ').collect();
        for (number, pair) in words.chunks(2).enumerate() {
            let name = format!("words {number} of the phrase of {name}");
            self.text(&name, Allowed::Nowhere, &pair.join(" "));
        }
        self.note_ids(&client, name).await?;
        let link = client.me().await.map_err(told)?.contact_link;
        let capability = ContactLink::parse(&link)?.capability;
        self.bytes(
            &format!("capability of {name}"),
            Allowed::Nowhere,
            capability.as_bytes(),
        );
        Ok(client)
    }

    async fn note_ids(&mut self, client: &Client, name: &str) -> Result<()> {
        let me = client.me().await.map_err(told)?;
        let (account, device): (AccountId, DeviceId) = (me.account, me.device);
        for (kind, text) in [
            ("account id", account.as_str()),
            ("device id", device.as_str()),
        ] {
            self.text(&format!("{kind} of {name}"), Allowed::Store, text);
            let raw = commucat_proto::id::from_base32(text).context("an id is no base32")?;
            ensure!(base32(&raw) == text, "an id is no base32");
            self.bytes(&format!("{kind} of {name}, raw"), Allowed::Store, &raw);
        }
        Ok(())
    }

    /// Contacts, a stranger's request, messages both ways, read receipts, safety numbers.
    async fn talk(&mut self, [alice, bob, carol]: [&Client; 3]) -> Result<()> {
        let names = self.names;
        let links = [alice, bob].map(Client::me);
        let [alice_me, bob_me] = links;
        let (alice_link, bob_link) = (alice_me.await.map_err(told)?, bob_me.await.map_err(told)?);
        let add = bob
            .add_contact(&alice_link.contact_link, &names.alice)
            .await;
        add.map_err(told)?;
        let add = alice.add_contact(&bob_link.contact_link, &names.bob).await;
        add.map_err(told)?;
        let group = say(alice, &names.bob, names.text(0), bob).await?;
        self.bytes("group id of a pair", Allowed::Store, group.as_bytes());
        say(bob, &names.alice, names.text(1), alice).await?;
        alice.mark_read(&names.bob).await.map_err(told)?;
        alice.safety(&names.bob).await.map_err(told)?;
        alice.mark_verified(&names.bob).await.map_err(told)?;

        // Carol has Alice's link, Alice does not know Carol.
        let add = carol
            .add_contact(&alice_link.contact_link, &names.alice)
            .await;
        add.map_err(told)?;
        let sent = carol
            .send(&names.alice, names.text(2))
            .await
            .map_err(told)?;
        let request = until(alice, "a request", async |client| {
            Ok(client.requests().await?.into_iter().next())
        });
        let request = request.await?;
        let petname = names.stranger.clone();
        let decided = alice.decide(request.from.as_str(), Decision::Accept { petname });
        decided.await.map_err(told)?;
        arrived(alice, &sent.conversation, names.text(2)).await
    }

    /// A group: made, named, written in by all, one more invited.
    async fn talk_in_group(&mut self, [alice, bob, carol]: [&Client; 3]) -> Result<()> {
        let names = self.names;
        let made = alice.create_group(&names.group, &[&names.bob]).await;
        let group = made.map_err(told)?;
        self.bytes("group id", Allowed::Store, group.as_bytes());
        inside(bob, &group).await?;
        say(alice, &hex(&group), names.text(3), bob).await?;
        alice
            .invite(&names.group, &names.stranger)
            .await
            .map_err(told)?;
        inside(carol, &group).await?;
        say(carol, &hex(&group), names.text(4), bob).await?;
        say(bob, &hex(&group), names.text(5), alice).await?;
        Ok(())
    }

    /// Bob is away while texts come and the server is killed; then he gets them.
    async fn talk_offline(&mut self, alice: &Client, bob: Client) -> Result<Client> {
        let names = self.names;
        bob.shutdown().await;
        let sent = alice.send(&names.bob, names.text(6)).await.map_err(told)?;
        alice.wait(sent, Tick::Stored, WAIT).await.map_err(told)?;
        let stored = places::of(self.server, "while texts wait").await?;
        self.places.extend(stored);
        self.server.kill().await?;
        self.places
            .extend(places::files(self.server, "after a kill")?);
        let queued = alice.send(&names.bob, names.text(7)).await.map_err(told)?;
        self.server.restart().await?;
        alice.wait(queued, Tick::Stored, WAIT).await.map_err(told)?;
        let bob = Client::open(self.settings("bob")).await.map_err(told)?;
        arrived(&bob, &sent.conversation, names.text(6)).await?;
        arrived(&bob, &sent.conversation, names.text(7)).await?;
        Ok(bob)
    }

    /// What an operator does.
    async fn operate(&mut self, carol: &Client) -> Result<()> {
        let device = carol.me().await.map_err(told)?.device;
        let made = self
            .cli(&["--json", "invite", "create", "--uses", "1"])
            .await?;
        let made: serde_json::Value = serde_json::from_slice(&made)?;
        let link = made.get("link").and_then(serde_json::Value::as_str);
        let link = link.context("no link in the answer of `invite create`")?;
        let token = InviteLink::parse(link)?.token;
        self.bytes(
            "token of the operator's invite",
            Allowed::Nowhere,
            token.as_bytes(),
        );
        self.cli(&["invite", "list"]).await?;
        self.cli(&["invite", "revoke", link]).await?;
        self.cli(&["device", "list"]).await?;
        self.cli(&["device", "show", device.as_str()]).await?;
        self.cli(&["rotate-keys", "--noise"]).await?;
        self.cli(&["rotate-keys", "--references"]).await?;
        self.cli(&["config", "show"]).await?;
        self.cli(&["diagnose"]).await?;
        self.server.signal("HUP").await?;
        self.cli(&["device", "revoke", device.as_str(), "--yes"])
            .await?;
        Ok(())
    }

    async fn cli(&self, args: &[&str]) -> Result<Vec<u8>> {
        let output = self.server.cli(args).await?;
        let told = String::from_utf8_lossy(&output.stderr);
        let shown = String::from_utf8_lossy(&output.stdout);
        // A self-signed certificate and the like are findings of `diagnose`.
        ensure!(
            output.status.success() || args == ["diagnose"],
            "`commucat-cli {}`: {told}{shown}",
            args.first().copied().unwrap_or_default()
        );
        Ok(output.stdout)
    }

    /// Out of a group, out of an account.
    async fn part(&mut self, alice: &Client, bob: &Client, second: &Client) -> Result<()> {
        let names = self.names;
        bob.leave(&names.group).await.map_err(told)?;
        alice
            .remove(&names.group, &names.stranger)
            .await
            .map_err(told)?;
        let device = second.me().await.map_err(told)?.device;
        alice.revoke_device(device.as_str()).await.map_err(told)?;
        say(alice, &names.bob, names.text(8), bob).await?;
        Ok(())
    }

    /// The private keys, from the profile of a client that has ended.
    fn note_keys(&mut self, name: &str) -> Result<()> {
        let settings = self.settings(name);
        let vault = Vault::open(&settings.directory, &Unlock::KeyFileBeside)?;
        let record = vault.get("account", b"", b"")?.context("no account")?;
        let key = std::fs::read(settings.directory.join("vault.key"))?;
        self.bytes(&format!("vault key of {name}"), Allowed::Nowhere, &key);
        for (field, what) in [
            ("noise", "Noise key"),
            ("mls", "MLS key"),
            ("entropy", "entropy"),
        ] {
            if let Some(secret) = secret_of(&record, field) {
                self.bytes(&format!("{what} of {name}"), Allowed::Nowhere, &secret);
            } else {
                ensure!(field == "entropy", "no {what} in the profile of {name}");
            }
        }
        Ok(())
    }
}

/// The 32 bytes of a field in a record: its name, then the bytes, in `MessagePack`.
fn secret_of(record: &[u8], field: &str) -> Option<Vec<u8>> {
    let length = u8::try_from(field.len()).ok()?;
    let head = [&[0xa0 | length], field.as_bytes(), &[0xc4, 32]].concat();
    let place = record
        .windows(head.len())
        .position(|window| window == head)?;
    let from = place + head.len();
    Some(record.get(from..from + 32)?.to_vec())
}

/// The token as the link writes it.
fn token_text(link: &str) -> Result<String> {
    let text = link.split("i=").nth(1).context("no token in the link")?;
    Ok(text.split([',', '&']).next().unwrap_or(text).to_owned())
}

pub(crate) fn hex(group: &GroupId) -> String {
    data_encoding::HEXLOWER.encode(group.as_bytes())
}

/// Sends a text and waits until `to` has it.
async fn say(from: &Client, name: &str, text: &str, to: &Client) -> Result<GroupId> {
    let sent = from.send(name, text).await.map_err(told)?;
    let arrives = arrived(to, &sent.conversation, text).await;
    arrives.with_context(|| format!("a text does not arrive: {text}"))?;
    Ok(sent.conversation)
}

/// Waits until a device is in a conversation, which a stranger may have asked it into.
pub(crate) async fn inside(client: &Client, group: &GroupId) -> Result<()> {
    until(client, "to be in a group", async |client| {
        for request in client.requests().await? {
            let petname = format!("canary {}", request.from.as_str());
            client
                .decide(request.from.as_str(), Decision::Accept { petname })
                .await
                .ok();
        }
        let all = client.conversations().await?;
        Ok(all
            .iter()
            .any(|one| one.id == *group && one.ready)
            .then_some(()))
    })
    .await
}

pub(crate) async fn arrived(client: &Client, group: &GroupId, text: &str) -> Result<()> {
    until(client, "a text", async |client| {
        let all = client.conversations().await?;
        if !all.iter().any(|one| one.id == *group) {
            return Ok(None);
        }
        let history = client.history(&hex(group), 0, 1000).await?;
        Ok(history
            .iter()
            .any(|message| message.text == text)
            .then_some(()))
    })
    .await
}
