//! One connection: TLS, then whichever HTTP the client speaks.

use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

use super::secure::{self, Secure};
use super::shell::{Client, Shell};
use super::{http1, http2};
use crate::carrier::Serve;
use crate::metrics::label::{Protocol, Refusal};

/// Shakes hands, then spawns the connection as a task of its own: what the handshake needed is
/// freed, and an idle connection keeps a small future only.
pub(super) async fn start<E, S>(shell: Arc<Shell<E>>, stream: S, mut client: Client)
where
    E: Serve,
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let limit = shell.limits.tls_timeout;
    let shaken = tokio::select! {
        shaken = timeout(limit, secure::accept(Arc::clone(&shell.tls), stream)) => shaken,
        () = shell.cut() => return,
    };
    let stream = match shaken {
        Ok(Ok(stream)) => stream,
        Ok(Err(_)) => {
            shell.metrics.refused.of(Refusal::TlsFailed).inc();
            return;
        }
        Err(_) => {
            shell.metrics.refused.of(Refusal::TlsTimeout).inc();
            return;
        }
    };
    client.shake_hands();
    match protocol(&stream) {
        Protocol::Http2 => http2::start(shell, stream, Arc::new(client)).await,
        Protocol::Http1 => {
            let tasks = shell.tasks.clone();
            tasks.spawn(http1::serve(shell, stream, Arc::new(client)));
        }
    }
}

/// By ALPN; a client that offers none speaks HTTP/1.1.
fn protocol<S>(stream: &Secure<S>) -> Protocol {
    match stream.protocol() {
        Some(b"h2") => Protocol::Http2,
        Some(_) | None => Protocol::Http1,
    }
}

/// Counts a connection as open until it is dropped.
#[derive(Debug)]
pub(super) struct Open {
    metrics: crate::metrics::Metrics,
    protocol: Protocol,
}

impl Open {
    pub(super) fn new<E>(shell: &Shell<E>, protocol: Protocol) -> Self {
        let metrics = shell.metrics.clone();
        metrics.connections.of(protocol).inc();
        metrics.connections_opened.of(protocol).inc();
        Self { metrics, protocol }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.metrics.connections.of(self.protocol).dec();
    }
}
