//! Configuration and paths: those of the server that is administered.

use std::path::Path;
use std::time::Duration;

use commucat_config::{Config, LedgerSink, Sources};
use commucat_ledger::{DebugSink, FileSink, Ledger, NullSink, Worker};
use commucat_storage::{Location, Migrations, OpenError, Options, QueueLimits, Store};

use crate::args::Args;
use crate::report::Report;

/// The file that is read when no other is named and it exists.
const FILE: &str = "commucat.toml";

/// How long a command waits for another one to let go of the store.
const LOCK_WAIT: Duration = Duration::from_secs(2);

/// Where the configuration comes from: the same sources as the server's, in the same order.
///
/// # Errors
///
/// [`Report`] if a file cannot be read.
pub(crate) fn sources(args: &Args) -> Result<Sources, Report> {
    let mut sources = Sources::default();
    match &args.config {
        Some(path) => sources = sources.with_file(path)?,
        None if Path::new(FILE).exists() => sources = sources.with_file(Path::new(FILE))?,
        None => {}
    }
    sources = sources.with_environment();
    for (key, value) in &args.set {
        sources = sources.with_flag(key, value);
    }
    for (key, value) in [("server.data", &args.data), ("server.domain", &args.domain)] {
        if let Some(value) = value {
            sources = sources.with_flag(key, value);
        }
    }
    Ok(sources)
}

/// Where the store is.
///
/// # Errors
///
/// [`OpenError::Address`].
pub(crate) fn location(config: &Config) -> Result<Location, OpenError> {
    Ok(config.store_url().expose().parse()?)
}

/// Opens the store.
///
/// # Errors
///
/// [`OpenError`].
pub(crate) async fn open_store(
    config: &Config,
    migrations: Migrations,
) -> Result<Store, OpenError> {
    open_at(config, location(config)?, migrations).await
}

/// Opens a store at another place, or under another name.
///
/// # Errors
///
/// [`OpenError`].
pub(crate) async fn open_at(
    config: &Config,
    location: Location,
    migrations: Migrations,
) -> Result<Store, OpenError> {
    let options = Options {
        lock_wait: LOCK_WAIT,
        migrations,
        readers: 1,
        queues: QueueLimits {
            bytes: config.limits.queue_bytes.bytes(),
            entries: u64::from(config.limits.queue_entries),
        },
        ..Options::default()
    };
    Store::open(location, options).await
}

/// Opens the ledger that the configuration names.
///
/// # Errors
///
/// [`Report`].
pub(crate) fn open_ledger(config: &Config) -> Result<(Ledger, Worker), Report> {
    let started = match config.ledger.sink {
        LedgerSink::Null => Ledger::start(NullSink::default()),
        LedgerSink::Debug => Ledger::start(DebugSink::default()),
        LedgerSink::File => {
            let sink = FileSink::open(&config.ledger_path());
            Ledger::start(sink.map_err(|error| Report::of(&error).hint("see `ledger.path`"))?)
        }
    };
    started.map_err(|error| Report::new("the system gives no thread").hint(error.to_string()))
}
