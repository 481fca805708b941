//! Devices in PostgreSQL: looking up, and revoking on the operator's word.

use commucat_proto::id::{AccountId, AccountKey, DeviceId, NoiseKey};
use tokio_postgres::Row;

use super::convert::{bytes, fixed, queue_id, text_id, time};
use super::fault::Fault;
use super::tx::Tx;
use super::{Postgres, queues, transact};
use crate::StoreError;
use crate::store::devices::{Device, StoredList};

/// A query with the columns that [`read`] takes.
macro_rules! device_query {
    ($condition:literal) => {
        concat!(
            "SELECT d.device, a.account, d.noise_key, d.not_before, d.not_after, q.queue
             FROM devices AS d JOIN accounts AS a ON a.id = d.account
             JOIN queues AS q ON q.id = d.queue WHERE NOT d.revoked AND ",
            $condition
        )
    };
}

const BY_ID: &str = device_query!("d.device = $1");

impl Postgres {
    pub(crate) async fn list(&self, account: &AccountId) -> Result<Option<StoredList>, StoreError> {
        let found = self
            .row(
                "SELECT account_key, list_version, list FROM accounts WHERE account = $1",
                &[&account.as_str()],
            )
            .await?;
        let read = |row: &Row| -> Result<StoredList, Fault> {
            Ok(StoredList {
                account_key: AccountKey::new(fixed(row, 0)?),
                version: row.try_get::<_, i64>(1)?.cast_unsigned(),
                signed: bytes(row, 2)?,
            })
        };
        Ok(found.as_ref().map(read).transpose()?)
    }

    pub(crate) async fn list_versions(
        &self,
        after: Option<&AccountId>,
        limit: usize,
    ) -> Result<Vec<(AccountId, u64)>, StoreError> {
        let after = after.map_or("", AccountId::as_str);
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        // The same order on every database, whatever its collation.
        let sql = "SELECT account, list_version FROM accounts
            WHERE account COLLATE \"C\" > $1 ORDER BY account COLLATE \"C\" LIMIT $2";
        let found = self.query(sql, &[&after, &limit]).await?;
        let mut versions = Vec::with_capacity(found.len());
        for row in &found {
            let account = text_id(row, 0, AccountId::parse)?;
            let version: i64 = row.try_get(1).map_err(Fault::from)?;
            versions.push((account, version.cast_unsigned()));
        }
        Ok(versions)
    }

    pub(crate) async fn device_by_key(&self, key: &NoiseKey) -> Result<Option<Device>, StoreError> {
        let key = &key.as_bytes()[..];
        let found = self.row(device_query!("d.noise_key = $1"), &[&key]).await?;
        Ok(found.as_ref().map(read).transpose()?)
    }

    pub(crate) async fn device(&self, device: &DeviceId) -> Result<Option<Device>, StoreError> {
        let found = self.row(BY_ID, &[&device.as_str()]).await?;
        Ok(found.as_ref().map(read).transpose()?)
    }

    pub(crate) async fn account_devices(
        &self,
        account: &AccountId,
    ) -> Result<Vec<Device>, StoreError> {
        let sql = device_query!("a.account = $1 ORDER BY d.id");
        let found = self.query(sql, &[&account.as_str()]).await?;
        let devices: Result<_, Fault> = found.iter().map(read).collect();
        Ok(devices?)
    }

    pub(crate) async fn devices(
        &self,
        after: Option<&DeviceId>,
        limit: usize,
    ) -> Result<Vec<Device>, StoreError> {
        let after = after.map_or("", DeviceId::as_str);
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let sql = device_query!("d.device > $1 ORDER BY d.device LIMIT $2");
        let found = self.query(sql, &[&after, &limit]).await?;
        let devices: Result<_, Fault> = found.iter().map(read).collect();
        Ok(devices?)
    }

    pub(crate) async fn revoke_device(
        &self,
        device: &DeviceId,
    ) -> Result<Option<Device>, StoreError> {
        transact!(self, tx => revoke(&tx, device))
    }
}

fn read(row: &Row) -> Result<Device, Fault> {
    Ok(Device {
        device: text_id(row, 0, DeviceId::parse)?,
        account: text_id(row, 1, AccountId::parse)?,
        noise_key: NoiseKey::new(fixed(row, 2)?),
        not_before: time(row, 3)?,
        not_after: time(row, 4)?,
        queue: queue_id(row, 5)?,
    })
}

async fn revoke(tx: &Tx, device: &DeviceId) -> Result<Option<Device>, Fault> {
    let found = tx.row(BY_ID, &[&device.as_str()]).await?;
    let Some(found) = found.as_ref().map(read).transpose()? else {
        return Ok(None);
    };
    let rows = tx
        .change(
            "UPDATE devices SET revoked = true WHERE device = $1 AND NOT revoked
             RETURNING id, queue",
            &[&device.as_str()],
        )
        .await?;
    // Gone between the two: somebody else has revoked it.
    let Some(row) = rows.first() else {
        return Ok(None);
    };
    let (device, queue): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
    tx.execute("DELETE FROM key_packages WHERE device = $1", &[&device])
        .await?;
    tx.execute("DELETE FROM claimed_packages WHERE device = $1", &[&device])
        .await?;
    queues::revoke(tx, &[queue]).await?;
    Ok(Some(found))
}
