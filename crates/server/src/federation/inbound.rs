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
use commucat_proto::id::Domain;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{Request, StatusCode};
use serde::Serialize;
use tracing::debug;

use super::book::{FindError, Known};
use super::budget::Budgets;
use super::client::PeerClient;
use crate::chain::chain;
use crate::clock;
use crate::engine::Engine;
use crate::metrics::{Metrics, label};

/// Takes requests of other domains. Cheap to clone.
#[derive(Clone)]
pub(super) struct Gateway(Arc<Inner>);

struct Inner {
    client: PeerClient,
    engine: Arc<Engine>,
    budgets: Budgets,
    metrics: Metrics,
}

impl Gateway {
    pub(super) fn new(
        client: PeerClient,
        engine: Arc<Engine>,
        budgets: Budgets,
        metrics: Metrics,
    ) -> Self {
        Self(Arc::new(Inner {
            client,
            engine,
            budgets,
            metrics,
        }))
    }

    async fn verify(&self, raw: &Bytes) -> Result<Verified, Refusal> {
        let received = Received::read(raw)?;
        let book = self.0.client.book();
        received.check_place_and_time(book.own(), clock::now())?;
        let origin = received.claimed_origin().clone();
        let known = book.find(&origin).await.map_err(|error| refused(&error))?;
        let budgets = &self.0.budgets;
        let (events, now) = (received.events(), Instant::now());
        budgets
            .look(&origin, events, raw.len(), now)
            .map_err(|wait| Refusal::Budget { wait })?;
        let verified = self.authentic(received, &origin, &known).await?;
        // Only now: whoever writes another domain's name on a request must not use up its budget.
        budgets
            .take(&origin, events, raw.len(), now)
            .map_err(|wait| Refusal::Budget { wait })?;
        Ok(verified)
    }

    async fn authentic(
        &self,
        received: Received,
        origin: &Domain,
        known: &Known,
    ) -> Result<Verified, Refusal> {
        let book = self.0.client.book();
        let (received, refusal) = match received.verify(book.own(), &known.keys, clock::now()) {
            Ok(verified) => return Ok(verified),
            Err(refused) => refused,
        };
        if refusal != Refusal::Key {
            return Err(refusal);
        }
        let known = match book.find_anew(origin).await {
            Ok(known) => known,
            Err(FindError::Recently) => return Err(Refusal::Key),
            Err(error) => return Err(refused(&error)),
        };
        received
            .verify(book.own(), &known.keys, clock::now())
            .map_err(|(_, refusal)| refusal)
    }
}

impl Gateway {
    fn refuses(&self, why: &Refusal) -> Response {
        self.0.metrics.peer_refused.of(cause(why)).inc();
        refusal(why)
    }
}

const fn cause(why: &Refusal) -> label::Cause {
    match why {
        Refusal::TooLarge => label::Cause::TooLarge,
        Refusal::Malformed => label::Cause::Malformed,
        Refusal::Peer => label::Cause::Peer,
        Refusal::Origin => label::Cause::Origin,
        Refusal::Budget { .. } => label::Cause::Budget,
        Refusal::Destination => label::Cause::Destination,
        Refusal::Window => label::Cause::Window,
        Refusal::Key => label::Cause::Key,
        Refusal::Signature => label::Cause::Signature,
    }
}

fn refused(error: &FindError) -> Refusal {
    debug!(error = %chain(error), "a domain that sends events is not known");
    match error {
        FindError::Refused => Refusal::Peer,
        // It sends again what it would else give back to the authors.
        FindError::Recently
        | FindError::Request(_)
        | FindError::Status(_)
        | FindError::Discovery(_)
        | FindError::Store(_) => Refusal::Origin,
    }
}

/// Answers the request.
pub(super) async fn take(State(gateway): State<Gateway>, request: Request<Body>) -> Response {
    let Ok(raw) = axum::body::to_bytes(request.into_body(), BATCH_MAX).await else {
        return gateway.refuses(&Refusal::TooLarge);
    };
    let verified = match gateway.verify(&raw).await {
        Ok(verified) => verified,
        Err(why) => {
            debug!(code = why.urn(), "a request of another domain is refused");
            return gateway.refuses(&why);
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
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, kind);
    if let Refusal::Budget { wait } = why {
        let seconds = wait.as_secs().saturating_add(1);
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_domain_without_budget_is_told_how_long_it_waits() {
        let wait = Duration::from_millis(1_500);

        let response = refusal(&Refusal::Budget { wait });

        assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(response.headers().get(RETRY_AFTER).unwrap(), "2");
    }
}
