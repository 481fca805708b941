//! Requests between domains: out by `client` over `connect`, in by `inbound`. `book` knows who the
//! others are. What the events mean is the business of `crate::peers`.

mod book;
mod budget;
mod client;
mod connect;
mod inbound;
mod named;

use std::sync::Arc;

use axum::Router;
use axum::routing::post;
use commucat_config::Config;
use commucat_federation::Policy;
use commucat_federation::discovery::EVENTS_PATH;
use commucat_storage::Store;

use self::book::Book;
use self::budget::Budgets;
pub use self::client::PeerClient;
pub(crate) use self::client::{ANSWER_WAIT, PostError};
use self::connect::Connector;
pub use self::connect::TrustError;
use self::inbound::Gateway;
pub(crate) use self::named::note as note_named;
use crate::engine::Engine;
use crate::keys::Keys;
use crate::limit::Buckets;
use crate::metrics::Metrics;

/// What the engine needs to reach other domains.
pub(crate) fn client(
    config: &Config,
    keys: Keys,
    store: Store,
    (metrics, buckets): (Metrics, Buckets),
) -> Result<PeerClient, TrustError> {
    let policy = match config.federation.policy {
        commucat_config::FederationPolicy::Open => Policy::Open,
        commucat_config::FederationPolicy::Allowlist => Policy::Allowlist,
        commucat_config::FederationPolicy::Closed => Policy::Closed,
    };
    let connector = Connector::new(
        config.federation.ca.as_deref(),
        config.federation.allow_private,
    )?;
    let domain = config.server.domain.clone();
    let book = Book::new(domain, policy, store, connector);
    let book = book.with_endpoints(&config.federation.peers);
    Ok(PeerClient::new(book, keys, (metrics, buckets)))
}

/// The route of events.
pub(crate) fn routes(
    config: &Config,
    client: &PeerClient,
    engine: &Arc<Engine>,
    metrics: &Metrics,
) -> Router {
    let budgets = Budgets::new(config.federation.peer_events, config.federation.peer_bytes);
    let gateway = Gateway::new(client.clone(), Arc::clone(engine), budgets, metrics.clone());
    Router::new().route(EVENTS_PATH, post(inbound::take).with_state(gateway))
}
