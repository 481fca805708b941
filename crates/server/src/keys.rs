//! The server's keys as sessions use them: shared, and replaced in place when the files change.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

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
pub struct Keys(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    keyring: RwLock<Keyring>,
    /// Serial of the last statement that the ledger has, or is about to get.
    recorded: AtomicU64,
}

impl Keys {
    /// Opens the keys of `domain` in `path`, or makes them; renews a Noise key that ends soon.
    ///
    /// # Errors
    ///
    /// [`KeyringError`]; nothing is overwritten.
    pub fn open(path: &Path, domain: &Domain, now: Timestamp) -> Result<Self, KeyringError> {
        let mut keyring = Keyring::open_or_create(path, domain, now)?;
        keyring.maintain(now)?;
        Ok(Self::of(keyring))
    }

    /// Opens the keys or makes them, and renews nothing: the nodes of a domain have copies of one file,
    /// and it is for the operator to renew one and copy it.
    ///
    /// # Errors
    ///
    /// [`KeyringError`]; nothing is overwritten.
    pub fn open_copy(path: &Path, domain: &Domain, now: Timestamp) -> Result<Self, KeyringError> {
        Ok(Self::of(Keyring::open_or_create(path, domain, now)?))
    }

    fn of(keyring: Keyring) -> Self {
        let recorded = AtomicU64::new(keyring.statement().serial());
        let keyring = RwLock::new(keyring);
        Self(Arc::new(Inner { keyring, recorded }))
    }

    /// Reads the files again; whether they had changed.
    ///
    /// # Errors
    ///
    /// [`KeyringError`]; the keys stay as they were.
    pub fn reload(&self) -> Result<bool, KeyringError> {
        self.0.keyring.write().reload()
    }

    /// Reads the files again after a change that the caller itself records.
    ///
    /// # Errors
    ///
    /// [`KeyringError`]; the keys stay as they were.
    pub fn reload_recorded(&self) -> Result<(), KeyringError> {
        let mut keyring = self.0.keyring.write();
        keyring.reload()?;
        self.0
            .recorded
            .store(keyring.statement().serial(), Ordering::Relaxed);
        Ok(())
    }

    /// The latest statement's serial, if nobody has recorded it; it counts as recorded then.
    #[must_use]
    pub fn take_unrecorded(&self) -> Option<u64> {
        let serial = self.serial();
        let recorded = self.0.recorded.swap(serial, Ordering::Relaxed);
        (recorded != serial).then_some(serial)
    }

    /// Renews a Noise key that ends soon; whether it did.
    ///
    /// # Errors
    ///
    /// [`KeyringError`]; the keys stay as they were.
    pub fn maintain(&self, now: Timestamp) -> Result<bool, KeyringError> {
        self.0.keyring.write().maintain(now)
    }

    /// The Noise key that HELLO names by its first eight bytes.
    #[must_use]
    pub fn noise_key(&self, name: &[u8; 8], now: Timestamp) -> Option<StaticKey> {
        self.0
            .keyring
            .read()
            .noise_key(&HEXLOWER.encode(name), now)
            .cloned()
    }

    /// The latest server keys statement.
    #[must_use]
    pub fn statement(&self) -> Signed {
        self.0.keyring.read().statement().signed().clone()
    }

    /// The serial of the latest statement.
    #[must_use]
    pub fn serial(&self) -> u64 {
        self.0.keyring.read().statement().serial()
    }

    /// Statements that lead from earlier domain keys to this one, oldest first.
    #[must_use]
    pub fn chain(&self) -> Vec<Signed> {
        self.0.keyring.read().chain().to_vec()
    }

    /// The domain's public key.
    #[must_use]
    pub fn domain_key(&self) -> DomainKey {
        *self.0.keyring.read().domain_key()
    }

    /// The domain's secret key.
    #[must_use]
    pub fn domain_secret(&self) -> DomainSecret {
        self.0.keyring.read().domain_secret()
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
        self.0
            .keyring
            .read()
            .references()
            .seal(queue, issued, group, hub)
    }

    /// Opens a reference that was made here for `group` at `hub`.
    #[must_use]
    pub fn open_reference(
        &self,
        reference: &SealedRef,
        group: &GroupId,
        hub: &Domain,
    ) -> Option<Opened> {
        self.0
            .keyring
            .read()
            .references()
            .open(reference, group, hub)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_statement_is_recorded_by_whoever_made_it_and_by_nobody_else() {
        let place = tempfile::tempdir().unwrap();
        let domain = Domain::parse("chat.example.org").unwrap();
        let now = Timestamp::from_millis(1_790_000_000_000);
        let keys = Keys::open(&place.path().join("keys"), &domain, now).unwrap();
        let mut elsewhere = Keyring::open(&place.path().join("keys"), &domain).unwrap();
        assert_eq!(keys.take_unrecorded(), None);

        elsewhere.rotate_noise(now).unwrap();
        keys.reload_recorded().unwrap();
        assert_eq!((keys.serial(), keys.take_unrecorded()), (2, None));

        elsewhere.rotate_noise(now).unwrap();
        assert!(keys.reload().unwrap());
        assert_eq!(
            (keys.take_unrecorded(), keys.take_unrecorded()),
            (Some(3), None)
        );
    }
}
