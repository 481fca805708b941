//! Sends batches to other domains, signed anew at every attempt, and believes signed answers only.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use commucat_federation::PEER_REFUSED;
use commucat_federation::batch::{ANSWER_MAX, Answer, AnswerError, BatchId, Parcel, Settled};
use commucat_federation::discovery::EVENTS_PATH;
use commucat_proto::id::{DeviceId, Domain};
use commucat_storage::StoreError;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{Request, Response, StatusCode};
use tokio::time::timeout;

use super::book::{Book, FindError, url};
use super::connect::{RequestError, exchange};
use crate::clock;
use crate::keys::Keys;
use crate::limit::{Buckets, Kind};
use crate::metrics::Metrics;
use crate::metrics::label::Cause;

/// How long events may take (CCP-1 section 8).
pub(crate) const ANSWER_WAIT: Duration = Duration::from_secs(20);

/// Bounds of the pause that a peer may ask for.
const WAIT_MIN: Duration = Duration::from_secs(1);
const WAIT_MAX: Duration = Duration::from_secs(60);

/// Sends batches. Cheap to clone.
#[derive(Clone)]
pub struct PeerClient(Arc<Inner>);

struct Inner {
    book: Book,
    keys: Keys,
    metrics: Metrics,
    buckets: Buckets,
}

/// Why nothing of a batch was taken, as far as is known.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PostError {
    /// This server does not talk to the domain.
    #[error("this server does not talk to that domain")]
    Refused,
    /// That domain does not talk to this server.
    #[error("that domain does not talk to this server")]
    RefusedThere,
    /// The domain was not found.
    #[error("the domain was not found")]
    Find(#[source] FindError),
    /// It could not be asked.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// It takes no more for that long.
    #[error("the domain takes no more for {} s", .0.as_secs())]
    Budget(Duration),
    /// It answered something else.
    #[error("the domain answered {0}")]
    Status(StatusCode),
    /// Its answer is none.
    #[error(transparent)]
    Answer(#[from] AnswerError),
    /// No random bytes.
    #[error("the system gives no random bytes")]
    Random(#[from] getrandom::Error),
}

impl PostError {
    /// Why what came is no answer; `None` if nothing came.
    fn cause(&self) -> Option<Cause> {
        Some(match self {
            Self::Status(_) => Cause::AnswerStatus,
            Self::Request(RequestError::TooLong) | Self::Answer(AnswerError::TooLarge(_)) => {
                Cause::AnswerTooLarge
            }
            Self::Answer(AnswerError::Structure(_)) => Cause::AnswerMalformed,
            Self::Answer(AnswerError::Other("key")) => Cause::AnswerKey,
            Self::Answer(AnswerError::Other(_)) => Cause::AnswerOther,
            Self::Answer(AnswerError::Signature) => Cause::AnswerSignature,
            Self::Refused
            | Self::RefusedThere
            | Self::Find(_)
            | Self::Request(_)
            | Self::Budget(_)
            | Self::Random(_) => return None,
        })
    }
}

impl From<FindError> for PostError {
    fn from(error: FindError) -> Self {
        match error {
            FindError::Refused => Self::Refused,
            other @ (FindError::Recently
            | FindError::Request(_)
            | FindError::Status(_)
            | FindError::Discovery(_)
            | FindError::Store(_)) => Self::Find(other),
        }
    }
}

/// Why a device may not make this server contact a domain.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ContactError {
    /// It has caused too many first contacts.
    #[error("too many domains that are new here")]
    TooMany,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl PeerClient {
    pub(super) fn new(book: Book, keys: Keys, (metrics, buckets): (Metrics, Buckets)) -> Self {
        Self(Arc::new(Inner {
            book,
            keys,
            metrics,
            buckets,
        }))
    }

    pub(super) fn book(&self) -> &Book {
        &self.0.book
    }

    pub(super) fn keys(&self) -> &Keys {
        &self.0.keys
    }

    /// Asks for a signed answer to an empty batch; how long it took.
    ///
    /// # Errors
    ///
    /// [`PostError`].
    pub(crate) async fn ping(&self, peer: &Domain) -> Result<Duration, PostError> {
        let asked = Instant::now();
        self.post(peer, &Parcel::new()).await?;
        Ok(asked.elapsed())
    }

    /// What the operator says of a domain has changed: it is looked at anew.
    pub(crate) fn changed(&self, peer: &Domain) {
        self.0.book.changed(peer);
    }

    /// Sends one batch; what came of its events.
    ///
    /// # Errors
    ///
    /// [`PostError`]; nothing of it was taken, as far as is known.
    pub(crate) async fn post(
        &self,
        peer: &Domain,
        parcel: &Parcel,
    ) -> Result<Vec<Settled>, PostError> {
        let posted = timeout(ANSWER_WAIT, self.attempt(peer, parcel)).await;
        let posted = posted.unwrap_or_else(|_| {
            // It may lead nowhere since the network was cut; the next request makes another.
            self.0.book.forget(peer);
            Err(PostError::Request(RequestError::Late))
        });
        posted.inspect_err(|error| {
            if let Some(cause) = error.cause() {
                self.0.metrics.peer_refused.of(cause).inc();
            }
        })
    }

    async fn attempt(&self, peer: &Domain, parcel: &Parcel) -> Result<Vec<Settled>, PostError> {
        let book = &self.0.book;
        let known = book.find(peer).await?;
        let mut id = [0; 16];
        getrandom::fill(&mut id)?;
        let secret = self.0.keys.domain_secret();
        let between = (book.own(), peer);
        let sent = parcel.sign(BatchId::new(id), between, clock::now(), &secret);
        let connection = book.connection(peer, &known.endpoint).await?;
        let request = Request::post(url(&known.endpoint, EVENTS_PATH))
            .header(CONTENT_TYPE, "application/cbor")
            .body(())
            .map_err(RequestError::from)?;
        let exchanged = exchange(connection, request, sent.request().clone(), ANSWER_MAX).await;
        let answer = exchanged.inspect_err(|_| book.forget(peer))?;
        match answer.status() {
            StatusCode::OK => {}
            StatusCode::FORBIDDEN if is_peer_refused(answer.body()) => {
                return Err(PostError::RefusedThere);
            }
            StatusCode::TOO_MANY_REQUESTS => return Err(PostError::Budget(wait(&answer))),
            status => return Err(PostError::Status(status)),
        }
        let raw = answer.into_body();
        let keys = known.keys.accepted(clock::now());
        match Answer::verify(&raw, &sent, &keys) {
            Ok(answer) => Ok(answer.settled),
            Err(AnswerError::Other("key")) => {
                // It may have changed its key; the answer counts under the new one.
                let known = match book.find_anew(peer).await {
                    Err(FindError::Recently) => return Err(AnswerError::Other("key").into()),
                    found => found?,
                };
                let keys = known.keys.accepted(clock::now());
                Ok(Answer::verify(&raw, &sent, &keys)?.settled)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Counts a contact that `device` causes, if the domain is new here.
    ///
    /// # Errors
    ///
    /// [`ContactError`]; the domain is not to be asked.
    pub(crate) async fn contact(
        &self,
        device: &DeviceId,
        peer: &Domain,
    ) -> Result<(), ContactError> {
        let is_new = self.0.book.store().peer(peer).await?.is_none();
        if is_new {
            let buckets = &self.0.buckets;
            let who = buckets.tag(device.as_str().as_bytes());
            let taken = buckets.take(Kind::Contact, who, Instant::now());
            taken.map_err(|_| ContactError::TooMany)?;
        }
        Ok(())
    }
}

/// How long a domain says that one waits, within bounds.
fn wait(answer: &Response<Bytes>) -> Duration {
    let seconds = answer.headers().get(RETRY_AFTER);
    let seconds = seconds.and_then(|seconds| seconds.to_str().ok()?.parse().ok());
    Duration::from_secs(seconds.unwrap_or(1)).clamp(WAIT_MIN, WAIT_MAX)
}

/// Whether a refusal is the domain's own word, not that of a proxy before it.
fn is_peer_refused(raw: &[u8]) -> bool {
    #[derive(serde::Deserialize)]
    struct Problem {
        r#type: String,
    }
    serde_json::from_slice(raw).is_ok_and(|problem: Problem| problem.r#type == PEER_REFUSED)
}

impl std::fmt::Debug for PeerClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PeerClient(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_says_how_long_one_waits_within_bounds() {
        for (said, waited) in [("7", 7), ("0", 1), ("soon", 1), ("86400", 60)] {
            let answer = Response::builder().header(RETRY_AFTER, said);

            assert_eq!(
                wait(&answer.body(Bytes::new()).unwrap()),
                Duration::from_secs(waited),
                "{said}"
            );
        }
        assert_eq!(wait(&Response::new(Bytes::new())), WAIT_MIN);
    }
}
