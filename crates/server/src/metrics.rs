//! Metrics: one handle for each, made once; labels come from enums, so their number is known.

pub mod label;
mod reference;

use std::sync::Arc;

use commucat_proto::error::Title;
use commucat_proto::frame::error::Problem;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

pub use self::reference::page;

use self::label::{
    Ack, By, Cause, Direction, Frame, Handshake, Hindrance, Lifecycle, Path, Protocol, Refusal,
    Return, Route,
};

/// Everything that is counted. Cheap to clone; clones count together.
#[derive(Clone, Debug)]
pub struct Metrics(Arc<Handles>);

impl std::ops::Deref for Metrics {
    type Target = Handles;

    fn deref(&self) -> &Handles {
        &self.0
    }
}

/// The handles. Names are those of the rendered page without prefix and suffix.
#[derive(Debug)]
pub struct Handles {
    registry: Registry,
    /// Connections open now.
    pub connections: By<Protocol, Gauge>,
    /// Connections since the start.
    pub connections_opened: By<Protocol, Counter>,
    /// Connections, streams and requests turned away by the shell.
    pub refused: By<Refusal, Counter>,
    /// HTTP requests by route.
    pub requests: By<Route, Counter>,
    /// Sessions established now.
    pub sessions: Gauge,
    /// Handshakes by how they ended.
    pub handshakes: By<Handshake, Counter>,
    /// Frames received.
    pub frames_in: By<Frame, Counter>,
    /// Frames sent.
    pub frames_out: By<Frame, Counter>,
    /// Bytes of carriers, sealed.
    pub bytes: By<Direction, Counter>,
    /// Durable frames acknowledged to their authors.
    pub acks: By<Ack, Counter>,
    /// Time from a durable frame's arrival to its acknowledgement.
    pub custody_seconds: Histogram,
    /// Entries that a device acknowledged, by the place they were delivered from.
    pub deliveries: By<Path, Counter>,
    /// Frames returned to their authors.
    pub returned: By<Return, Counter>,
    /// Entries in memory of all mailboxes.
    pub mailbox_bytes: Gauge,
    /// Mailboxes in use.
    pub mailboxes: Gauge,
    /// Entries spooled to the store.
    pub spooled: Counter,
    /// Batches in which they were spooled.
    pub spool_batches: Counter,
    /// Transactions of the store that changed something; each is one fsync.
    pub store_commits: Counter,
    /// Rows that they changed.
    pub store_rows: Counter,
    /// Time that a write to the store took.
    pub store_seconds: Histogram,
    /// Requests to the store that failed.
    pub store_failures: Counter,
    /// Events that other domains settled.
    pub relayed: Counter,
    /// Requests in which they were sent.
    pub peer_batches: Counter,
    /// Requests to other domains that got no good answer.
    pub peer_failures: Counter,
    /// Requests of other domains, and their answers, that were refused as a whole.
    pub peer_refused: By<Cause, Counter>,
    /// Events written to the outbox.
    pub outboxed: Counter,
    /// Peers that are left alone after a failure.
    pub peers_resting: Gauge,
    /// Groups that reported different histories.
    pub forks: Counter,
    /// Entries that expired in their queues.
    pub expired: Counter,
    /// Entries sent to other nodes.
    pub parcels_sent: Counter,
    /// Entries taken from other nodes.
    pub parcels_taken: Counter,
    /// Nodes of this domain that live.
    pub cluster_nodes: Gauge,
    /// Whether other nodes are reachable through Redis.
    pub cluster_connected: Gauge,
    /// Times that another node had other keys of the domain.
    pub cluster_keys_differ: Counter,
    /// What other nodes took out of common buckets.
    pub cluster_taken: Counter,
    /// What stands in the way of serving: 1 for each cause that is met.
    pub not_ready: By<Hindrance, Gauge>,
    /// What the process is doing: one value is 1.
    pub lifecycle: By<Lifecycle, Gauge>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Counts what a device is told where the operator should know of it.
    pub(crate) fn note(&self, problem: &Problem) {
        if problem.title == Title::StorageFailure {
            self.store_failures.inc();
        }
    }

    /// All at zero.
    #[must_use]
    pub fn new() -> Self {
        let mut page = Page(Registry::with_prefix("commucat"));
        let handles = Handles {
            connections: page.gauges("connections", "Connections open now"),
            connections_opened: page.counters("connections_opened", "Connections since the start"),
            refused: page.counters("refused", "Connections, streams and requests turned away"),
            requests: page.counters("http_requests", "HTTP requests by route"),
            sessions: page.gauge("sessions", "Sessions established now"),
            handshakes: page.counters("handshakes", "Device handshakes by how they ended"),
            frames_in: page.counters("frames_received", "Frames received by type"),
            frames_out: page.counters("frames_sent", "Frames sent by type"),
            bytes: page.bytes_by("carrier", "Sealed bytes of sessions by direction"),
            acks: page.counters("acks", "Durable frames acknowledged to authors by status"),
            custody_seconds: page.seconds("custody", "From a durable frame's arrival to its ACK"),
            deliveries: page.counters("deliveries", "Entries acknowledged by devices by source"),
            returned: page.counters("returned", "Frames returned to authors by reason"),
            mailbox_bytes: page.bytes("mailbox", "Bytes in memory of all mailboxes"),
            mailboxes: page.gauge("mailboxes", "Mailboxes in use"),
            spooled: page.counter("spooled_entries", "Entries written to queues in the store"),
            spool_batches: page.counter("spool_batches", "Batches in which they were written"),
            store_commits: page.counter("store_commits", "Transactions, each one fsync"),
            store_rows: page.counter("store_rows", "Rows changed in the store"),
            store_seconds: page.seconds("store_write", "Time of a write to the store"),
            store_failures: page.counter("store_failures", "Requests to the store that failed"),
            relayed: page.counter("relayed_events", "Events that other domains settled"),
            peer_batches: page.counter("peer_batches", "Requests in which they were sent"),
            peer_failures: page.counter("peer_failures", "Requests to peers without a good answer"),
            peer_refused: page.counters(
                "peer_refused",
                "Requests and answers of other domains refused by cause",
            ),
            outboxed: page.counter("outboxed_events", "Events written to the outbox"),
            peers_resting: page.gauge("peers_resting", "Peers left alone after a failure"),
            forks: page.counter("forks", "Groups whose devices reported different histories"),
            expired: page.counter("expired_entries", "Entries that expired in their queues"),
            parcels_sent: page.counter("cluster_parcels_sent", "Entries sent to other nodes"),
            parcels_taken: page.counter("cluster_parcels_taken", "Entries of other nodes taken"),
            cluster_nodes: page.gauge("cluster_nodes", "Nodes of this domain that live"),
            cluster_connected: page.gauge("cluster_connected", "Whether Redis is reachable"),
            cluster_keys_differ: page.counter(
                "cluster_keys_differ",
                "Times that another node had other keys of the domain",
            ),
            cluster_taken: page.counter(
                "cluster_taken",
                "What other nodes took out of common limits that are low",
            ),
            not_ready: page.gauges("not_ready", "Why `/readyz` answers 503: 1 for each cause"),
            lifecycle: page.gauges("lifecycle", "What the process is doing: one value is 1"),
            registry: page.0,
        };
        Self(Arc::new(handles))
    }

    /// The page of `/metrics`, OpenMetrics text.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _infallible = encode(&mut text, &self.registry);
        text
    }

    /// Says what the process is doing.
    pub fn enter(&self, now: Lifecycle) {
        for (state, gauge) in self.lifecycle.each() {
            gauge.set(i64::from(*state == now));
        }
    }
}

/// The registry while it is filled.
struct Page(Registry);

impl Page {
    fn counter(&mut self, name: &str, help: &str) -> Counter {
        let counter = Counter::default();
        self.0.register(name, help, counter.clone());
        counter
    }

    fn gauge(&mut self, name: &str, help: &str) -> Gauge {
        let gauge = Gauge::default();
        self.0.register(name, help, gauge.clone());
        gauge
    }

    fn seconds(&mut self, name: &str, help: &str) -> Histogram {
        // 100 us to 26 s, doubling twice a step.
        let buckets = prometheus_client::metrics::histogram::exponential_buckets(1e-4, 4.0, 10);
        let histogram = Histogram::new(buckets);
        self.0
            .register_with_unit(name, help, Unit::Seconds, histogram.clone());
        histogram
    }

    fn bytes(&mut self, name: &str, help: &str) -> Gauge {
        let gauge = Gauge::default();
        self.0
            .register_with_unit(name, help, Unit::Bytes, gauge.clone());
        gauge
    }

    fn bytes_by<L: label::Label>(&mut self, name: &str, help: &str) -> By<L, Counter> {
        By::make(|family| self.0.register_with_unit(name, help, Unit::Bytes, family))
    }

    fn counters<L: label::Label>(&mut self, name: &str, help: &str) -> By<L, Counter> {
        By::make(|family| self.0.register(name, help, family))
    }

    fn gauges<L: label::Label>(&mut self, name: &str, help: &str) -> By<L, Gauge> {
        By::make(|family| self.0.register(name, help, family))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_shows_every_label_from_the_start() {
        let metrics = Metrics::new();

        metrics.acks.of(Ack::Stored).inc();
        let page = metrics.render();

        assert!(
            page.contains("commucat_acks_total{status=\"stored\"} 1"),
            "{page}"
        );
        assert!(
            page.contains("commucat_acks_total{status=\"delivered\"} 0"),
            "{page}"
        );
        assert!(page.ends_with("# EOF\n"));
    }

    #[test]
    fn one_state_of_the_process_is_shown() {
        let metrics = Metrics::new();

        metrics.enter(Lifecycle::Starting);
        metrics.enter(Lifecycle::Serving);

        assert_eq!(metrics.lifecycle.of(Lifecycle::Starting).get(), 0);
        assert_eq!(metrics.lifecycle.of(Lifecycle::Serving).get(), 1);
    }
}
