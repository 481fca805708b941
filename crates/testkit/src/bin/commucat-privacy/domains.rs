//! A group over domains: what its hub and a follower keep of each other's people, and what all
//! tell each other, which is what CCP-1 section 8.5 says that they learn, and nothing else.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use commucat_client::{Client, Tick};
use commucat_proto::id::GroupId;
use commucat_testkit::canary::{Allowed, Canary, Hit, Kind, Place, Searcher};
use commucat_testkit::cddl::Schema;
use commucat_testkit::people::{self, told};
use commucat_testkit::server::{Options, Server};
use commucat_testkit::tap::Tap;

use crate::crossing::{self, Way, What, holds};
use crate::flows::{self, WAIT, hex};
use crate::learned::{Secret, Secrets};
use crate::names::Names;
use crate::places;

/// Entries that a queue of the follower takes, of which one group may have a quarter.
const QUEUE: usize = 128;

/// Who has to do with whom, by the numbers of the servers.
const TALKS: [(usize, usize); 8] = [
    (0, 1),
    (0, 2),
    (0, 3),
    (1, 0),
    (1, 3),
    (2, 0),
    (3, 0),
    (3, 1),
];

/// The hub with alice and carol, the follower with bob and his two devices, a third with dave, of which
/// the follower learns nothing, and a fourth with erin, whom bob brings. They hear each other through
/// taps only.
struct World {
    hub: Server,
    follower: Server,
    _third: Server,
    fourth: Server,
    alice: Client,
    carol: Client,
    bob: Client,
    dave: Client,
    erin: Client,
    /// Before the servers, in their order.
    taps: [Tap; 4],
}

/// Ids of one device, which only its home may know, and what it is called here.
struct Known {
    name: &'static str,
    home: Home,
    account: String,
    device: String,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Home {
    Hub,
    Follower,
    Third,
    Fourth,
}

/// Plays, searches, and counts.
pub(crate) async fn run() -> Result<(String, Vec<Hit>)> {
    let directory = tempfile::tempdir()?;
    let names = Names::new()?;
    let mut world = World::start(directory.path()).await?;
    let group = world.meet(&names).await?;
    let lost = world.bring_and_lose(&names, &group).await;
    lost.context("a guest")?;
    let (at_hub, at_follower) = world.part_by_part(&names, &group, directory.path()).await?;
    let known = world.known().await?;
    let third = world.tap(Home::Third).domain();

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
    let (crossed, of_crossings, told) = world.crossed(&names, &known, &group)?;
    hits.extend(of_crossings);
    hits.sort_unstable();
    let places = at_hub.len() + at_follower.len();
    let line = format!(
        "privacy of domains: {count} canaries in {places} places, {told} in {crossed} events, answers \
         and heads that crossed, {} hits",
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
        Home::Follower | Home::Third | Home::Fourth => Allowed::Nowhere,
    };
    all.push(Canary::text("a third domain", allowed, third));
    all
}

impl World {
    async fn start(directory: &Path) -> Result<Self> {
        let ca = directory.join("ca.pem");
        let [hub, follower, third, fourth] = [Tap::bind(), Tap::bind(), Tap::bind(), Tap::bind()];
        let mut taps = [hub.await?, follower.await?, third.await?, fourth.await?];
        // No server's own certificate is in it: what no tap hears does not cross.
        let trusted: String = taps.iter().map(Tap::certificate).collect();
        fs::write(&ca, trusted)?;
        let domains: Vec<_> = taps.iter().map(Tap::domain).collect();
        let mut servers = Vec::new();
        for (own, tap) in taps.iter_mut().enumerate() {
            let others = domains.iter().enumerate();
            let others = others.filter(|(other, _)| TALKS.contains(&(own, *other)));
            let peers = others.map(|(_, domain)| format!("{domain},{domain}"));
            let options = Options::default()
                .for_load()
                .trusting(&ca)
                .set("server.log", "trace")
                .set("server.domain", &tap.domain())
                .set("federation.peers", &peers.collect::<Vec<_>>().join(";"))
                .set("limits.queue_entries", &QUEUE.to_string());
            let mut server = Server::start(options).await?;
            server.terminate().await?;
            // For people; domains are told another by the configuration.
            server.set("server.endpoint", &format!("localhost:{}", server.port()));
            server.restart().await?;
            tap.run(server.port())?;
            servers.push(server);
        }
        let Ok([hub, follower, third, fourth]) = <[Server; 4]>::try_from(servers) else {
            anyhow::bail!("four servers");
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
            erin: join("erin", &fourth).await?,
            taps,
            hub,
            follower,
            _third: third,
            fourth,
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

    const fn tap(&self, home: Home) -> &Tap {
        let [hub, follower, third, fourth] = &self.taps;
        match home {
            Home::Hub => hub,
            Home::Follower => follower,
            Home::Third => third,
            Home::Fourth => fourth,
        }
    }

    /// Bob brings erin, of a domain that is not the hub's; her home's operator revokes her device, and
    /// bob is told that she has gone.
    async fn bring_and_lose(&self, names: &Names, group: &[u8]) -> Result<()> {
        let room = data_encoding::HEXLOWER.encode(group);
        let erin = self.erin.me().await.map_err(told)?;
        let added = self.bob.add_contact(&erin.contact_link, &names.guest).await;
        added.map_err(told)?;
        self.bob.invite(&room, &names.guest).await.map_err(told)?;
        let group = GroupId::parse(group)?;
        flows::inside(&self.erin, &group).await?;
        write(&self.erin, &room, names.text(7)).await?;
        flows::arrived(&self.bob, &group, names.text(7)).await?;
        let args = ["device", "revoke", erin.device.as_str(), "--yes"];
        let revoked = self.fourth.cli(&args).await?;
        ensure!(revoked.status.success(), "a device is not revoked");
        write(&self.bob, &room, names.text(8)).await?;
        for (home, what) in [(Home::Follower, What::Return), (Home::Third, What::Notice)] {
            let seen = self.tap(home).until(what.name(), |seen| {
                seen.iter().any(|exchange| holds(exchange, what))
            });
            seen.await?;
        }
        Ok(())
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
        let away = self.away(&group, names.text(6), directory).await;
        at_follower.extend(away.context("bob is away")?);
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

    /// Bob's devices are away, so that something waits for them, and in the end more than there is room
    /// for: he has to ask the hub what he missed. What the follower keeps then.
    async fn away(&mut self, group: &GroupId, text: &str, directory: &Path) -> Result<Vec<Place>> {
        let second = people::link(&self.bob, &people::settings(directory, "bob-2")).await?;
        second.shutdown().await;
        self.bob.shutdown().await;
        self.carol.connected(WAIT).await.map_err(told)?;
        write(&self.carol, &hex(group), text).await?;
        flows::arrived(&self.dave, group, text).await?;
        let places = places::of(&self.follower, "while a text waits").await?;
        for _ in 0..QUEUE / 3 {
            self.dave.send(&hex(group), text).await.map_err(told)?;
        }
        let refused = self.tap(Home::Third).until("a refusal", |seen| {
            seen.iter().any(|exchange| holds(exchange, What::Return))
        });
        refused.await?;
        let opened = Client::open(people::settings(directory, "bob")).await;
        self.bob = opened.map_err(told)?;
        flows::arrived(&self.bob, group, text).await?;
        let asked = self.tap(Home::Hub).until("a look into the log", |seen| {
            seen.iter().any(|exchange| holds(exchange, What::Log))
        });
        asked.await?;
        Ok(places)
    }

    /// What crossed, each thing held against the schema, and searched: how many things, what was where
    /// it may not be, and how many secrets were looked for.
    fn crossed(
        &self,
        names: &Names,
        known: &[Known],
        group: &[u8],
    ) -> Result<(usize, Vec<Hit>, usize)> {
        let schema = Schema::ccp1()?;
        let mut secrets = Secrets::of_words(names.canaries());
        let mut crossings = Vec::new();
        for home in [Home::Hub, Home::Follower, Home::Third, Home::Fourth] {
            let domain = self.tap(home).domain();
            for exchange in self.tap(home).seen() {
                crossings.extend(crossing::read(&exchange, &domain, &schema)?);
            }
            secrets.text(
                &format!("domain {home:?}"),
                Secret::Domain(domain.clone()),
                &domain,
            );
        }
        for one in known {
            let home = self.tap(one.home).domain();
            let name = format!("account id of {}", one.name);
            secrets.text(&name, Secret::Account(home.clone()), &one.account);
            let name = format!("device id of {}", one.name);
            secrets.text(&name, Secret::Device(home), &one.device);
        }
        secrets.bytes("group id", Secret::Group, group);
        secrets.learn(&crossings)?;
        for what in What::PLAYED {
            let mut ways: Vec<_> = crossings
                .iter()
                .filter(|one| one.what == what)
                .map(|one| one.way)
                .collect();
            ways.sort_unstable();
            ways.dedup();
            ensure!(
                ways == [Way::Asked, Way::Answered],
                "nobody heard {} and its answer",
                what.name()
            );
        }
        let (hits, told) = secrets.search(&crossings)?;
        Ok((crossings.len(), hits, told))
    }

    async fn known(&self) -> Result<Vec<Known>> {
        let mut known = Vec::new();
        for (name, home, client) in [
            ("alice", Home::Hub, &self.alice),
            ("carol", Home::Hub, &self.carol),
            ("bob", Home::Follower, &self.bob),
            ("dave", Home::Third, &self.dave),
            ("erin", Home::Fourth, &self.erin),
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
