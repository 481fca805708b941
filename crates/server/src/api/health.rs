//! `/healthz`: the process runs. `/readyz`: it can serve, or why not.

use super::Public;
use crate::http::unready;
use crate::metrics::label::Label as _;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};

pub(crate) async fn live() -> &'static str {
    "ok\n"
}

pub(crate) async fn ready(State(public): State<Public>) -> Response {
    match public.0.probe.hindrance() {
        None => "ready\n".into_response(),
        Some(cause) => unready(cause.text()),
    }
}
