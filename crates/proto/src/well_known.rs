//! `/.well-known/commucat`: what a server says of itself before anybody connects (CCP-1 section 3).

use bytes::Bytes;
use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};

use crate::frame::handshake::{JsonError, of_hex, to_json};
use crate::id::Domain;
use crate::limits::WELL_KNOWN_MAX;
use crate::signed::Signed;
use crate::wire::Cbor;

/// The document. Nothing in it is believed but what `server_keys` and `chain` sign.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct WellKnown {
    /// The server's name: goes into the prologue.
    pub domain: Domain,
    /// Absolute `https` URL of the `/connect` resource.
    pub endpoint: String,
    /// Versions that the server can speak.
    pub versions: Vec<u64>,
    /// The latest [`crate::identity::ServerKeys`], purpose `server keys`.
    pub server_keys: Signed,
    /// Earlier statements that name the signer of the next in key 4, oldest first.
    pub chain: Vec<Signed>,
    /// Who may register.
    pub registration: RegistrationPolicy,
    /// Base URL of the public log of key changes.
    pub ledger: Option<String>,
}

/// Who may register.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RegistrationPolicy {
    /// Anybody.
    Open,
    /// Holders of an invite token.
    Invite,
    /// Nobody new.
    Closed,
}

#[derive(Deserialize, Serialize)]
struct WellKnownJson {
    domain: String,
    endpoint: String,
    versions: Vec<u64>,
    server_keys: String,
    chain: Vec<String>,
    registration: RegistrationPolicy,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ledger: Option<String>,
}

impl WellKnown {
    /// The document.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let hex = |signed: &Signed| HEXLOWER.encode(&signed.encode());
        to_json(&WellKnownJson {
            domain: self.domain.as_str().to_owned(),
            endpoint: self.endpoint.clone(),
            versions: self.versions.clone(),
            server_keys: hex(&self.server_keys),
            chain: self.chain.iter().map(hex).collect(),
            registration: self.registration,
            ledger: self.ledger.clone(),
        })
    }

    /// Reads a document.
    ///
    /// # Errors
    ///
    /// [`JsonError`] if it is none.
    pub fn decode(raw: &[u8]) -> Result<Self, JsonError> {
        if raw.len() > WELL_KNOWN_MAX {
            return Err(JsonError::TooLarge(raw.len()));
        }
        let json: WellKnownJson = serde_json::from_slice(raw).map_err(JsonError::Shape)?;
        if !json.endpoint.starts_with("https://") {
            return Err(JsonError::Member("endpoint"));
        }
        Ok(Self {
            domain: Domain::parse(&json.domain).map_err(|_| JsonError::Member("domain"))?,
            endpoint: json.endpoint,
            versions: json.versions,
            server_keys: read_signed(&json.server_keys, "server_keys")?,
            chain: json
                .chain
                .iter()
                .map(|statement| read_signed(statement, "chain"))
                .collect::<Result<_, _>>()?,
            registration: json.registration,
            ledger: json.ledger,
        })
    }
}

fn read_signed(hex: &str, member: &'static str) -> Result<Signed, JsonError> {
    let raw = Bytes::from(of_hex(hex, member)?);
    Signed::decode_shared(&raw).map_err(|_| JsonError::Member(member))
}
