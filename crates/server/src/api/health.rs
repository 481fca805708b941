//! `/healthz`: the process runs. `/readyz`: it can serve.

use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use http::StatusCode;

use super::Public;
use crate::http::problem;

pub(crate) async fn live() -> &'static str {
    "ok\n"
}

pub(crate) async fn ready(State(public): State<Public>) -> Response {
    if public.0.probe.is_ready() {
        "ready\n".into_response()
    } else {
        problem(StatusCode::SERVICE_UNAVAILABLE)
    }
}
