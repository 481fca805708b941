//! Key packages in SQLite: publishing and counting.

use commucat_proto::id::DeviceId;
use commucat_proto::time::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, params};

use super::convert::millis;
use super::writer::Tx;
use super::{SWEEP_ROWS, Sqlite};
use crate::StoreError;
use crate::store::Store;
use crate::store::key_packages::{NewPackage, PackageCount, Published};

impl Sqlite {
    pub(crate) async fn publish_packages(
        &self,
        device: &DeviceId,
        packages: Vec<NewPackage>,
        now: Timestamp,
    ) -> Result<Published, StoreError> {
        let device = device.clone();
        self.write(move |tx| publish(tx, &device, &packages, now))
            .await
    }

    pub(crate) async fn count_packages(
        &self,
        device: &DeviceId,
        now: Timestamp,
    ) -> Result<PackageCount, StoreError> {
        let device = device.clone();
        self.read(move |connection| match device_row(connection, &device)? {
            Some(row) => count(connection, row, now),
            None => Ok(PackageCount::default()),
        })
        .await
    }
}

fn device_row(connection: &Connection, device: &DeviceId) -> Result<Option<i64>, StoreError> {
    let row = connection
        .prepare_cached("SELECT id FROM devices WHERE device = ?1 AND revoked = 0")?
        .query_row([device.as_str()], |row| row.get(0))
        .optional()?;
    Ok(row)
}

fn count(connection: &Connection, device: i64, now: Timestamp) -> Result<PackageCount, StoreError> {
    let count = connection
        .prepare_cached(
            "SELECT coalesce(sum(last_resort = 0), 0), coalesce(sum(last_resort = 1), 0)
             FROM key_packages WHERE device = ?1 AND package IS NOT NULL AND not_after > ?2",
        )?
        .query_row([device, millis(now)], |row| {
            Ok(PackageCount {
                single_use: row.get(0)?,
                last_resort: row.get(1)?,
            })
        })?;
    Ok(count)
}

fn publish(
    tx: &Tx<'_>,
    device: &DeviceId,
    packages: &[NewPackage],
    now: Timestamp,
) -> Result<Published, StoreError> {
    let Some(device) = device_row(tx.connection, device)? else {
        return Ok(Published::UnknownDevice);
    };
    if packages
        .iter()
        .filter(|package| package.last_resort)
        .count()
        > 1
    {
        return Ok(Published::TooMany);
    }
    let hashes: Vec<blake3::Hash> = packages
        .iter()
        .map(|package| blake3::hash(&package.package))
        .collect();
    let mut single_use = count(tx.connection, device, now)?.single_use;
    let mut seen = std::collections::HashSet::new();
    for (package, hash) in packages.iter().zip(&hashes) {
        let is_new = !is_known(tx, device, hash)? && seen.insert(*hash.as_bytes());
        single_use += u64::from(is_new && !package.last_resort);
    }
    if single_use > u64::try_from(Store::KEY_PACKAGES_MAX).unwrap_or(u64::MAX) {
        return Ok(Published::TooMany);
    }
    for (package, hash) in packages.iter().zip(&hashes) {
        if is_known(tx, device, hash)? {
            continue;
        }
        if package.last_resort {
            tx.execute(
                "DELETE FROM key_packages WHERE device = ?1 AND last_resort = 1",
                [device],
            )?;
        }
        tx.execute(
            "INSERT INTO key_packages (device, hash, last_resort, not_after, package)
             VALUES (?1, ?2, ?3, ?4, ?5)",
            params![
                device,
                hash.as_bytes(),
                package.last_resort,
                millis(package.not_after),
                &package.package[..]
            ],
        )?;
    }
    Ok(Published::Stored)
}

/// Whether this very package is here or was handed out.
fn is_known(tx: &Tx<'_>, device: i64, hash: &blake3::Hash) -> Result<bool, StoreError> {
    let found = tx.row(
        "SELECT 1 FROM key_packages WHERE device = ?1 AND hash = ?2",
        params![device, hash.as_bytes()],
        |_| Ok(()),
    )?;
    Ok(found.is_some())
}

/// Deletes some packages that have ended, handed out or not; `true` if there may be more.
pub(super) fn sweep(tx: &Tx<'_>, now: Timestamp) -> Result<bool, StoreError> {
    let deleted = tx.execute(
        "DELETE FROM key_packages WHERE id IN
             (SELECT id FROM key_packages WHERE not_after <= ?1 LIMIT ?2)",
        params![millis(now), SWEEP_ROWS],
    )?;
    Ok(deleted == SWEEP_ROWS)
}
