//! Devices in SQLite: looking up, and revoking on the operator's word.

use commucat_proto::id::{AccountId, AccountKey, DeviceId, NoiseKey};
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::convert::{bytes, queue_id, text_id, time};
use super::writer::Tx;
use super::{Sqlite, queues};
use crate::StoreError;
use crate::store::devices::{Device, StoredList};

/// Columns that [`read_device`] takes.
const DEVICE: &str = "SELECT d.device, a.account, d.noise_key, d.not_before, d.not_after, q.queue
     FROM devices AS d JOIN accounts AS a ON a.id = d.account JOIN queues AS q ON q.id = d.queue";

impl Sqlite {
    pub(crate) async fn list(&self, account: &AccountId) -> Result<Option<StoredList>, StoreError> {
        let account = account.clone();
        self.read(move |connection| {
            let list = connection
                .prepare_cached(
                    "SELECT account_key, list_version, list FROM accounts WHERE account = ?1",
                )?
                .query_row([account.as_str()], |row| {
                    Ok(StoredList {
                        account_key: AccountKey::new(row.get(0)?),
                        version: row.get::<_, i64>(1)?.cast_unsigned(),
                        signed: bytes(row, 2)?,
                    })
                })
                .optional()?;
            Ok(list)
        })
        .await
    }

    pub(crate) async fn list_versions(
        &self,
        after: Option<&AccountId>,
        limit: usize,
    ) -> Result<Vec<(AccountId, u64)>, StoreError> {
        let after = after.map_or_else(String::new, |account| account.as_str().to_owned());
        self.read(move |connection| {
            let versions = connection
                .prepare_cached(
                    "SELECT account, list_version FROM accounts
                     WHERE account > ?1 ORDER BY account LIMIT ?2",
                )?
                .query_map(params![after, limit], |row| {
                    let version: i64 = row.get(1)?;
                    Ok((text_id(row, 0, AccountId::parse)?, version.cast_unsigned()))
                })?
                .collect::<Result<_, _>>()?;
            Ok(versions)
        })
        .await
    }

    pub(crate) async fn device_by_key(&self, key: &NoiseKey) -> Result<Option<Device>, StoreError> {
        let key = *key;
        self.read(move |connection| {
            let device = connection
                .prepare_cached(&format!(
                    "{DEVICE} WHERE d.noise_key = ?1 AND d.revoked = 0"
                ))?
                .query_row([key.as_bytes()], read_device)
                .optional()?;
            Ok(device)
        })
        .await
    }

    pub(crate) async fn device(&self, device: &DeviceId) -> Result<Option<Device>, StoreError> {
        let device = device.clone();
        self.read(move |connection| find(connection, &device)).await
    }

    pub(crate) async fn account_devices(
        &self,
        account: &AccountId,
    ) -> Result<Vec<Device>, StoreError> {
        let account = account.clone();
        self.read(move |connection| {
            let devices = connection
                .prepare_cached(&format!(
                    "{DEVICE} WHERE a.account = ?1 AND d.revoked = 0 ORDER BY d.id"
                ))?
                .query_map([account.as_str()], read_device)?
                .collect::<Result<_, _>>()?;
            Ok(devices)
        })
        .await
    }

    pub(crate) async fn devices(
        &self,
        after: Option<&DeviceId>,
        limit: usize,
    ) -> Result<Vec<Device>, StoreError> {
        let after = after.map_or_else(String::new, |device| device.as_str().to_owned());
        self.read(move |connection| {
            let devices = connection
                .prepare_cached(&format!(
                    "{DEVICE} WHERE d.device > ?1 AND d.revoked = 0 ORDER BY d.device LIMIT ?2"
                ))?
                .query_map(params![after, limit], read_device)?
                .collect::<Result<_, _>>()?;
            Ok(devices)
        })
        .await
    }

    pub(crate) async fn revoke_device(
        &self,
        device: &DeviceId,
    ) -> Result<Option<Device>, StoreError> {
        let device = device.clone();
        self.write(move |tx| revoke(tx, &device)).await
    }
}

fn find(connection: &Connection, device: &DeviceId) -> Result<Option<Device>, StoreError> {
    let found = connection
        .prepare_cached(&format!("{DEVICE} WHERE d.device = ?1 AND d.revoked = 0"))?
        .query_row([device.as_str()], read_device)
        .optional()?;
    Ok(found)
}

fn read_device(row: &Row<'_>) -> rusqlite::Result<Device> {
    Ok(Device {
        device: text_id(row, 0, DeviceId::parse)?,
        account: text_id(row, 1, AccountId::parse)?,
        noise_key: NoiseKey::new(row.get(2)?),
        not_before: time(row, 3)?,
        not_after: time(row, 4)?,
        queue: queue_id(row, 5)?,
    })
}

fn revoke(tx: &Tx<'_>, device: &DeviceId) -> Result<Option<Device>, StoreError> {
    let Some(found) = find(tx.connection, device)? else {
        return Ok(None);
    };
    let rows = tx.row(
        "UPDATE devices SET revoked = 1 WHERE device = ?1 RETURNING id, queue",
        [device.as_str()],
        |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)),
    )?;
    if let Some((device, queue)) = rows {
        tx.execute("DELETE FROM key_packages WHERE device = ?1", [device])?;
        tx.execute("DELETE FROM claimed_packages WHERE device = ?1", [device])?;
        queues::revoke(tx, queue)?;
    }
    Ok(Some(found))
}
