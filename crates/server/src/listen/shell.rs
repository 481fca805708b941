//! What every connection shares.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Instant;

use axum::Router;
use commucat_config::Limits;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Span;

use super::{connection, proxy};
use crate::carrier::{Carrier, CarrierReader, CarrierWriter, PeerTag, Serve};
use crate::limit::{Gate, Origin, Pass};
use crate::metrics::Metrics;
use crate::metrics::label::Refusal;

/// `/connect` streams on a connection that does not come from a trusted proxy (CCP-1 section 1).
const STREAMS_MAX: u32 = 8;

/// How connections are ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Farewell {
    /// At once, as far as they are idle.
    Now,
    /// A connection that asked nothing yet gets its first answer: to its client nothing happened.
    AfterFirstAnswer,
}

/// What a [`Shell`] is made of.
#[derive(Debug)]
pub struct Parts<E> {
    /// What serves carriers.
    pub engine: Arc<E>,
    /// TLS settings.
    pub tls: Arc<rustls::ServerConfig>,
    /// Everything but `/connect`.
    pub router: Router,
    /// Counters.
    pub metrics: Metrics,
    /// `[limits]`
    pub limits: Limits,
    /// Who may connect.
    pub gate: Gate,
}

/// Takes connections and turns them into carriers for the engine and requests for the router.
pub struct Shell<E> {
    pub(super) engine: Arc<E>,
    pub(super) tls: Arc<rustls::ServerConfig>,
    pub(super) router: Router,
    pub(super) metrics: Metrics,
    pub(super) limits: Limits,
    gate: Gate,
    pub(super) tasks: TaskTracker,
    pub(super) stop: CancellationToken,
    /// Set before `stop` is.
    patient: AtomicBool,
}

impl<E> std::fmt::Debug for Shell<E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shell")
            .field("tasks", &self.tasks.len())
            .finish_non_exhaustive()
    }
}

impl<E: Serve> Shell<E> {
    /// Puts a shell together. It takes connections at once.
    #[must_use]
    pub fn new(parts: Parts<E>) -> Arc<Self> {
        Arc::new(Self {
            engine: parts.engine,
            tls: parts.tls,
            router: parts.router,
            metrics: parts.metrics,
            limits: parts.limits,
            gate: parts.gate,
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            patient: AtomicBool::new(false),
        })
    }

    /// Serves a connection that came from `address`, or drops it if a limit says so.
    ///
    /// Runs in a task of its own, on the runtime that this is called on.
    pub fn accept<S>(self: &Arc<Self>, stream: S, address: IpAddr)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        if self.stop.is_cancelled() && !self.is_patient() {
            self.metrics.refused.of(Refusal::Draining).inc();
            return;
        }
        match self.gate.enter(address, Instant::now()) {
            Ok(pass) if pass.origin() == Origin::Unnamed => {
                self.tasks
                    .spawn(named(Arc::clone(self), stream, pass, address));
            }
            Ok(pass) => {
                let client = Client::new(self, pass, Some(address));
                self.tasks
                    .spawn(connection::start(Arc::clone(self), stream, client));
            }
            Err(refusal) => {
                self.metrics.refused.of(refusal).inc();
            }
        }
    }

    /// Tells every connection to end: no new ones, no new streams, GOAWAY.
    pub fn stop(&self, farewell: Farewell) {
        if farewell == Farewell::AfterFirstAnswer {
            self.patient.store(true, Ordering::Release);
        }
        self.stop.cancel();
        self.tasks.close();
    }

    /// Returns when every connection has ended after [`Self::stop`].
    pub async fn stopped(&self) {
        self.tasks.wait().await;
    }

    /// Cancelled by [`Self::stop`].
    #[must_use]
    pub fn stop_token(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Connections and sessions still there.
    #[must_use]
    pub fn tasks(&self) -> usize {
        self.tasks.len()
    }
}

impl<E> Shell<E> {
    pub(super) fn is_patient(&self) -> bool {
        self.patient.load(Ordering::Acquire)
    }

    /// Returns when connections that have not even asked yet are to be dropped.
    pub(super) async fn cut(&self) {
        self.stop.cancelled().await;
        if self.is_patient() {
            std::future::pending::<()>().await;
        }
    }
}

/// Lets a proxy name its client, then serves the connection as that client's.
async fn named<E, S>(shell: Arc<Shell<E>>, mut stream: S, mut pass: Pass, proxy: IpAddr)
where
    E: Serve,
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let header = timeout(shell.limits.tls_timeout, proxy::read(&mut stream));
    let header = tokio::select! {
        header = header => header,
        () = shell.cut() => return,
    };
    // Why is between this server and its proxy; what was sent instead may be anybody's.
    let Ok(Ok(named)) = header else {
        shell.metrics.refused.of(Refusal::ProxyHeader).inc();
        return;
    };
    // What a proxy asks itself, it asks as itself.
    let client = named.unwrap_or(proxy);
    if let Err(refusal) = pass.name(client, Instant::now()) {
        shell.metrics.refused.of(refusal).inc();
        return;
    }
    let client = Client::new(&shell, pass, None);
    connection::start(shell, stream, client).await;
}

/// What is known of the client of one connection. Not its address.
#[derive(Debug)]
pub(super) struct Client {
    pass: Pass,
    /// Whether the request came from this machine and from no proxy on it.
    is_local: bool,
    streams: AtomicU32,
    streams_max: u32,
    /// Whether the handshake that the connection paid for was made.
    shaken: AtomicBool,
}

impl Client {
    /// `direct` is the address of who connected, unless a proxy spoke for somebody else.
    fn new<E>(shell: &Shell<E>, pass: Pass, direct: Option<IpAddr>) -> Self {
        let (streams_max, direct) = match pass.origin() {
            Origin::TrustedProxy => (shell.limits.streams, None),
            Origin::Client | Origin::Unnamed => (STREAMS_MAX, direct),
        };
        let is_local = direct.is_some_and(|address| address.to_canonical().is_loopback());
        Self {
            pass,
            is_local,
            streams: AtomicU32::new(0),
            streams_max,
            shaken: AtomicBool::new(false),
        }
    }

    pub(super) fn shake_hands(&mut self) {
        self.pass.shake_hands();
    }

    pub(super) const fn is_local(&self) -> bool {
        self.is_local
    }

    pub(super) const fn streams_max(&self) -> u32 {
        self.streams_max
    }

    /// Counts one more `/connect` stream until the result is dropped; `None` at the bound, or if the
    /// address has made too many handshakes.
    pub(super) fn open_stream(self: &Arc<Self>) -> Option<OpenStream> {
        let is_first = !self.shaken.swap(true, Ordering::Relaxed);
        if !is_first && !self.pass.pay_handshake(Instant::now()) {
            return None;
        }
        let more = |open: u32| (open < self.streams_max).then_some(open + 1);
        let opened = self
            .streams
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        opened.is_ok().then(|| OpenStream(Arc::clone(self)))
    }

    pub(super) fn has_streams(&self) -> bool {
        self.streams.load(Ordering::Relaxed) > 0
    }
}

/// One `/connect` stream that counts.
#[derive(Debug)]
pub(super) struct OpenStream(Arc<Client>);

impl OpenStream {
    /// The carrier of this stream.
    pub(super) fn carrier(
        &self,
        reader: CarrierReader,
        writer: CarrierWriter,
        span: Span,
    ) -> Carrier {
        let peer: PeerTag = self.0.pass.peer();
        Carrier {
            reader,
            writer,
            peer,
            span,
        }
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Ordering::Relaxed);
    }
}
