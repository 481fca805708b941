//! HTTP/2: `/connect` on split halves of streams, everything else through the router.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use commucat_federation::batch::BATCH_MAX;
use commucat_federation::discovery::EVENTS_PATH;
use futures_util::FutureExt as _;
use h2::server::{Builder, Connection, SendResponse};
use h2::{Reason, RecvStream};
use http::{Method, Request, Response, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Sleep, sleep, timeout};
use tokio_util::sync::WaitForCancellationFutureOwned;
use tower::ServiceExt as _;
use tracing::Instrument as _;

use super::connection::Open;
use super::io::{Guarded, is_flood};
use super::secure::Secure;
use super::shell::{Client, OpenStream, Shell};
use crate::carrier::body::{StreamReader, StreamWriter};
use crate::carrier::{CarrierReader, CarrierWriter, Serve};
use crate::http::{self as routes, Caller};
use crate::limit::Bucket;
use crate::metrics::label::{Cause, Protocol, Refusal, Route};
use crate::signal::{Part, Signal};

/// Unread bytes of one stream. Covers a burst of `limits.unacked_bytes` piece by piece.
const STREAM_WINDOW_BYTES: u32 = 512 * 1024;
/// Unread bytes of a connection.
const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;
/// h2 takes 256 minus its length from this for each unread small DATA frame and ends the
/// connection at zero (RFC 9113 asks for such a bound). So large that the stream window runs out
/// first for frames from 86 bytes on; 8,200 frames of 1 byte still end it.
const DATA_FRAME_BUDGET_BYTES: usize = 2 * 1024 * 1024;
/// Bytes that wait in h2 for one client that does not read; then the writer waits.
const SEND_BUFFER_BYTES: usize = 128 * 1024;
/// Streams beside `/connect`.
const REQUESTS_MAX: u32 = 16;
/// A connection without a stream for so long ends.
const IDLE: Duration = Duration::from_secs(60);
/// How long a client has to take the GOAWAY.
const FAREWELL: Duration = Duration::from_secs(1);
/// Longest answer of the router, a bound against mistakes only.
const ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;
/// A batch of events must be there within this.
const BODY_WAIT: Duration = Duration::from_secs(20);

type Http2<S> = Connection<Guarded<Secure<S>>, Bytes>;

/// Reads the preface, then spawns the connection.
pub(super) async fn start<E, S>(shell: Arc<Shell<E>>, stream: Secure<S>, client: Arc<Client>)
where
    E: Serve,
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let limits = &shell.limits;
    let control = Bucket::new(
        limits.control_frames,
        limits.control_frames_burst,
        Instant::now(),
    );
    let header_bytes = u32::try_from(limits.header_bytes.bytes()).unwrap_or(u32::MAX);
    let mut builder = Builder::new();
    builder
        .initial_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .data_frame_budget(DATA_FRAME_BUDGET_BYTES)
        .max_send_buffer_size(SEND_BUFFER_BYTES)
        .max_concurrent_streams(client.streams_max().saturating_add(REQUESTS_MAX))
        .max_header_list_size(header_bytes);
    let handshake = builder.handshake(Guarded::new(stream, control));
    match timeout(limits.tls_timeout, handshake).await {
        Ok(Ok(connection)) => {
            let tasks = shell.tasks.clone();
            tasks.spawn(Serving::new(shell, connection, client));
        }
        Ok(Err(error)) => count_end(&shell, &error),
        Err(_) => {
            shell.metrics.refused.of(Refusal::TlsTimeout).inc();
        }
    }
}

/// How far the end of a connection is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Phase {
    Open,
    /// GOAWAY is out; streams go on.
    Draining,
    /// Nothing was asked for too long; the client has a moment to take the GOAWAY.
    Ending,
}

/// What serves a `/connect` stream.
type Session = Pin<Box<dyn Future<Output = ()> + Send>>;

/// One connection, with the session of its first stream.
///
/// Written by hand: an `async fn` would hold the connection twice, as its argument and as its own,
/// and idle connections are what memory is spent on. Mostly a connection has one session. In a task of
/// its own that would be woken, and scheduled, for each read and would do the same to this one for
/// each write.
struct Serving<E, S: AsyncRead + AsyncWrite + Unpin> {
    shell: Arc<Shell<E>>,
    connection: Http2<S>,
    client: Arc<Client>,
    phase: Phase,
    stop: Pin<Box<WaitForCancellationFutureOwned>>,
    pause: Pin<Box<Sleep>>,
    session: Option<Session>,
    parts: Parts,
    _open: Open,
}

/// What of a connection is polled by itself, when it was woken.
struct Parts {
    connection: Part,
    session: Part,
    /// `stop` and `pause`.
    rest: Part,
}

/// How often the parts of one connection may wake each other in one turn of their task.
const ROUNDS_MAX: u32 = 8;

impl Parts {
    fn new() -> Self {
        Self {
            connection: Part::new(),
            session: Part::new(),
            rest: Part::new(),
        }
    }

    fn signals(&self) -> [&Signal; 3] {
        [&self.connection, &self.session, &self.rest].map(Part::signal)
    }
}

impl<E, S> Serving<E, S>
where
    E: Serve,
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    fn new(shell: Arc<Shell<E>>, connection: Http2<S>, client: Arc<Client>) -> Self {
        Self {
            connection,
            client,
            phase: Phase::Open,
            stop: Box::pin(shell.stop.clone().cancelled_owned()),
            // The first request must come soon; a later pause may be longer.
            pause: Box::pin(sleep(shell.limits.tls_timeout)),
            session: None,
            parts: Parts::new(),
            _open: Open::new(&shell, Protocol::Http2),
            shell,
        }
    }

    fn wait(&mut self, pause: Duration) {
        self.pause
            .as_mut()
            .reset(tokio::time::Instant::now() + pause);
        self.parts.rest.signal().raise();
    }

    /// Takes what came; ready when the connection has ended.
    fn poll_requests(&mut self) -> Poll<()> {
        loop {
            let polled = self
                .connection
                .poll_accept(&mut self.parts.connection.context());
            match ready!(polled) {
                Some(Ok((request, respond))) => {
                    self.wait(IDLE);
                    let session = dispatch(&self.shell, &self.client, request, respond);
                    self.serve(session);
                }
                Some(Err(error)) => {
                    count_end(&self.shell, &error);
                    return Poll::Ready(());
                }
                None => return Poll::Ready(()),
            }
        }
    }

    /// Makes the first session a part of this task; others get tasks of their own.
    fn serve(&mut self, session: Option<Session>) {
        if self.session.is_none() {
            self.session = session;
            self.parts.session.signal().raise();
        } else if let Some(session) = session {
            self.shell.tasks.spawn(session);
        }
    }

    fn poll_session(&mut self) {
        let mut cx = self.parts.session.context();
        let ended = |session: &mut Session| session.as_mut().poll(&mut cx).is_ready();
        if self.session.as_mut().is_some_and(ended) {
            self.session = None;
        }
    }

    /// Looks at the time, and whether the server stops; ready when the connection has to end.
    fn poll_rest(&mut self) -> Poll<()> {
        let mut cx = self.parts.rest.context();
        if self.phase == Phase::Open && self.stop.as_mut().poll(&mut cx).is_ready() {
            self.phase = Phase::Draining;
            self.connection.graceful_shutdown();
            self.parts.connection.signal().raise();
        }
        loop {
            ready!(self.pause.as_mut().poll(&mut self.parts.rest.context()));
            if self.client.has_streams() {
                self.wait(IDLE);
            } else if self.phase == Phase::Ending {
                return Poll::Ready(());
            } else {
                self.phase = Phase::Ending;
                self.shell.metrics.refused.of(Refusal::Idle).inc();
                self.connection.abrupt_shutdown(Reason::NO_ERROR);
                self.parts.connection.signal().raise();
                self.wait(FAREWELL);
            }
        }
    }

    /// Polls every part that was woken.
    fn poll_parts(&mut self) -> Turn {
        let [connection, session, rest] = self.parts.signals().map(Signal::take);
        if rest && self.poll_rest().is_ready() || connection && self.poll_requests().is_ready() {
            return Turn::Ended;
        }
        if session {
            self.poll_session();
        }
        if connection || session || rest {
            Turn::Moved
        } else {
            Turn::Rests
        }
    }
}

/// What a round of polling came to.
enum Turn {
    /// Some part was polled; it may have woken another.
    Moved,
    /// No part was woken.
    Rests,
    /// The connection has ended.
    Ended,
}

impl<E, S> Future for Serving<E, S>
where
    E: Serve,
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        for signal in this.parts.signals() {
            signal.detach();
        }
        for _ in 0..ROUNDS_MAX {
            match this.poll_parts() {
                Turn::Moved => {}
                Turn::Ended => {
                    // What was read is still dealt with.
                    if let Some(session) = this.session.take() {
                        this.shell.tasks.spawn(session);
                    }
                    return Poll::Ready(());
                }
                Turn::Rests => {
                    if !this
                        .parts
                        .signals()
                        .map(|part| part.wait(cx))
                        .contains(&true)
                    {
                        return Poll::Pending;
                    }
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

fn count_end<E>(shell: &Shell<E>, error: &h2::Error) {
    if is_flood(error) {
        shell.metrics.refused.of(Refusal::ControlFrames).inc();
    } else if error.is_library() {
        shell.metrics.refused.of(Refusal::Http).inc();
    }
}

/// Answers a request, or makes the session of a `/connect` stream.
fn dispatch<E: Serve>(
    shell: &Arc<Shell<E>>,
    client: &Arc<Client>,
    request: Request<RecvStream>,
    respond: SendResponse<Bytes>,
) -> Option<Session> {
    if request.uri().path() != routes::CONNECT || request.method() != Method::POST {
        let answer = answer(Arc::clone(shell), client.is_local(), request, respond);
        shell.tasks.spawn(answer);
        return None;
    }
    shell.metrics.requests.of(Route::ConnectBody).inc();
    let checked = routes::check_connect(request.headers());
    match checked.and_then(|()| client.open_stream().ok_or(StatusCode::TOO_MANY_REQUESTS)) {
        Ok(open) => connect(shell, open, request, respond),
        Err(status) => {
            if status == StatusCode::TOO_MANY_REQUESTS {
                shell.metrics.refused.of(Refusal::Streams).inc();
            }
            shell.tasks.spawn(send(routes::problem(status), respond));
            None
        }
    }
}

fn connect<E: Serve>(
    shell: &Arc<Shell<E>>,
    open: OpenStream,
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
) -> Option<Session> {
    let span = routes::session_span(request.headers());
    let mut head = routes::connect_head();
    // "Sensitive" keeps them out of HPACK's table, which would hold them for as long as the connection
    // lasts, some 400 bytes, although mostly it has one answer.
    for value in head.headers_mut().values_mut() {
        value.set_sensitive(true);
    }
    // Refused only when the stream is gone already.
    let body = respond.send_response(head, false).ok()?;
    let reader = CarrierReader::Stream(StreamReader::new(request.into_body()));
    let writer = CarrierWriter::Stream(StreamWriter::new(body));
    let carrier = open.carrier(reader, writer, span.clone());
    let session = Arc::clone(&shell.engine).serve(carrier);
    // Combinators, because an `async` block would hold the session twice.
    let session = session.instrument(span).map(move |()| drop(open));
    Some(Box::pin(session))
}

async fn answer<E: Serve>(
    shell: Arc<Shell<E>>,
    is_local: bool,
    request: Request<RecvStream>,
    respond: SendResponse<Bytes>,
) {
    let (parts, unread) = request.into_parts();
    // Only the route of events takes a body.
    let body = if parts.uri.path() == EVENTS_PATH && parts.method == Method::POST {
        match timeout(BODY_WAIT, read(unread)).await {
            Ok(Ok(body)) => body,
            Ok(Err(status)) => {
                if status == StatusCode::PAYLOAD_TOO_LARGE {
                    shell.metrics.peer_refused.of(Cause::TooLarge).inc();
                }
                return send(routes::problem(status), respond).await;
            }
            Err(_) => return send(routes::problem(StatusCode::REQUEST_TIMEOUT), respond).await,
        }
    } else {
        Bytes::new()
    };
    let mut request = Request::from_parts(parts, Body::from(body));
    request.extensions_mut().insert(Caller { is_local });
    shell
        .metrics
        .requests
        .of(routes::route(request.method(), request.uri().path()))
        .inc();
    let response = match shell.router.clone().oneshot(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    };
    send(response, respond).await;
}

/// The body of a batch of events, as long as it may be.
async fn read(mut body: RecvStream) -> Result<Bytes, StatusCode> {
    let mut read = BytesMut::new();
    while let Some(chunk) = body.data().await {
        let chunk = chunk.map_err(|_| StatusCode::BAD_REQUEST)?;
        if read.len() + chunk.len() > BATCH_MAX {
            return Err(StatusCode::PAYLOAD_TOO_LARGE);
        }
        read.extend_from_slice(&chunk);
        let released = body.flow_control().release_capacity(chunk.len());
        released.map_err(|_| StatusCode::BAD_REQUEST)?;
    }
    Ok(read.freeze())
}

async fn send(response: Response<Body>, mut respond: SendResponse<Bytes>) {
    let (parts, body) = response.into_parts();
    let Ok(bytes) = axum::body::to_bytes(body, ANSWER_BYTES_MAX).await else {
        return;
    };
    let head = Response::from_parts(parts, ());
    if let Ok(mut body) = respond.send_response(head, bytes.is_empty())
        && !bytes.is_empty()
    {
        // Waits in h2 until the client's window takes it; refused only when the stream is gone.
        let _gone = body.send_data(bytes, true);
    }
}
