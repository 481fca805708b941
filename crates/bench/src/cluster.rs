//! The servers of a run: one, two nodes of a domain, or two domains.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use commucat_testkit::server::{Backend, Options, Server};
use commucat_testkit::services::{Database, Postgres, Redis};
use tempfile::TempDir;

use crate::args::{Args, Scenario};

/// Servers with what they need beside them.
pub(crate) struct Cluster {
    pub(crate) servers: Vec<Server>,
    pub(crate) redis: Option<Redis>,
    pub(crate) backend: Backend,
    /// Held while the servers run, as the place of what they share.
    _database: Option<Database<'static>>,
    _place: Option<TempDir>,
}

impl Cluster {
    /// Starts what the scenario needs.
    pub(crate) async fn start(args: &Args) -> Result<Self> {
        match args.scenario {
            Scenario::Nodes => Self::nodes(args).await,
            Scenario::Federation => Self::domains(args).await,
            _ => {
                let server = Server::start(options(args)?).await?;
                Ok(Self::of(vec![server], args.backend))
            }
        }
    }

    const fn of(servers: Vec<Server>, backend: Backend) -> Self {
        Self {
            servers,
            redis: None,
            backend,
            _database: None,
            _place: None,
        }
    }

    /// Nodes of one domain: one PostgreSQL, one Redis, one directory of keys.
    async fn nodes(args: &Args) -> Result<Self> {
        let services = tokio::task::spawn_blocking(|| {
            let database = Postgres::shared()?.database()?;
            anyhow::Ok((database, Redis::start(&[])?))
        });
        let (database, redis) = services.await??;
        let place = tempfile::tempdir()?;
        let keys = place.path().join("keys");
        let mut servers = Vec::new();
        for number in 0..args.servers() {
            let options = options(args)?
                .on(Backend::Sqlite)
                .set("server.node_id", &format!("node{number}"))
                .set("crypto.keys", keys.to_str().context("a path")?)
                .set("storage.url", &database.url())
                .set("storage.redis_url", &redis.url());
            servers.push(Server::start(options).await?);
        }
        Ok(Self {
            redis: Some(redis),
            _database: Some(database),
            _place: Some(place),
            ..Self::of(servers, Backend::Postgres)
        })
    }

    /// Domains that vouch for each other by one file of certificates.
    async fn domains(args: &Args) -> Result<Self> {
        let place = tempfile::tempdir()?;
        let ca = place.path().join("ca.pem");
        fs::write(&ca, "")?;
        let mut servers = Vec::new();
        for _ in 0..args.servers() {
            servers.push(Server::start(options(args)?.federated(&ca)).await?);
        }
        let mut all = String::new();
        for server in &servers {
            all.push_str(&fs::read_to_string(server.certificate_file())?);
        }
        fs::write(&ca, all)?;
        for server in &mut servers {
            server.terminate().await?;
            server.restart().await?;
        }
        Ok(Self {
            _place: Some(place),
            ..Self::of(servers, args.backend)
        })
    }

    /// Ends every process in order and starts it anew; how long the first took to be ready.
    pub(crate) async fn restart(&mut self) -> Result<Option<Duration>> {
        let mut took = None;
        for server in &mut self.servers {
            server.terminate().await?;
            let begun = Instant::now();
            server.restart().await?;
            took.get_or_insert(begun.elapsed());
        }
        Ok(took)
    }

    /// Processor time of PostgreSQL so far.
    pub(crate) fn database_cpu_us(&self) -> Result<Option<u64>> {
        match self.backend {
            Backend::Sqlite => Ok(None),
            Backend::Postgres => Ok(Some(micros(Postgres::shared()?.cpu()?))),
        }
    }

    /// Processor time of Redis so far.
    pub(crate) fn redis_cpu_us(&self) -> Result<Option<u64>> {
        let cpu = self.redis.as_ref().map(Redis::cpu).transpose()?;
        Ok(cpu.map(micros))
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn options(args: &Args) -> Result<Options> {
    let mut options = Options::default()
        .on(args.backend)
        .for_load()
        .set("server.registration", "open")
        .set("limits.request_rate", "100000")
        .set("limits.request_burst", "1000000")
        .set("limits.queue_entries", "10000000")
        .set("limits.queue_bytes", "16GiB")
        .set("limits.connections_per_address", "1000000")
        .set("limits.handshakes_pending", "1000")
        .set("federation.peer_events", "1000000")
        .set("federation.peer_bytes", "1GiB");
    for setting in &args.settings {
        let (key, value) = setting.split_once('=').context("--set KEY=VALUE")?;
        options = options.set(key, value);
    }
    Ok(options)
}
