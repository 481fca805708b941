//! Peers in PostgreSQL.

use commucat_proto::id::{Domain, DomainKey};
use commucat_proto::time::Timestamp;
use tokio_postgres::Row;

use super::convert::{fixed, millis, number, signed, text_id, time};
use super::fault::Fault;
use super::tx::Tx;
use super::{Postgres, transact};
use crate::store::peers::{
    PeerFollowed, PeerFound, PeerRecord, PeerSource, PeerStatus, PreviousKey, day_of,
};
use crate::stored::{source_code, source_of, status_code, status_of};
use crate::{Store, StoreError};

/// A query with the columns that [`read`] takes.
macro_rules! peer_query {
    ($end:literal) => {
        concat!(
            "SELECT domain, domain_key, serial, previous_key, previous_until, status, source,
                 endpoint, first_contact, last_contact FROM peers ",
            $end
        )
    };
}

/// Puts a record that was not there.
macro_rules! insert {
    ($end:literal) => {
        concat!(
            "INSERT INTO peers (domain, domain_key, serial, previous_key, previous_until,
                 status, source, endpoint, first_contact, last_contact)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ",
            $end
        )
    };
}

const INSERT: &str = insert!("");
const PUT: &str = insert!(
    "ON CONFLICT (domain) DO UPDATE SET domain_key = excluded.domain_key,
         serial = excluded.serial, previous_key = excluded.previous_key,
         previous_until = excluded.previous_until, status = excluded.status,
         source = excluded.source, endpoint = excluded.endpoint,
         first_contact = excluded.first_contact, last_contact = excluded.last_contact"
);

impl Postgres {
    pub(crate) async fn peer(&self, domain: &Domain) -> Result<Option<PeerRecord>, StoreError> {
        let sql = peer_query!("WHERE domain = $1");
        let found = self.row(sql, &[&domain.as_str()]).await?;
        Ok(found.as_ref().map(read).transpose()?)
    }

    pub(crate) async fn peers(
        &self,
        after: Option<&Domain>,
        rows_max: usize,
    ) -> Result<Vec<PeerRecord>, StoreError> {
        let after = after.map_or("", Domain::as_str);
        let rows_max = i64::try_from(rows_max).unwrap_or(i64::MAX);
        let sql = peer_query!("WHERE domain > $1 ORDER BY domain LIMIT $2::bigint");
        let found = self.query(sql, &[&after, &rows_max]).await?;
        let peers: Result<_, Fault> = found.iter().map(read).collect();
        Ok(peers?)
    }

    pub(crate) async fn put_peer(&self, record: PeerRecord) -> Result<(), StoreError> {
        transact!(self, tx => put(&tx, &record))
    }

    pub(crate) async fn pin_peer(
        &self,
        domain: &Domain,
        found: PeerFound,
        status: PeerStatus,
        now: Timestamp,
    ) -> Result<Option<PeerRecord>, StoreError> {
        transact!(self, tx => pin(&tx, domain, &found, status, now))
    }

    pub(crate) async fn follow_peer(
        &self,
        from: &PeerRecord,
        found: PeerFound,
        previous_until: Timestamp,
    ) -> Result<PeerFollowed, StoreError> {
        transact!(self, tx => follow(&tx, from, &found, previous_until))
    }

    pub(crate) async fn set_peer_status(
        &self,
        domain: &Domain,
        status: PeerStatus,
    ) -> Result<bool, StoreError> {
        transact!(self, tx => async {
            let changed = tx
                .execute(
                    "UPDATE peers SET status = $2 WHERE domain = $1",
                    &[&domain.as_str(), &status_code(status)],
                )
                .await?;
            Ok::<_, Fault>(changed > 0)
        })
    }

    pub(crate) async fn note_pending_peer(&self, domain: &Domain) -> Result<(), StoreError> {
        transact!(self, tx => async {
            let waiting = "SELECT count(*) FROM peers WHERE status = 2 AND source = 3";
            let is_known = lock(&tx, domain).await?.is_some();
            if is_known || number(&tx.one(waiting, &[]).await?, 0)? >= Store::PENDING_PEERS {
                return Ok(());
            }
            insert(
                &tx,
                &PeerRecord::new(domain.clone(), PeerStatus::Pending, PeerSource::Discovered),
            )
            .await
        })
    }

    pub(crate) async fn touch_peer(
        &self,
        domain: &Domain,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let day = millis(day_of(now));
        transact!(self, tx => async {
            tx.execute(
                "UPDATE peers SET last_contact = $2, first_contact = coalesce(first_contact, $2)
                 WHERE domain = $1 AND last_contact IS DISTINCT FROM $2",
                &[&domain.as_str(), &day],
            )
            .await?;
            Ok::<_, Fault>(())
        })
    }

    pub(crate) async fn remove_peer(&self, domain: &Domain) -> Result<bool, StoreError> {
        let name = domain.as_str();
        transact!(self, tx => async {
            for sql in [
                "DELETE FROM outbox_lanes WHERE peer = $1 AND entries = 0",
                "DELETE FROM outbox_holders WHERE peer = $1",
            ] {
                tx.execute(sql, &[&name]).await?;
            }
            let removed = tx.execute("DELETE FROM peers WHERE domain = $1", &[&name]).await?;
            Ok::<_, Fault>(removed > 0)
        })
    }
}

/// The peer, locked until the transaction ends.
async fn lock(tx: &Tx, domain: &Domain) -> Result<Option<PeerRecord>, Fault> {
    let sql = peer_query!("WHERE domain = $1 FOR UPDATE");
    let found = tx.row(sql, &[&domain.as_str()]).await?;
    found.as_ref().map(read).transpose()
}

async fn pin(
    tx: &Tx,
    domain: &Domain,
    found: &PeerFound,
    status: PeerStatus,
    now: Timestamp,
) -> Result<Option<PeerRecord>, Fault> {
    let known = lock(tx, domain).await?;
    let is_known = known.is_some();
    let record = match known {
        Some(record) => record,
        None => {
            let discovered = "SELECT count(*) FROM peers WHERE source = 3";
            if number(&tx.one(discovered, &[]).await?, 0)? >= Store::DISCOVERED_PEERS {
                return Ok(None);
            }
            PeerRecord::new(domain.clone(), status, PeerSource::Discovered)
        }
    };
    if record.key.is_some() {
        return Ok(Some(record));
    }
    let record = record.met(found, now);
    if is_known {
        put(tx, &record).await?;
    } else {
        insert(tx, &record).await?;
    }
    Ok(Some(record))
}

async fn follow(
    tx: &Tx,
    from: &PeerRecord,
    found: &PeerFound,
    previous_until: Timestamp,
) -> Result<PeerFollowed, Fault> {
    let stored = lock(tx, &from.domain).await?;
    let outcome = PeerRecord::followed(stored, from, found, previous_until);
    if let PeerFollowed::Followed(record) = &outcome {
        put(tx, record).await?;
    }
    Ok(outcome)
}

/// A peer that was not there. If another node was faster, this is a conflict, and the transaction
/// runs again and finds it.
async fn insert(tx: &Tx, record: &PeerRecord) -> Result<(), Fault> {
    write(tx, INSERT, record).await
}

async fn put(tx: &Tx, record: &PeerRecord) -> Result<(), Fault> {
    write(tx, PUT, record).await
}

async fn write(tx: &Tx, sql: &str, record: &PeerRecord) -> Result<(), Fault> {
    let key = record.key.as_ref().map(|key| &key.as_bytes()[..]);
    let previous = record.previous.as_ref();
    let previous_key = previous.map(|previous| &previous.key.as_bytes()[..]);
    let previous_until = previous.map(|previous| millis(previous.until));
    let endpoint = record.endpoint.as_ref().map(Domain::as_str);
    let day = |day: Option<Timestamp>| day.map(|day| millis(day_of(day)));
    tx.execute(
        sql,
        &[
            &record.domain.as_str(),
            &key,
            &signed(record.serial),
            &previous_key,
            &previous_until,
            &status_code(record.status),
            &source_code(record.source),
            &endpoint,
            &day(record.first_contact),
            &day(record.last_contact),
        ],
    )
    .await?;
    Ok(())
}

fn read(row: &Row) -> Result<PeerRecord, Fault> {
    let is_set = |column: usize| Ok::<_, Fault>(row.try_get::<_, Option<&[u8]>>(column)?.is_some());
    let previous = if is_set(3)? {
        let key = DomainKey::new(fixed(row, 3)?);
        let until = time(row, 4)?;
        Some(PreviousKey { key, until })
    } else {
        None
    };
    let key = is_set(1)?.then(|| fixed(row, 1)).transpose()?;
    let endpoint: Option<&str> = row.try_get(7)?;
    let day = |column: usize| -> Result<Option<Timestamp>, Fault> {
        let millis: Option<i64> = row.try_get(column)?;
        millis.map(|_| time(row, column)).transpose()
    };
    Ok(PeerRecord {
        domain: text_id(row, 0, Domain::parse)?,
        key: key.map(DomainKey::new),
        serial: number(row, 2)?,
        previous,
        status: status_of(row.try_get(5)?),
        source: source_of(row.try_get(6)?),
        endpoint: endpoint
            .map(|_| text_id(row, 7, Domain::parse))
            .transpose()?,
        first_contact: day(8)?,
        last_contact: day(9)?,
    })
}
