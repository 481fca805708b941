//! The domains, and the cables between them.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use commucat_testkit::cable::Cable;
use commucat_testkit::domain::Domain;
use commucat_testkit::random::Random;
use commucat_testkit::server::{Options, Server};

/// Nodes of the domain that has several.
const NODES: [&str; 2] = ["one", "two"];

/// A domain.
pub(crate) enum Home {
    /// One server on its embedded store.
    Alone(Server),
    /// Two servers on PostgreSQL and Redis.
    Nodes(Domain),
}

impl Home {
    /// Its servers.
    pub(crate) fn servers(&self) -> &[Server] {
        match self {
            Self::Alone(server) => std::slice::from_ref(server),
            Self::Nodes(domain) => &domain.servers,
        }
    }

    fn servers_mut(&mut self) -> &mut [Server] {
        match self {
            Self::Alone(server) => std::slice::from_mut(server),
            Self::Nodes(domain) => &mut domain.servers,
        }
    }

    /// The one to be asked for something.
    pub(crate) fn server(&self) -> Result<&Server> {
        self.servers().first().context("no server")
    }

    fn name(&self) -> String {
        match self {
            Self::Alone(server) => server.domain(),
            Self::Nodes(domain) => domain.name(),
        }
    }

    fn port(&self) -> u16 {
        match self {
            Self::Alone(server) => server.port(),
            Self::Nodes(domain) => domain.port(),
        }
    }
}

/// See the module's documentation.
pub(crate) struct Homes {
    pub(crate) all: Vec<Home>,
    /// By who asks and who is asked.
    cables: Vec<((usize, usize), Cable)>,
}

impl Homes {
    /// Starts domains that vouch for each other by one file of certificates, and reach each other by
    /// a cable for each direction.
    pub(crate) async fn start(place: &Path, random: &mut Random) -> Result<Self> {
        let ca = place.join("ca.pem");
        fs::write(&ca, "")?;
        let alone = || Server::start(Options::default().for_load().federated(&ca));
        let mut homes = [
            Home::Alone(alone().await?),
            Home::Nodes(Domain::federated(&NODES, &ca).await?),
            Home::Alone(alone().await?),
        ];
        let mut all = String::new();
        for server in homes.iter_mut().flat_map(Home::servers_mut) {
            all.push_str(&fs::read_to_string(server.certificate_file())?);
            server.terminate().await?;
        }
        fs::write(&ca, all)?;
        let names: Vec<_> = homes.iter().map(|one| (one.name(), one.port())).collect();
        let mut cables = Vec::new();
        for (asks, home) in homes.iter_mut().enumerate() {
            let mut peers = Vec::new();
            for (asked, (domain, port)) in names.iter().enumerate() {
                if asked != asks {
                    let cable = Cable::lay(*port, random).await?;
                    peers.push(format!("{domain},localhost:{}", cable.port()));
                    cables.push(((asks, asked), cable));
                }
            }
            for server in home.servers_mut() {
                server.set("federation.peers", &peers.join(";"));
                server.restart().await?;
            }
        }
        Ok(Self {
            all: homes.into(),
            cables,
        })
    }

    /// All servers.
    pub(crate) fn servers(&self) -> impl Iterator<Item = &Server> {
        self.all.iter().flat_map(Home::servers)
    }

    /// All servers, to do something to them.
    pub(crate) fn servers_mut(&mut self) -> impl Iterator<Item = &mut Server> {
        self.all.iter_mut().flat_map(Home::servers_mut)
    }

    /// The cables between two domains, one for each direction.
    pub(crate) fn between(&self, one: usize, other: usize) -> impl Iterator<Item = &Cable> {
        let ends = [(one, other), (other, one)];
        let cables = self.cables.iter();
        cables
            .filter(move |(between, _)| ends.contains(between))
            .map(|(_, cable)| cable)
    }

    /// The cable by which one domain asks another.
    pub(crate) fn cable(&self, asks: usize, asked: usize) -> Result<&Cable> {
        let mut cables = self.cables.iter();
        let found = cables.find(|(between, _)| *between == (asks, asked));
        Ok(&found.context("no such cable")?.1)
    }

    /// One of a domain's servers.
    pub(crate) fn one_of(&mut self, index: usize, random: &mut Random) -> Result<&mut Server> {
        let home = self.all.get_mut(index).context("no such domain")?;
        let servers = home.servers_mut();
        let node = usize::try_from(random.below(u64::try_from(servers.len())?))?;
        servers.get_mut(node).context("no such node")
    }
}
