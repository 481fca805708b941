//! A domain of several servers: PostgreSQL, Redis, one directory of keys, a load balancer.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use commucat_services::{Database, Postgres, Redis};
use tempfile::TempDir;

use crate::balancer::Balancer;
use crate::server::{Options, Server};

/// Everything that a domain is made of.
#[derive(Debug)]
pub struct Domain {
    /// The nodes, all reached over one port.
    pub servers: Vec<Server>,
    /// What they speak through.
    pub redis: Arc<Redis>,
    /// The cluster with their database.
    pub postgres: &'static Postgres,
    /// Held while the servers run: dropped, the database is gone.
    _database: Database<'static>,
    balancer: Balancer,
    _keys: TempDir,
}

impl Domain {
    /// Starts everything, with nodes of these names.
    ///
    /// # Errors
    ///
    /// What does not start.
    pub async fn start(names: &[&str]) -> Result<Self> {
        Self::start_with(names, |options, _| options).await
    }

    /// The same for a domain that talks to others on this machine, whose certificates are in `ca`.
    ///
    /// # Errors
    ///
    /// What does not start.
    pub async fn federated(names: &[&str], ca: &Path) -> Result<Self> {
        let with =
            |options: Options, port| options.set("server.domain", &name_of(port)).trusting(ca);
        Self::start_with(names, with).await
    }

    /// The same with further settings, which may depend on the port of the load balancer.
    ///
    /// # Errors
    ///
    /// What does not start.
    pub async fn start_with(
        names: &[&str],
        settings: impl Fn(Options, u16) -> Options,
    ) -> Result<Self> {
        let services = tokio::task::spawn_blocking(|| {
            let postgres = Postgres::shared()?;
            let database = postgres.database()?;
            let redis = Redis::start(&[])?;
            anyhow::Ok((postgres, database, redis))
        });
        let (postgres, database, redis) = services.await??;
        let keys = tempfile::tempdir()?;
        let mut balancer = Balancer::bind().await?;
        let mut servers = Vec::new();
        for name in names {
            let options = Options::default()
                .for_load()
                .set("limits.connections_per_address", "100000")
                .set("server.endpoint", &format!("127.0.0.1:{}", balancer.port()))
                .set("server.node_id", name)
                // The first server makes it, as only it can have made it.
                .set(
                    "crypto.keys",
                    keys.path().join("keys").to_str().context("a path")?,
                )
                .set("storage.url", &database.url())
                .set("storage.redis_url", &redis.url());
            servers.push(Server::start(settings(options, balancer.port())).await?);
        }
        balancer.run(servers.iter().map(Server::port).collect());
        Ok(Self {
            servers,
            redis: Arc::new(redis),
            postgres,
            _database: database,
            balancer,
            _keys: keys,
        })
    }

    /// Its name, with [`Self::federated`].
    #[must_use]
    pub fn name(&self) -> String {
        name_of(self.balancer.port())
    }

    /// The port of all nodes.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.balancer.port()
    }
}

fn name_of(port: u16) -> String {
    format!("localhost:{port}")
}
