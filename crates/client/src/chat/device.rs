//! Who a leaf is: the device certificate in its credential.

use bytes::Bytes;
use commucat_crypto::secret::Secret;
use commucat_proto::id::{AccountKey, DeviceId, Handle};
use commucat_proto::time::Timestamp;
use openmls::group::MlsGroup;
use openmls::prelude::SignatureScheme;
use openmls::prelude::{BasicCredential, Credential, CredentialWithKey, LeafNode, LeafNodeIndex};
use openmls_basic_credential::SignatureKeyPair;

use super::error::ChatError;
use super::{keys, profile};

/// What this device is known by: its certificate, and the key that signs for it in MLS.
pub struct Identity {
    pub(super) certificate: Bytes,
    pub(super) device: Device,
    pub(super) signer: SignatureKeyPair,
    pub(super) public: [u8; 32],
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity")
            .field("device", &self.device)
            .finish_non_exhaustive()
    }
}

impl Identity {
    /// Takes the encoded `signed` device certificate and the seed of its MLS signature key.
    ///
    /// # Errors
    ///
    /// [`ChatError::Identity`] if the certificate does not verify or is of another key.
    pub fn new(certificate: Bytes, mls_seed: &Secret<32>) -> Result<Self, ChatError> {
        let (device, public) =
            certified(&certificate).ok_or(ChatError::Identity("it does not verify"))?;
        if keys::public(mls_seed) != public {
            return Err(ChatError::Identity("it names another MLS key"));
        }
        let signer = SignatureKeyPair::from_raw(
            SignatureScheme::ED25519,
            mls_seed.expose().to_vec(),
            public.to_vec(),
        );
        Ok(Self {
            certificate,
            device,
            signer,
            public,
        })
    }

    /// The account of this device.
    #[must_use]
    pub const fn account(&self) -> &AccountKey {
        &self.device.account
    }

    pub(super) fn credential(&self) -> CredentialWithKey {
        CredentialWithKey {
            credential: BasicCredential::new(self.certificate.to_vec()).into(),
            signature_key: self.public.as_slice().into(),
        }
    }
}

/// A device of an account.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(super) struct Device {
    pub(super) account: AccountKey,
    pub(super) id: DeviceId,
}

/// A member as the tree shows it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Leaf {
    pub(super) index: LeafNodeIndex,
    pub(super) handle: Handle,
    pub(super) device: Device,
}

/// The leaf's handle and device, checked: the certificate verifies and certifies the key that
/// signs for the leaf. Its dates are not looked at: they are the business of whoever adds.
pub(super) fn checked(leaf: &LeafNode) -> Option<(Handle, Device)> {
    let (device, key) = certified(identity(leaf.credential())?)?;
    if leaf.signature_key().as_slice() != key {
        return None;
    }
    Some((profile::handle(leaf)?, device))
}

/// All members of a group whose leaves were checked when they came into the tree.
pub(super) fn leaves(group: &MlsGroup) -> Result<Vec<Leaf>, ChatError> {
    let leaf = |index| {
        let node = group.public_group().leaf(index)?;
        let handle = profile::handle(node)?;
        Some(Leaf {
            index,
            handle,
            device: named(node.credential())?,
        })
    };
    group
        .members()
        .map(|member| leaf(member.index))
        .collect::<Option<_>>()
        .ok_or(ChatError::Welcome("a member's leaf is not of the profile"))
}

/// The device that a credential names, without checking the certificate again.
pub(super) fn named(credential: &Credential) -> Option<Device> {
    let claims = keys::claims(identity(credential)?)?;
    Some(Device {
        account: claims.account,
        id: claims.device,
    })
}

/// Whether a leaf's certificate holds at `now`.
pub(super) fn holds(leaf: &LeafNode, now: Timestamp) -> bool {
    let certificate = identity(leaf.credential()).and_then(keys::verified);
    certificate.is_some_and(|certificate| certificate.is_valid(now))
}

fn certified(certificate: &[u8]) -> Option<(Device, [u8; 32])> {
    let certificate = keys::verified(certificate)?;
    let key = certificate.mls_key().as_ref().try_into().ok()?;
    let device = Device {
        account: *certificate.account(),
        id: certificate.device().clone(),
    };
    Some((device, key))
}

fn identity(credential: &Credential) -> Option<&[u8]> {
    // `BasicCredential::try_from` takes an owned credential; its content is the identity itself.
    (credential.credential_type() == openmls::prelude::CredentialType::Basic)
        .then(|| credential.serialized_content())
}
