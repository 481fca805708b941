//! OpenMLS' view of us: its RustCrypto algorithms over our store.

use commucat_proto::id::GroupId;
use openmls::group::MlsGroup;
use openmls_rust_crypto::RustCrypto;
use openmls_traits::OpenMlsProvider;

use super::store::{Secret, Store, StoreError};

/// Algorithms and store.
#[derive(Debug, Default)]
pub(super) struct Provider {
    crypto: RustCrypto,
    store: Store,
}

impl Provider {
    pub(super) fn load(
        rows: impl IntoIterator<Item = (Vec<u8>, Secret)>,
    ) -> Result<Self, StoreError> {
        Ok(Self {
            crypto: RustCrypto::default(),
            store: Store::load(rows)?,
        })
    }

    pub(super) const fn store(&self) -> &Store {
        &self.store
    }

    /// The MLS state of a group, decoded.
    pub(super) fn group(&self, group: &GroupId) -> Result<Option<MlsGroup>, StoreError> {
        MlsGroup::load(&self.store, &mls_id(group))
    }
}

/// Our group id as MLS names groups.
pub(super) fn mls_id(group: &GroupId) -> openmls::group::GroupId {
    openmls::group::GroupId::from_slice(group.as_bytes())
}

impl OpenMlsProvider for Provider {
    type CryptoProvider = RustCrypto;
    type RandProvider = RustCrypto;
    type StorageProvider = Store;

    fn storage(&self) -> &Store {
        &self.store
    }

    fn crypto(&self) -> &RustCrypto {
        &self.crypto
    }

    fn rand(&self) -> &RustCrypto {
        &self.crypto
    }
}
