//! Key packages in PostgreSQL: publishing and counting.

use std::collections::BTreeMap;

use commucat_proto::id::DeviceId;
use commucat_proto::time::Timestamp;

use super::convert::{fixed, millis, number};
use super::fault::Fault;
use super::tx::Tx;
use super::{Postgres, SWEEP_ROWS, transact};
use crate::StoreError;
use crate::store::Store;
use crate::store::key_packages::{NewPackage, PackageCount, Published};

const COUNT: &str = "SELECT count(*) FILTER (WHERE NOT k.last_resort),
        count(*) FILTER (WHERE k.last_resort)
    FROM key_packages AS k JOIN devices AS d ON d.id = k.device
    WHERE d.device = $1 AND NOT d.revoked AND k.package IS NOT NULL AND k.not_after > $2";

impl Postgres {
    pub(crate) async fn publish_packages(
        &self,
        device: &DeviceId,
        packages: Vec<NewPackage>,
        now: Timestamp,
    ) -> Result<Published, StoreError> {
        transact!(self, tx => publish(&tx, device, &packages, now))
    }

    pub(crate) async fn count_packages(
        &self,
        device: &DeviceId,
        now: Timestamp,
    ) -> Result<PackageCount, StoreError> {
        let found = self.row(COUNT, &[&device.as_str(), &millis(now)]).await?;
        let Some(row) = found else {
            return Ok(PackageCount::default());
        };
        Ok(PackageCount {
            single_use: number(&row, 0)?,
            last_resort: number(&row, 1)?,
        })
    }
}

async fn publish(
    tx: &Tx,
    device: &DeviceId,
    packages: &[NewPackage],
    now: Timestamp,
) -> Result<Published, Fault> {
    let name = device.as_str();
    let found = tx
        .row(
            "SELECT id FROM devices WHERE device = $1 AND NOT revoked FOR UPDATE",
            &[&name],
        )
        .await?;
    let Some(row) = found else {
        return Ok(Published::UnknownDevice);
    };
    let device: i64 = row.try_get(0)?;
    let last_resorts = packages.iter().filter(|package| package.last_resort);
    if last_resorts.count() > 1 {
        return Ok(Published::TooMany);
    }
    // Each once, in the order of publication.
    let mut new: BTreeMap<usize, (Vec<u8>, &NewPackage)> = BTreeMap::new();
    let mut numbers: BTreeMap<[u8; 32], usize> = BTreeMap::new();
    for (number, package) in packages.iter().enumerate() {
        let hash = *blake3::hash(&package.package).as_bytes();
        if let std::collections::btree_map::Entry::Vacant(vacant) = numbers.entry(hash) {
            vacant.insert(number);
            new.insert(number, (hash.to_vec(), package));
        }
    }
    let hashes: Vec<&[u8]> = new.values().map(|(hash, _)| hash.as_slice()).collect();
    let known = tx
        .query(
            "SELECT hash FROM key_packages WHERE device = $1 AND hash = ANY ($2::bytea[])",
            &[&device, &hashes],
        )
        .await?;
    for row in &known {
        if let Some(number) = numbers.get(&fixed::<32>(row, 0)?) {
            new.remove(number);
        }
    }
    let count = tx.one(COUNT, &[&name, &millis(now)]).await?;
    let added = new.values().filter(|(_, package)| !package.last_resort);
    let single_use = usize::try_from(number(&count, 0)?).unwrap_or(usize::MAX);
    if single_use.saturating_add(added.count()) > Store::KEY_PACKAGES_MAX {
        return Ok(Published::TooMany);
    }
    insert(tx, device, new.into_values().collect()).await?;
    Ok(Published::Stored)
}

async fn insert(tx: &Tx, device: i64, new: Vec<(Vec<u8>, &NewPackage)>) -> Result<(), Fault> {
    if new.iter().any(|(_, package)| package.last_resort) {
        tx.execute(
            "DELETE FROM key_packages WHERE device = $1 AND last_resort",
            &[&device],
        )
        .await?;
    }
    let hashes: Vec<&[u8]> = new.iter().map(|(hash, _)| hash.as_slice()).collect();
    let kinds: Vec<bool> = new.iter().map(|(_, package)| package.last_resort).collect();
    let ends: Vec<i64> = new.iter().map(|(_, one)| millis(one.not_after)).collect();
    let raw: Vec<&[u8]> = new.iter().map(|(_, one)| &one.package[..]).collect();
    tx.execute(
        "INSERT INTO key_packages (device, hash, last_resort, not_after, package)
         SELECT $1, * FROM unnest($2::bytea[], $3::boolean[], $4::bigint[], $5::bytea[])",
        &[&device, &hashes, &kinds, &ends, &raw],
    )
    .await?;
    Ok(())
}

/// Deletes some packages that have ended, handed out or not; `true` if there may be more.
pub(super) async fn sweep(tx: &Tx, now: Timestamp) -> Result<bool, Fault> {
    let deleted = tx
        .execute(
            "DELETE FROM key_packages WHERE id = ANY (ARRAY(
             SELECT id FROM key_packages WHERE not_after <= $1 LIMIT $2))",
            &[&millis(now), &SWEEP_ROWS],
        )
        .await?;
    Ok(i64::try_from(deleted).is_ok_and(|rows| rows == SWEEP_ROWS))
}
