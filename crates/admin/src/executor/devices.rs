//! Devices: listed, shown, shut out.

use commucat_ledger::{AccountMark, Change, DeviceMark};
use commucat_proto::id::DeviceId;
use commucat_proto::time::Timestamp;

use super::{ExecuteError, Executor, Live, PAGE};
use crate::response::{Device, DeviceDetails, Devices, Hidden, millis};

impl<L: Live> Executor<L> {
    pub(super) async fn list_devices(
        &self,
        after: Option<&Hidden>,
    ) -> Result<Devices, ExecuteError> {
        let after = after.map(parse).transpose()?;
        // One more than is shown, to know whether there are more.
        let mut devices = self.site.store.devices(after.as_ref(), PAGE + 1).await?;
        let more = devices.len() > PAGE;
        devices.truncate(PAGE);
        Ok(Devices {
            devices: devices.iter().map(shown).collect(),
            more,
        })
    }

    pub(super) async fn show_device(
        &self,
        device: &Hidden,
        now: Timestamp,
    ) -> Result<DeviceDetails, ExecuteError> {
        let id = parse(device)?;
        let device = self
            .site
            .store
            .device(&id)
            .await?
            .ok_or(ExecuteError::NoDevice)?;
        let queue = self
            .site
            .store
            .queue_state(&device.queue)
            .await?
            .unwrap_or_default();
        let packages = self.site.store.count_packages(&id, now).await?;
        Ok(DeviceDetails {
            device: shown(&device),
            queue_entries: queue.entries,
            queue_bytes: queue.bytes,
            key_packages: packages.single_use,
            last_resort: packages.last_resort > 0,
        })
    }

    pub(super) async fn revoke_device(
        &self,
        device: &Hidden,
        now: Timestamp,
    ) -> Result<Device, ExecuteError> {
        let id = parse(device)?;
        let device = self
            .site
            .store
            .revoke_device(&id)
            .await?
            .ok_or(ExecuteError::NoDevice)?;
        // Before the ledger, which may keep us waiting.
        self.live.device_revoked(&device);
        let change = Change::DeviceRevoked {
            account: AccountMark::of(&device.account),
            device: DeviceMark::of(&device.account, &device.device),
            version: None,
        };
        self.site.ledger.record(now, change).await?;
        Ok(shown(&device))
    }
}

fn parse(device: &Hidden) -> Result<DeviceId, ExecuteError> {
    DeviceId::parse(device.as_str())
        .map_err(|_| ExecuteError::Invalid("a device id has 1 to 64 printable characters"))
}

fn shown(device: &commucat_storage::Device) -> Device {
    Device {
        device: Hidden::new(device.device.as_str()),
        account: Hidden::new(device.account.as_str()),
        not_before_ms: millis(device.not_before),
        not_after_ms: millis(device.not_after),
    }
}
