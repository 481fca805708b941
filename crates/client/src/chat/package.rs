//! Key packages: the own ones for others to claim, and those of others that were claimed.

use bytes::Bytes;
use commucat_crypto::secret::Secret;
use commucat_proto::id::Handle;
use commucat_proto::time::Timestamp;
use openmls::prelude::{
    KeyPackage, KeyPackageIn, KeyPackageRef, MlsMessageBodyIn, MlsMessageOut, ProtocolVersion,
};
use openmls_traits::OpenMlsProvider as _;
use openmls_traits::storage::StorageProvider as _;
use serde::{Deserialize, Serialize};

use super::intent::Claimed;
use super::profile::{self, Suite};
use super::record::Seed;
use super::store::Label;
use super::{Chat, ChatError, device, keys};

/// Whether a package is spent by its first Welcome.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum Use {
    /// One Welcome.
    Single,
    /// Any number, for when the single-use packages are out; replace it after each use.
    LastResort,
}

/// A key package of this device, to be published.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct OwnPackage {
    /// The `MLSMessage` to publish.
    pub bytes: Bytes,
    /// Its kind.
    pub usage: Use,
}

/// What we keep of a package that was published.
#[derive(Serialize, Deserialize)]
pub(super) struct Published {
    /// The package's MLS reference.
    pub(super) reference: KeyPackageRef,
    pub(super) handle: Seed,
    pub(super) usage: Use,
    /// When nobody is given it any more, unix ms.
    pub(super) not_after: u64,
}

impl Chat {
    /// Makes key packages, each with a fresh handle, that are handed out until `not_after`.
    ///
    /// # Errors
    ///
    /// [`ChatError::Mls`] if OpenMLS cannot make them.
    pub fn key_packages(
        &mut self,
        suite: Suite,
        usage: Use,
        count: usize,
        not_after: Timestamp,
    ) -> Result<Vec<OwnPackage>, ChatError> {
        (0..count)
            .map(|_| self.key_package(suite, usage, not_after))
            .collect()
    }

    fn key_package(
        &mut self,
        suite: Suite,
        usage: Use,
        not_after: Timestamp,
    ) -> Result<OwnPackage, ChatError> {
        let seed = Secret::<32>::random();
        let handle = Handle::new(keys::public(&seed));
        let extensions =
            profile::leaf_extensions(&handle).ok_or(ChatError::Encode("leaf extensions"))?;
        let mut builder = KeyPackage::builder()
            .key_package_lifetime(profile::lifetime())
            .leaf_node_capabilities(profile::capabilities())
            .leaf_node_extensions(extensions);
        if usage == Use::LastResort {
            builder = builder.mark_as_last_resort();
        }
        let bundle = builder
            .build(
                suite.ciphersuite(),
                &self.provider,
                &self.identity.signer,
                self.identity.credential(),
            )
            .map_err(ChatError::mls("key package"))?;
        let package = bundle.into_key_package();
        let reference = package
            .hash_ref(self.provider.crypto())
            .map_err(ChatError::mls("key package reference"))?;
        let published = Published {
            reference,
            handle: Seed(seed),
            usage,
            not_after: not_after.as_millis(),
        };
        self.provider
            .store()
            .put(Label::Package, &published.reference, &published)?;
        let bytes = MlsMessageOut::from(package)
            .to_bytes()
            .map_err(ChatError::mls("key package"))?;
        Ok(OwnPackage {
            bytes: bytes.into(),
            usage,
        })
    }

    /// Deletes packages that nobody was given after `before`: a Welcome for them would have arrived
    /// by now. Call it now and then with the current time less `limits.relay_ttl`.
    ///
    /// # Errors
    ///
    /// [`ChatError::Store`].
    pub fn forget_packages(&mut self, before: Timestamp) -> Result<usize, ChatError> {
        let store = self.provider.store();
        let mut forgotten = 0;
        for published in store.all::<Published>(Label::Package)? {
            if published.not_after < before.as_millis() {
                self.forget_package(&published)?;
                forgotten += 1;
            }
        }
        Ok(forgotten)
    }

    fn forget_package(&self, published: &Published) -> Result<(), ChatError> {
        let store = self.provider.store();
        store.delete_key_package(&published.reference)?;
        Ok(store.delete(Label::Package, &published.reference)?)
    }
}

/// A claimed package, ready to be added: everything that can be known without the group.
///
/// With `now`, also what only whoever adds looks at: the certificate's dates.
pub(super) fn verify(
    claimed: &Claimed,
    suite: Suite,
    now: Option<Timestamp>,
) -> Result<KeyPackage, ChatError> {
    let package = parse(&claimed.package)?
        .validate(
            &openmls_rust_crypto::RustCrypto::default(),
            ProtocolVersion::Mls10,
        )
        .map_err(|_| ChatError::Package("it does not verify"))?;
    if !profile::fits(&package) || package.ciphersuite() != suite.ciphersuite() {
        return Err(ChatError::Package(
            "its suite or lifetime is not the group's",
        ));
    }
    let (_, device) = device::checked(package.leaf_node())
        .ok_or(ChatError::Package("its certificate does not verify"))?;
    if device.account != claimed.account || device.id != claimed.device {
        return Err(ChatError::Package("it belongs to another device"));
    }
    if now.is_some_and(|now| !device::holds(package.leaf_node(), now)) {
        return Err(ChatError::Package("its certificate does not hold now"));
    }
    Ok(package)
}

fn parse(bytes: &[u8]) -> Result<KeyPackageIn, ChatError> {
    let Some(MlsMessageBodyIn::KeyPackage(package)) = keys::mls_message(bytes) else {
        return Err(ChatError::Package("it does not decode"));
    };
    Ok(package)
}
