//! The server keys statement: which Noise keys a domain has, and who may say so
//! (CCP-1 section 3, "Server keys").

use std::fmt;

use bytes::Bytes;
use commucat_proto::id::{Domain, DomainKey, NoiseKey};
use commucat_proto::identity::{ServerKeys, ServerNoiseKey};
use commucat_proto::signed::Signed;
use commucat_proto::time::Timestamp;
use commucat_proto::wire::Cbor;
use commucat_proto::wire::reader::CborError;

use crate::noise::is_low_order;
use crate::secret::Secret;
use crate::signing::{Purpose, SigningKey, is_usable_key, verify};

/// Noise keys that a statement may name; two overlap in a rotation.
pub const NOISE_KEYS_MAX: usize = 16;

/// A domain's secret key. Whoever has it *is* the domain.
#[derive(Clone)]
pub struct DomainSecret(SigningKey);

impl DomainSecret {
    /// Makes a fresh key.
    #[must_use]
    pub fn generate() -> Self {
        Self(SigningKey::generate())
    }

    /// The key of a seed that was kept.
    #[must_use]
    pub fn from_seed(seed: &Secret<32>) -> Self {
        Self(SigningKey::from_seed(seed))
    }

    /// The seed, for whoever keeps it.
    #[must_use]
    pub fn seed(&self) -> Secret<32> {
        self.0.seed()
    }

    /// The public half, which invite links carry and clients pin.
    #[must_use]
    pub fn key(&self) -> DomainKey {
        DomainKey::new(self.0.public())
    }

    /// Signs `keys`, whose key 1 must be [`DomainSecret::key`] for anybody to believe it.
    #[must_use]
    pub fn state(&self, keys: &ServerKeys) -> Signed {
        self.sign(Purpose::ServerKeys, keys.encode())
    }

    /// Signs `body` in the name of the domain.
    #[must_use]
    pub fn sign(&self, purpose: Purpose, body: impl Into<Bytes>) -> Signed {
        self.0.sign(purpose, body)
    }
}

impl fmt::Debug for DomainSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DomainSecret(..)")
    }
}

/// Why a statement does not hold.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum StatementError {
    /// The body is not a server keys statement.
    #[error("body is not a server keys statement")]
    Body(#[source] CborError),
    /// The domain key that it names did not sign it, or is weak.
    #[error("server keys statement is not signed by its domain key")]
    Signature,
    /// No Noise key, too many, or one that is refused or never valid.
    #[error("noise keys of the server keys statement are refused")]
    NoiseKeys,
    /// The next domain key is weak.
    #[error("next domain key of the server keys statement is refused")]
    NextKey,
}

/// A server keys statement that was verified under the domain key that it names. Whether that is the
/// key one trusts is for [`Pin::follow`] to say.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Statement {
    signed: Signed,
    body: ServerKeys,
}

impl Statement {
    /// Verifies `signed`.
    ///
    /// # Errors
    ///
    /// [`StatementError`].
    pub fn verify(signed: &Signed) -> Result<Self, StatementError> {
        let body = ServerKeys::decode_shared(&signed.body).map_err(StatementError::Body)?;
        verify(signed, Purpose::ServerKeys, body.domain_key.as_bytes())
            .map_err(|_| StatementError::Signature)?;
        let count_is_good = (1..=NOISE_KEYS_MAX).contains(&body.noise_keys.len());
        if !count_is_good || body.noise_keys.iter().any(is_refused) {
            return Err(StatementError::NoiseKeys);
        }
        if body
            .next_domain_key
            .is_some_and(|key| !is_usable_key(key.as_bytes()))
        {
            return Err(StatementError::NextKey);
        }
        Ok(Self {
            signed: signed.clone(),
            body,
        })
    }

    /// The domain that speaks.
    #[must_use]
    pub const fn domain(&self) -> &Domain {
        &self.body.domain
    }

    /// Who signed.
    #[must_use]
    pub const fn domain_key(&self) -> &DomainKey {
        &self.body.domain_key
    }

    /// Grows with every statement.
    #[must_use]
    pub const fn serial(&self) -> u64 {
        self.body.serial
    }

    /// Every Noise key with its validity.
    #[must_use]
    pub fn noise_keys(&self) -> &[ServerNoiseKey] {
        &self.body.noise_keys
    }

    /// Who signs the next statement, if the domain key changes.
    #[must_use]
    pub const fn next_domain_key(&self) -> Option<&DomainKey> {
        self.body.next_domain_key.as_ref()
    }

    /// The Noise key to use at `now`: of those valid, the one with the latest *not before*.
    #[must_use]
    pub fn noise_key(&self, now: Timestamp) -> Option<&NoiseKey> {
        self.body
            .noise_keys
            .iter()
            .filter(|key| (key.not_before..=key.not_after).contains(&now))
            .max_by_key(|key| key.not_before)
            .map(|key| &key.key)
    }

    /// BLAKE3 of the signed body, for the ledger.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        *blake3::hash(&self.signed.body).as_bytes()
    }

    /// The bytes as they were signed.
    #[must_use]
    pub const fn signed(&self) -> &Signed {
        &self.signed
    }

    /// What to pin after this statement was accepted.
    #[must_use]
    pub fn pin(&self) -> Pin {
        let (domain, key) = (self.body.domain.clone(), self.body.domain_key);
        Pin {
            domain,
            key,
            serial: self.body.serial,
        }
    }
}

fn is_refused(key: &ServerNoiseKey) -> bool {
    key.not_after < key.not_before || is_low_order(&key.key)
}

/// Why a statement is not accepted under a pin.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum FollowError {
    /// The statement, or one of the chain that leads to it, does not hold.
    #[error("server keys statement does not hold")]
    Statement(#[from] StatementError),
    /// It is of another domain.
    #[error("server keys statement is of another domain")]
    OtherDomain,
    /// It is signed by a key that the chain does not reach from the pinned one.
    #[error("server keys statement is signed by a key that the pinned one does not lead to")]
    UnknownSigner,
    /// Its serial is lower than one seen before.
    #[error("server keys statement is older than the pinned one")]
    Old,
}

/// What a client keeps of a domain: its key, and the highest serial seen.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Pin {
    /// The domain.
    pub domain: Domain,
    /// The domain key that is trusted.
    pub key: DomainKey,
    /// The highest serial seen, 0 for none.
    pub serial: u64,
}

impl Pin {
    /// The pin of somebody who knows only what an invite link says.
    #[must_use]
    pub const fn first(domain: Domain, key: DomainKey) -> Self {
        Self {
            domain,
            key,
            serial: 0,
        }
    }

    /// Verifies `latest` under the pinned key, or under the key that `chain` (oldest first) leads to
    /// from it. Statements of the chain that are signed by other keys are passed over: they lie
    /// before the pin. Whoever accepts the result pins [`Statement::pin`].
    ///
    /// # Errors
    ///
    /// [`FollowError`]; the pin stays as it is.
    pub fn follow(&self, chain: &[Signed], latest: &Signed) -> Result<Statement, FollowError> {
        let (mut key, mut serial) = (self.key, 0);
        for signed in chain {
            let Ok(link) = Statement::verify(signed) else {
                continue;
            };
            let Some(next) = link.next_domain_key() else {
                continue;
            };
            // Serials ascend along a chain, so that no link is used twice and none goes back.
            if *link.domain_key() == key && *link.domain() == self.domain && link.serial() > serial
            {
                (key, serial) = (*next, link.serial());
            }
        }
        let latest = Statement::verify(latest)?;
        if *latest.domain() != self.domain {
            return Err(FollowError::OtherDomain);
        }
        if *latest.domain_key() != key {
            return Err(FollowError::UnknownSigner);
        }
        if latest.serial() < self.serial || latest.serial() <= serial {
            return Err(FollowError::Old);
        }
        Ok(latest)
    }
}

#[cfg(test)]
mod tests;
