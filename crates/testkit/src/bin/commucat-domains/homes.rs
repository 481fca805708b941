//! The domains, and the cables between them.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use commucat_testkit::cable::Cable;
use commucat_testkit::random::Random;
use commucat_testkit::server::{Backend, Options, Server};

/// What each keeps its state in.
const BACKENDS: [Backend; 3] = [Backend::Sqlite, Backend::Postgres, Backend::Sqlite];

/// See the module's documentation.
pub(crate) struct Homes {
    pub(crate) servers: Vec<Server>,
    /// By who asks and who is asked.
    cables: Vec<((usize, usize), Cable)>,
}

impl Homes {
    /// Starts domains that vouch for each other by one file of certificates, and reach each other by
    /// a cable for each direction.
    pub(crate) async fn start(place: &Path, random: &mut Random) -> Result<Self> {
        let ca = place.join("ca.pem");
        fs::write(&ca, "")?;
        let mut servers = Vec::new();
        for backend in BACKENDS {
            let options = Options::default().on(backend).for_load().federated(&ca);
            servers.push(Server::start(options).await?);
        }
        let mut all = String::new();
        for server in &mut servers {
            all.push_str(&fs::read_to_string(server.certificate_file())?);
            server.terminate().await?;
        }
        fs::write(&ca, all)?;
        let names: Vec<_> = servers
            .iter()
            .map(|one| (one.domain(), one.port()))
            .collect();
        let mut cables = Vec::new();
        for (asks, server) in servers.iter_mut().enumerate() {
            let mut peers = Vec::new();
            for (asked, (domain, port)) in names.iter().enumerate() {
                if asked != asks {
                    let cable = Cable::lay(*port, random).await?;
                    peers.push(format!("{domain},localhost:{}", cable.port()));
                    cables.push(((asks, asked), cable));
                }
            }
            server.set("federation.peers", &peers.join(";"));
            server.restart().await?;
        }
        Ok(Self { servers, cables })
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

    /// One of the servers.
    pub(crate) fn server(&mut self, index: usize) -> Result<&mut Server> {
        self.servers.get_mut(index).context("no such domain")
    }
}
