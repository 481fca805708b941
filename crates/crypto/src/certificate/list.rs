//! Device lists.

use std::collections::HashSet;

use commucat_proto::id::{AccountId, AccountKey, DeviceId, Domain, NoiseKey};
use commucat_proto::identity::DeviceList;
use commucat_proto::limits::DEVICES_MAX;
use commucat_proto::signed::Signed;
use commucat_proto::time::Timestamp;
use commucat_proto::wire::Cbor;
use commucat_proto::wire::reader::CborError;

use super::{Certificate, CertificateError};
use crate::secret::constant_time_eq;
use crate::signing::{Purpose, verify};

/// Why a device list does not hold.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ListError {
    /// The body is not a device list.
    #[error("body is not a device list")]
    Body(#[source] CborError),
    /// The account key that it names did not sign it, or is weak.
    #[error("device list is not signed by its account key")]
    Signature,
    /// Version 0; versions count from 1.
    #[error("device list has no version")]
    Version,
    /// More than 16 devices.
    #[error("device list of {count} devices")]
    TooMany {
        /// Certificates in the list.
        count: usize,
    },
    /// One of its certificates does not hold.
    #[error("certificate {index} of the device list does not hold")]
    Certificate {
        /// Which, counting from 0.
        index: usize,
        /// Why.
        #[source]
        source: CertificateError,
    },
    /// One of its certificates is of another account.
    #[error("certificate {index} of the device list is of another account")]
    OtherAccount {
        /// Which, counting from 0.
        index: usize,
    },
    /// Two certificates have one device id or one Noise key.
    #[error("certificate {index} of the device list repeats a device")]
    Repeated {
        /// Which, counting from 0.
        index: usize,
    },
}

/// A device list that was verified under the account key that it names, with all its certificates.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct List {
    signed: Signed,
    body: DeviceList,
    certificates: Vec<Certificate>,
}

impl List {
    /// Verifies `signed` and every certificate in it. Whether these are valid now is not asked: a
    /// list stays true when one of them expires.
    ///
    /// # Errors
    ///
    /// [`ListError`].
    pub fn verify(signed: &Signed) -> Result<Self, ListError> {
        let body = DeviceList::decode_shared(&signed.body).map_err(ListError::Body)?;
        verify(signed, Purpose::DeviceList, body.account.as_bytes())
            .map_err(|_| ListError::Signature)?;
        if body.version == 0 {
            return Err(ListError::Version);
        }
        if body.certificates.len() > DEVICES_MAX {
            return Err(ListError::TooMany {
                count: body.certificates.len(),
            });
        }
        let certificates = verify_certificates(&body)?;
        Ok(Self {
            signed: signed.clone(),
            body,
            certificates,
        })
    }

    /// The account's key.
    #[must_use]
    pub const fn account(&self) -> &AccountKey {
        &self.body.account
    }

    /// The account's id.
    #[must_use]
    pub fn account_id(&self) -> AccountId {
        AccountId::of_key(&self.body.account)
    }

    /// The account's home domain.
    #[must_use]
    pub const fn domain(&self) -> &Domain {
        &self.body.domain
    }

    /// The higher version wins.
    #[must_use]
    pub const fn version(&self) -> u64 {
        self.body.version
    }

    /// When the account signed it, by its own clock.
    #[must_use]
    pub const fn issued(&self) -> Timestamp {
        self.body.issued
    }

    /// The devices; none if the account deletes itself.
    #[must_use]
    pub fn certificates(&self) -> &[Certificate] {
        &self.certificates
    }

    /// The certificate of `device`.
    #[must_use]
    pub fn certificate(&self, device: &DeviceId) -> Option<&Certificate> {
        self.certificates
            .iter()
            .find(|certificate| certificate.device() == device)
    }

    /// The certificate of `device` if it names the key that the handshake proved and is valid now:
    /// what a registration needs.
    #[must_use]
    pub fn certificate_for(
        &self,
        device: &DeviceId,
        proven: &NoiseKey,
        now: Timestamp,
    ) -> Option<&Certificate> {
        self.certificate(device).filter(|certificate| {
            constant_time_eq(certificate.noise_key().as_bytes(), proven.as_bytes())
                && certificate.is_valid(now)
        })
    }

    /// BLAKE3 of the signed body: what clients pin beside the version.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        *blake3::hash(&self.signed.body).as_bytes()
    }

    /// The bytes as they were signed.
    #[must_use]
    pub const fn signed(&self) -> &Signed {
        &self.signed
    }

    /// How this list stands to the one of the same account that is known already by its version and
    /// hash.
    #[must_use]
    pub fn compare(&self, version: u64, hash: &[u8; 32]) -> Succession {
        if self.version() > version {
            Succession::Newer
        } else if self.version() < version {
            Succession::Older
        } else if self.hash() == *hash {
            Succession::Same
        } else {
            Succession::Equivocation
        }
    }
}

/// How one list of an account stands to another.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Succession {
    /// A higher version: it takes the other's place.
    Newer,
    /// The same version with the same bytes: a repeat.
    Same,
    /// A lower version: refused.
    Older,
    /// The same version with other bytes: refused, and an alarm.
    Equivocation,
}

fn verify_certificates(list: &DeviceList) -> Result<Vec<Certificate>, ListError> {
    let mut certificates: Vec<Certificate> = Vec::with_capacity(list.certificates.len());
    let (mut devices, mut keys) = (HashSet::new(), HashSet::new());
    for (index, signed) in list.certificates.iter().enumerate() {
        let certificate = Certificate::verify(signed)
            .map_err(|source| ListError::Certificate { index, source })?;
        if certificate.account() != &list.account {
            return Err(ListError::OtherAccount { index });
        }
        let is_new = devices.insert(certificate.device().clone());
        if !keys.insert(*certificate.noise_key()) || !is_new {
            return Err(ListError::Repeated { index });
        }
        certificates.push(certificate);
    }
    Ok(certificates)
}
