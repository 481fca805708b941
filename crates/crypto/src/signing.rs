//! Signatures with a purpose, so that a signature made for one thing is worthless for another
//! (CCP-1 section 2, "Signed things").
//!
//! Ed25519 over `"commucat/2 " | purpose | 0x00 | BLAKE3(body)`. Verification is strict and refuses
//! weak keys: under the identity point, for one, anybody can sign anything.

use std::fmt;

use bytes::Bytes;
use commucat_proto::signed::Signed;
use ed25519_dalek::{Signature, Signer, VerifyingKey};

use crate::secret::Secret;

/// What a signature is for.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Purpose {
    /// An account vouches for a device.
    DeviceCertificate,
    /// An account names all its devices.
    DeviceList,
    /// A member changes a group's keys.
    Commit,
    /// Somebody with a join link enters a group.
    JoinCommit,
    /// Somebody with a join link reads a group's GroupInfo.
    JoinRead,
    /// A domain hands over events.
    FederationRequest,
    /// A domain answers events.
    FederationAnswer,
    /// A domain names its Noise keys.
    ServerKeys,
    /// The join key's signature inside the commit of somebody who enters a group; signed is the hash
    /// that stands before it in the commit's authenticated data, not a body (CCP-1 section 5.4).
    JoinEntry,
}

impl Purpose {
    /// The words that go under the signature.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::DeviceCertificate => "device certificate",
            Self::DeviceList => "device list",
            Self::Commit => "commit",
            Self::JoinCommit => "join commit",
            Self::JoinRead => "join read",
            Self::FederationRequest => "federation request",
            Self::FederationAnswer => "federation answer",
            Self::ServerKeys => "server keys",
            Self::JoinEntry => "join entry",
        }
    }

    fn message(self, hash: &[u8; 32]) -> Vec<u8> {
        [
            b"commucat/2 ".as_slice(),
            self.as_str().as_bytes(),
            &[0],
            hash,
        ]
        .concat()
    }
}

/// A signature that does not hold: wrong key, wrong purpose, other bytes, or a key that is refused.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("signature does not verify")]
pub struct VerifyError;

/// An Ed25519 key pair: of an account, a domain, a handle or a join link.
#[derive(Clone)]
pub struct SigningKey(ed25519_dalek::SigningKey);

impl SigningKey {
    /// Makes a fresh key pair.
    #[must_use]
    pub fn generate() -> Self {
        Self::from_seed(&Secret::random())
    }

    /// The pair of a seed that was kept.
    #[must_use]
    pub fn from_seed(seed: &Secret<32>) -> Self {
        Self(ed25519_dalek::SigningKey::from_bytes(seed.expose()))
    }

    /// The seed, for whoever keeps it.
    #[must_use]
    pub fn seed(&self) -> Secret<32> {
        Secret::new(self.0.to_bytes())
    }

    /// The public half: an account key, domain key, handle or join key.
    #[must_use]
    pub fn public(&self) -> [u8; 32] {
        self.0.verifying_key().to_bytes()
    }

    /// Signs `body` for `purpose`.
    #[must_use]
    pub fn sign(&self, purpose: Purpose, body: impl Into<Bytes>) -> Signed {
        let body = body.into();
        let signature = self.sign_hash(purpose, blake3::hash(&body).as_bytes());
        Signed { body, signature }
    }

    /// Signs a hash that stands for a body, as [`Purpose::JoinEntry`] needs it.
    #[must_use]
    pub fn sign_hash(&self, purpose: Purpose, hash: &[u8; 32]) -> [u8; 64] {
        self.0.sign(&purpose.message(hash)).to_bytes()
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey(..)")
    }
}

/// Whether `signed` was signed for `purpose` by the holder of `key`.
///
/// # Errors
///
/// [`VerifyError`] if not, or if `key` is weak.
pub fn verify(signed: &Signed, purpose: Purpose, key: &[u8; 32]) -> Result<(), VerifyError> {
    verify_hash(
        blake3::hash(&signed.body).as_bytes(),
        &signed.signature,
        purpose,
        key,
    )
}

/// [`verify`] for a hash that stands for a body, as [`Purpose::JoinEntry`] needs it.
///
/// # Errors
///
/// [`VerifyError`] if the signature does not hold, or if `key` is weak.
pub fn verify_hash(
    hash: &[u8; 32],
    signature: &[u8; 64],
    purpose: Purpose,
    key: &[u8; 32],
) -> Result<(), VerifyError> {
    let key = VerifyingKey::from_bytes(key).map_err(|_| VerifyError)?;
    if key.is_weak() {
        return Err(VerifyError);
    }
    let signature = Signature::from_bytes(signature);
    key.verify_strict(&purpose.message(hash), &signature)
        .map_err(|_| VerifyError)
}

/// Whether signatures can be verified under `key`: a point of the curve that is not weak.
#[must_use]
pub fn is_usable_key(key: &[u8; 32]) -> bool {
    VerifyingKey::from_bytes(key).is_ok_and(|key| !key.is_weak())
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::Verifier;

    use super::*;

    const ALL: [Purpose; 9] = [
        Purpose::DeviceCertificate,
        Purpose::DeviceList,
        Purpose::Commit,
        Purpose::JoinCommit,
        Purpose::JoinRead,
        Purpose::FederationRequest,
        Purpose::FederationAnswer,
        Purpose::ServerKeys,
        Purpose::JoinEntry,
    ];

    fn key() -> SigningKey {
        SigningKey::from_seed(&Secret::new([7; 32]))
    }

    #[test]
    fn a_signature_holds_for_its_purpose_key_and_body_only() {
        let signed = key().sign(Purpose::Commit, b"body".to_vec());

        for purpose in ALL {
            let holds = verify(&signed, purpose, &key().public()).is_ok();
            assert_eq!(holds, purpose == Purpose::Commit, "{}", purpose.as_str());
        }
        let other = SigningKey::generate().public();
        assert_eq!(verify(&signed, Purpose::Commit, &other), Err(VerifyError));
        let changed = Signed {
            body: Bytes::from_static(b"bodz"),
            ..signed
        };
        assert_eq!(
            verify(&changed, Purpose::Commit, &key().public()),
            Err(VerifyError)
        );
    }

    #[test]
    fn a_signature_that_is_changed_anywhere_does_not_hold() {
        let signed = key().sign(Purpose::DeviceList, b"body".to_vec());

        for at in 0..64 {
            let mut changed = signed.clone();
            changed.signature[at] ^= 1;
            assert!(
                verify(&changed, Purpose::DeviceList, &key().public()).is_err(),
                "byte {at}"
            );
        }
    }

    #[test]
    fn no_purpose_is_the_beginning_of_another() {
        for one in ALL {
            for two in ALL {
                let (one_text, two_text) = (one.message(&[0; 32]), two.message(&[0; 32]));
                let prefix = &one_text[..one_text.len() - 32];
                assert!(
                    one == two || !two_text.starts_with(prefix),
                    "{one:?} {two:?}"
                );
            }
        }
    }

    #[test]
    fn a_signature_that_anybody_can_make_under_the_identity_point_is_refused() {
        let mut identity = [0; 32];
        identity[0] = 1;
        // R = identity and s = 0 satisfy the equation for any message.
        let mut signature = [0; 64];
        signature[0] = 1;
        let hash = *blake3::hash(b"anything").as_bytes();

        let careless = VerifyingKey::from_bytes(&identity).unwrap();
        let message = Purpose::DeviceList.message(&hash);
        assert!(
            careless
                .verify(&message, &Signature::from_bytes(&signature))
                .is_ok()
        );
        for purpose in ALL {
            assert_eq!(
                verify_hash(&hash, &signature, purpose, &identity),
                Err(VerifyError)
            );
        }
        assert!(!is_usable_key(&identity));
        assert!(is_usable_key(&key().public()));
    }

    #[test]
    fn all_keys_of_low_order_are_refused() {
        // The eight points of the torsion subgroup, canonically encoded (RFC 8032 section 5.1.3).
        let low_order = [
            "0100000000000000000000000000000000000000000000000000000000000000",
            "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
            "0000000000000000000000000000000000000000000000000000000000000000",
            "0000000000000000000000000000000000000000000000000000000000000080",
            "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
            "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
            "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
            "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
        ];
        for text in low_order {
            let key = data_encoding::HEXLOWER.decode(text.as_bytes()).unwrap();
            assert!(!is_usable_key(&key.try_into().unwrap()), "{text}");
        }
    }

    #[test]
    fn a_signature_with_a_scalar_above_the_group_order_is_refused() {
        let signed = key().sign(Purpose::Commit, b"body".to_vec());
        // s + L verifies in a careless implementation and makes signatures malleable.
        let order = data_encoding::HEXLOWER
            .decode(b"edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010")
            .unwrap();
        let (mut malleable, mut carry) = (signed.clone(), 0_u16);
        for (byte, add) in malleable.signature[32..].iter_mut().zip(order) {
            carry += u16::from(*byte) + u16::from(add);
            *byte = carry.to_le_bytes()[0];
            carry >>= 8;
        }

        assert_eq!(
            verify(&malleable, Purpose::Commit, &key().public()),
            Err(VerifyError)
        );
        assert!(verify(&signed, Purpose::Commit, &key().public()).is_ok());
    }

    #[test]
    fn debug_of_a_key_does_not_show_it() {
        assert_eq!(format!("{:?}", key()), "SigningKey(..)");
    }

    #[test]
    fn the_signature_of_a_commit_is_the_one_in_the_protocol_text() {
        let text = include_str!("../tests/vectors/protocol.json");
        let vectors: serde_json::Value = serde_json::from_str(text).unwrap();
        let text_of = |name: &str| vectors["bundle"][name].as_str().unwrap();
        let unhex = |name| {
            data_encoding::HEXLOWER
                .decode(text_of(name).as_bytes())
                .unwrap()
        };
        let handle = SigningKey::from_seed(&Secret::from_slice(&unhex("handle seed")).unwrap());

        let signed = handle.sign(Purpose::Commit, unhex("body"));

        assert_eq!(
            data_encoding::HEXLOWER.encode(&handle.public()),
            text_of("handle")
        );
        assert_eq!(
            data_encoding::HEXLOWER.encode(&signed.signature),
            text_of("signature")
        );
    }
}
