//! Every setting: name, type, default, range, meaning.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use commucat_proto::id::Domain;

use crate::block::block;
use crate::error::ConfigError;
use crate::source::{Layers, Sources};
use crate::value::{
    FederationPolicy, LedgerSink, LogFormat, NamedPeer, Network, Registration, Secret, Size,
    StoreUrl,
};

/// The whole configuration, checked.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Config {
    /// `[server]`
    pub server: Server,
    /// `[storage]`
    pub storage: Storage,
    /// `[crypto]`
    pub crypto: Crypto,
    /// `[federation]`
    pub federation: Federation,
    /// `[ledger]`
    pub ledger: Ledger,
    /// `[limits]`
    pub limits: Limits,
    /// `[admin]`
    pub admin: Admin,
}

impl Config {
    /// Reads the sources, later ones over earlier ones, and checks every value.
    ///
    /// # Errors
    ///
    /// The first [`ConfigError`], which names key, source and line, never a value.
    pub fn load(sources: &Sources) -> Result<Self, ConfigError> {
        let layers = Layers::read(sources)?;
        let config = Self {
            server: Server::read(&layers)?,
            storage: Storage::read(&layers)?,
            crypto: Crypto::read(&layers)?,
            federation: Federation::read(&layers)?,
            ledger: Ledger::read(&layers)?,
            limits: Limits::read(&layers)?,
            admin: Admin::read(&layers)?,
        };
        config.check()?;
        Ok(config)
    }

    /// What a single value cannot show.
    fn check(&self) -> Result<(), ConfigError> {
        let conflict = |problem| Err(ConfigError::Conflict { problem });
        if self.server.listen.is_empty() {
            return conflict("`server.listen` is empty");
        }
        if self.server.tls_certificate.is_some() != self.server.tls_key.is_some() {
            return conflict("`server.tls_certificate` and `server.tls_key` go together");
        }
        if self.limits.keepalive > self.limits.keepalive_idle {
            return conflict("`limits.keepalive` is longer than `limits.keepalive_idle`");
        }
        if self.limits.max_payload > self.limits.unacked_bytes {
            return conflict("`limits.max_payload` is above `limits.unacked_bytes`");
        }
        Ok(())
    }
}

block! {
    /// The process: where it listens, under which name, with which files.
    Server "server" {
        /// Domain of this server: the part of every address behind the `@`. It can never be changed.
        domain: Domain = "localhost";
        /// Addresses and ports to listen on. `[::]:8443` takes IPv4 too.
        listen: Vec<SocketAddr> = "127.0.0.1:8443, [::1]:8443";
        /// Directory of everything that the server keeps; made on first start, readable by its user only.
        data: PathBuf = "./commucat-data";
        /// Who may register an account.
        registration: Registration = "invite";
        /// Host and port that clients connect to. Empty: the domain, with the first port of `listen`
        /// if the domain names none.
        endpoint: Option<Domain> = "";
        /// File with the TLS certificate chain (PEM). Empty: self-signed, made on first start.
        /// Read again when the file changes and on SIGHUP.
        tls_certificate: Option<PathBuf> = "";
        /// File with the private key of the TLS certificate (PEM).
        tls_key: Option<PathBuf> = "";
        /// Proxies in front of this server: exempt from the limits for each address, and allowed
        /// `limits.streams` on one connection.
        trusted_proxies: Vec<Network> = "";
        /// Proxies that begin each connection with a header of the PROXY protocol, version 1 or 2. It is
        /// required from them and believed from nobody else; the limits for each address then see the
        /// client's.
        proxy_protocol: Vec<Network> = "";
        /// Fill sealed records to the size classes of the protocol, against traffic analysis.
        padding: bool = "false";
        /// Time that SIGTERM gives to connections before the process ends.
        shutdown_grace: Duration = "5s", "0s" ..= "5m";
        /// Name of this node among the nodes of the domain. Empty: random at each start.
        node_id: Option<String> = "";
        /// Threads that serve connections. 0: one for each core.
        workers: u32 = "0", "0" ..= "1024";
        /// Level of the log, or filters such as `info,commucat_server=debug`.
        log: String = "info";
        /// Form of log lines.
        log_format: LogFormat = "text";
    }
}

block! {
    /// Where durable state is kept.
    Storage "storage" {
        /// What keeps it: `sqlite:DIRECTORY` for the embedded store, one process, or
        /// `postgres://USER:PASSWORD@HOST:PORT/DATABASE?sslmode=verify-full` for PostgreSQL 12 or later.
        /// Empty: the embedded store in the data directory.
        url: Option<StoreUrl> = "";
        /// Connections that read at the same time. PostgreSQL gets six more for what writes.
        readers: u32 = "2", "1" ..= "64";
        /// Redis or Valkey that the nodes of the domain share: `redis://` or `rediss://` with host and
        /// port, `redis+sentinel://host:port,host:port/service`, or `redis+cluster://host:port,host:port`.
        /// Empty: there is one node.
        redis_url: Option<Secret> = "";
        /// What the names of all keys and channels in Redis begin with.
        redis_prefix: String = "commucat:";
        /// How long to wait at start for another process to let go of the embedded store.
        lock_wait: Duration = "2s", "0s" ..= "5m";
    }
}

block! {
    /// Keys of this domain.
    Crypto "crypto" {
        /// Directory of the key file (mode 0600). Empty: `keys` in the data directory.
        keys: Option<PathBuf> = "";
    }
}

block! {
    /// Traffic with other domains.
    Federation "federation" {
        /// Which other domains this one talks to.
        policy: FederationPolicy = "open";
        /// Other domains that this one knows by name: each `domain`, `domain,endpoint` or
        /// `domain,endpoint,public key`. In a variable, semicolons part them.
        peers: Vec<NamedPeer> = "";
        /// File with the certificates (PEM) that vouch for other domains. Empty: those of the system.
        ca: Option<PathBuf> = "";
        /// Connect to other domains also at loopback, private and link-local addresses. For tests and
        /// closed networks: with it a domain can make this server connect to machines beside it.
        allow_private: bool = "false";
        /// Events a second that one other domain may send.
        peer_events: u32 = "2000", "1" ..= "1000000";
        /// Bytes a second that one other domain may send.
        peer_bytes: Size = "8MiB", "64KiB" ..= "1GiB";
    }
}

block! {
    /// Record of key changes and registrations.
    Ledger "ledger" {
        /// Where they are recorded.
        sink: LedgerSink = "null";
        /// File of the sink `file`. Empty: `ledger.jsonl` in the data directory.
        path: Option<PathBuf> = "";
    }
}

block! {
    /// Bounds. Clients learn those that concern them when they connect.
    Limits "limits" {
        /// Longest ciphertext of one message.
        max_payload: Size = "256KiB", "1KiB" ..= "768KiB";
        /// Frames that one device may have unanswered.
        unacked: u32 = "1024", "16" ..= "65536";
        /// Bytes that one device may have unanswered.
        unacked_bytes: Size = "4MiB", "64KiB" ..= "256MiB";
        /// Entries that one queue may hold.
        queue_entries: u32 = "20000", "128" ..= "10000000";
        /// Bytes that one queue may hold.
        queue_bytes: Size = "64MiB", "1MiB" ..= "16GiB";
        /// How long an entry waits for its device.
        relay_ttl: Duration = "30d", "1m" ..= "365d";
        /// How long an entry for a connected device waits in memory before it goes to disk.
        ack_wait: Duration = "250ms", "10ms" ..= "10s";
        /// Bytes in memory of one queue.
        window_bytes: Size = "1MiB", "64KiB" ..= "64MiB";
        /// Bytes in memory of all queues together. Empty: a quarter of the machine's memory.
        mailbox_memory: Option<Size> = "";
        /// Devices in one group.
        group_handles: u32 = "256", "2" ..= "256";
        /// Messages a second of one handle; beyond it the server reads more slowly.
        submit_rate: u32 = "200", "1" ..= "100000";
        /// Messages of one handle at once.
        submit_burst: u32 = "2000", "1" ..= "1000000";
        /// Control requests a second of one device.
        request_rate: u32 = "20", "1" ..= "100000";
        /// Control requests of one device at once.
        request_burst: u32 = "400", "1" ..= "1000000";
        /// Key packages a day that one capability may claim.
        claims_per_capability: u32 = "20", "1" ..= "100000";
        /// Key packages a day that one other domain may claim.
        claims_per_domain: u32 = "200", "1" ..= "1000000";
        /// Registrations an hour from one address.
        registrations_per_address: u32 = "60", "1" ..= "1000000";
        /// Time for the handshake of a device.
        handshake_timeout: Duration = "10s", "100ms" ..= "2m";
        /// Time for the TLS handshake and, after it, for the first request.
        tls_timeout: Duration = "5s", "100ms" ..= "1m";
        /// A side that sent nothing for this long sends padding.
        keepalive: Duration = "30s", "1s" ..= "10m";
        /// The same for a device that said it is idle.
        keepalive_idle: Duration = "4m", "1s" ..= "1h";
        /// Connections in all.
        connections: u32 = "100000", "1" ..= "10000000";
        /// Connections from one address (IPv6: one /64).
        connections_per_address: u32 = "512", "1" ..= "10000000";
        /// TLS handshakes a second from one address.
        handshakes_per_address: u32 = "20", "1" ..= "1000000";
        /// TLS handshakes from one address at once.
        handshakes_burst: u32 = "200", "1" ..= "1000000";
        /// TLS handshakes under way in all.
        handshakes_pending: u32 = "256", "1" ..= "100000";
        /// Streams to `/connect` on one connection from a trusted proxy; others may have 8.
        streams: u32 = "1024", "1" ..= "65536";
        /// Bytes of the headers of one request.
        header_bytes: Size = "16KiB", "1KiB" ..= "64KiB";
        /// PING and SETTINGS frames a second that an HTTP/2 connection may send on average.
        control_frames: u32 = "10", "1" ..= "10000";
        /// PING and SETTINGS frames at once.
        control_frames_burst: u32 = "200", "10" ..= "100000";
        /// Longest that a write waits for a client that does not read.
        write_timeout: Duration = "30s", "1s" ..= "10m";
    }
}

block! {
    /// For the operator.
    Admin "admin" {
        /// Bearer token of `/metrics`. Empty: `/metrics` answers requests from this machine only.
        metrics_token: Option<Secret> = "";
    }
}
