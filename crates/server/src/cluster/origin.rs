//! Which Redis server it is: the one that is named, the one that Sentinels name, or, of a Cluster, the
//! one that holds this domain's keys.
//!
//! It is asked for anew for each connection. All keys of a domain are in one slot of a Cluster, and all
//! its messages go over that slot's server: what a domain has there is little, and only so the number
//! of those who heard a message means anything.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::sentinel::{SentinelClient, SentinelNodeConnectionInfo, SentinelServerType};
use redis::{
    AsyncConnectionConfig, Client, IntoConnectionInfo as _, RedisError, TlsMode, Value, cmd,
};
use tokio::time::timeout;

use super::redis::RedisFailure;

/// How long a command or a connection may take before the server counts as lost.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);

/// Before the addresses of Sentinels: `redis+sentinel://[user:password@]host:port,.../service`.
const SENTINEL: &str = "redis+sentinel://";
const SENTINEL_TLS: &str = "rediss+sentinel://";
/// Before the addresses of some servers of a Cluster.
const CLUSTER: &str = "redis+cluster://";
const CLUSTER_TLS: &str = "rediss+cluster://";

/// The service that Sentinels are asked for if none is named.
const SERVICE: &str = "mymaster";

/// Where Redis is.
pub(super) enum Origin {
    One(Box<Client>),
    Sentinel(Box<tokio::sync::Mutex<SentinelClient>>),
    Cluster(Cluster),
}

/// Servers of a Cluster, which know all others.
pub(super) struct Cluster {
    /// `redis` or `rediss`.
    scheme: &'static str,
    /// With an `@` at its end, if there is any.
    user: String,
    hosts: Vec<String>,
}

impl Origin {
    pub(super) fn parse(url: &str) -> Result<Self, RedisFailure> {
        let plain = |prefix| Some((url.strip_prefix(prefix)?, "redis"));
        let sealed = |prefix| Some((url.strip_prefix(prefix)?, "rediss"));
        if let Some((rest, scheme)) = plain(SENTINEL).or_else(|| sealed(SENTINEL_TLS)) {
            return sentinel(rest, scheme).map_err(RedisFailure::Url);
        }
        if let Some((rest, scheme)) = plain(CLUSTER).or_else(|| sealed(CLUSTER_TLS)) {
            let cluster = Cluster::parse(rest, scheme).map_err(RedisFailure::Url)?;
            return Ok(Self::Cluster(cluster));
        }
        Ok(Self::One(Box::new(
            Client::open(url).map_err(RedisFailure::Url)?,
        )))
    }

    /// The prefix of keys: in a Cluster all of them have to be in one slot.
    pub(super) fn prefix(&self, prefix: &str) -> String {
        match self {
            Self::Cluster(_) if !prefix.contains('{') => format!("{{{prefix}}}"),
            Self::One(_) | Self::Sentinel(_) | Self::Cluster(_) => prefix.to_owned(),
        }
    }

    /// The present primary for keys with `prefix`.
    pub(super) async fn client(&self, prefix: &str) -> Result<Client, RedisFailure> {
        match self {
            Self::One(client) => Ok(Client::clone(client)),
            Self::Sentinel(sentinel) => {
                let asked = async { sentinel.lock().await.async_get_client().await };
                let client = timeout(2 * PATIENCE, asked).await;
                Ok(client.map_err(|_| RedisFailure::Late)??)
            }
            Self::Cluster(cluster) => cluster.client(prefix).await,
        }
    }
}

/// A connection for commands.
pub(super) async fn connect(client: &Client) -> Result<MultiplexedConnection, RedisFailure> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(PATIENCE))
        .set_response_timeout(Some(PATIENCE));
    let connected = client.get_multiplexed_async_connection_with_config(&config);
    // The library's own limits do not bound the look-up of a name.
    let connected = timeout(2 * PATIENCE, connected).await;
    Ok(connected.map_err(|_| RedisFailure::Late)??)
}

fn user_and_hosts(rest: &str) -> (String, Vec<String>) {
    let (user, hosts) = match rest.rsplit_once('@') {
        Some((user, hosts)) => (format!("{user}@"), hosts),
        None => (String::new(), rest),
    };
    (user, hosts.split(',').map(str::to_owned).collect())
}

fn sentinel(rest: &str, scheme: &str) -> Result<Origin, RedisError> {
    let (addresses, service) = rest.rsplit_once('/').unwrap_or((rest, SERVICE));
    let (user, hosts) = user_and_hosts(addresses);
    let first = hosts.first().map_or("", String::as_str);
    // User and password are the servers'; Sentinels have none.
    let server = format!("redis://{user}{first}").into_connection_info()?;
    let mut node = SentinelNodeConnectionInfo::default()
        .set_redis_connection_info(server.redis_settings().clone());
    if scheme == "rediss" {
        node = node.set_tls_mode(TlsMode::Secure);
    }
    let urls: Vec<String> = hosts
        .iter()
        .map(|host| format!("{scheme}://{host}"))
        .collect();
    let service = if service.is_empty() { SERVICE } else { service };
    let client = SentinelClient::build(urls, service, Some(node), SentinelServerType::Master)?;
    Ok(Origin::Sentinel(Box::new(tokio::sync::Mutex::new(client))))
}

impl Cluster {
    fn parse(rest: &str, scheme: &'static str) -> Result<Self, RedisError> {
        let (user, hosts) = user_and_hosts(rest.trim_end_matches('/'));
        let cluster = Self {
            scheme,
            user,
            hosts,
        };
        for host in &cluster.hosts {
            cluster.url(host).into_connection_info()?;
        }
        Ok(cluster)
    }

    fn url(&self, host: &str) -> String {
        format!("{}://{}{host}", self.scheme, self.user)
    }

    /// The server of the slot of `prefix`, as the first says that answers.
    async fn client(&self, prefix: &str) -> Result<Client, RedisFailure> {
        let mut failure = RedisFailure::Late;
        for host in &self.hosts {
            match self.ask(host, prefix).await {
                Ok(owner) => return Ok(Client::open(self.url(&owner))?),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    async fn ask(&self, host: &str, prefix: &str) -> Result<String, RedisFailure> {
        let mut server = connect(&Client::open(self.url(host))?).await?;
        let mut slot = cmd("CLUSTER");
        let slot: i64 = slot
            .arg("KEYSLOT")
            .arg(prefix)
            .query_async(&mut server)
            .await?;
        let slots: Value = cmd("CLUSTER").arg("SLOTS").query_async(&mut server).await?;
        owner(&slots, slot, host).ok_or(RedisFailure::Strange)
    }
}

/// A text, which may be missing.
fn text(value: &Value) -> Option<&str> {
    if *value == Value::Nil {
        return Some("");
    }
    let Value::BulkString(text) = value else {
        return None;
    };
    std::str::from_utf8(text).ok()
}

/// Who has `slot`, by what `asked` says of all slots.
fn owner(slots: &Value, slot: i64, asked: &str) -> Option<String> {
    let Value::Array(ranges) = slots else {
        return None;
    };
    ranges.iter().find_map(|range| {
        let Value::Array(range) = range else {
            return None;
        };
        let [
            Value::Int(first),
            Value::Int(last),
            Value::Array(primary),
            ..,
        ] = range.as_slice()
        else {
            return None;
        };
        if !(*first..=*last).contains(&slot) {
            return None;
        }
        let [host, Value::Int(port), ..] = primary.as_slice() else {
            return None;
        };
        // Without one it does not know its own address.
        let host = text(host)?;
        let own = asked.rsplit_once(':').map_or(asked, |(host, _)| host);
        Some(match host {
            "" => format!("{own}:{port}"),
            host if host.contains(':') => format!("[{host}]:{port}"),
            host => format!("{host}:{port}"),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slots() -> Value {
        let text = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        let range = |first, last, host: Value, port| {
            let primary = vec![host, Value::Int(port), text("id")];
            let replica = vec![text("192.0.2.9"), Value::Int(1), text("id")];
            Value::Array(vec![
                Value::Int(first),
                Value::Int(last),
                Value::Array(primary),
                Value::Array(replica),
            ])
        };
        Value::Array(vec![
            range(0, 5_460, text("192.0.2.1"), 7001),
            range(5_461, 10_922, Value::Nil, 7002),
            range(10_923, 16_000, text("2001:db8::3"), 7003),
        ])
    }

    #[test]
    fn a_slot_leads_to_the_server_that_has_it() {
        let owner = |slot| owner(&slots(), slot, "redis.example:7000");

        assert_eq!(owner(5_460).as_deref(), Some("192.0.2.1:7001"));
        assert_eq!(owner(5_461).as_deref(), Some("redis.example:7002"));
        assert_eq!(owner(10_923).as_deref(), Some("[2001:db8::3]:7003"));
        assert_eq!(owner(16_383), None);
    }

    #[test]
    fn keys_of_a_domain_are_in_one_slot_of_a_cluster_and_as_named_elsewhere() {
        let prefix = |url: &str, prefix: &str| Origin::parse(url).unwrap().prefix(prefix);

        let cluster = "rediss+cluster://user:secret@one:7000,two:7000";
        assert_eq!(prefix(cluster, "commucat:"), "{commucat:}");
        assert_eq!(prefix(cluster, "{ours}:"), "{ours}:");
        assert_eq!(prefix("redis://one", "commucat:"), "commucat:");
        let sentinel = "redis+sentinel://user:secret@one:26379,two:26379/main";
        assert_eq!(prefix(sentinel, "commucat:"), "commucat:");
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for url in [
            "redis+cluster://",
            "redis+cluster://one:port",
            "redis+sentinel://one:port/main",
            "memcached://one",
            "",
        ] {
            assert!(Origin::parse(url).is_err(), "{url}");
        }
    }
}
