//! Listeners: Pingora takes connections and runs the process; TLS and HTTP are ours.

mod connection;
mod http1;
mod http2;
mod io;
pub mod ports;
mod proxy;
mod secure;
mod shell;

use std::os::fd::IntoRawFd as _;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::FutureExt as _;
use pingora_core::apps::ServerApp;
use pingora_core::listeners::ListenerConfig;
use pingora_core::protocols::Stream;
use pingora_core::protocols::l4::stream::L4BufferSettings;
use pingora_core::server::{Fds, ListenFds, ShutdownWatch};
use pingora_core::services::listening;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::ports::Port;
pub use self::shell::{Farewell, Parts, Shell};
use crate::carrier::Serve;

/// Pingora's view of a [`Shell`].
struct App<E>(Arc<Shell<E>>);

#[async_trait]
impl<E: Serve> ServerApp for App<E> {
    async fn process_new(
        self: &Arc<Self>,
        stream: Stream,
        _shutdown: &ShutdownWatch,
    ) -> Option<Stream> {
        let digest = stream.get_socket_digest();
        let peer = digest
            .as_ref()
            .and_then(|digest| digest.peer_addr()?.as_inet().copied());
        // A client that left before it was asked for its address has none.
        if let Some(peer) = peer {
            self.0.accept(stream, peer.ip());
        }
        // The connection lives in a task of its own, so that what Pingora holds for it is freed.
        None
    }
}

/// What runs once, on the runtime of the listeners, before the first connection.
pub type OnStart = Box<dyn FnOnce() + Send + Sync>;

/// Ends the taking of connections while those that were taken go on. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Doors {
    close: Arc<watch::Sender<bool>>,
    closed: CancellationToken,
}

impl Default for Doors {
    fn default() -> Self {
        Self {
            close: Arc::new(watch::Sender::new(false)),
            closed: CancellationToken::new(),
        }
    }
}

impl Doors {
    /// Returns when no connection is taken any more. Those that wait stay in the sockets.
    pub async fn close(&self) {
        self.close.send_replace(true);
        self.closed.cancelled().await;
    }
}

/// The Pingora service: all listeners of the process.
pub struct Service<E> {
    inner: listening::Service<App<E>>,
    sockets: Option<Fds>,
    doors: Doors,
    threads: usize,
    on_start: Option<OnStart>,
}

impl<E> std::fmt::Debug for Service<E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Service")
            .field("threads", &self.threads)
            .finish_non_exhaustive()
    }
}

impl<E: Serve> Service<E> {
    /// A service on sockets that listen already, until `doors` close.
    #[must_use]
    pub fn new(
        shell: Arc<Shell<E>>,
        ports: Vec<Port>,
        doors: Doors,
        threads: usize,
        on_start: OnStart,
    ) -> Self {
        let mut inner = listening::Service::new("commucat".to_owned(), App(shell));
        let mut sockets = Fds::new();
        for port in ports {
            let name = port.address.to_string();
            // Pingora's default buffers cost 10 KiB a connection; TLS has its own.
            inner.add_listener(
                ListenerConfig::tcp(name.clone()).l4_buffer(L4BufferSettings::unbuffered()),
            );
            // Pingora owns it from now on, and finds it by its name.
            sockets.add(name, port.listener.into_raw_fd());
        }
        Self {
            inner,
            sockets: Some(sockets),
            doors,
            threads,
            on_start: Some(on_start),
        }
    }
}

#[async_trait]
impl<E: Serve> pingora_core::services::Service for Service<E> {
    async fn start_service(
        &mut self,
        _fds: Option<ListenFds>,
        // Pingora says so when everything has ended.
        _shutdown: ShutdownWatch,
        listeners_per_fd: usize,
    ) {
        if let Some(on_start) = self.on_start.take() {
            on_start();
        }
        let sockets: Option<ListenFds> = self.sockets.take().map(|own| Arc::new(own.into()));
        let shutdown = self.doors.close.subscribe();
        // Pingora panics when it cannot listen, and the process would go on without listeners.
        let listening = self
            .inner
            .start_service(sockets, shutdown, listeners_per_fd);
        if AssertUnwindSafe(listening).catch_unwind().await.is_err() {
            tracing::error!("a socket cannot be listened on");
            std::process::exit(1);
        }
        self.doors.closed.cancel();
    }

    fn name(&self) -> &'static str {
        "commucat"
    }

    fn threads(&self) -> Option<usize> {
        Some(self.threads)
    }
}
