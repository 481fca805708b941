//! `/metrics`: for whoever has the token, or, without one, for this machine.

use axum::extract::{Extension, State};
use axum::response::{IntoResponse as _, Response};
use http::StatusCode;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use subtle::ConstantTimeEq as _;

use super::Public;
use crate::http::{Caller, problem};

pub(crate) async fn show(
    State(public): State<Public>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
) -> Response {
    let Some(token) = &public.0.metrics_token else {
        return if caller.is_here(&headers) {
            page(&public)
        } else {
            problem(StatusCode::FORBIDDEN)
        };
    };
    let given = headers
        .get(AUTHORIZATION)
        .map_or(&[][..], HeaderValue::as_bytes);
    let given = given.strip_prefix(b"Bearer ").unwrap_or_default();
    if bool::from(given.ct_eq(token.expose().as_bytes())) {
        return page(&public);
    }
    let mut response = problem(StatusCode::UNAUTHORIZED);
    response
        .headers_mut()
        .insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    response
}

fn page(public: &Public) -> Response {
    public.0.probe.refresh(&public.0.metrics);
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(CONTENT_TYPE, kind)], public.0.metrics.render()).into_response()
}
