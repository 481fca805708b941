//! Puts the server together: configuration, keys, store, ledger, engine, listeners.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::available_parallelism;

use commucat_config::{Config, LedgerSink};
use commucat_crypto::keyring::KeyringError;
use commucat_ledger::{DebugSink, FileError, FileSink, Known, Ledger, NullSink, Worker};
use commucat_storage::{
    Location, Migrations, OpenError, Options, OutboxLimits, QueueLimits, Store,
};
use listenfd::ListenFd;
use pingora_core::server::configuration::ServerConf;
use pingora_core::server::{RunArgs, Server};
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::api::{Public, describe};
use crate::carrier::Serve as _;
use crate::cluster::{Cluster, RedisFailure};
use crate::engine::{Engine, Nodes, Parts};
use crate::handover::{self, Door, HandoverError, Offer, Predecessor, Successor};
use crate::keys::Keys;
use crate::limit::{Buckets, Gate};
use crate::listen::ports::{self, Inherited, ListenError, Port};
use crate::listen::{self, Doors, Service, Shell};
use crate::metrics::Metrics;
use crate::metrics::label::Lifecycle;
use crate::ready::{self, Readiness};
use crate::reload::Reloader;
use crate::shutdown::{Ending, Started};
use crate::tls::Identity;
use crate::tls::certificate::{self, CertificateError};
use crate::{admin, arrears, clock, federation, http, service, welcome};

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
    /// The server that runs hands nothing over.
    #[error("cannot take over")]
    Handover(#[from] HandoverError),
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

/// Who serves the domain when this process starts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Before {
    /// Nobody; the service manager may listen.
    Nobody,
    /// Another process, which hands over.
    Server,
}

/// Runs the server until it is told to end.
///
/// # Errors
///
/// [`StartError`]: it did not start. What runs is ended by a signal.
pub fn run(config: Config, before: Before) -> Result<(), StartError> {
    let ground = Ground::open(config, before)?;
    let config = Arc::clone(&ground.config);
    let first = welcome::Welcome::new(&config, &ground.keys);
    if ground.is_first {
        ground.opening.block_on(first.greet(&ground.store))?;
    }
    let (beside, ending) = assemble(ground)?;
    serve(&config, first, beside, ending)
}

/// Files and threads, open before anything listens.
struct Ground {
    config: Arc<Config>,
    /// Nothing was in the data directory.
    is_first: bool,
    /// Runs what must be done before Pingora brings the runtime of the listeners.
    opening: Runtime,
    /// Waits to hear that this process serves.
    predecessor: Option<Predecessor>,
    ports: Vec<Port>,
    identity: Identity,
    keys: Keys,
    store: Store,
    ledger: Ledger,
    worker: Worker,
}

impl Ground {
    fn open(mut config: Config, before: Before) -> Result<Self, StartError> {
        let data = &config.server.data;
        let is_first = make_directory(data).map_err(|source| StartError::Data {
            path: data.clone(),
            source,
        })?;
        // Before anything is made: whoever starts a second server by mistake changes nothing.
        let (mut predecessor, inherited) = match before {
            Before::Nobody => (None, from_manager()?),
            Before::Server => {
                let (predecessor, sockets) = Predecessor::ask(data)?;
                (Some(predecessor), Inherited::Predecessor(sockets))
            }
        };
        let ports = ports::open(&config.server.listen, inherited)?;
        config.server.listen = ports.iter().map(|port| port.address).collect();
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
        // All that could go wrong without the store has gone well.
        if let Some(predecessor) = &mut predecessor {
            predecessor.take()?;
        }
        let store = opening.block_on(Store::open(location(&config)?, options(&config)))?;
        opening.block_on(federation::note_named(&config.federation.peers, &store))?;
        let (ledger, worker, known) = open_ledger(&config)?;
        if let Some(known) = known {
            opening.block_on(arrears::settle(&store, &ledger, known));
        }
        Ok(Self {
            config: Arc::new(config),
            is_first,
            opening,
            predecessor,
            ports,
            identity,
            keys,
            store,
            ledger,
            worker,
        })
    }
}

/// Sockets that systemd opened for this process.
fn from_manager() -> Result<Inherited, ListenError> {
    let mut given = ListenFd::from_env();
    let mut sockets = Vec::new();
    for place in 0..given.len() {
        let socket = given.take_tcp_listener(place);
        sockets.extend(socket.map_err(ListenError::Unusable)?);
    }
    Ok(if sockets.is_empty() {
        Inherited::None
    } else {
        Inherited::Manager(sockets)
    })
}

/// Limits by address, device and handle. Nodes of one domain have a key for them in common, which
/// nobody else has.
fn buckets(config: &Config, keys: &Keys) -> Buckets {
    if config.storage.redis_url.is_none() {
        return Buckets::alone(&config.limits);
    }
    let seed = keys.domain_secret().seed();
    let key = blake3::derive_key("commucat 2026 limits of one domain", seed.expose());
    Buckets::shared(&config.limits, key)
}

/// What runs beside the listeners.
struct Beside {
    ports: Vec<Port>,
    predecessor: Option<Predecessor>,
    successors: mpsc::Sender<Successor>,
    readiness: Arc<Readiness>,
    reloader: Reloader,
    admin: admin::Parts,
}

/// Builds every component with exactly what it needs.
#[expect(clippy::too_many_lines, reason = "every part is named once, in order")]
fn assemble(ground: Ground) -> Result<(Beside, Ending), StartError> {
    let (config, identity, keys) = (ground.config, ground.identity, ground.keys);
    let (store, ledger, worker) = (ground.store, ground.ledger, ground.worker);
    let (metrics, asked) = (Metrics::new(), CancellationToken::new());
    metrics.enter(Lifecycle::Starting);
    let buckets = buckets(&config, &keys);
    let secrets = (keys.clone(), buckets.clone());
    let cluster = Cluster::open(&config, secrets, metrics.clone(), asked.clone())?;
    let counts = (metrics.clone(), buckets.clone());
    let client = federation::client(&config, keys.clone(), store.clone(), counts)?;
    let engine = Engine::new(Parts {
        config: Arc::clone(&config),
        keys: keys.clone(),
        store: store.clone(),
        ledger: ledger.clone(),
        metrics: metrics.clone(),
        buckets: buckets.clone(),
        nodes: Nodes(cluster.clone()),
        client: client.clone(),
    });
    let readiness = Readiness::new(
        (Arc::clone(&engine), ready::Nodes::of(cluster.as_ref())),
        (store.clone(), ledger.clone()),
        metrics.clone(),
    );
    let well_known = describe(&config, keys.statement(), keys.chain());
    let token = config.admin.metrics_token.clone();
    let public = Public::new(metrics.clone(), token, readiness.clone(), &well_known);
    let events = federation::routes(&config, &client, &engine, &metrics);
    let shell = Shell::new(listen::Parts {
        engine: Arc::clone(&engine),
        tls: identity.server_config()?,
        router: http::router(public.clone()).merge(events),
        metrics: metrics.clone(),
        limits: config.limits.clone(),
        gate: Gate::new(&config.limits, &config.server, buckets),
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
    // One at a time.
    let (successors, successor) = mpsc::channel(1);
    let ending = Ending {
        shell,
        engine,
        store,
        worker,
        metrics,
        grace: config.server.shutdown_grace,
        asked,
        doors: Doors::default(),
        successors: successor,
        offer: CancellationToken::new(),
    };
    let reloader = Reloader {
        config,
        identity,
        keys,
        public,
    };
    let beside = Beside {
        ports: ground.ports,
        predecessor: ground.predecessor,
        successors,
        readiness,
        reloader,
        admin,
    };
    Ok((beside, ending))
}

/// Hands everything to Pingora, which returns when the process should end.
fn serve(
    config: &Arc<Config>,
    first: welcome::Welcome,
    beside: Beside,
    ending: Ending,
) -> Result<(), StartError> {
    let Beside {
        ports,
        predecessor,
        successors: to,
        readiness,
        reloader,
        admin,
    } = beside;
    let sockets = ports.iter().map(Port::share).collect::<Result<_, _>>();
    let sockets = sockets.map_err(ListenError::Unusable)?;
    let offer = Offer { sockets, to };
    let data = config.server.data.clone();
    let threads = threads(config);
    let (shell, engine) = (Arc::clone(&ending.shell), Arc::clone(&ending.engine));
    let (started, told) = oneshot::channel();
    let metrics = ending.metrics.clone();
    let (stop, offered) = (shell.stop_token(), ending.offer.clone());
    let on_start = Box::new(move || {
        let handle = tokio::runtime::Handle::current();
        engine.start();
        // Whoever reads `ready` may ask at once.
        let desk = admin::open(&data);
        handle.spawn(admin::run(desk, admin, stop.clone()));
        match Door::open(&data) {
            Ok(door) => drop(handle.spawn(door.offer(offer, offered.clone()))),
            Err(error) => tracing::error!(%error, "`--upgrade` cannot reach this server"),
        }
        handle.spawn(handover::renew(stop.clone()));
        // Until somebody else serves.
        handle.spawn(service::beat(offered));
        handle.spawn(readiness.watch(stop.clone()));
        handle.spawn(reloader.run(stop));
        match Started::now() {
            Ok(now) => drop(started.send(now)),
            Err(error) => {
                tracing::error!(%error, "the system gives no signals");
                std::process::exit(1);
            }
        }
        if let Some(predecessor) = predecessor {
            predecessor.served();
        }
        first.announce(&metrics);
    });
    let service = Service::new(shell, ports, ending.doors.clone(), threads, on_start);
    let conf = ServerConf {
        threads,
        work_stealing: true,
        // Pingora sleeps its whole grace period, connections or not; ours is in `Ending`.
        grace_period_seconds: Some(0),
        graceful_shutdown_timeout_seconds: Some(0),
        // Timeouts are tokio's: the first of Pingora's own starts a thread that wakes a hundred times a
        // second for ever, for one timeout a connection.
        fast_timeout_to_tokio_threshold_seconds: Some(0),
        ..ServerConf::default()
    };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap();
    server.add_service(service);
    server.run(RunArgs {
        shutdown_signal: Box::new(ending.on(told)),
    });
    Ok(())
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

/// The ledger; and what it knows, where all entries of the domain go through this process.
fn open_ledger(config: &Config) -> Result<(Ledger, Worker, Option<Known>), StartError> {
    let mut known = None;
    let started = match config.ledger.sink {
        LedgerSink::Null => Ledger::start(NullSink::default()),
        LedgerSink::Debug => Ledger::start(DebugSink::default()),
        LedgerSink::File => {
            let (sink, found) = FileSink::open_known(&config.ledger_path())?;
            // Each of several nodes has a ledger of what went through it.
            known = Some(found).filter(|_| config.storage.redis_url.is_none());
            Ledger::start(sink)
        }
    };
    let (ledger, worker) = started.map_err(StartError::Threads)?;
    Ok((ledger, worker, known))
}

/// Where the server will be reachable, for messages.
pub(crate) fn places(addresses: &[SocketAddr]) -> String {
    addresses
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(" ")
}
