//! Stands before a server with a certificate of its own and writes down what other domains ask of it,
//! and what it answers. Who trusts that certificate alone reaches the server no other way.

use std::future::poll_fn;

use anyhow::{Context as _, Result};
use bytes::{Bytes, BytesMut};
use h2::client::SendRequest;
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request, Response};
use rustls_pki_types::{PrivateKeyDer, ServerName};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::people::STEP_WAIT;
use crate::server::http as plain;

/// A request and its answer, as they crossed.
#[derive(Clone, Debug)]
pub struct Exchange {
    /// `GET` or `POST`.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// Headers of the request.
    pub asked: HeaderMap,
    /// Its body.
    pub request: Bytes,
    /// Status of the answer; 0 as long as there is none.
    pub status: u16,
    /// Headers of the answer.
    pub answered: HeaderMap,
    /// Its body.
    pub answer: Bytes,
}

/// A port of 127.0.0.1 that leads to a server over HTTP/2, whole bodies at a time: for the traffic of
/// domains, not of clients. Dropped, it closes.
pub struct Tap {
    port: u16,
    listener: Option<TcpListener>,
    made: rcgen::CertifiedKey<rcgen::KeyPair>,
    seen: watch::Sender<Vec<Exchange>>,
    stop: CancellationToken,
    _guard: DropGuard,
}

impl std::fmt::Debug for Tap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tap({})", self.port)
    }
}

impl Tap {
    /// Takes a port.
    ///
    /// # Errors
    ///
    /// The system's.
    pub async fn bind() -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let stop = CancellationToken::new();
        Ok(Self {
            port: listener.local_addr()?.port(),
            listener: Some(listener),
            made: rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])?,
            seen: watch::Sender::default(),
            stop: stop.clone(),
            _guard: stop.drop_guard(),
        })
    }

    /// Begins to pass on to the server at `to`, which may die and come back.
    ///
    /// # Errors
    ///
    /// If TLS cannot be set up.
    pub fn run(&mut self, to: u16) -> Result<()> {
        let Some(listener) = self.listener.take() else {
            return Ok(());
        };
        let key = PrivateKeyDer::try_from(self.made.signing_key.serialize_der());
        let key = key.map_err(|error| anyhow::anyhow!("a key that was just made: {error}"))?;
        let acceptor = plain::acceptor(vec![self.made.cert.der().clone()], key)?;
        let line = Line {
            to,
            seen: self.seen.clone(),
            tasks: TaskTracker::new(),
            stop: self.stop.clone(),
        };
        let (tasks, stop) = (TaskTracker::new(), self.stop.clone());
        tasks.spawn(stop.run_until_cancelled_owned(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (own, acceptor) = (line.clone(), acceptor.clone());
                line.spawn(async move { own.serve(stream, acceptor).await });
            }
        }));
        Ok(())
    }

    /// The domain of the server behind it, as others know it.
    #[must_use]
    pub fn domain(&self) -> String {
        format!("localhost:{}", self.port)
    }

    /// Its certificate in PEM, to be trusted instead of the server's.
    #[must_use]
    pub fn certificate(&self) -> String {
        self.made.cert.pem()
    }

    /// What has crossed until now.
    #[must_use]
    pub fn seen(&self) -> Vec<Exchange> {
        self.seen.borrow().clone()
    }

    /// Waits until what has crossed satisfies `enough`.
    ///
    /// # Errors
    ///
    /// If it does not within [`STEP_WAIT`].
    pub async fn until(&self, what: &str, enough: impl Fn(&[Exchange]) -> bool) -> Result<()> {
        let mut seen = self.seen.subscribe();
        let waited = timeout(STEP_WAIT, seen.wait_for(|seen| enough(seen))).await;
        waited.with_context(|| format!("{what}: has not crossed"))??;
        Ok(())
    }
}

/// What a connection needs.
#[derive(Clone)]
struct Line {
    to: u16,
    seen: watch::Sender<Vec<Exchange>>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Line {
    /// A connection that breaks is the business of its two ends.
    fn spawn(&self, work: impl Future<Output = Result<()>> + Send + 'static) {
        self.tasks
            .spawn(self.stop.clone().run_until_cancelled_owned(work));
    }

    async fn serve(&self, stream: TcpStream, acceptor: TlsAcceptor) -> Result<()> {
        let mut near = h2::server::handshake(acceptor.accept(stream).await?).await?;
        let far = self.connect().await?;
        while let Some(next) = near.accept().await {
            let (request, respond) = next?;
            let (own, far) = (self.clone(), far.clone());
            self.spawn(async move { own.pass(request, respond, far).await });
        }
        Ok(())
    }

    async fn connect(&self) -> Result<SendRequest<Bytes>> {
        let tcp = TcpStream::connect(("127.0.0.1", self.to)).await?;
        tcp.set_nodelay(true)?;
        let name = ServerName::try_from("localhost")?;
        let tls = plain::connector(b"h2")?.connect(name, tcp).await?;
        let (sender, connection) = h2::client::handshake(tls).await?;
        self.spawn(async move { Ok(connection.await?) });
        Ok(sender)
    }

    /// Notes a request before it is passed on, so that what dies on the way has been seen.
    async fn pass(
        &self,
        request: Request<RecvStream>,
        mut respond: SendResponse<Bytes>,
        far: SendRequest<Bytes>,
    ) -> Result<()> {
        let (head, stream) = request.into_parts();
        let body = read(stream).await?;
        let exchange = Exchange {
            method: head.method.to_string(),
            path: head.uri.path_and_query().context("no path")?.to_string(),
            asked: head.headers.clone(),
            request: body.clone(),
            status: 0,
            answered: HeaderMap::new(),
            answer: Bytes::new(),
        };
        let mut place = 0;
        self.seen.send_modify(|seen| {
            place = seen.len();
            seen.push(exchange);
        });
        let Ok((answer, answer_body)) = ask(far, Request::from_parts(head, ()), body).await else {
            // It is dead: nothing of this server's is told.
            respond.send_reset(h2::Reason::CANCEL);
            return Ok(());
        };
        self.seen.send_modify(|seen| {
            if let Some(exchange) = seen.get_mut(place) {
                exchange.status = answer.status.as_u16();
                exchange.answered = answer.headers.clone();
                exchange.answer = answer_body.clone();
            }
        });
        let mut head = Response::new(());
        *head.status_mut() = answer.status;
        *head.headers_mut() = answer.headers;
        let stream = respond.send_response(head, answer_body.is_empty())?;
        write(stream, answer_body).await
    }
}

async fn ask(
    far: SendRequest<Bytes>,
    head: Request<()>,
    body: Bytes,
) -> Result<(http::response::Parts, Bytes)> {
    let mut far = far.ready().await?;
    let (answer, stream) = far.send_request(head, body.is_empty())?;
    write(stream, body).await?;
    let (head, stream) = answer.await?.into_parts();
    Ok((head, read(stream).await?))
}

async fn read(mut stream: RecvStream) -> Result<Bytes> {
    let mut body = BytesMut::new();
    while let Some(chunk) = stream.data().await {
        let chunk = chunk?;
        stream.flow_control().release_capacity(chunk.len())?;
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

async fn write(mut stream: SendStream<Bytes>, mut body: Bytes) -> Result<()> {
    while !body.is_empty() {
        stream.reserve_capacity(body.len());
        let granted = poll_fn(|cx| stream.poll_capacity(cx)).await;
        let granted = granted.context("the stream is over")??;
        let part = body.split_to(granted.min(body.len()));
        stream.send_data(part, body.is_empty())?;
    }
    Ok(())
}
