//! What the user wants of a group. Kept until the group has it, whatever races are lost on the way.

use bytes::Bytes;
use commucat_proto::id::{AccountKey, DeviceId, Domain, GroupId, Handle, SealedRef};
use commucat_proto::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::record::{account, device, domain, sealed_ref};
use super::roles::Role;
use super::{Chat, ChatError, package};

/// Devices in one commit: fifty hybrid key packages make some 140 kB.
const ADD_MAX: usize = 50;

/// A change of a group.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum Intent {
    /// Add devices, at most 50. Those that are members already are passed over.
    Add(Vec<Claimed>),
    /// Remove devices by handle: those that left (`gone`) or were revoked.
    Remove(#[serde(with = "handles")] Vec<Handle>),
    /// Remove all devices of an account, also those that are added until it happens.
    RemoveAccount(#[serde(with = "account")] AccountKey),
    /// Give an account a role.
    SetRole(#[serde(with = "account")] AccountKey, Role),
    /// Let people join by link, with a fresh join key: earlier links die.
    AllowJoin,
    /// No joining by link any more.
    ForbidJoin,
    /// Fresh keys for this device's leaf, and its current certificate: once within a day of joining,
    /// and when the certificate was renewed.
    Update,
    /// End the group for everybody.
    Close,
}

/// A key package that was claimed, with what the claim gave.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Claimed {
    /// The account that was asked for.
    #[serde(with = "account")]
    pub account: AccountKey,
    /// The device.
    #[serde(with = "device")]
    pub device: DeviceId,
    /// The account's home.
    #[serde(with = "domain")]
    pub domain: Domain,
    /// The package, an `MLSMessage`.
    #[serde(with = "octets")]
    pub package: Bytes,
    /// The device's reference for this group and hub.
    #[serde(with = "sealed_ref")]
    pub sealed_ref: SealedRef,
}

impl Chat {
    /// Stores what the user wants; [`Chat::propose`] builds it.
    ///
    /// # Errors
    ///
    /// [`ChatError::Package`] or [`ChatError::TooMany`] for packages that cannot be added,
    /// [`ChatError::NotMember`]. Whether the roles allow it is looked at when it is built.
    pub fn intend(
        &mut self,
        group: &GroupId,
        intent: Intent,
        now: Timestamp,
    ) -> Result<(), ChatError> {
        let mut record = self.record(group)?;
        record.member()?;
        if let Intent::Add(claimed) = &intent {
            if claimed.len() > ADD_MAX {
                return Err(ChatError::TooMany(claimed.len()));
            }
            let suite = self.suite(group)?;
            for one in claimed {
                package::verify(one, suite, Some(now))?;
            }
        }
        record.intents.push(intent);
        Ok(record.save(self.provider.store())?)
    }

    /// What is stored and not done yet, oldest first.
    ///
    /// # Errors
    ///
    /// [`ChatError::UnknownGroup`].
    pub fn intents(&self, group: &GroupId) -> Result<Vec<Intent>, ChatError> {
        Ok(self.record(group)?.intents)
    }
}

mod handles {
    use serde::{Deserializer, Serializer};

    use super::*;

    pub(super) fn serialize<S: Serializer>(all: &[Handle], s: S) -> Result<S::Ok, S::Error> {
        s.collect_seq(all.iter().map(Handle::as_bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<Handle>, D::Error> {
        let all = Vec::<[u8; 32]>::deserialize(d)?;
        Ok(all.into_iter().map(Handle::new).collect())
    }
}

mod octets {
    use serde::{Deserializer, Serializer};

    use super::*;

    pub(super) fn serialize<S: Serializer>(bytes: &Bytes, s: S) -> Result<S::Ok, S::Error> {
        bytes.as_ref().serialize(s)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Bytes, D::Error> {
        Vec::<u8>::deserialize(d).map(Bytes::from)
    }
}
