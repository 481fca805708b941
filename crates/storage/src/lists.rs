//! What a device list does to an account, whatever the database.

use commucat_proto::id::{DeviceId, NoiseKey, QueueId};

use crate::store::devices::DeviceList;

/// An account as far as its list is concerned, as a store's transaction found it.
pub(crate) struct Known {
    pub(crate) row: i64,
    pub(crate) version: u64,
    /// The signed list; empty where there is none yet.
    pub(crate) list: Vec<u8>,
    pub(crate) devices: Vec<KnownDevice>,
}

pub(crate) struct KnownDevice {
    pub(crate) row: i64,
    pub(crate) device: DeviceId,
    pub(crate) noise_key: NoiseKey,
    pub(crate) queue_row: i64,
    pub(crate) queue: QueueId,
    pub(crate) revoked: bool,
}

/// How a list stands to the one stored.
pub(crate) enum Standing {
    Newer,
    Same,
    Older,
    Equivocation,
}

impl Known {
    /// An account without devices and with a version below any.
    pub(crate) const fn opened(row: i64) -> Self {
        Self {
            row,
            version: 0,
            list: Vec::new(),
            devices: Vec::new(),
        }
    }

    pub(crate) fn standing(&self, list: &DeviceList) -> Standing {
        match list.version.cmp(&self.version) {
            std::cmp::Ordering::Greater => Standing::Newer,
            std::cmp::Ordering::Less => Standing::Older,
            std::cmp::Ordering::Equal if self.list == list.signed => Standing::Same,
            std::cmp::Ordering::Equal => Standing::Equivocation,
        }
    }

    pub(crate) fn device(&self, id: &DeviceId) -> Option<&KnownDevice> {
        self.devices.iter().find(|known| known.device == *id)
    }

    pub(crate) fn has_revoked(&self, id: &DeviceId) -> bool {
        self.device(id).is_some_and(|device| device.revoked)
    }

    /// Whether a device may put a list: one of the old list or of the new one (CCP-1 section 6).
    pub(crate) fn may_put(&self, list: &DeviceList, by: &DeviceId) -> bool {
        let is_in_new = list.devices.iter().any(|listed| listed.device == *by);
        match self.device(by) {
            Some(old) => !old.revoked,
            None => is_in_new,
        }
    }

    /// Devices that a list does not name any more.
    pub(crate) fn not_in<'a>(
        &'a self,
        list: &'a DeviceList,
    ) -> impl Iterator<Item = &'a KnownDevice> {
        let stays = |old: &KnownDevice| list.devices.iter().any(|one| one.device == old.device);
        self.devices.iter().filter(move |old| !stays(old))
    }
}
