//! HELLO and AUTH: the handshake in clear, JSON (CCP-1 section 3).

use std::fmt;

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};

use crate::id::NoiseKey;
use crate::limits::CLEAR_PAYLOAD_MAX;

/// Why a JSON payload is refused. To the peer: `Invalid Control Payload`.
#[derive(Debug, thiserror::Error)]
pub enum JsonError {
    /// Above 32 KiB.
    #[error("{0} bytes of JSON")]
    TooLarge(usize),
    /// Not JSON, or a member is missing or of another type.
    #[error("JSON of another shape")]
    Shape(#[source] serde_json::Error),
    /// A member that is not what it must be.
    #[error("`{0}` is not what it must be")]
    Member(&'static str),
}

/// Which Noise handshake the client begins.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Pattern {
    /// Any device.
    #[serde(rename = "XK")]
    Xk,
    /// Devices that the server knows.
    #[serde(rename = "IK")]
    Ik,
}

/// HELLO.
#[derive(Clone, Eq, PartialEq)]
pub struct Hello {
    /// The version that the handshake is for.
    pub version: u64,
    /// Every version that the client can speak.
    pub supported_versions: Vec<u64>,
    /// Which handshake.
    pub pattern: Pattern,
    /// The first 8 bytes of the server's Noise key that the client used.
    pub key: [u8; 8],
    /// Noise message 1.
    pub handshake: Vec<u8>,
}

#[derive(Deserialize, Serialize)]
struct HelloJson {
    version: u64,
    supported_versions: Vec<u64>,
    pattern: Pattern,
    key: String,
    handshake: String,
}

/// What a HELLO of any version says of versions.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
pub struct OfferedVersions {
    /// The version that the handshake is for.
    pub version: u64,
    /// Every version that the client can speak.
    #[serde(default)]
    pub supported_versions: Vec<u64>,
}

impl OfferedVersions {
    /// Reads the versions and nothing else, so that a client of another version hears
    /// `Protocol Version Mismatch` and not that its HELLO has a strange shape.
    ///
    /// # Errors
    ///
    /// [`JsonError`] if there are none.
    pub fn decode(raw: &[u8]) -> Result<Self, JsonError> {
        of_json(raw)
    }
}

impl Hello {
    /// The name that HELLO gives a server's Noise key: its first 8 bytes, 16 hex digits.
    #[must_use]
    pub fn key_name(key: &NoiseKey) -> [u8; 8] {
        key.as_bytes().first_chunk().copied().unwrap_or_default()
    }

    /// The payload.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        to_json(&HelloJson {
            version: self.version,
            supported_versions: self.supported_versions.clone(),
            pattern: self.pattern,
            key: HEXLOWER.encode(&self.key),
            handshake: HEXLOWER.encode(&self.handshake),
        })
    }

    /// Reads a payload.
    ///
    /// # Errors
    ///
    /// [`JsonError`] if it is no HELLO of version 2.
    pub fn decode(raw: &[u8]) -> Result<Self, JsonError> {
        let json: HelloJson = of_json(raw)?;
        let key = of_hex(&json.key, "key")?;
        Ok(Self {
            version: json.version,
            supported_versions: json.supported_versions,
            pattern: json.pattern,
            key: key.try_into().map_err(|_| JsonError::Member("key"))?,
            handshake: of_hex(&json.handshake, "handshake")?,
        })
    }
}

impl fmt::Debug for Hello {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Hello({:?}, {} bytes)",
            self.pattern,
            self.handshake.len()
        )
    }
}

/// AUTH s->c.
#[derive(Clone, Eq, PartialEq)]
pub struct AuthDown {
    /// The version that the server chose.
    pub protocol_version: u64,
    /// Every version that the server can speak.
    pub supported_versions: Vec<u64>,
    /// Noise message 2.
    pub handshake: Vec<u8>,
}

#[derive(Deserialize, Serialize)]
struct AuthDownJson {
    protocol_version: u64,
    supported_versions: Vec<u64>,
    handshake: String,
}

impl AuthDown {
    /// The payload.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        to_json(&AuthDownJson {
            protocol_version: self.protocol_version,
            supported_versions: self.supported_versions.clone(),
            handshake: HEXLOWER.encode(&self.handshake),
        })
    }

    /// Reads a payload.
    ///
    /// # Errors
    ///
    /// [`JsonError`] if it is no AUTH s->c.
    pub fn decode(raw: &[u8]) -> Result<Self, JsonError> {
        let json: AuthDownJson = of_json(raw)?;
        Ok(Self {
            protocol_version: json.protocol_version,
            supported_versions: json.supported_versions,
            handshake: of_hex(&json.handshake, "handshake")?,
        })
    }
}

impl fmt::Debug for AuthDown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AuthDown({} bytes)", self.handshake.len())
    }
}

/// AUTH c->s, XK only.
#[derive(Clone, Eq, PartialEq)]
pub struct AuthUp {
    /// Noise message 3.
    pub handshake: Vec<u8>,
}

#[derive(Deserialize, Serialize)]
struct AuthUpJson {
    handshake: String,
}

impl AuthUp {
    /// The payload.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        to_json(&AuthUpJson {
            handshake: HEXLOWER.encode(&self.handshake),
        })
    }

    /// Reads a payload.
    ///
    /// # Errors
    ///
    /// [`JsonError`] if it is no AUTH c->s.
    pub fn decode(raw: &[u8]) -> Result<Self, JsonError> {
        let json: AuthUpJson = of_json(raw)?;
        Ok(Self {
            handshake: of_hex(&json.handshake, "handshake")?,
        })
    }
}

impl fmt::Debug for AuthUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AuthUp({} bytes)", self.handshake.len())
    }
}

/// Writes a document of plain members, which cannot fail.
pub(crate) fn to_json(document: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(document).unwrap_or_default()
}

/// Reads a document within the limit of clear frames.
pub(crate) fn of_json<'a, T: Deserialize<'a>>(raw: &'a [u8]) -> Result<T, JsonError> {
    if raw.len() > CLEAR_PAYLOAD_MAX {
        return Err(JsonError::TooLarge(raw.len()));
    }
    // The library would take an array of the members' values for the map.
    if raw.trim_ascii_start().first() != Some(&b'{') {
        return Err(JsonError::Member("document"));
    }
    serde_json::from_slice(raw).map_err(JsonError::Shape)
}

/// Reads lower-case hex.
pub(crate) fn of_hex(text: &str, member: &'static str) -> Result<Vec<u8>, JsonError> {
    HEXLOWER
        .decode(text.as_bytes())
        .map_err(|_| JsonError::Member(member))
}
