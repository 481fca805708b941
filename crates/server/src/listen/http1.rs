//! HTTP/1.1: chunked `/connect`, WebSockets, everything else through the router.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use futures_util::FutureExt as _;
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1::Builder;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;
use tracing::Instrument as _;

use super::connection::Open;
use super::secure::Secure;
use super::shell::{Client, OpenStream, Shell};
use crate::carrier::body::{BodyReader, BodyWriter};
use crate::carrier::{CarrierReader, CarrierWriter, Serve, websocket};
use crate::http::{self as routes, Caller, WebSocketOffer};
use crate::metrics::label::{Protocol, Refusal, Route};

/// hyper takes no smaller buffer.
const BUFFER_BYTES_MIN: usize = 8 * 1024;
/// So often `limits.tls_timeout` passes between two looks at whether a connection has a `/connect` stream. After
/// two that find none it is closed, whatever it asks: hyper waits without end for a client that sends
/// requests and takes no answer.
const LOOK: u32 = 6;

pub(super) async fn serve<E, S>(shell: Arc<Shell<E>>, stream: Secure<S>, client: Arc<Client>)
where
    E: Serve,
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let _open = Open::new(&shell, Protocol::Http1);
    let shared = (Arc::clone(&shell), Arc::clone(&client));
    let asked = CancellationToken::new();
    let first = asked.clone();
    let service = service_fn(move |request| {
        first.cancel();
        let (shell, client) = shared.clone();
        async move { Ok::<_, Infallible>(respond(shell, client, request).await) }
    });
    let mut builder = Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(shell.limits.tls_timeout)
        .max_buf_size(shell.limits.header_bytes.len().max(BUFFER_BYTES_MIN));
    let connection = builder
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = pin!(connection);
    let wait = shell.limits.tls_timeout;
    let ended = tokio::select! {
        ended = connection.as_mut() => ended.map_err(|error| error.is_timeout()),
        () = async {
            tokio::select! {
                () = end(&shell, &asked) => {}
                () = unused(&client, wait * LOOK) => {}
            }
        } => {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                ended = connection => ended.map_err(|error| error.is_timeout()),
                // It does not take what it asked for.
                () = unused(&client, wait) => Err(true),
            }
        }
    };
    if let Err(is_timeout) = ended {
        let reason = if is_timeout {
            Refusal::Idle
        } else {
            Refusal::Http
        };
        shell.metrics.refused.of(reason).inc();
    }
}

/// Returns when two looks in a row, one each `pause`, find no `/connect` stream: what a session said last has at
/// least one pause to go out.
async fn unused(client: &Client, pause: Duration) {
    let mut free = 0;
    while free < 2 {
        sleep(pause).await;
        free = if client.has_streams() { 0 } else { free + 1 };
    }
}

/// Returns when an idle connection is to be closed.
async fn end<E>(shell: &Shell<E>, asked: &CancellationToken) {
    shell.stop.cancelled().await;
    if shell.is_patient() {
        // Whoever asks nothing meets `header_read_timeout`.
        asked.cancelled().await;
    }
}

async fn respond<E: Serve>(
    shell: Arc<Shell<E>>,
    client: Arc<Client>,
    request: Request<Incoming>,
) -> Response<Body> {
    let route = routes::route(request.method(), request.uri().path());
    shell.metrics.requests.of(route).inc();
    let opened = match route {
        Route::ConnectBody | Route::ConnectWebSocket => routes::check_connect(request.headers())
            .and_then(|()| client.open_stream().ok_or(StatusCode::TOO_MANY_REQUESTS)),
        Route::Health | Route::Metrics | Route::WellKnown | Route::Page | Route::Unknown => {
            return answer(&shell, client.is_local(), request).await;
        }
    };
    match opened {
        Ok(open) if request.method() == Method::POST => connect(&shell, open, request),
        Ok(open) => upgrade(&shell, open, request),
        Err(status) => {
            if status == StatusCode::TOO_MANY_REQUESTS {
                shell.metrics.refused.of(Refusal::Streams).inc();
            }
            routes::problem(status)
        }
    }
}

/// `POST /connect`: the request body is read while the response body is written.
fn connect<E: Serve>(
    shell: &Arc<Shell<E>>,
    open: OpenStream,
    request: Request<Incoming>,
) -> Response<Body> {
    let span = routes::session_span(request.headers());
    let (writer, body) = BodyWriter::new();
    let reader = CarrierReader::Body(BodyReader::new(request.into_body()));
    let carrier = open.carrier(reader, CarrierWriter::Body(writer), span.clone());
    let session = Arc::clone(&shell.engine).serve(carrier);
    // Combinators, because an `async` block would hold the session twice.
    shell
        .tasks
        .spawn(session.instrument(span).map(move |()| drop(open)));
    routes::connect_head().map(|()| Body::new(body))
}

/// `GET /connect`: answers 101 and serves the WebSocket.
fn upgrade<E: Serve>(
    shell: &Arc<Shell<E>>,
    open: OpenStream,
    mut request: Request<Incoming>,
) -> Response<Body> {
    let Some(offer) = WebSocketOffer::of(&request) else {
        return routes::upgrade_required();
    };
    let span = routes::session_span(request.headers());
    let upgrade = hyper::upgrade::on(&mut request);
    let limit = shell.limits.tls_timeout;
    let owned = Arc::clone(shell);
    shell.tasks.spawn(async move {
        // Ends early only when the client went away before the answer reached it.
        let Ok(Ok(upgraded)) = timeout(limit, upgrade).await else {
            return;
        };
        let (reader, writer) = websocket::halves(upgraded).await;
        let (reader, writer) = (CarrierReader::Socket(reader), CarrierWriter::Socket(writer));
        let carrier = open.carrier(reader, writer, span.clone());
        Arc::clone(&owned.engine)
            .serve(carrier)
            .instrument(span)
            .await;
        drop(open);
    });
    offer.accept()
}

async fn answer<E: Serve>(
    shell: &Shell<E>,
    is_local: bool,
    request: Request<Incoming>,
) -> Response<Body> {
    // No route takes a body, so none is read.
    let (parts, _unread) = request.into_parts();
    let mut request = Request::from_parts(parts, Body::empty());
    request.extensions_mut().insert(Caller { is_local });
    match shell.router.clone().oneshot(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}
