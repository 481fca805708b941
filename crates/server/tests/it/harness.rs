//! A shell in this process, with an engine that sends back what it gets.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use commucat_config::{Config, Sources};
use commucat_server::api::{Probe, Public, describe};
use commucat_server::carrier::{Carrier, Serve};
use commucat_server::keys::Keys;
use commucat_server::limit::{Buckets, Gate};
use commucat_server::listen::{Parts, Shell};
use commucat_server::metrics::Metrics;
use commucat_server::metrics::label::Hindrance;
use commucat_server::tls::{Identity, certificate};
use commucat_server::{clock, http};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::task::TaskTracker;

/// Longer than anything here takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Sends back what it gets, each half for itself; reads only once it is let.
#[derive(Debug)]
pub(crate) struct Echo {
    reads: Notify,
}

impl Echo {
    pub(crate) fn let_read(&self) {
        self.reads.notify_one();
    }
}

impl Serve for Echo {
    fn start(self: Arc<Self>) {}

    async fn serve(self: Arc<Self>, carrier: Carrier) {
        let Carrier {
            mut reader,
            mut writer,
            ..
        } = carrier;
        let (tx, mut rx) = mpsc::channel::<Bytes>(100_000);
        self.reads.notified().await;
        self.reads.notify_one();
        let reading = async move {
            while let Ok(Some(bytes)) = reader.next().await {
                tx.send(bytes).await.unwrap();
            }
        };
        let writing = async move {
            while let Some(bytes) = rx.recv().await {
                if writer.write(bytes).await.is_err() {
                    return;
                }
            }
            writer.close().await;
        };
        tokio::join!(reading, writing);
    }

    async fn drain(self: Arc<Self>) {}

    fn is_ready(&self) -> bool {
        true
    }
}

/// What `/readyz` is told.
#[derive(Default)]
pub(crate) struct Obstacle(pub(crate) Mutex<Option<Hindrance>>);

impl Probe for Obstacle {
    fn hindrance(&self) -> Option<Hindrance> {
        *self.0.lock().unwrap()
    }

    fn refresh(&self, _metrics: &Metrics) {}
}

/// A shell that listens on a port of its own.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) shell: Arc<Shell<Echo>>,
    pub(crate) engine: Arc<Echo>,
    pub(crate) metrics: Metrics,
    pub(crate) obstacle: Arc<Obstacle>,
    pub(crate) tasks: TaskTracker,
    pub(crate) identity: Identity,
    certificate: CertificateDer<'static>,
    _place: tempfile::TempDir,
}

impl Server {
    /// Starts one that echoes at once.
    pub(crate) async fn start(flags: &[(&str, &str)]) -> Self {
        let server = Self::start_without_reading(flags).await;
        server.engine.let_read();
        server
    }

    /// Starts one that reads nothing before [`Echo::let_read`].
    pub(crate) async fn start_without_reading(flags: &[(&str, &str)]) -> Self {
        let place = tempfile::tempdir().unwrap();
        let data = place.path().to_str().unwrap();
        let mut sources = Sources::default().with_flag("server.data", data);
        for (key, value) in flags {
            sources = sources.with_flag(key, value);
        }
        let config = Config::load(&sources).unwrap();
        let (chain, key) = (config.tls_certificate_path(), config.tls_key_path());
        certificate::ensure(&chain, &key, &config.server.domain).unwrap();
        let certificate = CertificateDer::from_pem_file(&chain).unwrap();
        let identity = Identity::load(chain, key, &config.server.domain).unwrap();
        let keys = Keys::open(&config.keys_path(), &config.server.domain, clock::now()).unwrap();
        let (engine, metrics) = (
            Arc::new(Echo {
                reads: Notify::new(),
            }),
            Metrics::new(),
        );
        let well_known = describe(&config, keys.statement(), keys.chain());
        let token = config.admin.metrics_token.clone();
        let obstacle = Arc::new(Obstacle::default());
        let public = Public::new(metrics.clone(), token, obstacle.clone(), &well_known);
        let shell = Shell::new(Parts {
            engine: Arc::clone(&engine),
            tls: identity.server_config().unwrap(),
            router: http::router(public),
            metrics: metrics.clone(),
            limits: config.limits.clone(),
            gate: Gate::new(
                &config.limits,
                &config.server,
                Buckets::alone(&config.limits),
            ),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let tasks = TaskTracker::new();
        let accepting = Arc::clone(&shell);
        tasks.spawn(async move {
            while let Ok((stream, peer)) = listener.accept().await {
                accepting.accept(stream, peer.ip());
            }
        });
        Self {
            address,
            shell,
            engine,
            metrics,
            obstacle,
            tasks,
            identity,
            certificate,
            _place: place,
        }
    }

    /// The certificate that clients trust.
    pub(crate) fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        roots
    }

    /// What a client needs to trust this server, with the protocol versions given.
    pub(crate) fn client_config(
        &self,
        versions: &[&'static SupportedProtocolVersion],
    ) -> ClientConfig {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(self.roots())
            .with_no_client_auth()
    }

    /// Connects with TLS 1.3 and the one ALPN protocol given.
    pub(crate) async fn connect(&self, protocol: &str) -> TlsStream<TcpStream> {
        let mut config = self.client_config(&[&rustls::version::TLS13]);
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        self.connect_with(config).await.unwrap()
    }

    /// Connects with the settings given.
    pub(crate) async fn connect_with(
        &self,
        config: ClientConfig,
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await
    }
}

/// Waits for `future`, and fails the test if it takes too long.
pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future)
        .await
        .expect("it takes too long")
}
