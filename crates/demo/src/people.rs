//! Alice with one device, Bob with two, made by the client SDK with real invites of two servers.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use commucat_client::{Client, ClientError, Decision, Message, Settings, Trust};
use data_encoding::HEXLOWER;
use tokio::time::{Instant, timeout_at};

/// Longest wait for anything that should take a moment.
pub(crate) const STEP_WAIT: Duration = Duration::from_secs(30);
/// What Bob calls Alice.
pub(crate) const ALICE: &str = "Alice Liddell";
/// What Alice calls Bob.
pub(crate) const BOB: &str = "Bob Cratchit";
/// How the devices are told apart on the screen; also their profile directories.
pub(crate) const DEVICES: [&str; 3] = ["alice", "bobs-phone", "bobs-laptop"];

/// The devices of the story.
#[derive(Debug)]
pub(crate) struct People {
    pub(crate) alice: Client,
    pub(crate) phone: Client,
    pub(crate) laptop: Client,
    laptop_settings: Settings,
    /// The conversation, as a name that is the same on all devices.
    room: String,
}

impl People {
    /// Joins Alice and Bob's phone, each by an invite of another server, and links Bob's laptop to his
    /// account.
    pub(crate) async fn join(home: &Path, ca: &Path, invites: &[String; 2]) -> Result<Self> {
        let settings = DEVICES.map(|name| {
            let mut settings = Settings::new(home.join(name));
            settings.trust = Trust::Ca(ca.to_owned());
            settings
        });
        let [alice, phone, laptop_settings] = settings;
        let [hers, his] = invites;
        let alice = Client::join(alice, hers).await.map_err(told)?;
        let phone = Client::join(phone, his).await.map_err(told)?;
        let laptop = link(&phone, &laptop_settings).await?;
        let people = Self {
            alice,
            phone,
            laptop,
            laptop_settings,
            room: String::new(),
        };
        for client in [&people.alice, &people.phone, &people.laptop] {
            client.caught_up(STEP_WAIT).await.map_err(told)?;
        }
        Ok(people)
    }

    /// Lets Alice and Bob add each other by their contact links; returns when each knows the
    /// other's devices.
    pub(crate) async fn introduce(&self) -> Result<()> {
        let pairs = [
            (&self.alice, &self.phone, BOB, 2),
            (&self.phone, &self.alice, ALICE, 1),
        ];
        for (one, other, name, devices) in pairs {
            let link = other.me().await.map_err(told)?.contact_link;
            one.add_contact(&link, name).await.map_err(told)?;
            one.quiet(STEP_WAIT).await.map_err(told)?;
            let contacts = one.contacts().await.map_err(told)?;
            ensure!(
                contacts.iter().any(|one| one.devices == devices),
                "the devices of {name} are not known"
            );
        }
        Ok(())
    }

    /// Makes the conversation, with all three devices in it; returns its MLS suite.
    pub(crate) async fn meet(&mut self) -> Result<u16> {
        let opened = self.alice.send(BOB, OPENING).await.map_err(told)?;
        self.room = HEXLOWER.encode(opened.conversation.as_bytes());
        let alice = self.alice.me().await.map_err(told)?.account;
        for client in [&self.alice, &self.phone, &self.laptop] {
            until(client, "the conversation on all devices", async |client| {
                // Petnames stay on the device that gave them: the laptop may ask who this is.
                for request in client.requests().await? {
                    if request.from == alice {
                        let petname = ALICE.to_owned();
                        let accept = Decision::Accept { petname };
                        client.decide(request.from.as_str(), accept).await?;
                    }
                }
                let all = client.conversations().await?;
                let is_whole = all
                    .iter()
                    .any(|one| one.id == opened.conversation && one.devices == DEVICES.len());
                Ok(is_whole.then_some(()))
            })
            .await?;
            self.shows(client, OPENING).await?;
        }
        let all = self.alice.conversations().await.map_err(told)?;
        let one = all.iter().find(|one| one.id == opened.conversation);
        Ok(one.context("no conversation")?.suite)
    }

    /// Waits until a device shows a message.
    pub(crate) async fn shows(&self, client: &Client, text: &str) -> Result<()> {
        let what = format!("`{text}` on a device");
        until(client, &what, async |client| {
            let history = client.history(&self.room, 0, HISTORY_MAX).await?;
            let is_there = history.iter().any(|message| message.text == text);
            Ok(is_there.then_some(()))
        })
        .await
    }

    /// All that a device keeps of the conversation.
    pub(crate) async fn history(&self, client: &Client) -> Result<Vec<Message>> {
        let history = client.history(&self.room, 0, HISTORY_MAX).await;
        history.map_err(told)
    }

    /// Switches the laptop off.
    pub(crate) async fn laptop_off(&self) -> Result<()> {
        self.laptop.quiet(STEP_WAIT).await.map_err(told)?;
        self.laptop.shutdown().await;
        Ok(())
    }

    /// Switches the laptop on again.
    pub(crate) async fn laptop_on(&mut self) -> Result<()> {
        self.laptop = Client::open(self.laptop_settings.clone())
            .await
            .map_err(told)?;
        Ok(())
    }
}

/// The first message, which brings the conversation about.
pub(crate) const OPENING: &str = "Bob, is this you? It is me, from the bookshop";

async fn link(first: &Client, settings: &Settings) -> Result<Client> {
    let code = Client::begin_link(settings).map_err(told)?;
    first.connected(STEP_WAIT).await.map_err(told)?;
    let answer = first.link_device(&code).await.map_err(told)?;
    Client::finish_link(settings.clone(), &answer)
        .await
        .map_err(told)
}

/// More messages than the whole story has.
const HISTORY_MAX: u32 = 1000;

/// Looks at a client now and after each of its events, until there is something.
pub(crate) async fn until<T>(
    client: &Client,
    what: &str,
    look: impl AsyncFn(&Client) -> Result<Option<T>, ClientError>,
) -> Result<T> {
    let deadline = Instant::now() + STEP_WAIT;
    let mut events = client.subscribe();
    loop {
        if let Some(found) = look(client).await.map_err(told)? {
            return Ok(found);
        }
        match timeout_at(deadline, events.next()).await {
            Ok(Some(_)) => {}
            Ok(None) => bail!("{what}: the client has stopped"),
            Err(_) => bail!("{what}: not in time; {:?}", client.connection()),
        }
    }
}

/// An error with its causes and the next step.
#[expect(clippy::needless_pass_by_value, reason = "for `map_err`")]
pub(crate) fn told(error: ClientError) -> anyhow::Error {
    anyhow!("{}", error.chain())
}
