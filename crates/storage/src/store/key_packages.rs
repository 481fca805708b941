//! Key packages: what others need to add a device to a group, handed out once each.

use std::time::Duration;

use bytes::Bytes;
use commucat_proto::id::{AccountId, ClaimId, DeviceId, Domain, QueueId, TokenHash};
use commucat_proto::time::Timestamp;

use super::{Store, on_backend};
use crate::StoreError;

/// A package that a device publishes.
#[derive(Clone, Debug)]
pub struct NewPackage {
    /// When it ends; it is not handed out from then on.
    pub not_after: Timestamp,
    /// Whether it is the one that may be handed out again and again when nothing else is left.
    pub last_resort: bool,
    /// The package, opaque.
    pub package: Bytes,
}

/// What became of a publication.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Published {
    /// All are stored. A byte-identical repeat gets the same answer and brings back no package that
    /// was handed out meanwhile.
    Stored,
    /// More than [`Store::KEY_PACKAGES_MAX`] single-use packages, or more than one last resort.
    /// Nothing was stored.
    TooMany,
    /// There is no such device.
    UnknownDevice,
}

/// What a device has left.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct PackageCount {
    /// Single-use packages that could be handed out.
    pub single_use: u64,
    /// Last-resort packages: 0 or 1.
    pub last_resort: u64,
}

/// By what right an account is asked for.
#[derive(Clone, Debug)]
pub enum Access {
    /// This device of the account itself asks; it is left out.
    Own(DeviceId),
    /// BLAKE3 of the capability presented.
    Capability(TokenHash),
    /// None was presented: nothing is found.
    Nothing,
}

/// How many claims a day are handed single-use packages.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ClaimBudgets {
    /// Of one capability.
    pub per_capability: u64,
    /// Of one asking domain, for one account.
    pub per_domain: u64,
}

impl Default for ClaimBudgets {
    fn default() -> Self {
        Self {
            per_capability: 20,
            per_domain: 200,
        }
    }
}

/// A claim of one package per device of an account.
#[derive(Clone, Debug)]
pub struct Claim {
    /// Repeated within [`Store::CLAIM_KEPT`], the claim gets the same packages.
    pub id: ClaimId,
    /// The account asked for.
    pub account: AccountId,
    /// By what right.
    pub access: Access,
    /// The domain that asks, as authenticated.
    pub origin: Domain,
    /// Beyond them the last resort is handed out.
    pub budgets: ClaimBudgets,
}

/// A package handed out.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ClaimedPackage {
    /// Whose it is.
    pub device: DeviceId,
    /// That device's queue, for the sealed reference.
    pub queue: QueueId,
    /// The package.
    pub package: Bytes,
    /// Whether it is the last resort; the device should publish another then.
    pub last_resort: bool,
}

impl Store {
    /// Single-use packages that a device keeps here at most (CCP-1 section 6).
    pub const KEY_PACKAGES_MAX: usize = 100;
    /// How long a claim can be repeated.
    pub const CLAIM_KEPT: Duration = Duration::from_secs(600);

    /// Stores packages of `device`. A new last resort takes the place of the earlier one.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; nothing was stored, or see [`StoreError::Unavailable`].
    pub async fn publish_packages(
        &self,
        device: &DeviceId,
        packages: Vec<NewPackage>,
        now: Timestamp,
    ) -> Result<Published, StoreError> {
        on_backend!(self, backend => backend.publish_packages(device, packages, now).await)
    }

    /// What `device` has left at `now`.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store cannot be read.
    pub async fn count_packages(
        &self,
        device: &DeviceId,
        now: Timestamp,
    ) -> Result<PackageCount, StoreError> {
        on_backend!(self, backend => backend.count_packages(device, now).await)
    }

    /// Takes one package per device; `None` for a wrong right or an unknown account alike.
    ///
    /// Beyond the daily budgets ([`ClaimBudgets`], kept on disk) and from an empty pool the last resort is handed out, flagged. A device
    /// without any is left out. A repeat neither takes packages nor counts.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; no package was taken, or see [`StoreError::Unavailable`].
    pub async fn claim_packages(
        &self,
        claim: Claim,
        now: Timestamp,
    ) -> Result<Option<Vec<ClaimedPackage>>, StoreError> {
        on_backend!(self, backend => backend.claim_packages(claim, now).await)
    }
}
