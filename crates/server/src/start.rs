//! Puts the server together: configuration, keys, store, ledger, engine, listeners.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::thread::available_parallelism;

use commucat_config::{Config, LedgerSink};
use commucat_crypto::keyring::KeyringError;
use commucat_ledger::{DebugSink, FileError, FileSink, Ledger, NullSink, Worker};
use commucat_storage::{
    Location, Migrations, OpenError, Options, OutboxLimits, QueueLimits, Store,
};
use parking_lot::Mutex;
use pingora_core::server::configuration::ServerConf;
use pingora_core::server::{RunArgs, Server};
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use crate::api::{Probe, Public, describe};
use crate::carrier::Serve as _;
use crate::cluster::{Cluster, RedisFailure};
use crate::engine::{Engine, Nodes, Parts};
use crate::keys::Keys;
use crate::limit::Gate;
use crate::listen::ports::{self, ListenError};
use crate::listen::{self, Service, Shell};
use crate::metrics::Metrics;
use crate::metrics::label::Lifecycle;
use crate::reload::Reloader;
use crate::shutdown::Ending;
use crate::tls::Identity;
use crate::tls::certificate::{self, CertificateError};
use crate::{admin, clock, federation, http, service, welcome};

/// Why the server could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data directory cannot be made.
    #[error("cannot make the data directory {}", path.display())]
    Data {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A port is taken.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The TLS certificate.
    #[error("the TLS certificate cannot be used")]
    Certificate(#[from] CertificateError),
    /// TLS cannot be set up.
    #[error("TLS cannot be set up")]
    Tls(#[from] rustls::Error),
    /// The domain's keys.
    #[error("the keys of the domain cannot be used")]
    Keys(#[from] KeyringError),
    /// The store.
    #[error("the store cannot be opened")]
    Store(#[from] OpenError),
    /// The ledger's file.
    #[error("the ledger cannot be opened")]
    Ledger(#[from] FileError),
    /// The system gives no threads.
    #[error("the system gives no threads")]
    Threads(#[source] io::Error),
    /// The first invite, or the domains that the configuration names.
    #[error("the store takes nothing")]
    Write(#[from] commucat_storage::StoreError),
    /// The address of Redis.
    #[error("the other nodes cannot be reached")]
    Redis(#[from] RedisFailure),
    /// Certificates of other domains cannot be verified.
    #[error(transparent)]
    Trust(#[from] federation::TrustError),
    /// No random bytes.
    #[error("the system gives no random bytes")]
    Random(#[from] getrandom::Error),
}

/// Runs the server until it is told to end.
///
/// # Errors
///
/// [`StartError`]: it did not start. What runs is ended by a signal.
pub fn run(config: Config) -> Result<(), StartError> {
    let ground = Ground::open(config)?;
    let config = Arc::clone(&ground.config);
    let first = welcome::Welcome::new(&config, &ground.keys);
    if ground.is_first {
        ground.opening.block_on(first.greet(&ground.store))?;
    }
    let (beside, ending) = assemble(ground)?;
    serve(&config, first, beside, ending);
    Ok(())
}

/// Files and threads, open before anything listens.
struct Ground {
    config: Arc<Config>,
    /// Nothing was in the data directory.
    is_first: bool,
    /// Runs what must be done before Pingora brings the runtime of the listeners.
    opening: Runtime,
    identity: Identity,
    keys: Keys,
    store: Store,
    ledger: Ledger,
    worker: Worker,
}

impl Ground {
    fn open(mut config: Config) -> Result<Self, StartError> {
        let data = &config.server.data;
        let is_first = make_directory(data).map_err(|source| StartError::Data {
            path: data.clone(),
            source,
        })?;
        // Before anything is made: whoever starts a second server by mistake changes nothing.
        config.server.listen = ports::check(&config.server.listen)?;
        raise_file_limit(&config);
        let (chain, key) = (config.tls_certificate_path(), config.tls_key_path());
        if config.server.tls_certificate.is_none() {
            certificate::ensure(&chain, &key, &config.server.domain)?;
        }
        let identity = Identity::load(chain, key, &config.server.domain)?;
        let open_keys = if config.storage.redis_url.is_some() {
            Keys::open_copy
        } else {
            Keys::open
        };
        let keys = open_keys(&config.keys_path(), &config.server.domain, clock::now())?;
        let opening = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(StartError::Threads)?;
        let store = opening.block_on(Store::open(location(&config)?, options(&config)))?;
        opening.block_on(federation::note_named(&config.federation.peers, &store))?;
        let (ledger, worker) = open_ledger(&config)?;
        Ok(Self {
            config: Arc::new(config),
            is_first,
            opening,
            identity,
            keys,
            store,
            ledger,
            worker,
        })
    }
}

/// What runs beside the listeners.
type Beside = (Reloader, admin::Parts);

/// Builds every component with exactly what it needs.
fn assemble(ground: Ground) -> Result<(Beside, Ending), StartError> {
    let Ground {
        config,
        identity,
        keys,
        store,
        ledger,
        worker,
        ..
    } = ground;
    let metrics = Metrics::new();
    metrics.enter(Lifecycle::Starting);
    let asked = CancellationToken::new();
    let cluster = Cluster::open(&config, keys.clone(), metrics.clone(), asked.clone())?;
    let client = federation::client(&config, keys.clone(), store.clone())?;
    let engine = Engine::new(Parts {
        config: Arc::clone(&config),
        keys: keys.clone(),
        store: store.clone(),
        ledger: ledger.clone(),
        metrics: metrics.clone(),
        nodes: Nodes(cluster.clone()),
        client: client.clone(),
    });
    let gauge = Gauge {
        engine: Arc::clone(&engine),
        ledger: ledger.clone(),
        store: store.clone(),
        seen: Mutex::default(),
    };
    let well_known = describe(&config, keys.statement(), keys.chain());
    let token = config.admin.metrics_token.clone();
    let public = Public::new(metrics.clone(), token, Arc::new(gauge), &well_known);
    let events = federation::routes(&config, client.clone(), Arc::clone(&engine));
    let shell = Shell::new(listen::Parts {
        engine: Arc::clone(&engine),
        tls: identity.server_config()?,
        router: http::router(public.clone()).merge(events),
        metrics: metrics.clone(),
        limits: config.limits.clone(),
        gate: Gate::new(&config.limits, &config.server),
    });
    let admin = admin::Parts {
        config: Arc::clone(&config),
        store: store.clone(),
        ledger,
        accounts: engine.accounts().clone(),
        keys: keys.clone(),
        public: public.clone(),
        cluster,
        client,
        peers: engine.peers().clone(),
        drain: asked.clone(),
    };
    let ending = Ending {
        shell,
        engine,
        store,
        worker,
        metrics,
        grace: config.server.shutdown_grace,
        asked,
    };
    let reloader = Reloader {
        config,
        identity,
        keys,
        public,
    };
    Ok(((reloader, admin), ending))
}

/// Hands everything to Pingora, which returns when the process should end.
fn serve(config: &Arc<Config>, first: welcome::Welcome, beside: Beside, ending: Ending) {
    let (reloader, admin) = beside;
    let threads = threads(config);
    let (shell, engine) = (Arc::clone(&ending.shell), Arc::clone(&ending.engine));
    let runtime = Arc::new(OnceLock::new());
    let (started, metrics) = (Arc::clone(&runtime), ending.metrics.clone());
    let stop = shell.stop_token();
    let on_start = Box::new(move || {
        let handle = tokio::runtime::Handle::current();
        engine.start();
        handle.spawn(admin::run(admin, stop.clone()));
        handle.spawn(service::beat(stop.clone()));
        handle.spawn(reloader.run(stop));
        handle.spawn(first.announce(metrics));
        // Set once: a service starts once.
        started.set(handle).ok();
    });
    let service = Service::new(shell, &config.server.listen, threads, on_start);
    let conf = ServerConf {
        threads,
        work_stealing: true,
        // Pingora sleeps its whole grace period, connections or not; ours is in `Ending`.
        grace_period_seconds: Some(0),
        graceful_shutdown_timeout_seconds: Some(0),
        ..ServerConf::default()
    };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap();
    server.add_service(service);
    server.run(RunArgs {
        shutdown_signal: Box::new(ending.on(runtime)),
    });
}

fn threads(config: &Config) -> usize {
    match usize::try_from(config.server.workers) {
        Ok(0) | Err(_) => available_parallelism().map_or(1, usize::from),
        Ok(workers) => workers,
    }
}

/// Files and sockets of the process beside those of connections.
const FILES_BESIDE: u64 = 64;

/// Lets the process have as many sockets as the system allows it; the usual 1,024 are for programs
/// that use `select`.
fn raise_file_limit(config: &Config) {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // An old limit that stays is found below.
    setrlimit(Resource::Nofile, limit).ok();
    let wanted = u64::from(config.limits.connections) + FILES_BESIDE;
    if let Some(allowed) = getrlimit(Resource::Nofile).current
        && allowed < wanted
    {
        tracing::warn!(
            count = allowed,
            "the system allows fewer open files than `limits.connections`: raise `ulimit -n`"
        );
    }
}

/// Makes a directory that only its owner can enter; whether it was not there.
fn make_directory(path: &std::path::Path) -> io::Result<bool> {
    use std::os::unix::fs::DirBuilderExt as _;
    let is_new = !path.exists();
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)?;
    Ok(is_new || path.read_dir()?.next().is_none())
}

/// Where the store is.
pub(crate) fn location(config: &Config) -> Result<Location, OpenError> {
    Ok(config.store_url().expose().parse()?)
}

/// How the store is opened.
pub(crate) fn options(config: &Config) -> Options {
    Options {
        lock_wait: config.storage.lock_wait,
        migrations: Migrations::Apply,
        readers: usize::try_from(config.storage.readers).unwrap_or(1),
        queues: QueueLimits {
            bytes: config.limits.queue_bytes.bytes(),
            entries: u64::from(config.limits.queue_entries),
        },
        outbox: OutboxLimits::default(),
    }
}

fn open_ledger(config: &Config) -> Result<(Ledger, Worker), StartError> {
    match config.ledger.sink {
        LedgerSink::Null => Ledger::start(NullSink::default()),
        LedgerSink::Debug => Ledger::start(DebugSink::default()),
        LedgerSink::File => Ledger::start(FileSink::open(&config.ledger_path())?),
    }
    .map_err(StartError::Threads)
}

/// What `/readyz` and `/metrics` ask.
struct Gauge {
    engine: Arc<Engine>,
    ledger: Ledger,
    store: Store,
    /// What the metrics have been told of the store.
    seen: Mutex<commucat_storage::Counters>,
}

impl Probe for Gauge {
    fn is_ready(&self) -> bool {
        self.engine.is_ready() && !self.ledger.status().failing
    }

    fn refresh(&self, metrics: &Metrics) {
        let mut seen = self.seen.lock();
        let now = self.store.counters();
        metrics
            .store_commits
            .inc_by(now.commits.saturating_sub(seen.commits));
        metrics
            .store_rows
            .inc_by(now.rows.saturating_sub(seen.rows));
        *seen = now;
    }
}

/// Where the server will be reachable, for messages.
pub(crate) fn places(addresses: &[SocketAddr]) -> String {
    addresses
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(" ")
}
