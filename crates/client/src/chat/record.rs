//! What we keep of a group beside its MLS state.

use std::collections::BTreeSet;

use commucat_crypto::secret::Secret;
use commucat_proto::id::{Domain, GroupId, Handle, SealedRef};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Invalid;
use super::device::Leaf;
use super::error::ChatError;
use super::intent::Intent;
use super::store::{Label, Store, StoreError};

/// One group of this device.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Record {
    #[serde(with = "group_id")]
    pub(super) group: GroupId,
    #[serde(with = "domain")]
    pub(super) hub: Domain,
    /// The own handle's private key.
    #[serde(with = "seed")]
    pub(super) handle: Secret<32>,
    #[serde(with = "sealed_ref")]
    pub(super) sealed_ref: SealedRef,
    /// The highest log position handled.
    pub(super) position: u64,
    /// The highest position whose entry took effect; those between the two were skipped.
    pub(super) settled: u64,
    pub(super) doubts: Doubts,
    /// The counter of the last own content.
    pub(super) counter: u64,
    /// The oldest epoch whose keys were kept when keys were deleted last.
    #[serde(default)]
    pub(super) oldest: u64,
    pub(super) state: State,
    /// The join key's private half, if this device made it.
    pub(super) join_seed: Option<Seed>,
    /// What the user wants and the group does not have yet, oldest first.
    pub(super) intents: Vec<Intent>,
    pub(super) pending: Option<Pending>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub(super) enum State {
    /// An external commit waits for the hub; there is no MLS state yet.
    Joining,
    Member,
    Removed,
    Closed,
}

/// Signs since `settled` that the others have gone on without this device.
///
/// One member alone must not be able to make it believe so: whoever follows a GroupInfo joins the
/// group of whoever made that, and anybody can put one into the log.
#[derive(Clone, Default, Serialize, Deserialize)]
pub(super) struct Doubts {
    /// A commit by this device that it does not know: its state was restored from a copy.
    own: bool,
    /// Accounts whose commits do not fit this device's state.
    accounts: BTreeSet<[u8; 32]>,
}

impl Doubts {
    /// Takes note of a skipped entry by `author`.
    pub(super) fn note(&mut self, invalid: Invalid, author: Option<&Leaf>, own: &Handle) {
        let Some(author) = author else { return };
        if matches!(invalid, Invalid::NotOurs) {
            self.own |= author.handle == *own;
        } else if matches!(invalid, Invalid::Epoch | Invalid::Mls) {
            self.accounts.insert(*author.device.account.as_bytes());
        }
    }

    pub(super) fn are_there(&self) -> bool {
        self.own || !self.accounts.is_empty()
    }

    /// Whether they are reason enough to follow others: an own unknown commit, or those of two
    /// accounts, or of the only one that there is.
    pub(super) fn suffice(&self, leaves: &[Leaf], own: &Handle) -> bool {
        let others: BTreeSet<_> = leaves
            .iter()
            .filter(|leaf| leaf.handle != *own)
            .map(|leaf| leaf.device.account)
            .collect();
        self.are_there() && (self.own || self.accounts.len() >= others.len().min(2))
    }
}

/// A commit that waits for the hub's answer.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Pending {
    pub(super) expect: u64,
    pub(super) commit: Vec<u8>,
    /// The encoded `signed` bundle.
    pub(super) bundle: Vec<u8>,
    /// Whether it ends the group.
    pub(super) close: bool,
    /// The join key's private half, if it changes the join key.
    #[serde(default)]
    pub(super) join_seed: Option<Option<Seed>>,
    pub(super) kind: PendingKind,
}

#[derive(Clone, Serialize, Deserialize)]
pub(super) enum PendingKind {
    /// For the first intent; the staged commit is in the MLS state.
    Intent,
    /// The whole new MLS state of an external commit: it replaces the old one when it is accepted.
    External(Vec<(Vec<u8>, Vec<u8>)>),
}

impl Pending {
    pub(super) const fn is_external(&self) -> bool {
        matches!(self.kind, PendingKind::External(_))
    }
}

/// A private key in a stored value.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Seed(#[serde(with = "seed")] pub(super) Secret<32>);

impl Record {
    pub(super) fn load(store: &Store, group: &GroupId) -> Result<Option<Self>, StoreError> {
        store.get(Label::Group, group.as_bytes())
    }

    pub(super) fn all(store: &Store) -> Result<Vec<Self>, StoreError> {
        store.all(Label::Group)
    }

    pub(super) fn save(&self, store: &Store) -> Result<(), StoreError> {
        store.put(Label::Group, self.group.as_bytes(), self)
    }

    pub(super) fn own_handle(&self) -> Handle {
        Handle::new(super::keys::public(&self.handle))
    }

    /// That this device is a member now.
    pub(super) fn member(&self) -> Result<(), ChatError> {
        match self.state {
            State::Member => Ok(()),
            State::Joining | State::Removed | State::Closed => Err(ChatError::NotMember),
        }
    }
}

/// How an identifier is written into a stored value.
macro_rules! serde_bytes {
    ($name:ident, $id:ty) => {
        pub(super) mod $name {
            use super::*;

            pub(in crate::chat) fn serialize<S: Serializer>(
                id: &$id,
                s: S,
            ) -> Result<S::Ok, S::Error> {
                id.as_bytes().as_slice().serialize(s)
            }

            pub(in crate::chat) fn deserialize<'de, D: Deserializer<'de>>(
                d: D,
            ) -> Result<$id, D::Error> {
                <$id>::parse(&Vec::<u8>::deserialize(d)?).map_err(serde::de::Error::custom)
            }
        }
    };
}

macro_rules! serde_text {
    ($name:ident, $id:ty) => {
        pub(super) mod $name {
            use super::*;

            pub(in crate::chat) fn serialize<S: Serializer>(
                id: &$id,
                s: S,
            ) -> Result<S::Ok, S::Error> {
                id.as_str().serialize(s)
            }

            pub(in crate::chat) fn deserialize<'de, D: Deserializer<'de>>(
                d: D,
            ) -> Result<$id, D::Error> {
                <$id>::parse(&String::deserialize(d)?).map_err(serde::de::Error::custom)
            }
        }
    };
}

serde_bytes!(group_id, GroupId);
serde_bytes!(sealed_ref, SealedRef);
serde_bytes!(account, commucat_proto::id::AccountKey);
serde_text!(domain, Domain);
serde_text!(device, commucat_proto::id::DeviceId);

mod seed {
    use super::*;

    pub(super) fn serialize<S: Serializer>(seed: &Secret<32>, s: S) -> Result<S::Ok, S::Error> {
        seed.expose().serialize(s)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Secret<32>, D::Error> {
        <[u8; 32]>::deserialize(d).map(Secret::new)
    }
}
