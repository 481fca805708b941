//! The route table, and what HTTP/1.1 and HTTP/2 share of `/connect`.

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use http::header::{
    ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, FORWARDED, HeaderMap, HeaderName, HeaderValue,
    SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE,
    X_CONTENT_TYPE_OPTIONS,
};
use http::{Method, Request, Response, StatusCode};
use serde::Serialize;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tracing::Span;

use crate::api::{self, Public};
use crate::metrics::label::Route;

/// The path of the protocol itself.
pub(crate) const CONNECT: &str = "/connect";

const OCTET_STREAM: HeaderValue = HeaderValue::from_static("application/octet-stream");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

/// What the router knows of the one who asks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caller {
    /// The connection comes from this machine.
    pub(crate) is_local: bool,
}

impl Caller {
    /// Whether somebody at this machine asks, and not a proxy on it for somebody else.
    pub(crate) fn is_here(self, headers: &HeaderMap) -> bool {
        const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
        let forwarded = headers.contains_key(FORWARDED) || headers.contains_key(X_FORWARDED_FOR);
        self.is_local && !forwarded
    }
}

/// Everything but `/connect`, which needs the connection itself.
pub fn router(public: Public) -> Router {
    Router::new()
        .route("/healthz", get(api::health::live))
        .route("/readyz", get(api::health::ready))
        .route("/metrics", get(api::metrics::show))
        .route("/.well-known/commucat", get(api::well_known::show))
        .route("/", get(api::page::home))
        .route("/i", get(api::page::invite))
        .route(CONNECT, axum::routing::any(connect_by_other_method))
        .fallback(async || problem(StatusCode::NOT_FOUND))
        .method_not_allowed_fallback(async || problem(StatusCode::METHOD_NOT_ALLOWED))
        .with_state(public)
}

async fn connect_by_other_method(method: Method) -> Response<Body> {
    // Only HTTP/2 gets here with GET: its WebSockets (RFC 8441) are not offered.
    if method == Method::GET {
        return upgrade_required();
    }
    let mut response = problem(StatusCode::METHOD_NOT_ALLOWED);
    response
        .headers_mut()
        .insert(ALLOW, HeaderValue::from_static("GET, POST"));
    response
}

/// The label of a request.
pub(crate) fn route(method: &Method, path: &str) -> Route {
    match path {
        CONNECT if method == Method::POST => Route::ConnectBody,
        CONNECT if method == Method::GET => Route::ConnectWebSocket,
        "/healthz" | "/readyz" => Route::Health,
        "/metrics" => Route::Metrics,
        "/.well-known/commucat" => Route::WellKnown,
        "/" | "/i" => Route::Page,
        _ => Route::Unknown,
    }
}

/// Refuses a body of another type than the protocol's; none at all passes.
pub(crate) fn check_connect(headers: &HeaderMap) -> Result<(), StatusCode> {
    match headers.get(CONTENT_TYPE) {
        None => Ok(()),
        Some(kind) if kind == OCTET_STREAM => Ok(()),
        Some(_) => Err(StatusCode::UNSUPPORTED_MEDIA_TYPE),
    }
}

/// The answer to `POST /connect`, sent before the first byte of the client is read.
pub(crate) fn connect_head() -> Response<()> {
    let mut response = Response::new(());
    response.headers_mut().insert(CONTENT_TYPE, OCTET_STREAM);
    response.headers_mut().insert(CACHE_CONTROL, NO_STORE);
    response
}

/// The span of a session; its parent is the one that the client names (W3C Trace Context).
pub(crate) fn session_span(headers: &HeaderMap) -> Span {
    let span = tracing::debug_span!("session", trace = tracing::field::Empty);
    if let Some(trace) = headers
        .get("traceparent")
        .and_then(|value| trace_id(value.to_str().ok()?))
    {
        span.record("trace", trace);
    }
    span
}

/// The trace id of a `traceparent`, if it is one.
fn trace_id(value: &str) -> Option<&str> {
    let mut parts = value.split('-');
    let (_version, trace) = (parts.next()?, parts.next()?);
    let (parent, flags) = (parts.next()?, parts.next()?);
    let is_hex = |text: &str, length: usize| {
        text.len() == length && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    };
    let good = is_hex(trace, 32) && is_hex(parent, 16) && is_hex(flags, 2);
    (good && trace.bytes().any(|byte| byte != b'0')).then_some(trace)
}

/// An offer of a WebSocket that this server takes (RFC 6455 section 4.2.1).
#[derive(Debug)]
pub(crate) struct WebSocketOffer {
    accept: HeaderValue,
}

impl WebSocketOffer {
    /// The offer of `request`, if it is one.
    pub(crate) fn of<B>(request: &Request<B>) -> Option<Self> {
        let headers = request.headers();
        let names = |header, word: &str| {
            headers
                .get_all(header)
                .iter()
                .filter_map(|value| value.to_str().ok())
                .any(|value| {
                    value
                        .split(',')
                        .any(|part| part.trim().eq_ignore_ascii_case(word))
                })
        };
        let good = request.version() == http::Version::HTTP_11
            && names(UPGRADE, "websocket")
            && names(CONNECTION, "upgrade")
            && headers
                .get(SEC_WEBSOCKET_VERSION)
                .is_some_and(|value| value == "13");
        let key = headers
            .get(SEC_WEBSOCKET_KEY)
            .filter(|key| good && key.len() == 24)?;
        let accept = HeaderValue::from_str(&derive_accept_key(key.as_bytes())).ok()?;
        Some(Self { accept })
    }

    /// 101.
    pub(crate) fn accept(self) -> Response<Body> {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(SEC_WEBSOCKET_ACCEPT, self.accept);
        response
    }
}

/// 426: `GET /connect` without a WebSocket.
pub(crate) fn upgrade_required() -> Response<Body> {
    let mut response = problem(StatusCode::UPGRADE_REQUIRED);
    response
        .headers_mut()
        .insert(UPGRADE, HeaderValue::from_static("websocket"));
    response
}

/// An error as problem details (RFC 9457). It repeats nothing of the request.
pub(crate) fn problem(status: StatusCode) -> Response<Body> {
    details(status, None)
}

/// 503 with the cause in one word.
pub(crate) fn unready(cause: &'static str) -> Response<Body> {
    details(StatusCode::SERVICE_UNAVAILABLE, Some(cause))
}

fn details(status: StatusCode, cause: Option<&'static str>) -> Response<Body> {
    #[derive(Serialize)]
    struct Problem {
        r#type: &'static str,
        title: &'static str,
        status: u16,
        #[serde(skip_serializing_if = "Option::is_none")]
        cause: Option<&'static str>,
    }
    let title = status.canonical_reason().unwrap_or("Error");
    let body = Problem {
        r#type: "about:blank",
        title,
        status: status.as_u16(),
        cause,
    };
    // Texts and numbers always have a JSON form.
    let body = serde_json::to_vec(&body).unwrap_or_default();
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("application/problem+json");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response.headers_mut().insert(CACHE_CONTROL, NO_STORE);
    response
        .headers_mut()
        .insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_well_formed_traceparent_names_a_trace() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert_eq!(trace_id(good), Some("0af7651916cd43dd8448eb211c80319c"));
        for bad in [
            "",
            "00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-alice-b7ad6b7169203331-01",
        ] {
            assert_eq!(trace_id(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_request_through_a_local_proxy_is_not_from_here() {
        let mut headers = HeaderMap::new();
        let caller = Caller { is_local: true };
        assert!(caller.is_here(&headers));

        headers.insert("x-forwarded-for", HeaderValue::from_static("192.0.2.1"));

        assert!(!caller.is_here(&headers));
    }
}
