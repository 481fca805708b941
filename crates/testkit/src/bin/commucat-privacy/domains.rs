//! A group over three domains: what its hub and a follower keep of each other's people, which is what
//! CCP-1 section 8.5 says that they learn, and nothing else.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use commucat_client::{Client, Tick};
use commucat_proto::id::GroupId;
use commucat_testkit::canary::{Allowed, Canary, Hit, Kind, Place, Searcher};
use commucat_testkit::people::{self, told};
use commucat_testkit::server::{Options, Server};

use crate::flows::{self, WAIT, hex};
use crate::names::Names;
use crate::places;

/// The hub with alice and carol, the follower with bob and his two devices, and a third with dave, of
/// which the follower learns nothing.
struct World {
    hub: Server,
    follower: Server,
    third: Server,
    alice: Client,
    carol: Client,
    bob: Client,
    dave: Client,
}

/// Ids of one device, which only its home may know, and what it is called here.
struct Known {
    name: &'static str,
    home: Home,
    account: String,
    device: String,
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum Home {
    Hub,
    Follower,
    Third,
}

/// Plays, searches, and counts.
pub(crate) async fn run() -> Result<(String, Vec<Hit>)> {
    let directory = tempfile::tempdir()?;
    let names = Names::new()?;
    let mut world = World::start(directory.path()).await?;
    let group = world.meet(&names).await?;
    let (at_hub, at_follower) = world.part_by_part(&names, &group, directory.path()).await?;
    let known = world.known().await?;
    let third = world.third.domain();

    let mut hits = Vec::new();
    let mut count = 0;
    for (home, places) in [(Home::Hub, &at_hub), (Home::Follower, &at_follower)] {
        let searcher = Searcher::new(canaries(home, (&names, &known), (&group, &third)))?;
        ensure!(searcher.blind_spots() == 0, "planted values were not found");
        let stored = |name: &str| {
            let mut stores = places.iter().filter(|place| place.kind == Kind::Store);
            stores.any(|place| searcher.is_in(name, place))
        };
        for own in known.iter().filter(|one| one.home == home) {
            let name = format!("device id of {}", own.name);
            ensure!(stored(&name), "{name} is not at home");
        }
        ensure!(stored("group id"), "a domain in the group knows no group");
        if home == Home::Hub {
            ensure!(
                stored("a third domain"),
                "the hub does not know a domain in its list"
            );
        }
        count += searcher.canaries();
        hits.extend(places.iter().flat_map(|place| searcher.hits(place)));
    }
    hits.sort_unstable();
    let places = at_hub.len() + at_follower.len();
    let line = format!(
        "privacy of domains: {count} canaries, {places} places, {} hits",
        hits.len()
    );
    Ok((line, hits))
}

/// What to look for at a domain.
fn canaries(
    home: Home,
    (names, known): (&Names, &[Known]),
    (group, third): (&[u8], &str),
) -> Vec<Canary> {
    let mut all = names.canaries();
    for one in known {
        let allowed = if one.home == home {
            Allowed::Store
        } else {
            Allowed::Nowhere
        };
        for (kind, id) in [("account id", &one.account), ("device id", &one.device)] {
            let name = format!("{kind} of {}", one.name);
            all.push(Canary::text(&name, allowed, id));
            if let Some(raw) = commucat_proto::id::from_base32(id) {
                all.push(Canary::bytes(&format!("{name}, raw"), allowed, &raw));
            }
        }
    }
    all.push(Canary::bytes("group id", Allowed::Store, group));
    let allowed = match home {
        Home::Hub => Allowed::Store,
        Home::Follower | Home::Third => Allowed::Nowhere,
    };
    all.push(Canary::text("a third domain", allowed, third));
    all
}

impl World {
    async fn start(directory: &Path) -> Result<Self> {
        let ca = directory.join("ca.pem");
        fs::write(&ca, "")?;
        let mut servers = Vec::new();
        let mut certificates = String::new();
        for _ in 0..3 {
            let options = Options::default().for_load().federated(&ca);
            let mut server = Server::start(options.set("server.log", "trace")).await?;
            certificates.push_str(&fs::read_to_string(server.certificate_file())?);
            server.terminate().await?;
            servers.push(server);
        }
        fs::write(&ca, certificates)?;
        for server in &mut servers {
            server.restart().await?;
        }
        let Ok([hub, follower, third]) = <[Server; 3]>::try_from(servers) else {
            anyhow::bail!("three servers");
        };
        let join = async |name: &str, server: &Server| {
            let invite = people::invite(server, 1).await?;
            let joined = Client::join(people::settings(directory, name), &invite).await;
            let client = joined.map_err(told).with_context(|| name.to_owned())?;
            client.connected(WAIT).await.map_err(told)?;
            anyhow::Ok(client)
        };
        Ok(Self {
            alice: join("alice", &hub).await?,
            carol: join("carol", &hub).await?,
            bob: join("bob", &follower).await?,
            dave: join("dave", &third).await?,
            hub,
            follower,
            third,
        })
    }

    /// Alice makes a group with carol and dave, and adds bob later: of dave he sees nothing but what
    /// is sealed.
    async fn meet(&self, names: &Names) -> Result<Vec<u8>> {
        let called = [
            (&self.bob, &names.bob),
            (&self.carol, &names.carol),
            (&self.dave, &names.stranger),
        ];
        for (client, name) in called {
            let link = client.me().await.map_err(told)?.contact_link;
            self.alice.add_contact(&link, name).await.map_err(told)?;
        }
        let first = [names.carol.as_str(), names.stranger.as_str()];
        let made = self.alice.create_group(&names.group, &first).await;
        let group = made.map_err(told)?;
        for client in [&self.carol, &self.dave] {
            flows::inside(client, &group).await?;
        }
        let invited = self.alice.invite(&hex(&group), &names.bob).await;
        invited.map_err(told)?;
        flows::inside(&self.bob, &group).await?;
        let all = [&self.alice, &self.carol, &self.bob, &self.dave];
        for (number, writer) in all.into_iter().enumerate() {
            let text = names.text(number);
            writer.send(&hex(&group), text).await.map_err(told)?;
            for reader in all {
                flows::arrived(reader, &group, text).await?;
            }
        }
        Ok(group.as_bytes().to_vec())
    }

    /// Each side writes while the other is dead, so that what was to be sent lies in its outbox, as it
    /// would have gone over the wire; what hub and follower keep then and at the end.
    async fn part_by_part(
        &mut self,
        names: &Names,
        group: &[u8],
        directory: &Path,
    ) -> Result<(Vec<Place>, Vec<Place>)> {
        let room = data_encoding::HEXLOWER.encode(group);
        self.follower.kill().await?;
        write(&self.alice, &room, names.text(4)).await?;
        let mut at_hub = places::of(&self.hub, "while the follower is dead").await?;
        let mut at_follower = places::files(&self.follower, "after a kill")?;
        self.follower.restart().await?;
        self.hub.kill().await?;
        self.bob.connected(WAIT).await.map_err(told)?;
        let group = write(&self.bob, &room, names.text(5)).await?;
        at_follower.extend(places::of(&self.follower, "while the hub is dead").await?);
        self.hub.restart().await?;
        flows::arrived(&self.alice, &group, names.text(5)).await?;
        at_follower.extend(self.away(&group, names.text(6), directory).await?);
        for (server, places) in [
            (&mut self.hub, &mut at_hub),
            (&mut self.follower, &mut at_follower),
        ] {
            places.extend(places::of(server, "at the end").await?);
            let status = server.terminate().await?;
            ensure!(status.success(), "a server ended with {status}");
            places.extend(places::files(server, "after the end")?);
        }
        Ok((at_hub, at_follower))
    }

    /// Bob's devices are away, so that something waits for them; what the follower keeps then.
    async fn away(&mut self, group: &GroupId, text: &str, directory: &Path) -> Result<Vec<Place>> {
        let second = people::link(&self.bob, &people::settings(directory, "bob-2")).await?;
        second.shutdown().await;
        self.bob.shutdown().await;
        self.carol.connected(WAIT).await.map_err(told)?;
        write(&self.carol, &hex(group), text).await?;
        flows::arrived(&self.dave, group, text).await?;
        let places = places::of(&self.follower, "while a text waits").await?;
        let opened = Client::open(people::settings(directory, "bob")).await;
        self.bob = opened.map_err(told)?;
        flows::arrived(&self.bob, group, text).await?;
        Ok(places)
    }

    async fn known(&self) -> Result<Vec<Known>> {
        let mut known = Vec::new();
        for (name, home, client) in [
            ("alice", Home::Hub, &self.alice),
            ("carol", Home::Hub, &self.carol),
            ("bob", Home::Follower, &self.bob),
            ("dave", Home::Third, &self.dave),
        ] {
            let me = client.me().await.map_err(told)?;
            known.push(Known {
                name,
                home,
                account: me.account.as_str().to_owned(),
                device: me.device.as_str().to_owned(),
            });
        }
        Ok(known)
    }
}

/// Writes, and waits until it is safe.
async fn write(client: &Client, room: &str, text: &str) -> Result<GroupId> {
    let sent = client.send(room, text).await.map_err(told)?;
    client.wait(sent, Tick::Stored, WAIT).await.map_err(told)?;
    Ok(sent.conversation)
}
