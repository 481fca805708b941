//! `/.well-known/commucat`: how to reach this domain and which keys it has (CCP-1 section 3).

use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use commucat_config::Config;
use http::header::{ACCESS_CONTROL_ALLOW_ORIGIN, CACHE_CONTROL, CONTENT_TYPE};
use data_encoding::HEXLOWER;
use serde::Serialize;

use super::Public;

/// The statement of a domain about itself.
#[derive(Clone, Debug, Serialize)]
pub struct WellKnown {
    domain: String,
    endpoint: String,
    versions: [u32; 1],
    server_keys: String,
    chain: Vec<String>,
    registration: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    ledger: Option<String>,
}

impl WellKnown {
    /// The statement of the server that `config` describes. `server_keys` and `chain` (oldest
    /// first) are signed statements as they travel.
    #[must_use]
    pub fn new(config: &Config, server_keys: &[u8], chain: &[Bytes]) -> Self {
        Self {
            domain: config.server.domain.as_str().to_owned(),
            endpoint: format!("https://{}{}", config.endpoint().as_str(), crate::http::CONNECT),
            versions: [2],
            server_keys: HEXLOWER.encode(server_keys),
            chain: chain.iter().map(|statement| HEXLOWER.encode(statement)).collect(),
            registration: config.server.registration.as_str(),
            ledger: None,
        }
    }

    pub(super) fn domain(&self) -> &str {
        &self.domain
    }

    pub(super) fn to_json(&self) -> Bytes {
        // Texts and numbers always have a JSON form.
        serde_json::to_vec(self).unwrap_or_default().into()
    }
}

pub(crate) async fn show(State(public): State<Public>) -> Response {
    let headers = [
        (CONTENT_TYPE, "application/json"),
        (CACHE_CONTROL, "max-age=300"),
        // Public, and what a client in a browser needs first.
        (ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
    ];
    (headers, public.0.well_known.read().clone()).into_response()
}
