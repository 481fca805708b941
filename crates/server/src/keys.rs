//! The server's keys as sessions use them: shared, and replaced in place when the files change.

use std::path::Path;
use std::sync::Arc;

use commucat_crypto::keyring::{Keyring, KeyringError};
use commucat_crypto::noise::StaticKey;
use commucat_crypto::sealed_ref::Opened;
use commucat_crypto::server_keys::DomainSecret;
use commucat_proto::id::{Domain, DomainKey, GroupId, QueueId, SealedRef};
use commucat_proto::signed::Signed;
use commucat_proto::time::Timestamp;
use data_encoding::HEXLOWER;
use parking_lot::RwLock;

/// Handle to the keyring. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Keys(Arc<RwLock<Keyring>>);

impl Keys {
    /// Opens the keys of `domain` in `path`, or makes them; renews a Noise key that ends soon.
    ///
    /// # Errors
    ///
    /// [`KeyringError`]; nothing is overwritten.
    pub fn open(path: &Path, domain: &Domain, now: Timestamp) -> Result<Self, KeyringError> {
        let mut keyring = Keyring::open_or_create(path, domain, now)?;
        keyring.maintain(now)?;
        Ok(Self(Arc::new(RwLock::new(keyring))))
    }

    /// Reads the files again; whether they had changed.
    ///
    /// # Errors
    ///
    /// [`KeyringError`]; the keys stay as they were.
    pub fn reload(&self) -> Result<bool, KeyringError> {
        self.0.write().reload()
    }

    /// Renews a Noise key that ends soon; whether it did.
    ///
    /// # Errors
    ///
    /// [`KeyringError`]; the keys stay as they were.
    pub fn maintain(&self, now: Timestamp) -> Result<bool, KeyringError> {
        self.0.write().maintain(now)
    }

    /// The Noise key that HELLO names by its first eight bytes.
    #[must_use]
    pub fn noise_key(&self, name: &[u8; 8], now: Timestamp) -> Option<StaticKey> {
        self.0
            .read()
            .noise_key(&HEXLOWER.encode(name), now)
            .cloned()
    }

    /// The latest server keys statement.
    #[must_use]
    pub fn statement(&self) -> Signed {
        self.0.read().statement().signed().clone()
    }

    /// The serial of the latest statement.
    #[must_use]
    pub fn serial(&self) -> u64 {
        self.0.read().statement().serial()
    }

    /// Statements that lead from earlier domain keys to this one, oldest first.
    #[must_use]
    pub fn chain(&self) -> Vec<Signed> {
        self.0.read().chain().to_vec()
    }

    /// The domain's public key.
    #[must_use]
    pub fn domain_key(&self) -> DomainKey {
        *self.0.read().domain_key()
    }

    /// The domain's secret key.
    #[must_use]
    pub fn domain_secret(&self) -> DomainSecret {
        self.0.read().domain_secret()
    }

    /// Makes a fresh reference to `queue` for `group` at `hub`.
    #[must_use]
    pub fn seal_reference(
        &self,
        queue: &QueueId,
        issued: Timestamp,
        group: &GroupId,
        hub: &Domain,
    ) -> SealedRef {
        self.0.read().references().seal(queue, issued, group, hub)
    }

    /// Opens a reference that was made here for `group` at `hub`.
    #[must_use]
    pub fn open_reference(
        &self,
        reference: &SealedRef,
        group: &GroupId,
        hub: &Domain,
    ) -> Option<Opened> {
        self.0.read().references().open(reference, group, hub)
    }
}
