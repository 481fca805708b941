//! The handshakes: `Noise_XK_25519_ChaChaPoly_BLAKE2s` for any device and
//! `Noise_IK_25519_ChaChaPoly_BLAKE2s` for known devices (CCP-1 section 3).
//!
//! Each side of each pattern is a value that the next message consumes, so no step can be left out
//! or repeated. Both end as [`Established`]: the key that the other side *proved*, and the tunnel.
//!
//! ```
//! use bytes::BytesMut;
//! use commucat_crypto::noise::{StaticKey, XkInitiator, XkResponder};
//! use commucat_proto::id::Domain;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let domain = Domain::parse("chat.example.org")?;
//! let (device, server) = (StaticKey::generate(), StaticKey::generate());
//!
//! let (initiator, hello) = XkInitiator::start(&domain, &device, server.public())?;
//! let (responder, answer) = XkResponder::answer(&domain, &server, &hello)?;
//! let (here, auth) = initiator.finish(&answer, b"identification")?;
//! let (there, identification) = responder.finish(&auth)?;
//! assert_eq!(there.remote_key(), device.public());
//! assert_eq!(identification, b"identification");
//!
//! let (mut sealer, _) = here.into_tunnel();
//! let (_, mut opener) = there.into_tunnel();
//! let (mut wire, mut plaintext) = (BytesMut::new(), BytesMut::new());
//! sealer.seal(b"frames", &mut wire)?;
//! opener.open(&wire, &mut plaintext)?;
//! assert_eq!(&plaintext[..], b"frames");
//! # Ok(())
//! # }
//! ```

use std::fmt;

use commucat_proto::id::{Domain, NoiseKey};
use snow::resolvers::{DefaultResolver, FallbackResolver};
use snow::{Builder, HandshakeState};
use zeroize::Zeroize;

use crate::secret::Secret;
use crate::tunnel::{Opener, Sealer};

mod x25519;

pub use self::x25519::is_low_order;

/// Longest Noise message that is read: CCP-1 allows 32 KiB of JSON before the tunnel, and the
/// message is hexadecimal in it.
pub const MESSAGE_BYTES_MAX: usize = 16 * 1024;

/// What a Noise message adds to its payload at most: two keys and two tags.
const OVERHEAD: usize = 32 + 32 + 16 + 16;

/// Why a handshake ended. Peers are told `Handshake Rejected` whatever it was.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum HandshakeError {
    /// The message does not open, has the wrong length, or holds a public key that is refused.
    #[error("noise message does not open")]
    Refused,
    /// A payload that does not fit a handshake message; a mistake of the caller.
    #[error("noise payload of {len} bytes does not fit a handshake message")]
    PayloadTooLong {
        /// Bytes of the payload.
        len: usize,
    },
}

/// The two patterns of CCP-1.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Pattern {
    /// Three messages; the device's identity is in the last.
    Xk,
    /// Two messages; the device's identity is in the first, for servers that know it.
    Ik,
}

impl Pattern {
    /// The name in HELLO.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Xk => "XK",
            Self::Ik => "IK",
        }
    }

    /// Reads the name in HELLO.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "XK" => Some(Self::Xk),
            "IK" => Some(Self::Ik),
            _ => None,
        }
    }

    const fn noise_name(self) -> &'static str {
        match self {
            Self::Xk => "Noise_XK_25519_ChaChaPoly_BLAKE2s",
            Self::Ik => "Noise_IK_25519_ChaChaPoly_BLAKE2s",
        }
    }
}

/// A static X25519 key pair of a device or a server.
#[derive(Clone, Eq, PartialEq)]
pub struct StaticKey {
    private: Secret<32>,
    public: NoiseKey,
}

impl StaticKey {
    /// Makes a fresh key pair.
    #[must_use]
    pub fn generate() -> Self {
        Self::from_private(Secret::random())
    }

    /// The pair of a private key that was kept.
    #[must_use]
    pub fn from_private(private: Secret<32>) -> Self {
        let public = NoiseKey::new(x25519::public_of(&private));
        Self { private, public }
    }

    /// The public half.
    #[must_use]
    pub const fn public(&self) -> &NoiseKey {
        &self.public
    }

    /// The private half, for whoever keeps it.
    #[must_use]
    pub const fn private(&self) -> &Secret<32> {
        &self.private
    }
}

impl fmt::Debug for StaticKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StaticKey")
            .field("public", &self.public)
            .finish_non_exhaustive()
    }
}

/// A finished handshake.
#[derive(Debug)]
pub struct Established {
    remote: NoiseKey,
    sealer: Sealer,
    opener: Opener,
}

impl Established {
    /// The static key that the other side proved to hold. Nothing else says who it is.
    #[must_use]
    pub const fn remote_key(&self) -> &NoiseKey {
        &self.remote
    }

    /// The two directions of the tunnel: what we send, what we receive.
    #[must_use]
    pub fn into_tunnel(self) -> (Sealer, Opener) {
        (self.sealer, self.opener)
    }

    fn of(mut state: HandshakeState) -> Result<Self, HandshakeError> {
        if !state.is_handshake_finished() {
            return Err(HandshakeError::Refused);
        }
        let remote = remote_static(&state)?;
        let (mut first, mut second) = state.dangerously_get_raw_split();
        let (sending, receiving) = if state.is_initiator() {
            (&first, &second)
        } else {
            (&second, &first)
        };
        let established = Self {
            remote,
            sealer: Sealer::new(sending),
            opener: Opener::new(receiving),
        };
        first.zeroize();
        second.zeroize();
        Ok(established)
    }
}

/// A device that sent the first message of XK.
#[derive(Debug)]
pub struct XkInitiator(HandshakeState);

impl XkInitiator {
    /// Starts XK towards the server of `domain`, whose Noise key must be known; returns the message
    /// for HELLO.
    ///
    /// # Errors
    ///
    /// [`HandshakeError::Refused`] if `server` is a key of low order.
    pub fn start(
        domain: &Domain,
        local: &StaticKey,
        server: &NoiseKey,
    ) -> Result<(Self, Vec<u8>), HandshakeError> {
        Self::first_message(initiator(Pattern::Xk, &prologue(domain), local, server)?)
    }

    /// Reads the server's AUTH; returns the tunnel and the message for the device's own AUTH, which
    /// carries `identification`.
    ///
    /// # Errors
    ///
    /// [`HandshakeError`]; the connection is of no use any more.
    pub fn finish(
        mut self,
        answer: &[u8],
        identification: &[u8],
    ) -> Result<(Established, Vec<u8>), HandshakeError> {
        read(&mut self.0, answer)?;
        let last = write(&mut self.0, identification)?;
        Ok((Established::of(self.0)?, last))
    }

    fn first_message(mut state: HandshakeState) -> Result<(Self, Vec<u8>), HandshakeError> {
        let hello = write(&mut state, &[])?;
        Ok((Self(state), hello))
    }
}

/// A server that answered the first message of XK and does not know yet who sent it.
#[derive(Debug)]
pub struct XkResponder(HandshakeState);

impl XkResponder {
    /// Reads the message of HELLO; returns the message for AUTH.
    ///
    /// # Errors
    ///
    /// [`HandshakeError::Refused`] if `hello` was not made for `local` and `domain`.
    pub fn answer(
        domain: &Domain,
        local: &StaticKey,
        hello: &[u8],
    ) -> Result<(Self, Vec<u8>), HandshakeError> {
        let mut state = responder(Pattern::Xk, &prologue(domain), local)?;
        read(&mut state, hello)?;
        let answer = write(&mut state, &[])?;
        Ok((Self(state), answer))
    }

    /// Reads the message of the device's AUTH; returns the tunnel and the device's identification.
    ///
    /// # Errors
    ///
    /// [`HandshakeError::Refused`] if the message does not open.
    pub fn finish(mut self, auth: &[u8]) -> Result<(Established, Vec<u8>), HandshakeError> {
        let identification = read(&mut self.0, auth)?;
        Ok((Established::of(self.0)?, identification))
    }
}

/// A device that sent the first message of IK.
#[derive(Debug)]
pub struct IkInitiator(HandshakeState);

impl IkInitiator {
    /// Starts IK towards the server of `domain`; returns the message for HELLO, which carries
    /// `identification`.
    ///
    /// # Errors
    ///
    /// [`HandshakeError`] if `server` is a key of low order or `identification` too long.
    pub fn start(
        domain: &Domain,
        local: &StaticKey,
        server: &NoiseKey,
        identification: &[u8],
    ) -> Result<(Self, Vec<u8>), HandshakeError> {
        let mut state = initiator(Pattern::Ik, &prologue(domain), local, server)?;
        let hello = write(&mut state, identification)?;
        Ok((Self(state), hello))
    }

    /// Reads the server's AUTH.
    ///
    /// # Errors
    ///
    /// [`HandshakeError::Refused`] if the message does not open.
    pub fn finish(mut self, answer: &[u8]) -> Result<Established, HandshakeError> {
        read(&mut self.0, answer)?;
        Established::of(self.0)
    }
}

/// A server that read the first message of IK. It may still be a replay: only the first record that
/// opens in the tunnel shows that the device is there.
#[derive(Debug)]
pub struct IkResponder {
    state: HandshakeState,
    remote: NoiseKey,
    identification: Vec<u8>,
}

impl IkResponder {
    /// Reads the message of HELLO.
    ///
    /// # Errors
    ///
    /// [`HandshakeError::Refused`] if `hello` was not made for `local` and `domain`.
    pub fn read(domain: &Domain, local: &StaticKey, hello: &[u8]) -> Result<Self, HandshakeError> {
        let mut state = responder(Pattern::Ik, &prologue(domain), local)?;
        let identification = read(&mut state, hello)?;
        let remote = remote_static(&state)?;
        Ok(Self {
            state,
            remote,
            identification,
        })
    }

    /// The static key of the sender of `hello`.
    #[must_use]
    pub const fn remote_key(&self) -> &NoiseKey {
        &self.remote
    }

    /// What the device said about itself.
    #[must_use]
    pub fn identification(&self) -> &[u8] {
        &self.identification
    }

    /// Accepts the device; returns the tunnel and the message for AUTH.
    ///
    /// # Errors
    ///
    /// [`HandshakeError::Refused`] if the message cannot be made.
    pub fn accept(mut self) -> Result<(Established, Vec<u8>), HandshakeError> {
        let answer = write(&mut self.state, &[])?;
        Ok((Established::of(self.state)?, answer))
    }
}

fn prologue(domain: &Domain) -> Vec<u8> {
    [b"commucat/2/".as_slice(), domain.as_str().as_bytes()].concat()
}

fn initiator(
    pattern: Pattern,
    prologue: &[u8],
    local: &StaticKey,
    server: &NoiseKey,
) -> Result<HandshakeState, HandshakeError> {
    builder(pattern, prologue, local)
        .and_then(|builder| builder.remote_public_key(server.as_bytes()))
        .and_then(Builder::build_initiator)
        .map_err(|_| HandshakeError::Refused)
}

fn responder(
    pattern: Pattern,
    prologue: &[u8],
    local: &StaticKey,
) -> Result<HandshakeState, HandshakeError> {
    builder(pattern, prologue, local)
        .and_then(Builder::build_responder)
        .map_err(|_| HandshakeError::Refused)
}

fn builder<'a>(
    pattern: Pattern,
    prologue: &'a [u8],
    local: &'a StaticKey,
) -> Result<Builder<'a>, snow::Error> {
    let resolver = FallbackResolver::new(Box::new(x25519::Resolver), Box::new(DefaultResolver));
    Builder::with_resolver(pattern.noise_name().parse()?, Box::new(resolver))
        .local_private_key(local.private.expose())?
        .prologue(prologue)
}

fn remote_static(state: &HandshakeState) -> Result<NoiseKey, HandshakeError> {
    state
        .get_remote_static()
        .and_then(|key| NoiseKey::parse(key).ok())
        .ok_or(HandshakeError::Refused)
}

fn read(state: &mut HandshakeState, message: &[u8]) -> Result<Vec<u8>, HandshakeError> {
    if message.len() > MESSAGE_BYTES_MAX {
        return Err(HandshakeError::Refused);
    }
    let mut payload = vec![0; message.len()];
    let len = state
        .read_message(message, &mut payload)
        .map_err(|_| HandshakeError::Refused)?;
    payload.truncate(len);
    Ok(payload)
}

fn write(state: &mut HandshakeState, payload: &[u8]) -> Result<Vec<u8>, HandshakeError> {
    if payload.len() > MESSAGE_BYTES_MAX - OVERHEAD {
        return Err(HandshakeError::PayloadTooLong { len: payload.len() });
    }
    let mut message = vec![0; payload.len() + OVERHEAD];
    let len = state
        .write_message(payload, &mut message)
        .map_err(|_| HandshakeError::Refused)?;
    message.truncate(len);
    Ok(message)
}

#[cfg(test)]
mod tests;
