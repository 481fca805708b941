//! `/.well-known/commucat`: how to reach this domain and which keys it has (CCP-1 section 3).

use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use commucat_config::{Config, Registration};
use commucat_proto::signed::Signed;
use commucat_proto::well_known::{RegistrationPolicy, WellKnown};
use http::header::{ACCESS_CONTROL_ALLOW_ORIGIN, CACHE_CONTROL, CONTENT_TYPE};

use super::Public;
use crate::http::CONNECT;

/// What the server that `config` describes says of itself. `chain` is oldest first.
#[must_use]
pub fn describe(config: &Config, server_keys: Signed, chain: Vec<Signed>) -> WellKnown {
    WellKnown {
        domain: config.server.domain.clone(),
        endpoint: format!("https://{}{CONNECT}", config.endpoint().as_str()),
        versions: vec![2],
        server_keys,
        chain,
        registration: match config.server.registration {
            Registration::Open => RegistrationPolicy::Open,
            Registration::Invite => RegistrationPolicy::Invite,
            Registration::Closed => RegistrationPolicy::Closed,
        },
        ledger: None,
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
