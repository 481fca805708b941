//! Registration and device lists in PostgreSQL.

use commucat_proto::id::{AccountId, DeviceId, NoiseKey};
use commucat_proto::time::Timestamp;
use tokio_postgres::Row;

use super::convert::{fixed, millis, queue_id, random_id, text_id};
use super::fault::Fault;
use super::tx::Tx;
use super::{Postgres, invites, queues, transact};
use crate::StoreError;
use crate::lists::{Known, KnownDevice, Standing};
use crate::store::devices::{
    Admission, DeviceList, ListChange, ListPut, ListedDevice, Registration,
};

impl Postgres {
    pub(crate) async fn register(
        &self,
        list: DeviceList,
        device: &DeviceId,
        admission: Admission,
        now: Timestamp,
    ) -> Result<Registration, StoreError> {
        transact!(self, tx => register(&tx, &list, device, admission, now))
    }

    pub(crate) async fn put_list(
        &self,
        list: DeviceList,
        by: &DeviceId,
    ) -> Result<ListPut, StoreError> {
        transact!(self, tx => put(&tx, &list, by))
    }
}

async fn register(
    tx: &Tx,
    list: &DeviceList,
    device: &DeviceId,
    admission: Admission,
    now: Timestamp,
) -> Result<Registration, Fault> {
    let account = AccountId::of_key(&list.account_key);
    let known = load(tx, &account).await?;
    let is_revoked = known
        .as_ref()
        .is_some_and(|known| known.has_revoked(device));
    if is_revoked || !list.devices.iter().any(|listed| listed.device == *device) {
        return Ok(Registration::NotListed);
    }
    if is_taken(tx, &account, list).await? {
        return Ok(Registration::Taken);
    }
    let Some(known) = known else {
        let invited = match admission {
            Admission::Open => true,
            Admission::Invite(Some(hash)) => invites::consume(tx, &hash, now).await?,
            Admission::Invite(None) | Admission::Closed => false,
        };
        if !invited {
            return Ok(Registration::NotInvited);
        }
        let known = open(tx, &account, list).await?;
        let change = apply(tx, &known, list).await?;
        return Ok(Registration::Registered(ListChange {
            opened: true,
            ..change
        }));
    };
    Ok(match known.standing(list) {
        Standing::Newer => Registration::Registered(apply(tx, &known, list).await?),
        Standing::Same => Registration::Unchanged,
        Standing::Older => Registration::Outdated,
        Standing::Equivocation => Registration::Equivocation,
    })
}

async fn put(tx: &Tx, list: &DeviceList, by: &DeviceId) -> Result<ListPut, Fault> {
    let account = AccountId::of_key(&list.account_key);
    let Some(known) = load(tx, &account).await? else {
        return Ok(ListPut::Forbidden);
    };
    if !known.may_put(list, by) {
        return Ok(ListPut::Forbidden);
    }
    if is_taken(tx, &account, list).await? {
        return Ok(ListPut::Taken);
    }
    Ok(match known.standing(list) {
        Standing::Newer => ListPut::Stored(apply(tx, &known, list).await?),
        Standing::Same => ListPut::Unchanged,
        Standing::Older => ListPut::Outdated,
        Standing::Equivocation => ListPut::Equivocation,
    })
}

async fn load(tx: &Tx, account: &AccountId) -> Result<Option<Known>, Fault> {
    let found = tx
        .row(
            "SELECT id, list_version, list FROM accounts WHERE account = $1 FOR UPDATE",
            &[&account.as_str()],
        )
        .await?;
    let Some(row) = found else { return Ok(None) };
    let id: i64 = row.try_get(0)?;
    let devices = tx
        .query(
            "SELECT d.id, d.device, d.noise_key, d.queue, q.queue, d.revoked
             FROM devices AS d JOIN queues AS q ON q.id = d.queue WHERE d.account = $1",
            &[&id],
        )
        .await?;
    let read = |row: &Row| -> Result<KnownDevice, Fault> {
        Ok(KnownDevice {
            row: row.try_get(0)?,
            device: text_id(row, 1, DeviceId::parse)?,
            noise_key: NoiseKey::new(fixed(row, 2)?),
            queue_row: row.try_get(3)?,
            queue: queue_id(row, 4)?,
            revoked: row.try_get(5)?,
        })
    };
    Ok(Some(Known {
        row: id,
        version: row.try_get::<_, i64>(1)?.cast_unsigned(),
        list: row.try_get(2)?,
        devices: devices.iter().map(read).collect::<Result<_, _>>()?,
    }))
}

/// Devices as columns.
#[derive(Default)]
struct Columns<'a> {
    device: Vec<&'a str>,
    noise_key: Vec<&'a [u8]>,
    not_before: Vec<i64>,
    not_after: Vec<i64>,
}

impl<'a> Columns<'a> {
    fn of(devices: impl Iterator<Item = &'a ListedDevice>) -> Self {
        let mut columns = Self::default();
        for listed in devices {
            columns.device.push(listed.device.as_str());
            columns.noise_key.push(listed.noise_key.as_bytes());
            columns.not_before.push(millis(listed.not_before));
            columns.not_after.push(millis(listed.not_after));
        }
        columns
    }
}

/// Whether a device id or key of the list belongs to another account.
async fn is_taken(tx: &Tx, account: &AccountId, list: &DeviceList) -> Result<bool, Fault> {
    let columns = Columns::of(list.devices.iter());
    let other = tx
        .row(
            "SELECT FROM (
                 SELECT account FROM devices WHERE device = ANY ($1::text[])
                 UNION ALL SELECT account FROM devices WHERE noise_key = ANY ($2::bytea[])
             ) AS d JOIN accounts AS a ON a.id = d.account WHERE a.account <> $3 LIMIT 1",
            &[&columns.device, &columns.noise_key, &account.as_str()],
        )
        .await?;
    Ok(other.is_some())
}

/// Opens an account without devices and with a version below any.
async fn open(tx: &Tx, account: &AccountId, list: &DeviceList) -> Result<Known, Fault> {
    let key = &list.account_key.as_bytes()[..];
    let made = tx
        .change(
            "INSERT INTO accounts (account, account_key, list_version, list)
             VALUES ($1, $2, 0, '') RETURNING id",
            &[&account.as_str(), &key],
        )
        .await?;
    let row = made.first().ok_or_else(|| Fault::corrupt("answer"))?;
    Ok(Known::opened(row.try_get(0)?))
}

/// Makes the account what its list says.
async fn apply(tx: &Tx, known: &Known, list: &DeviceList) -> Result<ListChange, Fault> {
    let mut change = ListChange::default();
    let left: Vec<&KnownDevice> = known.not_in(list).collect();
    if !left.is_empty() {
        let queue_rows: Vec<i64> = left.iter().map(|old| old.queue_row).collect();
        let rows: Vec<i64> = left.iter().map(|old| old.row).collect();
        queues::revoke(tx, &queue_rows).await?;
        tx.execute("DELETE FROM devices WHERE id = ANY ($1)", &[&rows])
            .await?;
        let seen = left.iter().filter(|old| !old.revoked);
        change.removed = seen.map(|old| (old.device.clone(), old.queue)).collect();
    }
    if list.devices.is_empty() {
        tx.execute("DELETE FROM accounts WHERE id = $1", &[&known.row])
            .await?;
        change.deleted = true;
        return Ok(change);
    }
    tx.execute(
        "UPDATE accounts SET list_version = $2, list = $3 WHERE id = $1",
        &[&known.row, &list.version.cast_signed(), &&list.signed[..]],
    )
    .await?;
    let (kept, added): (Vec<_>, Vec<_>) = list
        .devices
        .iter()
        .partition(|listed| known.device(&listed.device).is_some());
    renew(tx, known, &kept, &mut change).await?;
    if !added.is_empty() {
        let columns = Columns::of(added.iter().copied());
        let queues = queues::create(tx, added.len()).await?;
        tx.execute(
            "INSERT INTO devices (device, account, noise_key, not_before, not_after, queue)
             SELECT t.device, $1, t.noise_key, t.not_before, t.not_after, t.queue
             FROM unnest($2::text[], $3::bytea[], $4::bigint[], $5::bigint[], $6::bigint[])
                 WITH ORDINALITY AS t (device, noise_key, not_before, not_after, queue, n)
             ORDER BY t.n",
            &[
                &known.row,
                &columns.device,
                &columns.noise_key,
                &columns.not_before,
                &columns.not_after,
                &queues,
            ],
        )
        .await?;
        change.added = added.iter().map(|listed| listed.device.clone()).collect();
    }
    Ok(change)
}

/// Takes over the certificates of devices that stay.
async fn renew(
    tx: &Tx,
    known: &Known,
    kept: &[&ListedDevice],
    change: &mut ListChange,
) -> Result<(), Fault> {
    if kept.is_empty() {
        return Ok(());
    }
    let rekeyed = kept.iter().filter(|listed| {
        let old = known.device(&listed.device);
        old.is_some_and(|old| old.noise_key != listed.noise_key)
    });
    change.rekeyed = rekeyed.map(|listed| listed.device.clone()).collect();
    // Two devices may swap their keys, which are unique: all old ones go first.
    if !change.rekeyed.is_empty() {
        let names: Vec<&str> = change.rekeyed.iter().map(DeviceId::as_str).collect();
        let placeholders: Result<Vec<Vec<u8>>, StoreError> = names
            .iter()
            .map(|_| random_id().map(|raw| raw.to_vec()))
            .collect();
        tx.execute(
            "UPDATE devices AS d SET noise_key = t.noise_key
             FROM unnest($1::text[], $2::bytea[]) AS t (device, noise_key)
             WHERE d.device = t.device",
            &[&names, &placeholders?],
        )
        .await?;
    }
    let columns = Columns::of(kept.iter().copied());
    tx.execute(
        "UPDATE devices AS d
         SET noise_key = t.noise_key, not_before = t.not_before, not_after = t.not_after
         FROM unnest($1::text[], $2::bytea[], $3::bigint[], $4::bigint[])
             AS t (device, noise_key, not_before, not_after)
         WHERE d.device = t.device",
        &[
            &columns.device,
            &columns.noise_key,
            &columns.not_before,
            &columns.not_after,
        ],
    )
    .await?;
    Ok(())
}
