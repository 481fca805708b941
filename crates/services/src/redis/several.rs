//! Several Redis servers of which one takes the place of another: by Sentinels, or in a Cluster.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::{Mode, Redis};

/// Longest that servers may take to find each other, on a machine that is busy with other things.
const AGREEMENT_WAIT: Duration = Duration::from_secs(60);
/// Between two looks whether they have.
const LOOK: Duration = Duration::from_millis(50);

/// Sentinels of a set, and the majority of them.
const SENTINELS: usize = 3;
const QUORUM: usize = 2;

/// Primaries of a Cluster, with the slots of each.
const SLOTS: [(u32, u32); 3] = [(0, 5_460), (5_461, 10_922), (10_923, 16_383)];

/// A replica is sent everything as soon as it asks, not some seconds later with others.
const AT_ONCE: [&str; 2] = ["--repl-diskless-sync-delay", "0"];

/// A primary and its replica, and the Sentinels that watch over them.
#[derive(Debug)]
pub struct Watched {
    primary: Redis,
    _replica: Redis,
    sentinels: Vec<Redis>,
}

impl Watched {
    /// Starts them and waits until the Sentinels know of each other and of both servers.
    ///
    /// # Errors
    ///
    /// What does not start.
    pub fn start() -> Result<Self> {
        let primary = Redis::start(&AT_ONCE)?;
        let port = primary.port();
        let replica = Redis::start(&["--replicaof", "127.0.0.1", &port.to_string()])?;
        let lines = format!(
            "sentinel monitor mymaster 127.0.0.1 {port} {QUORUM}\n\
             sentinel down-after-milliseconds mymaster 1000\n\
             sentinel failover-timeout mymaster 5000\n"
        );
        let sentinel = || Redis::start_as(&Mode::Sentinel(lines.clone()));
        let sentinels: Vec<Redis> = (0..SENTINELS).map(|_| sentinel()).collect::<Result<_>>()?;
        for sentinel in &sentinels {
            until("the Sentinels know all", || {
                let others = sentinel.ask("SENTINEL SENTINELS mymaster")?;
                let replicas = sentinel.ask("SENTINEL REPLICAS mymaster")?;
                Ok(others == format!("*{}", SENTINELS - 1) && replicas == "*1")
            })?;
        }
        has_replica(&primary)?;
        Ok(Self {
            primary,
            _replica: replica,
            sentinels,
        })
    }

    /// `redis+sentinel://...` with all Sentinels.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis+sentinel://{}/mymaster", places(&self.sentinels))
    }

    /// Kills the first primary: the replica takes its place.
    ///
    /// # Errors
    ///
    /// If it was killed before.
    pub fn kill_primary(&self) -> Result<()> {
        self.primary.kill()
    }
}

/// Three primaries of a Cluster with a replica each.
#[derive(Debug)]
pub struct Clustered {
    primaries: Vec<Redis>,
    replicas: Vec<Redis>,
}

impl Clustered {
    /// Starts them and waits until they agree.
    ///
    /// # Errors
    ///
    /// What does not start.
    pub fn start() -> Result<Self> {
        let server = |_| {
            let cluster = ["--cluster-enabled", "yes", "--cluster-node-timeout", "1000"];
            Redis::start(&[&cluster[..], &AT_ONCE].concat())
        };
        let primaries: Vec<Redis> = (0..SLOTS.len()).map(server).collect::<Result<_>>()?;
        let replicas: Vec<Redis> = (0..SLOTS.len()).map(server).collect::<Result<_>>()?;
        let first = primaries.first().context("no server")?;
        for (number, (server, (from, to))) in primaries.iter().zip(SLOTS).enumerate() {
            done(server, &format!("CLUSTER SET-CONFIG-EPOCH {}", number + 1))?;
            done(server, &format!("CLUSTER ADDSLOTSRANGE {from} {to}"))?;
        }
        for server in primaries.iter().skip(1).chain(&replicas) {
            done(first, &format!("CLUSTER MEET 127.0.0.1 {}", server.port()))?;
        }
        for (primary, replica) in primaries.iter().zip(&replicas) {
            let id = primary.ask("CLUSTER MYID")?;
            until("a replica knows its primary", || {
                Ok(replica.ask(&format!("CLUSTER REPLICATE {id}"))? == "+OK")
            })?;
        }
        for server in primaries.iter().chain(&replicas) {
            until("the cluster is whole", || {
                Ok(server.ask("CLUSTER INFO")? == "cluster_state:ok")
            })?;
        }
        primaries.iter().try_for_each(has_replica)?;
        Ok(Self {
            primaries,
            replicas,
        })
    }

    /// `redis+cluster://...` with the replicas: whoever is named knows all others.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis+cluster://{}", places(&self.replicas))
    }

    /// Kills the primary that has the key: its replica takes its place.
    ///
    /// # Errors
    ///
    /// If it was killed before.
    pub fn kill_owner(&self, key: &str) -> Result<()> {
        let asked = self.replicas.first().context("no server")?;
        let slot = asked.ask(&format!("CLUSTER KEYSLOT {key}"))?;
        let slot: u32 = slot.trim_start_matches(':').parse()?;
        let has = |(from, to): &(u32, u32)| (*from..=*to).contains(&slot);
        let number = SLOTS.iter().position(has).context("no such slot")?;
        self.primaries.get(number).context("no server")?.kill()
    }
}

/// Waits until a replica has all that the server has: before, it may not take its place.
fn has_replica(primary: &Redis) -> Result<()> {
    until("a primary has its replica", || {
        Ok(primary.ask("WAIT 1 100")? == ":1")
    })
}

fn places(servers: &[Redis]) -> String {
    let places: Vec<String> = servers
        .iter()
        .map(|server| format!("127.0.0.1:{}", server.port()))
        .collect();
    places.join(",")
}

fn done(server: &Redis, command: &str) -> Result<()> {
    match server.ask(command)?.as_str() {
        "+OK" => Ok(()),
        other => bail!("`{command}` is answered by `{other}`"),
    }
}

fn until(what: &str, is_so: impl Fn() -> Result<bool>) -> Result<()> {
    let ends = Instant::now() + AGREEMENT_WAIT;
    while !is_so()? {
        anyhow::ensure!(Instant::now() < ends, "not in time: {what}");
        sleep(LOOK);
    }
    Ok(())
}
