//! The command line.

use std::net::SocketAddr;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use commucat_testkit::server::Backend;

/// Measure what a message and a connection cost the server
///
/// Starts a server of its own, built with the same profile, in a temporary directory; `--server`
/// aims at another one. One row for each run on stdout, progress on stderr.
#[derive(Clone, Debug, Parser)]
#[command(name = "commucat-bench")]
pub(crate) struct Args {
    /// What to run
    #[arg(value_enum)]
    pub(crate) scenario: Scenario,

    /// Bytes of a message's ciphertext
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(24..=262_144))]
    pub(crate) payload: u32,

    /// Messages that each sender has unacknowledged; for `churn`, connects at once
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub(crate) outstanding: Option<u32>,

    /// Messages a second of all senders together, instead of as many as go
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub(crate) rate: Option<u32>,

    /// Messages of all senders together (`churn`: connects), instead of a duration
    #[arg(long)]
    pub(crate) count: Option<u64>,

    /// Seconds that are measured, after one second to warm up
    #[arg(long, default_value_t = 4.0, value_parser = seconds)]
    pub(crate) duration: f64,

    /// Devices (`fanout`: receivers of each group)
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) devices: Option<u32>,

    /// How often, each time with a new server
    #[arg(long, default_value_t = 1)]
    pub(crate) runs: u32,

    /// One JSON object a run in place of the table
    #[arg(long)]
    pub(crate) json: bool,

    /// Threads of the generator; 0: one for each core
    #[arg(long, default_value_t = 0)]
    pub(crate) threads: usize,

    /// A setting of the server that is started, as `limits.ack_wait=1s`
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) settings: Vec<String>,

    /// Aim at this server, which must have open registration and limits for load
    #[arg(
        long,
        value_name = "ADDR",
        requires = "pid",
        conflicts_with = "settings"
    )]
    pub(crate) server: Option<SocketAddr>,

    /// The process of `--server`, on this machine
    #[arg(long, requires = "server")]
    pub(crate) pid: Option<u32>,

    /// What keeps the durable state of the server that is started
    #[arg(long, value_enum, default_value_t = Backend::Sqlite, conflicts_with = "server")]
    pub(crate) backend: Backend,

    /// `nodes`: both devices of a chat on the same node, to compare
    #[arg(long)]
    pub(crate) same_node: bool,

    /// Use the stack below CommuCat only, or NATS (`nats-server`, without acknowledgement or store)
    #[arg(long, value_enum, default_value_t = Peer::Commucat)]
    pub(crate) peer: Peer,
}

/// What is measured.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Scenario {
    /// Chats of two devices, both there
    Pairs,
    /// One device writes to groups of many, all there
    Fanout,
    /// Connections that do nothing
    Idle,
    /// Messages to devices that are away
    Offline,
    /// Devices that come back and fetch what waits
    Drain,
    /// Chats at a fixed rate, for the time from hand to hand
    Latency,
    /// Devices that connect and go
    Churn,
    /// Chats of two devices on two nodes of one domain, on PostgreSQL and Redis
    Nodes,
    /// Chats of two devices of two domains
    Federation,
    /// A server that starts with that many messages in its store
    Start,
    /// Be the bare relay of `--peer relay`; started by this program itself
    #[value(hide = true)]
    Relay,
}

impl Scenario {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Pairs => "pairs",
            Self::Fanout => "fanout",
            Self::Idle => "idle",
            Self::Offline => "offline",
            Self::Drain => "drain",
            Self::Latency => "latency",
            Self::Churn => "churn",
            Self::Nodes => "nodes",
            Self::Federation => "federation",
            Self::Start => "start",
            Self::Relay => "relay",
        }
    }
}

/// What is at the other end.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Peer {
    /// The real thing
    Commucat,
    /// A relay of frames over bare TLS, part of this program: the floor
    Relay,
    /// The same, with an acknowledgement from each receiver to the author: the floor of a message
    /// that costs four packets
    RelayAcked,
    /// NATS core over TLS
    Nats,
}

impl Args {
    /// Messages that each sender has unacknowledged.
    pub(crate) fn outstanding(&self) -> u32 {
        self.outstanding.unwrap_or(match self.scenario {
            Scenario::Pairs
            | Scenario::Offline
            | Scenario::Drain
            | Scenario::Nodes
            | Scenario::Federation
            | Scenario::Start => 128,
            Scenario::Fanout => 16,
            Scenario::Latency => 64,
            Scenario::Churn => 8,
            Scenario::Idle | Scenario::Relay => 1,
        })
    }

    pub(crate) fn devices(&self) -> u32 {
        self.devices.unwrap_or(match self.scenario {
            Scenario::Idle => 1_000,
            Scenario::Churn => 16,
            _ => 100,
        })
    }

    /// Messages a second of all senders together.
    pub(crate) fn rate(&self) -> Option<u32> {
        match self.scenario {
            Scenario::Latency => self.rate.or(Some(500)),
            _ => self.rate,
        }
    }

    /// Messages of all senders together, for scenarios that end by number.
    pub(crate) fn count(&self) -> Option<u64> {
        match self.scenario {
            Scenario::Offline | Scenario::Drain => self.count.or(Some(100_000)),
            Scenario::Churn => self.count.or(Some(2_000)),
            Scenario::Start => self.count.or(Some(1_000_000)),
            _ => self.count,
        }
    }

    /// Servers that are started.
    pub(crate) const fn servers(&self) -> usize {
        match self.scenario {
            Scenario::Nodes | Scenario::Federation => 2,
            _ => 1,
        }
    }

    pub(crate) fn measured(&self) -> Duration {
        Duration::from_secs_f64(self.duration)
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(value) if (0.1..=3_600.0).contains(&value) => Ok(value),
        _ => Err("0.1 to 3600 seconds".to_owned()),
    }
}
