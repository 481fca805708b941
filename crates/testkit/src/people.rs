//! Accounts and devices that know each other, made by the client SDK against a real server.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use commucat_client::{Client, ClientError, Decision, Settings, Suite, Trust};
use commucat_proto::id::GroupId;
use data_encoding::HEXLOWER;
use tokio::time::{Instant, timeout_at};

use crate::server::Server;

/// Longest wait for one step of the preparation.
pub const STEP_WAIT: Duration = Duration::from_secs(60);
/// How long a client is not looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Texts of the preparation begin with this: no history counts them.
pub const PREPARATION: &str = "preparation";
/// The group of everybody.
pub const GROUP: &str = "everybody";

/// One device.
#[derive(Clone, Debug)]
pub struct Seat {
    /// Whose it is, as an index of the names.
    pub account: usize,
    /// Its profile.
    pub settings: Settings,
    /// The running client.
    pub client: Client,
}

/// A conversation.
#[derive(Clone, Debug)]
pub struct Room {
    /// Its name for [`Client::send`] on any device.
    pub name: String,
    /// Its devices, as indices of [`Circle::seats`].
    pub seats: Vec<usize>,
}

/// Accounts with `devices` devices each, who know each other.
#[derive(Debug)]
pub struct Circle {
    /// Petnames of the accounts.
    pub names: Vec<String>,
    /// All devices, those of the first account first.
    pub seats: Vec<Seat>,
    /// Devices of each account.
    pub devices: usize,
}

/// Settings of a profile in `directory`.
#[must_use]
pub fn settings(directory: &Path, name: &str) -> Settings {
    let mut settings = Settings::new(directory.join(name));
    settings.trust = Trust::Insecure;
    settings.suite = Suite::Hybrid;
    settings
}

impl Circle {
    /// Joins accounts by the server's invite, links their further devices and makes all of them
    /// contacts of each other. Profiles are made in `directory`.
    ///
    /// # Errors
    ///
    /// What the clients say.
    pub async fn gather(
        server: &Server,
        directory: &Path,
        names: &[&str],
        devices: usize,
    ) -> Result<Self> {
        let invite = server.invite(u32::try_from(names.len())?).await?;
        let names: Vec<_> = names.iter().map(|name| (*name, invite.as_str())).collect();
        Self::gather_by(directory, &names, devices).await
    }

    /// The same for accounts with an invite each, of one domain or of several that talk to each other.
    ///
    /// # Errors
    ///
    /// What the clients say.
    pub async fn gather_by(
        directory: &Path,
        names: &[(&str, &str)],
        devices: usize,
    ) -> Result<Self> {
        let mut seats = Vec::new();
        for (account, (name, invite)) in names.iter().enumerate() {
            let own = settings(directory, &format!("{name}-1"));
            let joined = Client::join(own.clone(), invite).await.map_err(told);
            let first = joined.with_context(|| format!("{name} does not join"))?;
            first.connected(STEP_WAIT).await.map_err(told)?;
            let mut own_seats = vec![Seat {
                account,
                settings: own,
                client: first.clone(),
            }];
            for device in 2..=devices {
                let settings = settings(directory, &format!("{name}-{device}"));
                let client = link(&first, &settings).await;
                let client = client.with_context(|| format!("{name} links no device"))?;
                own_seats.push(Seat {
                    account,
                    settings,
                    client,
                });
            }
            seats.append(&mut own_seats);
        }
        let circle = Self {
            names: names.iter().map(|(name, _)| (*name).to_owned()).collect(),
            seats,
            devices,
        };
        circle.introduce().await?;
        Ok(circle)
    }

    /// The first device of an account.
    ///
    /// # Errors
    ///
    /// If there is no such account.
    pub fn first(&self, account: usize) -> Result<&Client> {
        let seat = self.seats.iter().find(|seat| seat.account == account);
        Ok(&seat.context("no such account")?.client)
    }

    fn seats_of(&self, accounts: &[usize]) -> Vec<usize> {
        let all = self.seats.iter().enumerate();
        let of = all.filter(|(_, seat)| accounts.contains(&seat.account));
        of.map(|(index, _)| index).collect()
    }

    async fn introduce(&self) -> Result<()> {
        for (one, _) in self.names.iter().enumerate() {
            let link = self.first(one)?.me().await.map_err(told)?.contact_link;
            for (other, _) in self.names.iter().enumerate() {
                if one != other {
                    let name = self.names.get(one).context("no name")?;
                    let added = self.first(other)?.add_contact(&link, name).await;
                    added.map_err(told)?;
                }
            }
        }
        Ok(())
    }

    /// The conversation of two accounts, on all their devices.
    ///
    /// # Errors
    ///
    /// If it does not come about in time.
    pub async fn pair(&self, one: usize, other: usize) -> Result<Room> {
        let client = self.first(one)?;
        let petname = self.names.get(other).context("no such account")?;
        let sent = client.send(petname, PREPARATION).await.map_err(told)?;
        self.room(&sent.conversation, &[one, other]).await
    }

    /// A group of all accounts, on all their devices.
    ///
    /// # Errors
    ///
    /// If it does not come about in time.
    pub async fn group(&self) -> Result<Room> {
        let accounts: Vec<_> = (0..self.names.len()).collect();
        self.group_of(&accounts).await
    }

    /// A group of these accounts, on all their devices; the first makes it.
    ///
    /// # Errors
    ///
    /// If it does not come about in time.
    pub async fn group_of(&self, accounts: &[usize]) -> Result<Room> {
        let (maker, others) = accounts.split_first().context("nobody")?;
        let others = others.iter().filter_map(|account| self.names.get(*account));
        let others: Vec<_> = others.map(String::as_str).collect();
        let made = self.first(*maker)?.create_group(GROUP, &others).await;
        self.room(&made.map_err(told)?, accounts).await
    }

    async fn room(&self, group: &GroupId, accounts: &[usize]) -> Result<Room> {
        let seats = self.seats_of(accounts);
        for index in &seats {
            let seat = self.seats.get(*index).context("no such device")?;
            let what = format!("device {index} in its conversation");
            until(&seat.client, &what, async |client| {
                self.admit(client).await?;
                let all = client.conversations().await?;
                let is_there = all
                    .iter()
                    .any(|one| one.id == *group && one.ready && one.devices == seats.len());
                Ok(is_there.then_some(()))
            })
            .await?;
        }
        Ok(Room {
            name: HEXLOWER.encode(group.as_bytes()),
            seats,
        })
    }

    /// Lets in whom a device does not know by name: petnames stay on the device that gave them.
    async fn admit(&self, client: &Client) -> Result<(), ClientError> {
        for request in client.requests().await? {
            for (account, name) in self.names.iter().enumerate() {
                let Ok(first) = self.first(account) else {
                    continue;
                };
                if first.me().await?.account == request.from {
                    let petname = name.clone();
                    let decided = client
                        .decide(request.from.as_str(), Decision::Accept { petname })
                        .await;
                    match decided {
                        // Several requests of one account are decided together.
                        Ok(()) | Err(ClientError::Unknown { .. }) => {}
                        Err(error) => return Err(error),
                    }
                }
            }
        }
        Ok(())
    }
}

/// An invite for so many accounts. The admin socket of a server opens a moment after its ports.
///
/// # Errors
///
/// What the server answers.
pub async fn invite(server: &Server, uses: u32) -> Result<String> {
    let deadline = Instant::now() + STEP_WAIT;
    loop {
        match server.invite(uses).await {
            Ok(invite) => return Ok(invite),
            Err(error) if Instant::now() > deadline => return Err(error),
            Err(_) => tokio::time::sleep(LOOK_EVERY / 10).await,
        }
    }
}

/// Links a further device to the account of `first`.
///
/// # Errors
///
/// What the clients say.
pub async fn link(first: &Client, settings: &Settings) -> Result<Client> {
    let code = Client::begin_link(settings).map_err(told)?;
    let answer = first.link_device(&code).await.map_err(told)?;
    let linked = Client::finish_link(settings.clone(), &answer).await;
    let linked = linked.map_err(told)?;
    linked.connected(STEP_WAIT).await.map_err(told)?;
    Ok(linked)
}

/// Looks at a client now, after each of its events, and every now and then, for not everything is
/// told, until there is something.
///
/// # Errors
///
/// If there is nothing within [`STEP_WAIT`].
pub async fn until<T>(
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
        let next = Instant::now() + LOOK_EVERY;
        match timeout_at(next, events.next()).await {
            Ok(None) => bail!("{what}: the client has stopped"),
            Ok(Some(_)) => {}
            Err(_) if next < deadline => {}
            Err(_) => {
                let status = client.status().await.map_err(told)?;
                let rooms = client.conversations().await.map_err(told)?;
                let rooms: Vec<_> = rooms
                    .iter()
                    .map(|one| (one.name.as_str(), one.devices, one.ready, one.unsent))
                    .collect();
                bail!(
                    "{what}: not in time; {:?}, conversations (name, devices, ready, unsent) {rooms:?}",
                    status.connection
                )
            }
        }
    }
}

/// An error with its causes: `anyhow` would show the text of the first only.
#[expect(clippy::needless_pass_by_value, reason = "for `map_err`")]
pub fn told(error: ClientError) -> anyhow::Error {
    anyhow::anyhow!("{}", error.chain())
}
