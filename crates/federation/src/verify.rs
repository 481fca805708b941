//! What a request must pass before anything in it is believed, in this order (CCP-1 section 8): size
//! and outer CBOR ([`Received::read`]); the peer and its budget, which the server knows; destination,
//! window and signature ([`Received::verify`]); then the events one by one ([`Verified::events`]).

use std::time::Duration;

use bytes::Bytes;
use commucat_crypto::Purpose;
use commucat_crypto::server_keys::DomainSecret;
use commucat_crypto::signing::verify;
use commucat_proto::error::Title;
use commucat_proto::frame::error::Problem;
use commucat_proto::id::Domain;
use commucat_proto::time::Timestamp;

use crate::batch::{Answer, Batch, BatchError, EVENTS_MAX, Outcome, Settled};
use crate::event::Event;
use crate::peer::PeerKeys;

/// How far `created` may be from the clock of the domain that gets it. Clocks may differ by ten
/// minutes; the rest is the way.
pub const WINDOW: Duration = Duration::from_secs(15 * 60);

/// The `type` of the problem with which a domain says that it does not talk to the sender: what
/// was to go there comes back to its authors.
pub const PEER_REFUSED: &str = "urn:commucat:federation:peer-refused";

/// Why a request is refused as a whole. Nothing of it was looked into.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// Over 4 MiB.
    #[error("request is too large")]
    TooLarge,
    /// Not the CBOR that it should be, too many events, or one twice.
    #[error("request has not the structure expected")]
    Malformed,
    /// Of a domain that this one does not talk to.
    #[error("this domain does not talk to the sender")]
    Peer,
    /// Of a domain whose keys are not known here, and cannot be found now.
    #[error("the sender's keys cannot be found now")]
    Origin,
    /// The sender has used up its budget.
    #[error("the sender's budget is used up")]
    Budget {
        /// After so long there is room for it.
        wait: Duration,
    },
    /// Made for another domain.
    #[error("request is for another domain")]
    Destination,
    /// Signed too long ago, or in the future.
    #[error("request was not signed just now")]
    Window,
    /// Signed by a key that is not the sender's, as far as is known here: look whether it has changed.
    #[error("request is signed by a key that is not the sender's")]
    Key,
    /// The signature does not hold.
    #[error("signature of the request does not hold")]
    Signature,
}

impl Refusal {
    /// The HTTP status that says so.
    #[must_use]
    pub const fn status(&self) -> u16 {
        match self {
            Self::TooLarge => 413,
            Self::Malformed | Self::Window => 400,
            Self::Peer => 403,
            Self::Origin => 503,
            Self::Budget { .. } => 429,
            Self::Destination => 421,
            Self::Key | Self::Signature => 401,
        }
    }

    /// The `type` of the problem, a word of its own for each cause.
    #[must_use]
    pub const fn urn(&self) -> &'static str {
        match self {
            Self::TooLarge => "urn:commucat:federation:too-large",
            Self::Malformed => "urn:commucat:federation:malformed",
            Self::Peer => PEER_REFUSED,
            Self::Origin => "urn:commucat:federation:unknown-origin",
            Self::Budget { .. } => "urn:commucat:federation:budget",
            Self::Destination => "urn:commucat:federation:misdirected",
            Self::Window => "urn:commucat:federation:outside-window",
            Self::Key => "urn:commucat:federation:unknown-key",
            Self::Signature => "urn:commucat:federation:signature",
        }
    }

    /// The title of the problem.
    #[must_use]
    pub const fn title(&self) -> &'static str {
        match self {
            Self::TooLarge => "Request Too Large",
            Self::Malformed => "Malformed Request",
            Self::Peer => "Peer Refused",
            Self::Origin => "Unknown Origin",
            Self::Budget { .. } => "Budget Used Up",
            Self::Destination => "Misdirected Request",
            Self::Window => "Outside The Window",
            Self::Key => "Unknown Key",
            Self::Signature => "Signature Does Not Hold",
        }
    }
}

impl From<BatchError> for Refusal {
    fn from(error: BatchError) -> Self {
        match error {
            BatchError::TooLarge(_) => Self::TooLarge,
            BatchError::TooMany(_) | BatchError::EventTwice | BatchError::Structure(_) => {
                Self::Malformed
            }
        }
    }
}

/// A request of which nothing is believed yet.
#[derive(Clone, Debug)]
pub struct Received(Batch);

impl Received {
    /// Checks size and outer CBOR.
    ///
    /// # Errors
    ///
    /// [`Refusal::TooLarge`] or [`Refusal::Malformed`].
    pub fn read(raw: &Bytes) -> Result<Self, Refusal> {
        Ok(Self(Batch::decode(raw)?))
    }

    /// Who claims to have sent it.
    #[must_use]
    pub const fn claimed_origin(&self) -> &Domain {
        &self.0.origin
    }

    /// How many events it claims to carry, for the budget.
    #[must_use]
    pub const fn events(&self) -> usize {
        self.0.events.len()
    }

    /// Checks destination and window. Cheap, so worth doing also before a sender is looked up that
    /// is not known.
    ///
    /// # Errors
    ///
    /// [`Refusal::Destination`] or [`Refusal::Window`].
    pub fn check_place_and_time(&self, own: &Domain, now: Timestamp) -> Result<(), Refusal> {
        if self.0.destination != *own || self.0.origin == *own {
            return Err(Refusal::Destination);
        }
        let (early, late) = (self.0.created.since(now), now.since(self.0.created));
        if early > WINDOW || late > WINDOW {
            return Err(Refusal::Window);
        }
        Ok(())
    }

    /// Checks destination, window and signature: `own` is this domain, `keys` are those of
    /// [`Received::claimed_origin`].
    ///
    /// # Errors
    ///
    /// [`Refusal::Destination`], [`Refusal::Window`], [`Refusal::Key`] or [`Refusal::Signature`], with
    /// the request, which may be tried again when the sender's keys were looked up anew.
    #[expect(
        clippy::result_large_err,
        reason = "the request is given back for another try with newer keys"
    )]
    pub fn verify(
        self,
        own: &Domain,
        keys: &PeerKeys,
        now: Timestamp,
    ) -> Result<Verified, (Self, Refusal)> {
        let refusal = match self.check_place_and_time(own, now) {
            Err(refusal) => refusal,
            Ok(()) => match keys.find(self.0.key_id, now) {
                None => Refusal::Key,
                Some(key) => {
                    let purpose = Purpose::FederationRequest;
                    match verify(&self.0.signed, purpose, key.as_bytes()) {
                        Ok(()) => return Ok(Verified(self.0)),
                        Err(_) => Refusal::Signature,
                    }
                }
            },
        };
        Err((self, refusal))
    }
}

/// A request that its origin has signed for this domain just now.
#[derive(Clone, Debug)]
pub struct Verified(Batch);

impl Verified {
    /// Who sent it.
    #[must_use]
    pub const fn origin(&self) -> &Domain {
        &self.0.origin
    }

    /// The events in order, and the answers to those that are none.
    #[must_use]
    pub fn events(&self) -> (Vec<Event>, Vec<Settled>) {
        let (mut events, mut refused) = (Vec::with_capacity(self.0.events.len()), Vec::new());
        for raw in &self.0.events {
            match raw.decode() {
                Ok(event) => events.push(event),
                Err(error) => {
                    let problem = Problem::new(Title::from(error), "not an event");
                    refused.push(Settled {
                        event: raw.id,
                        outcome: Outcome::Refused(Box::new(problem)),
                    });
                }
            }
        }
        debug_assert!(
            events.len() + refused.len() <= EVENTS_MAX,
            "checked on reading"
        );
        (events, refused)
    }

    /// Signs the answer of `own` to it.
    #[must_use]
    pub fn answer(&self, settled: Vec<Settled>, own: &Domain, secret: &DomainSecret) -> Bytes {
        Answer { settled }.sign(&self.0, own, secret)
    }
}

#[cfg(test)]
mod tests;
