//! Registration and device lists in SQLite.

use commucat_proto::id::{AccountId, DeviceId, NoiseKey};
use commucat_proto::time::Timestamp;
use rusqlite::params;

use super::convert::{millis, queue_id, text_id};
use super::writer::Tx;
use super::{Sqlite, invites, queues};
use crate::StoreError;
use crate::lists::{Known, KnownDevice, Standing};
use crate::store::devices::{
    Admission, DeviceList, ListChange, ListPut, ListedDevice, Registration,
};

impl Sqlite {
    pub(crate) async fn register(
        &self,
        list: DeviceList,
        device: &DeviceId,
        admission: Admission,
        now: Timestamp,
    ) -> Result<Registration, StoreError> {
        let device = device.clone();
        self.write(move |tx| register(tx, &list, &device, admission, now))
            .await
    }

    pub(crate) async fn put_list(
        &self,
        list: DeviceList,
        by: &DeviceId,
    ) -> Result<ListPut, StoreError> {
        let by = by.clone();
        self.write(move |tx| put(tx, &list, &by)).await
    }
}

fn register(
    tx: &Tx<'_>,
    list: &DeviceList,
    device: &DeviceId,
    admission: Admission,
    now: Timestamp,
) -> Result<Registration, StoreError> {
    let account = AccountId::of_key(&list.account_key);
    let known = load(tx, &account)?;
    let is_revoked = known
        .as_ref()
        .is_some_and(|known| known.has_revoked(device));
    if is_revoked || !list.devices.iter().any(|listed| listed.device == *device) {
        return Ok(Registration::NotListed);
    }
    if is_taken(tx, &account, list)? {
        return Ok(Registration::Taken);
    }
    let Some(known) = known else {
        let invited = match admission {
            Admission::Open => true,
            Admission::Invite(Some(hash)) => invites::consume(tx, &hash, now)?,
            Admission::Invite(None) | Admission::Closed => false,
        };
        if !invited {
            return Ok(Registration::NotInvited);
        }
        let known = open(tx, &account, list)?;
        let change = apply(tx, &known, list)?;
        return Ok(Registration::Registered(ListChange {
            opened: true,
            ..change
        }));
    };
    Ok(match known.standing(list) {
        Standing::Newer => Registration::Registered(apply(tx, &known, list)?),
        Standing::Same => Registration::Unchanged,
        Standing::Older => Registration::Outdated,
        Standing::Equivocation => Registration::Equivocation,
    })
}

fn put(tx: &Tx<'_>, list: &DeviceList, by: &DeviceId) -> Result<ListPut, StoreError> {
    let account = AccountId::of_key(&list.account_key);
    let Some(known) = load(tx, &account)? else {
        return Ok(ListPut::Forbidden);
    };
    if !known.may_put(list, by) {
        return Ok(ListPut::Forbidden);
    }
    if is_taken(tx, &account, list)? {
        return Ok(ListPut::Taken);
    }
    Ok(match known.standing(list) {
        Standing::Newer => ListPut::Stored(apply(tx, &known, list)?),
        Standing::Same => ListPut::Unchanged,
        Standing::Older => ListPut::Outdated,
        Standing::Equivocation => ListPut::Equivocation,
    })
}

fn load(tx: &Tx<'_>, account: &AccountId) -> Result<Option<Known>, StoreError> {
    let found = tx.row(
        "SELECT id, list_version, list FROM accounts WHERE account = ?1",
        [account.as_str()],
        |row| {
            Ok(Known {
                version: row.get::<_, i64>(1)?.cast_unsigned(),
                list: row.get(2)?,
                ..Known::opened(row.get(0)?)
            })
        },
    )?;
    let Some(mut known) = found else {
        return Ok(None);
    };
    known.devices = tx
        .prepare(
            "SELECT d.id, d.device, d.noise_key, d.queue, q.queue, d.revoked
             FROM devices AS d JOIN queues AS q ON q.id = d.queue WHERE d.account = ?1",
        )?
        .query_map([known.row], |row| {
            Ok(KnownDevice {
                row: row.get(0)?,
                device: text_id(row, 1, DeviceId::parse)?,
                noise_key: NoiseKey::new(row.get(2)?),
                queue_row: row.get(3)?,
                queue: queue_id(row, 4)?,
                revoked: row.get(5)?,
            })
        })?
        .collect::<Result<_, _>>()?;
    Ok(Some(known))
}

/// Whether a device id or key of the list belongs to another account.
fn is_taken(tx: &Tx<'_>, account: &AccountId, list: &DeviceList) -> Result<bool, StoreError> {
    for listed in &list.devices {
        let other = tx.row(
            "SELECT 1 FROM devices AS d JOIN accounts AS a ON a.id = d.account
             WHERE (d.device = ?1 OR d.noise_key = ?2) AND a.account <> ?3",
            params![
                listed.device.as_str(),
                listed.noise_key.as_bytes(),
                account.as_str()
            ],
            |_| Ok(()),
        )?;
        if other.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Opens an account without devices and with a version below any.
fn open(tx: &Tx<'_>, account: &AccountId, list: &DeviceList) -> Result<Known, StoreError> {
    tx.execute(
        "INSERT INTO accounts (account, account_key, list_version, list) VALUES (?1, ?2, 0, x'')",
        params![account.as_str(), list.account_key.as_bytes()],
    )?;
    Ok(Known::opened(tx.connection.last_insert_rowid()))
}

/// Makes the account what its list says.
fn apply(tx: &Tx<'_>, known: &Known, list: &DeviceList) -> Result<ListChange, StoreError> {
    let mut change = ListChange::default();
    for old in known.not_in(list) {
        queues::revoke(tx, old.queue_row)?;
        tx.execute("DELETE FROM devices WHERE id = ?1", [old.row])?;
        if !old.revoked {
            change.removed.push((old.device.clone(), old.queue));
        }
    }
    if list.devices.is_empty() {
        tx.execute("DELETE FROM accounts WHERE id = ?1", [known.row])?;
        change.deleted = true;
        return Ok(change);
    }
    tx.execute(
        "UPDATE accounts SET list_version = ?2, list = ?3 WHERE id = ?1",
        params![known.row, list.version.cast_signed(), &list.signed[..]],
    )?;
    let (kept, added): (Vec<_>, Vec<_>) = list
        .devices
        .iter()
        .partition(|listed| known.device(&listed.device).is_some());
    renew(tx, known, &kept, &mut change)?;
    for listed in added {
        let (queue, _) = queues::create(tx)?;
        tx.execute(
            "INSERT INTO devices (device, account, noise_key, not_before, not_after, queue)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            params![
                listed.device.as_str(),
                known.row,
                listed.noise_key.as_bytes(),
                millis(listed.not_before),
                millis(listed.not_after),
                queue
            ],
        )?;
        change.added.push(listed.device.clone());
    }
    Ok(change)
}

/// Takes over the certificates of devices that stay.
fn renew(
    tx: &Tx<'_>,
    known: &Known,
    kept: &[&ListedDevice],
    change: &mut ListChange,
) -> Result<(), StoreError> {
    let pairs: Vec<(&ListedDevice, &KnownDevice)> = kept
        .iter()
        .filter_map(|listed| known.device(&listed.device).map(|old| (*listed, old)))
        .collect();
    // Two devices may swap their keys, which are unique: all old ones go first.
    for (listed, old) in &pairs {
        if listed.noise_key != old.noise_key {
            tx.execute(
                "UPDATE devices SET noise_key = randomblob(32) WHERE id = ?1",
                [old.row],
            )?;
            change.rekeyed.push(listed.device.clone());
        }
    }
    for (listed, old) in pairs {
        tx.execute(
            "UPDATE devices SET noise_key = ?2, not_before = ?3, not_after = ?4 WHERE id = ?1",
            params![
                old.row,
                listed.noise_key.as_bytes(),
                millis(listed.not_before),
                millis(listed.not_after)
            ],
        )?;
    }
    Ok(())
}
