//! What is told of a run: one JSON object, or a row of a table.

use std::io::Write as _;

use anyhow::Result;
use serde::Serialize;

use crate::args::{Args, Peer};
use crate::host::{Host, Sample};
use crate::process;
use crate::tally::{Seen, quantile_us, read};

/// One run. The names of the fields are those of the JSON.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Row {
    pub(crate) scenario: &'static str,
    pub(crate) outstanding: u32,
    pub(crate) payload: u32,
    /// Messages acknowledged to their authors while it was measured; `churn`: connects.
    pub(crate) messages: u64,
    /// Messages that reached a receiver while it was measured.
    pub(crate) deliveries: u64,
    /// Of the whole run, what did not arrive.
    pub(crate) lost: u64,
    /// Of the whole run, what arrived again.
    pub(crate) twice: u64,
    pub(crate) seconds: f64,
    /// `offline`: per message stored; `churn`: per connect.
    pub(crate) server_cpu_us_per_delivery: Option<f64>,
    pub(crate) p50_us: Option<f64>,
    pub(crate) p99_us: Option<f64>,
    pub(crate) idle_kib_per_connection: Option<f64>,
    pub(crate) fsyncs: u64,
    pub(crate) store_writes: u64,
    pub(crate) socket_writes_per_delivery: Option<f64>,
    /// Of PostgreSQL, where it is the backend.
    pub(crate) database_cpu_us_per_delivery: Option<f64>,
    /// Of Redis, between nodes.
    pub(crate) redis_cpu_us_per_delivery: Option<f64>,
    /// Requests between domains that carried events.
    pub(crate) federation_batches: u64,
    /// From the start of the process until it is ready.
    pub(crate) start_ms: Option<f64>,
    pub(crate) server_cores: f64,
    pub(crate) generator_cores: f64,
    /// Whether the generator could not have sent more: then messages a second say nothing of the server.
    pub(crate) generator_full: bool,
    pub(crate) backend: &'static str,
}

/// Share of the machine above which the generator's own work holds the server back.
const FULL: f64 = 0.95;

impl Row {
    /// A row with what two readings differ in. `units` is what the server's time is divided by.
    pub(crate) fn between(args: &Args, host: &Host, from: &Sample, to: &Sample) -> Self {
        let seconds = (to.at_ns - from.at_ns) as f64 / 1e9;
        let mut row = Self {
            scenario: args.scenario.name(),
            outstanding: args.outstanding(),
            payload: args.payload,
            messages: to.acknowledged - from.acknowledged,
            deliveries: to.deliveries - from.deliveries,
            seconds,
            fsyncs: to.fsyncs - from.fsyncs,
            store_writes: to.store_writes - from.store_writes,
            federation_batches: to.batches - from.batches,
            backend: host.backend(),
            ..Self::default()
        };
        let own = (to.own_cpu_us - from.own_cpu_us) as f64 / 1e6 / seconds;
        let server = (to.server_cpu_us - from.server_cpu_us) as f64 / 1e6 / seconds;
        let cores = process::cores();
        say(&format!(
            "server {server:.2} cores, generator {own:.2} cores, of {cores}"
        ));
        row.server_cores = rounded(server);
        row.generator_cores = rounded(own);
        row.generator_full = own >= FULL * threads(args) as f64;
        if row.generator_full {
            say("the generator's threads are full: more messages a second would go through");
        } else if own + server >= FULL * cores as f64 {
            say(
                "server and generator fill the machine: read time per message, not messages a second",
            );
        }
        row
    }

    /// Fills in the server's time for each of `units`, and its socket writes.
    pub(crate) fn per(mut self, units: u64, from: &Sample, to: &Sample) -> Self {
        if units > 0 {
            let cpu = (to.server_cpu_us - from.server_cpu_us) as f64;
            self.server_cpu_us_per_delivery = Some(rounded(cpu / units as f64));
            let beside = |from: Option<u64>, to: Option<u64>| {
                Some(rounded((to? - from?) as f64 / units as f64))
            };
            self.database_cpu_us_per_delivery = beside(from.database_cpu_us, to.database_cpu_us);
            self.redis_cpu_us_per_delivery = beside(from.redis_cpu_us, to.redis_cpu_us);
            let writes = (to.records - from.records) as f64;
            self.socket_writes_per_delivery = Some(rounded(writes / units as f64));
        }
        self
    }

    /// Fills in times and what did not arrive exactly once, of `expected` deliveries in all.
    pub(crate) fn judged(mut self, seen: Vec<Seen>, expected: u64) -> Self {
        let once: u64 = seen.iter().map(|seen| seen.once).sum();
        self.lost = expected.saturating_sub(once);
        self.twice = seen.iter().map(|seen| seen.again + seen.strange).sum();
        let mut times: Vec<u32> = seen.into_iter().flat_map(|seen| seen.times).collect();
        times.sort_unstable();
        self.p50_us = quantile_us(&times, 500).map(rounded);
        self.p99_us = quantile_us(&times, 990).map(rounded);
        self
    }

    /// What only some scenarios have, on stderr.
    fn say_rest(&self) {
        for (name, value, unit) in [
            ("PostgreSQL", self.database_cpu_us_per_delivery, "us each"),
            ("Redis", self.redis_cpu_us_per_delivery, "us each"),
            ("ready after", self.start_ms, "ms"),
        ] {
            if let Some(value) = value {
                say(&format!("{name} {value:.2} {unit}"));
            }
        }
        if self.federation_batches > 0 {
            let each = self.deliveries as f64 / self.federation_batches as f64;
            say(&format!(
                "{each:.1} deliveries in a request between domains"
            ));
        }
    }

    /// Writes it to stdout.
    pub(crate) fn print(&self, args: &Args) -> Result<()> {
        let mut out = std::io::stdout().lock();
        if args.json {
            writeln!(out, "{}", serde_json::to_string(self)?)?;
            return Ok(());
        }
        let shown =
            |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.2}"));
        writeln!(
            out,
            "{:<8} {:<10} {:>5} {:>7} {:>9} {:>10} {:>5} {:>5} {:>7.2} {:>8} {:>9} {:>9} {:>8} {:>7} {:>7} {:>7}",
            peer(args.peer),
            self.scenario,
            self.outstanding,
            self.payload,
            self.messages,
            self.deliveries,
            self.lost,
            self.twice,
            self.seconds,
            shown(self.server_cpu_us_per_delivery),
            shown(self.p50_us),
            shown(self.p99_us),
            shown(self.idle_kib_per_connection),
            self.fsyncs,
            self.store_writes,
            shown(self.socket_writes_per_delivery),
        )?;
        drop(out);
        self.say_rest();
        Ok(())
    }
}

/// Writes the head of the table.
pub(crate) fn head() -> Result<()> {
    writeln!(
        std::io::stdout(),
        "{:<8} {:<10} {:>5} {:>7} {:>9} {:>10} {:>5} {:>5} {:>7} {:>8} {:>9} {:>9} {:>8} {:>7} {:>7} {:>7}",
        "peer",
        "scenario",
        "out",
        "payload",
        "messages",
        "deliveries",
        "lost",
        "twice",
        "seconds",
        "cpu us",
        "p50 us",
        "p99 us",
        "idle KiB",
        "fsyncs",
        "rows",
        "writes",
    )?;
    Ok(())
}

/// The median of the runs' costs, on stderr.
pub(crate) fn median(rows: &[Row]) {
    let mut all: Vec<f64> = rows
        .iter()
        .filter_map(|row| row.server_cpu_us_per_delivery)
        .collect();
    all.sort_by(f64::total_cmp);
    if let (true, Some(middle)) = (all.len() > 1, all.get(all.len() / 2)) {
        say(&format!("median of {} runs: {middle:.2} us", all.len()));
    }
}

/// Progress, on stderr.
pub(crate) fn say(line: &str) {
    // Whoever closed stderr does not want it.
    drop(writeln!(std::io::stderr(), "{line}"));
}

fn rounded(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

fn threads(args: &Args) -> usize {
    if args.threads == 0 {
        process::cores()
    } else {
        args.threads
    }
}

const fn peer(peer: Peer) -> &'static str {
    match peer {
        Peer::Commucat => "commucat",
        Peer::Relay => "relay",
        Peer::RelayAcked => "relay-acked",
        Peer::Nats => "nats",
    }
}

/// Deliveries that were to come.
pub(crate) fn expected(host: &Host, receivers: u64) -> u64 {
    read(&host.tally.sent) * receivers
}
