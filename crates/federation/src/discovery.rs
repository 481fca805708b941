//! What `/.well-known/commucat` of another domain must say to be believed, and what follows from it
//! (CCP-1 sections 3 and 8).

use commucat_crypto::server_keys::{FollowError, Pin, Statement, StatementError};
use commucat_proto::frame::handshake::JsonError;
use commucat_proto::id::{Domain, DomainKey, IdError};
use commucat_proto::well_known::WellKnown;

/// The path of the document.
pub const WELL_KNOWN_PATH: &str = "/.well-known/commucat";
/// The path that takes events, at the host and port of the document's `endpoint`.
pub const EVENTS_PATH: &str = "/federation/v1/events";
/// The version of the protocol that a peer must speak.
const VERSION: u64 = 2;

/// What a domain says of itself and proves.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Found {
    /// Its domain key.
    pub key: DomainKey,
    /// The serial of its statement.
    pub serial: u64,
    /// Where it takes events: host and port.
    pub endpoint: Domain,
}

/// Why a document is not believed.
#[derive(Debug, thiserror::Error)]
pub enum DiscoveryError {
    /// Not the document.
    #[error("not the document of a domain")]
    Document(#[source] JsonError),
    /// It is of another domain.
    #[error("document is of another domain")]
    OtherDomain,
    /// It does not speak version 2.
    #[error("domain does not speak version 2")]
    Version,
    /// Its `endpoint` is no `https` URL of a host that a domain may have.
    #[error("endpoint is no address of a server")]
    Endpoint(#[source] Option<IdError>),
    /// Its statement does not hold.
    #[error("server keys statement does not hold")]
    Statement(#[source] StatementError),
    /// Its statement does not follow from what is pinned.
    #[error("server keys statement does not follow from the pinned key")]
    Follow(#[source] FollowError),
}

impl DiscoveryError {
    /// Whether the domain presents a key that its pinned one does not lead to.
    #[must_use]
    pub const fn is_other_key(&self) -> bool {
        matches!(self, Self::Follow(FollowError::UnknownSigner))
    }
}

/// Reads the document of `domain`. With a `pin` the key must be the pinned one or one that the chain
/// leads to; without one the key is taken as it is, which is what a first contact is.
///
/// # Errors
///
/// [`DiscoveryError`]; then nothing of the document is used.
pub fn read(raw: &[u8], domain: &Domain, pin: Option<&Pin>) -> Result<Found, DiscoveryError> {
    let document = WellKnown::decode(raw).map_err(DiscoveryError::Document)?;
    if document.domain != *domain {
        return Err(DiscoveryError::OtherDomain);
    }
    if !document.versions.contains(&VERSION) {
        return Err(DiscoveryError::Version);
    }
    let endpoint = endpoint_of(&document.endpoint)?;
    let statement = match pin {
        Some(pin) => pin
            .follow(&document.chain, &document.server_keys)
            .map_err(DiscoveryError::Follow)?,
        None => Statement::verify(&document.server_keys).map_err(DiscoveryError::Statement)?,
    };
    if statement.domain() != domain {
        return Err(DiscoveryError::OtherDomain);
    }
    Ok(Found {
        key: *statement.domain_key(),
        serial: statement.serial(),
        endpoint,
    })
}

/// Host and port of an `https` URL. A user, a query or a fragment makes it no address of a server.
fn endpoint_of(url: &str) -> Result<Domain, DiscoveryError> {
    let rest = url
        .strip_prefix("https://")
        .ok_or(DiscoveryError::Endpoint(None))?;
    let authority = rest
        .split_once('/')
        .map_or(rest, |(authority, _)| authority);
    Domain::parse(authority).map_err(|error| DiscoveryError::Endpoint(Some(error)))
}

#[cfg(test)]
mod tests;
