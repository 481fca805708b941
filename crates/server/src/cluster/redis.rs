//! Redis (or Valkey): routes by key, everything else by publish and subscribe.
//!
//! Nothing in it is the only copy of anything. Keys have a time to live, messages are gone when they
//! were heard; a server that was flushed, restarted or replaced is as good as the old one.

use std::time::Duration;

use commucat_config::Secret;
use commucat_proto::id::QueueId;
use commucat_routing::link::Incarnation;
use data_encoding::HEXLOWER;
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use redis::aio::MultiplexedConnection;
use redis::{Client, Pipeline, RedisError, Value};
use tokio::time::timeout;

use super::origin::{self, Origin, PATIENCE};

/// How long a route lasts without being announced again.
const ROUTE_TTL: Duration = Duration::from_secs(60);

/// How long the mark by which a node notices that everything was flushed lasts.
const MARK_TTL: Duration = Duration::from_secs(60);

/// Writes a route unless a newer connection has one. The stamp is Redis' own clock, less the time
/// that the connection has lasted: nodes need not agree about the time.
const ANNOUNCE: &str = r"
local stamp = tonumber(ARGV[2])
if stamp == 0 then
  local now = redis.call('TIME')
  stamp = now[1] * 1000000 + now[2] - tonumber(ARGV[3])
end
local there = redis.call('GET', KEYS[1])
if there and tonumber(string.sub(there, 17)) > stamp then
  return {0, there}
end
redis.call('SET', KEYS[1], ARGV[1] .. string.format('%.0f', stamp), 'PX', ARGV[4])
return {1, string.format('%.0f', stamp)}
";

/// Removes a route if it is still the one that was announced.
const REMOVE: &str = r"
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
";

/// Why Redis could not be used. The texts of the library may hold addresses, but no values.
#[derive(Debug, thiserror::Error)]
pub enum RedisFailure {
    /// The setting.
    #[error("`storage.redis_url` is not one")]
    Url(#[source] RedisError),
    /// The connection or the command.
    #[error("Redis does not answer")]
    Failed(#[from] RedisError),
    /// Redis, or the way to it.
    #[error("Redis does not answer in time")]
    Late,
    /// Something else than Redis, perhaps.
    #[error("Redis answers what was not asked")]
    Strange,
}

/// Where Redis is, and under which names things are there.
pub(super) struct Redis {
    origin: Origin,
    prefix: String,
}

/// What Redis said of a connection that was announced.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Announced {
    /// It is the newest, by this stamp.
    Newest(u64),
    /// Another one is newer.
    Replaced { stamp: u64 },
}

/// One message from a channel.
pub(super) struct Heard {
    pub(super) channel: String,
    pub(super) packet: Vec<u8>,
}

impl Redis {
    pub(super) fn open(url: &Secret, prefix: &str) -> Result<Self, RedisFailure> {
        let origin = Origin::parse(url.expose())?;
        let prefix = origin.prefix(prefix);
        Ok(Self { origin, prefix })
    }

    async fn client(&self) -> Result<Client, RedisFailure> {
        self.origin.client(&self.prefix).await
    }

    /// A connection for commands.
    pub(super) async fn connect(&self) -> Result<MultiplexedConnection, RedisFailure> {
        origin::connect(&self.client().await?).await
    }

    /// What is published on `channels`, until the connection breaks.
    pub(super) async fn subscribe(
        &self,
        channels: &[String],
    ) -> Result<BoxStream<'static, Heard>, RedisFailure> {
        let client = self.client().await?;
        let subscribed = timeout(2 * PATIENCE, async {
            let mut subscription = client.get_async_pubsub().await?;
            subscription.subscribe(channels).await?;
            Ok::<_, RedisError>(subscription)
        });
        let subscription = subscribed.await.map_err(|_| RedisFailure::Late)??;
        let heard = |message: redis::Msg| Heard {
            channel: message.get_channel_name().to_owned(),
            packet: message.get_payload_bytes().to_vec(),
        };
        Ok(subscription.into_on_message().map(heard).boxed())
    }

    /// The channel of all nodes.
    pub(super) fn all(&self) -> String {
        format!("{}all", self.prefix)
    }

    /// The channel of one node.
    pub(super) fn inbox(&self, node: Incarnation) -> String {
        format!("{}in:{}", self.prefix, HEXLOWER.encode(node.as_bytes()))
    }

    fn route(&self, queue: &QueueId) -> String {
        format!("{}route:{}", self.prefix, HEXLOWER.encode(queue.as_bytes()))
    }

    pub(super) fn ask(&self, queue: &QueueId, pipeline: &mut Pipeline) {
        pipeline.cmd("GET").arg(self.route(queue));
    }

    pub(super) fn announce(
        &self,
        queue: &QueueId,
        me: Incarnation,
        (stamp, age): (Option<u64>, Duration),
        pipeline: &mut Pipeline,
    ) {
        pipeline
            .cmd("EVAL")
            .arg(ANNOUNCE)
            .arg(1)
            .arg(self.route(queue))
            .arg(me.as_bytes().as_slice())
            .arg(stamp.unwrap_or(0))
            .arg(millis_or_micros(age.as_micros()))
            .arg(millis_or_micros(ROUTE_TTL.as_millis()));
    }

    pub(super) fn remove(
        &self,
        queue: &QueueId,
        (me, stamp): (Incarnation, u64),
        pipeline: &mut Pipeline,
    ) {
        let mut there = me.as_bytes().to_vec();
        there.extend_from_slice(stamp.to_string().as_bytes());
        pipeline
            .cmd("EVAL")
            .arg(REMOVE)
            .arg(1)
            .arg(self.route(queue))
            .arg(there)
            .ignore();
    }

    /// Leaves a mark and says whether it was there: if not, everything was flushed.
    pub(super) fn mark(&self, me: Incarnation, pipeline: &mut Pipeline) {
        let key = format!("{}node:{}", self.prefix, HEXLOWER.encode(me.as_bytes()));
        pipeline.cmd("EXISTS").arg(&key);
        pipeline
            .cmd("SET")
            .arg(key)
            .arg(1)
            .arg("PX")
            .arg(millis_or_micros(MARK_TTL.as_millis()))
            .ignore();
    }
}

fn millis_or_micros(count: u128) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

/// Where a route leads.
pub(super) fn route_of(value: &Value) -> Option<Incarnation> {
    let Value::BulkString(bytes) = value else {
        return None;
    };
    let (node, _) = bytes.split_first_chunk::<{ Incarnation::LEN }>()?;
    Some(Incarnation::new(*node))
}

/// What an announcement came to.
pub(super) fn announced(value: &Value) -> Option<Announced> {
    let Value::Array(values) = value else {
        return None;
    };
    let [Value::Int(is_newest), Value::BulkString(text)] = values.as_slice() else {
        return None;
    };
    let number = |bytes: &[u8]| std::str::from_utf8(bytes).ok()?.parse().ok();
    if *is_newest == 1 {
        return Some(Announced::Newest(number(text)?));
    }
    let (_, stamp) = text.split_first_chunk::<{ Incarnation::LEN }>()?;
    Some(Announced::Replaced {
        stamp: number(stamp)?,
    })
}

/// How many subscribers heard a message.
pub(super) fn heard_by(value: &Value) -> Option<i64> {
    if let Value::Int(count) = value {
        return Some(*count);
    }
    None
}
