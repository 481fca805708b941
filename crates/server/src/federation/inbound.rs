//! `POST /federation/v1/events`: checks a request in the order of CCP-1 section 8, hands its events to
//! the engine, and signs the answer.

use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use commucat_federation::batch::{BATCH_MAX, Settled};
use commucat_federation::{Received, Refusal, Verified};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::{Request, StatusCode};
use serde::Serialize;
use tracing::debug;

use super::book::FindError;
use super::budget::Budgets;
use super::client::PeerClient;
use crate::chain::chain;
use crate::clock;
use crate::engine::Engine;

/// Takes requests of other domains. Cheap to clone.
#[derive(Clone)]
pub(super) struct Gateway(Arc<Inner>);

struct Inner {
    client: PeerClient,
    engine: Arc<Engine>,
    budgets: Budgets,
}

impl Gateway {
    pub(super) fn new(client: PeerClient, engine: Arc<Engine>, budgets: Budgets) -> Self {
        Self(Arc::new(Inner {
            client,
            engine,
            budgets,
        }))
    }

    async fn verify(&self, raw: &Bytes) -> Result<Verified, Refusal> {
        let received = Received::read(raw)?;
        let book = self.0.client.book();
        received.check_place_and_time(book.own(), clock::now())?;
        let origin = received.claimed_origin().clone();
        let known = book.find(&origin).await.map_err(|error| refused(&error))?;
        let budgets = &self.0.budgets;
        budgets
            .take(&origin, received.events(), raw.len(), Instant::now())
            .map_err(|_| Refusal::Budget)?;
        let (received, refusal) = match received.verify(book.own(), &known.keys, clock::now()) {
            Ok(verified) => return Ok(verified),
            Err(refused) => refused,
        };
        if refusal != Refusal::Key {
            return Err(refusal);
        }
        let known = match book.find_anew(&origin).await {
            Ok(known) => known,
            Err(FindError::Recently) => return Err(Refusal::Key),
            Err(error) => return Err(refused(&error)),
        };
        received
            .verify(book.own(), &known.keys, clock::now())
            .map_err(|(_, refusal)| refusal)
    }
}

fn refused(error: &FindError) -> Refusal {
    debug!(error = %chain(error), "a domain that sends events is not known");
    Refusal::Peer
}

/// Answers the request.
pub(super) async fn take(State(gateway): State<Gateway>, request: Request<Body>) -> Response {
    let Ok(raw) = axum::body::to_bytes(request.into_body(), BATCH_MAX).await else {
        return refusal(&Refusal::TooLarge);
    };
    let verified = match gateway.verify(&raw).await {
        Ok(verified) => verified,
        Err(why) => {
            debug!(code = why.urn(), "a request of another domain is refused");
            return refusal(&why);
        }
    };
    let Inner { client, engine, .. } = &*gateway.0;
    engine.heard(verified.origin());
    let (events, mut settled) = verified.events();
    let outcomes = engine.inbox().take(verified.origin(), events).await;
    settled.extend(
        outcomes
            .into_iter()
            .map(|(event, outcome)| Settled { event, outcome }),
    );
    let secret = client.keys().domain_secret();
    let answer = verified.answer(settled, client.book().own(), &secret);
    let mut response = Response::new(Body::from(answer));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/cbor"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Problem details (RFC 9457); it repeats nothing of the request.
fn refusal(why: &Refusal) -> Response {
    #[derive(Serialize)]
    struct Problem {
        r#type: &'static str,
        title: &'static str,
        status: u16,
        /// Against a clock that is wrong.
        time: u64,
    }
    let problem = Problem {
        r#type: why.urn(),
        title: why.title(),
        status: why.status(),
        time: clock::now().as_millis(),
    };
    // Texts and numbers always have a JSON form.
    let body = serde_json::to_vec(&problem).unwrap_or_default();
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = StatusCode::from_u16(why.status()).unwrap_or(StatusCode::BAD_REQUEST);
    let kind = HeaderValue::from_static("application/problem+json");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}
