//! What a ledger says of the keys in force, to be compared with what is in force.

use std::collections::{HashMap, HashSet};

use crate::entry::{AccountMark, Change, DeviceMark};

/// Lists that were recorded, and devices that were registered and not revoked since.
#[derive(Debug, Default)]
pub struct Known {
    lists: HashSet<(AccountMark, u64)>,
    devices: HashMap<DeviceMark, AccountMark>,
}

impl Known {
    /// Follows one entry.
    pub(crate) fn note(&mut self, change: &Change) {
        match change {
            Change::DeviceRegistered {
                account, device, ..
            } => {
                self.devices.insert(*device, *account);
            }
            Change::ListChanged {
                account, version, ..
            }
            | Change::AccountDeleted {
                account, version, ..
            } => {
                self.lists.insert((*account, *version));
            }
            Change::DeviceRevoked { device, .. } => {
                self.devices.remove(device);
            }
            Change::Equivocation { .. } | Change::ServerKeysChanged { .. } => {}
        }
    }

    /// Whether this version of an account's list was recorded.
    #[must_use]
    pub fn has_list(&self, account: AccountMark, version: u64) -> bool {
        self.lists.contains(&(account, version))
    }

    /// Ticks off a device that is in force; whether its registration was recorded.
    pub fn tick_off(&mut self, device: DeviceMark) -> bool {
        self.devices.remove(&device).is_some()
    }

    /// Devices that were not ticked off: their revocation was not recorded.
    pub fn into_rest(self) -> impl Iterator<Item = (AccountMark, DeviceMark)> {
        self.devices
            .into_iter()
            .map(|(device, account)| (account, device))
    }
}
