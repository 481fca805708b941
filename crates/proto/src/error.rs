//! What one side tells the other about a failure: the titles of CCP-1 section 7.

use crate::decoder::DecodeError;
use crate::wire::reader::CborError;
use crate::wire::varint::VarintOverflow;

/// Whether a connection survives an ERROR with this title.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum GoesOn {
    /// Never: the ERROR carries no key 5 and the sender closes.
    Never,
    /// If it concerns a frame with a sequence number, which key 5 then names.
    IfNumbered,
}

/// Declares the titles with their number and whether the connection goes on.
macro_rules! titles {
    ($($(#[$doc:meta])* $name:ident, $title:literal, $slug:literal, $status:literal, $goes_on:ident;)*) => {
        /// Every failure that one side tells the other.
        #[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
        pub enum Title {
            $($(#[$doc])* $name,)*
        }

        impl Title {
            /// All of them, in the order of the document.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The title as people read it.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $title,)* }
            }

            /// The `type` of the problem.
            #[must_use]
            pub const fn urn(self) -> &'static str {
                match self { $(Self::$name => concat!("urn:commucat:error:", $slug),)* }
            }

            /// The HTTP status that comes closest.
            #[must_use]
            pub const fn status(self) -> u16 {
                match self { $(Self::$name => $status,)* }
            }

            /// Whether the connection goes on.
            #[must_use]
            pub const fn goes_on(self) -> GoesOn {
                match self { $(Self::$name => GoesOn::$goes_on,)* }
            }
        }
    };
}

titles! {
    /// A type that is unknown, reserved or of the other direction. Only unknown ones from 0x80 on
    /// have a number, so only for them the connection goes on.
    InvalidFrameType, "Invalid Frame Type", "invalid-frame-type", 400, IfNumbered;
    /// A varint above 64 bits.
    VarintOverflow, "Varint Overflow", "varint-overflow", 400, Never;
    /// Payload and frame end at different places.
    TruncatedFrame, "Truncated Frame", "truncated-frame", 400, Never;
    /// A channel or sequence above 32 bits, or a channel that the frame may not have.
    IdentifierOutOfRange, "Identifier Out Of Range", "identifier-out-of-range", 400, Never;
    /// A gap or a repeat, a number where 0 belongs, an ACK above the last number sent.
    SequenceOutOfOrder, "Sequence Out Of Order", "sequence-out-of-order", 400, Never;
    /// A `len` above 16 MiB, or a payload above 32 KiB in clear.
    FrameTooLarge, "Frame Too Large", "frame-too-large", 413, Never;
    /// A control frame above its limit.
    ControlPayloadTooLarge, "Control Payload Too Large", "control-payload-too-large", 413, Never;
    /// A ciphertext above `limits.max_payload`, or a TYPING above 1 KiB (which has no number).
    PayloadTooLarge, "Payload Too Large", "payload-too-large", 413, IfNumbered;
    /// CBOR that breaks the rules, wrong types, missing keys, impossible lists, bad JSON.
    InvalidControlPayload, "Invalid Control Payload", "invalid-control-payload", 400, IfNumbered;
    /// No common version, or a downgrade.
    ProtocolVersionMismatch, "Protocol Version Mismatch", "protocol-version-mismatch", 426, Never;
    /// Unknown or revoked device, wrong key, spent invite: on purpose the same.
    HandshakeRejected, "Handshake Rejected", "handshake-rejected", 401, Never;
    /// The handshake took too long.
    HandshakeTimeout, "Handshake Timeout", "handshake-timeout", 408, Never;
    /// Nothing came for 2.5 times the keep-alive.
    IdleTimeout, "Idle Timeout", "idle-timeout", 408, Never;
    /// The same device connected again.
    Replaced, "Replaced", "replaced", 409, Never;
    /// The device is not in its account's list any more.
    Revoked, "Revoked", "revoked", 403, Never;
    /// The server shuts down or is replaced.
    Draining, "Draining", "draining", 503, Never;
    /// Too many requests; without key 5: more unanswered MSG than `limits.unacked`.
    RateLimited, "Rate Limited", "rate-limited", 429, IfNumbered;
    /// A MSG on a channel that is not bound.
    NotJoined, "Not Joined", "not-joined", 409, IfNumbered;
    /// Somebody else was first, or the name stands for something else.
    Conflict, "Conflict", "conflict", 409, IfNumbered;
    /// A MSG too far behind the head of its group.
    EpochOld, "Epoch Old", "epoch-old", 409, IfNumbered;
    /// Not allowed to this device.
    Forbidden, "Forbidden", "forbidden", 403, IfNumbered;
    /// No such thing, or not for this device to know: on purpose the same.
    NotFound, "Not Found", "not-found", 404, IfNumbered;
    /// Another domain did not answer, or is not talked to.
    FederationFailure, "Federation Failure", "federation-failure", 502, IfNumbered;
    /// The server's store is not available.
    StorageFailure, "Storage Failure", "storage-failure", 503, IfNumbered;
}

impl Title {
    /// The title whose `type` is `urn`.
    #[must_use]
    pub fn of_urn(urn: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|title| title.urn() == urn)
    }
}

impl From<DecodeError> for Title {
    fn from(error: DecodeError) -> Self {
        match error {
            DecodeError::FrameType(_) => Self::InvalidFrameType,
            DecodeError::Varint(VarintOverflow) => Self::VarintOverflow,
            DecodeError::Truncated => Self::TruncatedFrame,
            DecodeError::Identifier | DecodeError::Channel { .. } => Self::IdentifierOutOfRange,
            DecodeError::Sequence { .. } => Self::SequenceOutOfOrder,
            DecodeError::FrameTooLarge { .. } => Self::FrameTooLarge,
            DecodeError::ControlTooLarge { .. } => Self::ControlPayloadTooLarge,
            DecodeError::TypingTooLarge { .. } => Self::PayloadTooLarge,
        }
    }
}

impl From<CborError> for Title {
    fn from(error: CborError) -> Self {
        match error {
            CborError::Oversize(_) => Self::ControlPayloadTooLarge,
            CborError::Malformed(_)
            | CborError::Type(_)
            | CborError::DuplicateKey
            | CborError::MissingKey(_)
            | CborError::Nesting
            | CborError::Trailing(_)
            | CborError::Range(_)
            | CborError::Id(_) => Self::InvalidControlPayload,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_type_of_a_problem_is_its_title_in_kebab_case() {
        for title in Title::ALL {
            let slug = title.as_str().to_lowercase().replace(' ', "-");

            assert_eq!(title.urn(), format!("urn:commucat:error:{slug}"));
            assert_eq!(Title::of_urn(title.urn()), Some(*title));
        }
    }
}
