//! Accounts, their signed device lists, and devices. Signatures were verified by the caller.

use bytes::Bytes;
use commucat_proto::id::{AccountId, AccountKey, DeviceId, NoiseKey, QueueId, TokenHash};
use commucat_proto::time::Timestamp;

use super::{Store, on_backend};
use crate::StoreError;

/// A verified device list (CCP-1 section 6).
#[derive(Clone, Debug)]
pub struct DeviceList {
    /// The key that signed it; it names the account.
    pub account_key: AccountKey,
    /// Higher wins.
    pub version: u64,
    /// The list as signed, byte for byte.
    pub signed: Bytes,
    /// The device of each certificate, each id and key once. None: the account is deleted.
    pub devices: Vec<ListedDevice>,
}

/// One certificate of a list.
#[derive(Clone, Debug)]
pub struct ListedDevice {
    /// The device.
    pub device: DeviceId,
    /// The Noise key that it must prove.
    pub noise_key: NoiseKey,
    /// When the certificate begins to hold.
    pub not_before: Timestamp,
    /// When it ends.
    pub not_after: Timestamp,
}

/// A registered device.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Device {
    /// The device.
    pub device: DeviceId,
    /// Its account.
    pub account: AccountId,
    /// The Noise key that it must prove.
    pub noise_key: NoiseKey,
    /// When its certificate begins to hold.
    pub not_before: Timestamp,
    /// When it ends.
    pub not_after: Timestamp,
    /// Its queue.
    pub queue: QueueId,
}

/// An account's list as stored.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct StoredList {
    /// The key that signed it.
    pub account_key: AccountKey,
    /// Its version.
    pub version: u64,
    /// The list as signed.
    pub signed: Bytes,
}

/// What an unknown account needs. A known account needs nothing but a higher list version.
#[derive(Clone, Copy, Debug)]
pub enum Admission {
    /// Registration is open.
    Open,
    /// A live invite; `None` if the device brought no token.
    Invite(Option<TokenHash>),
    /// No new accounts.
    Closed,
}

/// What a new list changed.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ListChange {
    /// Devices that are new.
    pub added: Vec<DeviceId>,
    /// Devices that left, with the queues that are revoked now.
    pub removed: Vec<(DeviceId, QueueId)>,
    /// Devices whose Noise key changed.
    pub rekeyed: Vec<DeviceId>,
    /// Whether the account was opened by this list.
    pub opened: bool,
    /// Whether the account was deleted by this list.
    pub deleted: bool,
}

/// What became of a registration.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Registration {
    /// The account, its list and its devices with their queues are stored.
    Registered(ListChange),
    /// This very list is stored already and names the device.
    Unchanged,
    /// Unknown account, and the invite is missing, unknown, used up or expired.
    NotInvited,
    /// Known account, and the version is lower than the stored one.
    Outdated,
    /// Known account, same version, other bytes: for the ledger.
    Equivocation,
    /// The list does not name the device, or the operator has revoked it.
    NotListed,
    /// The list names a device id or Noise key that belongs to another account.
    Taken,
}

/// What became of a list put into the directory.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ListPut {
    /// It is stored; devices that left have lost queue and key packages.
    Stored(ListChange),
    /// This very list is stored already.
    Unchanged,
    /// The version is lower than the stored one.
    Outdated,
    /// Same version, other bytes: for the ledger.
    Equivocation,
    /// The putting device is neither in the stored list nor in the new one, or there is no such
    /// account.
    Forbidden,
    /// The list names a device id or Noise key that belongs to another account.
    Taken,
}

impl Store {
    /// Registers `device` by a list that names it, in one transaction: use of the invite, account,
    /// list, devices, queues (CCP-1 section 6).
    ///
    /// # Errors
    ///
    /// [`StoreError`]; nothing was changed, or see [`StoreError::Unavailable`].
    pub async fn register(
        &self,
        list: DeviceList,
        device: &DeviceId,
        admission: Admission,
        now: Timestamp,
    ) -> Result<Registration, StoreError> {
        on_backend!(self, backend => backend.register(list, device, admission, now).await)
    }

    /// Puts a list of a known account on behalf of `by`, in one transaction with all that follows
    /// from it. An empty list deletes the account; of it only the ids of its queues are kept.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; nothing was changed, or see [`StoreError::Unavailable`].
    pub async fn put_list(&self, list: DeviceList, by: &DeviceId) -> Result<ListPut, StoreError> {
        on_backend!(self, backend => backend.put_list(list, by).await)
    }

    /// The list of `account`.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store cannot be read.
    pub async fn list(&self, account: &AccountId) -> Result<Option<StoredList>, StoreError> {
        on_backend!(self, backend => backend.list(account).await)
    }

    /// At most `limit` accounts whose id sorts after `after`, ascending, with the versions of their
    /// lists.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store cannot be read.
    pub async fn list_versions(
        &self,
        after: Option<&AccountId>,
        limit: usize,
    ) -> Result<Vec<(AccountId, u64)>, StoreError> {
        on_backend!(self, backend => backend.list_versions(after, limit).await)
    }

    /// The device that proves `key`, unless it is revoked.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store cannot be read.
    pub async fn device_by_key(&self, key: &NoiseKey) -> Result<Option<Device>, StoreError> {
        on_backend!(self, backend => backend.device_by_key(key).await)
    }

    /// The device with this id, unless it is revoked.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store cannot be read.
    pub async fn device(&self, device: &DeviceId) -> Result<Option<Device>, StoreError> {
        on_backend!(self, backend => backend.device(device).await)
    }

    /// The devices of `account`, in the order in which they were registered.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store cannot be read.
    pub async fn account_devices(&self, account: &AccountId) -> Result<Vec<Device>, StoreError> {
        on_backend!(self, backend => backend.account_devices(account).await)
    }

    /// At most `limit` devices whose id sorts after `after`, ascending, for listings.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store cannot be read.
    pub async fn devices(
        &self,
        after: Option<&DeviceId>,
        limit: usize,
    ) -> Result<Vec<Device>, StoreError> {
        on_backend!(self, backend => backend.devices(after, limit).await)
    }

    /// Revokes a device on the operator's word; returns it as it was, or `None` if there is none.
    ///
    /// It loses queue and key packages and stays shut out while its account lists it. (Only the
    /// account itself can take it off its list.)
    ///
    /// # Errors
    ///
    /// [`StoreError`]; nothing was changed, or see [`StoreError::Unavailable`].
    pub async fn revoke_device(&self, device: &DeviceId) -> Result<Option<Device>, StoreError> {
        on_backend!(self, backend => backend.revoke_device(device).await)
    }
}
