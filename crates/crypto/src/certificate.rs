//! Accounts, device certificates and device lists (CCP-1 section 6).
//!
//! The account key signs a certificate for each device and one list of all of them. What is verified
//! here holds by itself, on any server and for ever; whether it is *current* (validity now, higher
//! version) is for the caller to ask.

use std::fmt;

use bytes::Bytes;
use commucat_proto::id::{AccountId, AccountKey, DeviceId, Domain, NoiseKey};
use commucat_proto::identity::{DeviceCertificate, DeviceList};
use commucat_proto::signed::Signed;
use commucat_proto::time::Timestamp;
use commucat_proto::wire::Cbor;
use commucat_proto::wire::reader::CborError;

use crate::noise::is_low_order;
use crate::secret::Secret;
use crate::signing::{Purpose, SigningKey, is_usable_key, verify};

mod list;

pub use self::list::{List, ListError, Succession};

/// Longest MLS signature key that is taken; the largest ML-DSA key has 2,592 bytes.
const MLS_KEY_BYTES_MAX: usize = 2_592;

/// An account's secret key. Whoever has it *is* the account.
#[derive(Clone)]
pub struct AccountSecret(SigningKey);

impl AccountSecret {
    /// The key that grows out of a recovery phrase's 32 bytes.
    #[must_use]
    pub fn from_seed(seed: &Secret<32>) -> Self {
        Self(SigningKey::from_seed(seed))
    }

    /// The seed, for the recovery phrase.
    #[must_use]
    pub fn seed(&self) -> Secret<32> {
        self.0.seed()
    }

    /// The public half.
    #[must_use]
    pub fn key(&self) -> AccountKey {
        AccountKey::new(self.0.public())
    }

    /// The account's id.
    #[must_use]
    pub fn id(&self) -> AccountId {
        AccountId::of_key(&self.key())
    }

    /// Vouches for `device` while `validity` lasts.
    #[must_use]
    pub fn certify(&self, device: &DeviceKeys, validity: Validity) -> Signed {
        let body = DeviceCertificate {
            account: self.key(),
            device: device.device.clone(),
            noise_key: device.noise_key,
            mls_key: device.mls_key.clone(),
            not_before: validity.not_before,
            not_after: validity.not_after,
        };
        self.0.sign(Purpose::DeviceCertificate, body.encode())
    }

    /// Signs the list of all devices of this account, which lives on `domain`. An empty list deletes
    /// the account.
    #[must_use]
    pub fn list(
        &self,
        domain: &Domain,
        version: u64,
        issued: Timestamp,
        certificates: Vec<Signed>,
    ) -> Signed {
        let domain = domain.clone();
        let body = DeviceList {
            account: self.key(),
            domain,
            version,
            issued,
            certificates,
        };
        self.0.sign(Purpose::DeviceList, body.encode())
    }
}

impl fmt::Debug for AccountSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AccountSecret(..)")
    }
}

/// The public keys of a device that is to be certified.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DeviceKeys {
    /// The device's id; it stays when the keys change.
    pub device: DeviceId,
    /// Proven in the handshake.
    pub noise_key: NoiseKey,
    /// Signs in MLS.
    pub mls_key: Bytes,
}

/// From when until when a certificate is valid, both inclusive.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Validity {
    /// First moment.
    pub not_before: Timestamp,
    /// Last moment.
    pub not_after: Timestamp,
}

/// Why a certificate does not hold.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum CertificateError {
    /// The body is not a device certificate.
    #[error("body is not a device certificate")]
    Body(#[source] CborError),
    /// The account key that it names did not sign it, or is weak.
    #[error("device certificate is not signed by its account key")]
    Signature,
    /// Its Noise key is a point of low order, which anybody could prove.
    #[error("noise key of the device certificate is refused")]
    NoiseKey,
    /// Its MLS key is empty, too long, or a weak Ed25519 key.
    #[error("MLS key of the device certificate is refused")]
    MlsKey,
    /// It ends before it begins.
    #[error("device certificate is never valid")]
    Validity,
}

/// A device certificate that was verified under the account key that it names.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Certificate {
    signed: Signed,
    body: DeviceCertificate,
}

impl Certificate {
    /// Verifies `signed`. Who asks for a certain account compares [`Certificate::account`].
    ///
    /// # Errors
    ///
    /// [`CertificateError`].
    pub fn verify(signed: &Signed) -> Result<Self, CertificateError> {
        let body =
            DeviceCertificate::decode_shared(&signed.body).map_err(CertificateError::Body)?;
        verify(signed, Purpose::DeviceCertificate, body.account.as_bytes())
            .map_err(|_| CertificateError::Signature)?;
        if is_low_order(&body.noise_key) {
            return Err(CertificateError::NoiseKey);
        }
        if !is_usable_mls_key(&body.mls_key) {
            return Err(CertificateError::MlsKey);
        }
        if body.not_after < body.not_before {
            return Err(CertificateError::Validity);
        }
        Ok(Self {
            signed: signed.clone(),
            body,
        })
    }

    /// The account that vouches.
    #[must_use]
    pub const fn account(&self) -> &AccountKey {
        &self.body.account
    }

    /// The device's id.
    #[must_use]
    pub const fn device(&self) -> &DeviceId {
        &self.body.device
    }

    /// The key that the device proves in the handshake.
    #[must_use]
    pub const fn noise_key(&self) -> &NoiseKey {
        &self.body.noise_key
    }

    /// The key of the device's MLS leaves.
    #[must_use]
    pub const fn mls_key(&self) -> &Bytes {
        &self.body.mls_key
    }

    /// From when until when it is valid.
    #[must_use]
    pub const fn validity(&self) -> Validity {
        Validity {
            not_before: self.body.not_before,
            not_after: self.body.not_after,
        }
    }

    /// Whether it is valid at `now`.
    #[must_use]
    pub fn is_valid(&self, now: Timestamp) -> bool {
        (self.body.not_before..=self.body.not_after).contains(&now)
    }

    /// Whether the device id is the one that the Noise key gives. It must be when a device is new;
    /// after its key was changed it no longer is.
    #[must_use]
    pub fn has_id_of_its_key(&self) -> bool {
        self.body.device == DeviceId::of_key(&self.body.noise_key)
    }

    /// The bytes as they were signed.
    #[must_use]
    pub const fn signed(&self) -> &Signed {
        &self.signed
    }
}

fn is_usable_mls_key(key: &[u8]) -> bool {
    match <&[u8; 32]>::try_from(key) {
        Ok(ed25519) => is_usable_key(ed25519),
        Err(_) => (1..=MLS_KEY_BYTES_MAX).contains(&key.len()),
    }
}

#[cfg(test)]
mod tests;
