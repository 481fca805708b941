//! What is measured: servers of our own, a given one, the bare relay, or NATS.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use commucat_crypto::server_keys::Statement;
use commucat_proto::well_known::WellKnown;
use commucat_testkit::server::metrics::Metrics;
use commucat_testkit::server::{Backend, Server, http};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio_rustls::TlsConnector;

use crate::args::{Args, Peer};
use crate::ccp::connect::Target;
use crate::clock;
use crate::cluster::Cluster;
use crate::process;
use crate::socket;
use crate::tally::{Tally, read};

/// What is measured.
pub(crate) struct Host {
    pub(crate) address: SocketAddr,
    pub(crate) pid: u32,
    pub(crate) connector: TlsConnector,
    pub(crate) tally: Arc<Tally>,
    kind: Kind,
}

enum Kind {
    Own(Cluster),
    Given,
    /// The bare relay or NATS; killed when dropped.
    Other {
        _child: Child,
        _home: Option<tempfile::TempDir>,
    },
}

impl Host {
    pub(crate) async fn start(args: &Args) -> Result<Self> {
        match (args.peer, args.server, args.pid) {
            (Peer::Commucat, Some(address), Some(pid)) => Self::given(address, pid),
            (Peer::Commucat, ..) => Self::own(args).await,
            (Peer::Relay | Peer::RelayAcked, ..) => Self::relay().await,
            (Peer::Nats, ..) => crate::nats::start().await,
        }
    }

    async fn own(args: &Args) -> Result<Self> {
        let cluster = Cluster::start(args).await?;
        let first = cluster.servers.first().context("no server")?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, first.port()));
        let pid = first.pid().context("the server has ended")?;
        Self::new(address, pid, b"h2", Kind::Own(cluster))
    }

    fn given(address: SocketAddr, pid: u32) -> Result<Self> {
        Self::new(address, pid, b"h2", Kind::Given)
    }

    async fn relay() -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("relay")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let stdout = child.stdout.take().context("no stdout")?;
        let line = BufReader::new(stdout).lines().next_line().await?;
        let address = line.context("the relay does not start")?.parse()?;
        Self::other(address, child, None)
    }

    pub(crate) fn other(
        address: SocketAddr,
        child: Child,
        home: Option<tempfile::TempDir>,
    ) -> Result<Self> {
        let pid = child.id().context("it has ended")?;
        let kind = Kind::Other {
            _child: child,
            _home: home,
        };
        // Neither of them looks at ALPN, and an empty name is an error of TLS.
        Self::new(address, pid, b"bench", kind)
    }

    fn new(address: SocketAddr, pid: u32, protocol: &[u8], kind: Kind) -> Result<Self> {
        Ok(Self {
            address,
            pid,
            connector: http::connector(protocol)?,
            tally: Arc::new(Tally::new()),
            kind,
        })
    }

    /// Starts the process anew, if it is ours, so that nothing of the set-up is left in its memory; how
    /// long it took to be ready.
    pub(crate) async fn restart(&mut self) -> Result<Option<Duration>> {
        let Kind::Own(cluster) = &mut self.kind else {
            return Ok(None);
        };
        let took = cluster.restart().await?;
        let first = cluster.servers.first().and_then(Server::pid);
        self.pid = first.context("the server has ended")?;
        Ok(took)
    }

    /// Every server's address and process.
    fn servers(&self) -> Result<Vec<(SocketAddr, u32)>> {
        let Kind::Own(cluster) = &self.kind else {
            return Ok(vec![(self.address, self.pid)]);
        };
        let server = |server: &Server| {
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, server.port()));
            Ok((address, server.pid().context("a server has ended")?))
        };
        cluster.servers.iter().map(server).collect()
    }

    /// What a device of the first server must know.
    pub(crate) async fn target(&self) -> Result<Target> {
        self.target_at(self.address).await
    }

    /// The same of every server.
    pub(crate) async fn targets(&self) -> Result<Vec<Target>> {
        let mut targets = Vec::new();
        for (address, _) in self.servers()? {
            targets.push(self.target_at(address).await?);
        }
        Ok(targets)
    }

    async fn target_at(&self, address: SocketAddr) -> Result<Target> {
        let body = self.get(address, "/.well-known/commucat").await?;
        let known = WellKnown::decode(body.as_bytes())?;
        let statement = Statement::verify(&known.server_keys)?;
        let key = *statement.noise_key(clock::now()).context("no Noise key")?;
        Ok(Target {
            address,
            domain: known.domain,
            key,
            connector: self.connector.clone(),
            tally: Arc::clone(&self.tally),
        })
    }

    async fn get(&self, address: SocketAddr, path: &str) -> Result<String> {
        let connector = http::connector(b"http/1.1")?;
        let elsewhere = Arc::new(Tally::new());
        let mut tls = socket::connect(address, &connector, &elsewhere).await?;
        let head = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        tls.write_all(head.as_bytes()).await?;
        let mut answer = Vec::new();
        let end = tls.read_to_end(&mut answer).await;
        let answer = String::from_utf8_lossy(&answer);
        let (head, body) = answer.split_once("\r\n\r\n").context("no answer")?;
        ensure!(head.contains(" 200 "), "{path} is refused; {end:?}");
        Ok(body.to_owned())
    }

    /// Everything that is counted, now.
    pub(crate) async fn sample(&self) -> Result<Sample> {
        let servers = self.servers()?;
        let mut sample = Sample {
            at_ns: self.tally.nanos(),
            own_cpu_us: process::cpu_us(std::process::id())?,
            deliveries: read(&self.tally.deliveries),
            acknowledged: read(&self.tally.acknowledged),
            records: read(&self.tally.records),
            ..Sample::default()
        };
        for (_, pid) in &servers {
            sample.server_cpu_us += process::cpu_us(*pid)?;
        }
        if let Kind::Own(cluster) = &self.kind {
            sample.database_cpu_us = cluster.database_cpu_us()?;
            sample.redis_cpu_us = cluster.redis_cpu_us()?;
        }
        if matches!(self.kind, Kind::Own(_) | Kind::Given) {
            for (address, _) in servers {
                let metrics = Metrics::new(self.get(address, "/metrics").await?);
                sample.fsyncs += metrics.sum("commucat_store_commits_total", "");
                sample.store_writes += metrics.sum("commucat_store_rows_total", "");
                sample.batches += metrics.sum("commucat_peer_batches_total", "");
            }
        }
        Ok(sample)
    }

    pub(crate) fn backend(&self) -> &'static str {
        match &self.kind {
            Kind::Own(cluster) => match cluster.backend {
                Backend::Sqlite => "sqlite",
                Backend::Postgres => "postgres",
            },
            Kind::Given => "given",
            Kind::Other { .. } => "none",
        }
    }
}

/// One reading of all counters.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sample {
    pub(crate) at_ns: u64,
    pub(crate) server_cpu_us: u64,
    pub(crate) own_cpu_us: u64,
    pub(crate) deliveries: u64,
    pub(crate) acknowledged: u64,
    pub(crate) records: u64,
    pub(crate) fsyncs: u64,
    pub(crate) store_writes: u64,
    pub(crate) batches: u64,
    pub(crate) database_cpu_us: Option<u64>,
    pub(crate) redis_cpu_us: Option<u64>,
}
