//! Peers in SQLite.

use commucat_proto::id::{Domain, DomainKey};
use commucat_proto::time::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::Sqlite;
use super::convert::{millis, signed, text_id, time, unsigned};
use super::writer::Tx;
use crate::store::peers::{
    PeerFollowed, PeerFound, PeerRecord, PeerSource, PeerStatus, PreviousKey, day_of,
};
use crate::stored::{source_code, source_of, status_code, status_of};
use crate::{Store, StoreError};

const COLUMNS: &str = "domain, domain_key, serial, previous_key, previous_until, status, source,
    endpoint, first_contact, last_contact";

impl Sqlite {
    pub(crate) async fn peer(&self, domain: &Domain) -> Result<Option<PeerRecord>, StoreError> {
        let domain = domain.clone();
        self.read(move |connection| find(connection, &domain)).await
    }

    pub(crate) async fn peers(
        &self,
        after: Option<&Domain>,
        rows_max: usize,
    ) -> Result<Vec<PeerRecord>, StoreError> {
        let after = after.map_or_else(String::new, |domain| domain.as_str().to_owned());
        self.read(move |connection| {
            let found = connection
                .prepare_cached(&format!(
                    "SELECT {COLUMNS} FROM peers WHERE domain > ?1 ORDER BY domain LIMIT ?2"
                ))?
                .query_map(params![after, rows_max], read)?
                .collect::<Result<_, _>>()?;
            Ok(found)
        })
        .await
    }

    pub(crate) async fn put_peer(&self, record: PeerRecord) -> Result<(), StoreError> {
        self.write(move |tx| put(tx, &record)).await
    }

    pub(crate) async fn pin_peer(
        &self,
        domain: &Domain,
        found: PeerFound,
        status: PeerStatus,
        now: Timestamp,
    ) -> Result<Option<PeerRecord>, StoreError> {
        let domain = domain.clone();
        self.write(move |tx| {
            let record = match find(tx.connection, &domain)? {
                Some(record) => record,
                None if count(tx, "source = 3")? >= Store::DISCOVERED_PEERS => return Ok(None),
                None => PeerRecord::new(domain.clone(), status, PeerSource::Discovered),
            };
            if record.key.is_some() {
                return Ok(Some(record));
            }
            let record = record.met(&found, now);
            put(tx, &record)?;
            Ok(Some(record))
        })
        .await
    }

    pub(crate) async fn follow_peer(
        &self,
        from: &PeerRecord,
        found: PeerFound,
        previous_until: Timestamp,
    ) -> Result<PeerFollowed, StoreError> {
        let from = from.clone();
        self.write(move |tx| {
            let stored = find(tx.connection, &from.domain)?;
            let outcome = PeerRecord::followed(stored, &from, &found, previous_until);
            if let PeerFollowed::Followed(record) = &outcome {
                put(tx, record)?;
            }
            Ok(outcome)
        })
        .await
    }

    pub(crate) async fn set_peer_status(
        &self,
        domain: &Domain,
        status: PeerStatus,
    ) -> Result<bool, StoreError> {
        let domain = domain.clone();
        self.write(move |tx| {
            let changed = tx.execute(
                "UPDATE peers SET status = ?2 WHERE domain = ?1",
                params![domain.as_str(), status_code(status)],
            )?;
            Ok(changed > 0)
        })
        .await
    }

    pub(crate) async fn note_pending_peer(&self, domain: &Domain) -> Result<(), StoreError> {
        let domain = domain.clone();
        self.write(move |tx| {
            let known = find(tx.connection, &domain)?.is_some();
            if known || count(tx, "status = 2 AND source = 3")? >= Store::PENDING_PEERS {
                return Ok(());
            }
            let record =
                PeerRecord::new(domain.clone(), PeerStatus::Pending, PeerSource::Discovered);
            put(tx, &record)
        })
        .await
    }

    pub(crate) async fn touch_peer(
        &self,
        domain: &Domain,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let (domain, day) = (domain.clone(), day_of(now));
        self.write(move |tx| {
            tx.execute(
                "UPDATE peers SET last_contact = ?2, first_contact = coalesce(first_contact, ?2)
                 WHERE domain = ?1 AND last_contact IS NOT ?2",
                params![domain.as_str(), millis(day)],
            )?;
            Ok(())
        })
        .await
    }

    pub(crate) async fn remove_peer(&self, domain: &Domain) -> Result<bool, StoreError> {
        let domain = domain.clone();
        self.write(move |tx| {
            tx.execute(
                "DELETE FROM outbox_lanes WHERE peer = ?1 AND entries = 0",
                [domain.as_str()],
            )?;
            let removed = tx.execute("DELETE FROM peers WHERE domain = ?1", [domain.as_str()])?;
            Ok(removed > 0)
        })
        .await
    }
}

fn find(connection: &Connection, domain: &Domain) -> Result<Option<PeerRecord>, StoreError> {
    let found = connection
        .prepare_cached(&format!("SELECT {COLUMNS} FROM peers WHERE domain = ?1"))?
        .query_row([domain.as_str()], read)
        .optional()?;
    Ok(found)
}

/// How many peers there are of which `condition`, a constant of this module, holds.
fn count(tx: &Tx<'_>, condition: &'static str) -> Result<u64, StoreError> {
    let sql = format!("SELECT count(*) FROM peers WHERE {condition}");
    let found: Option<i64> = tx.row(&sql, [], |row| row.get(0))?;
    Ok(found.map_or(0, unsigned))
}

fn put(tx: &Tx<'_>, record: &PeerRecord) -> Result<(), StoreError> {
    tx.execute(
        &format!(
            "INSERT OR REPLACE INTO peers ({COLUMNS})
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)"
        ),
        params![
            record.domain.as_str(),
            record.key.as_ref().map(DomainKey::as_bytes),
            signed(record.serial),
            record
                .previous
                .as_ref()
                .map(|previous| previous.key.as_bytes()),
            record.previous.map(|previous| millis(previous.until)),
            status_code(record.status),
            source_code(record.source),
            record.endpoint.as_ref().map(Domain::as_str),
            record.first_contact.map(|day| millis(day_of(day))),
            record.last_contact.map(|day| millis(day_of(day))),
        ],
    )?;
    Ok(())
}

fn read(row: &Row<'_>) -> rusqlite::Result<PeerRecord> {
    let previous_key: Option<[u8; 32]> = row.get(3)?;
    let previous = match previous_key {
        None => None,
        Some(key) => Some(PreviousKey {
            key: DomainKey::new(key),
            until: time(row, 4)?,
        }),
    };
    let has_endpoint = row.get_ref(7)?.data_type() == rusqlite::types::Type::Text;
    let endpoint = has_endpoint.then(|| text_id(row, 7, Domain::parse));
    let day = |column: usize| -> rusqlite::Result<Option<Timestamp>> {
        let millis: Option<i64> = row.get(column)?;
        Ok(millis.map(|millis| Timestamp::from_millis(unsigned(millis))))
    };
    Ok(PeerRecord {
        domain: text_id(row, 0, Domain::parse)?,
        key: row.get::<_, Option<[u8; 32]>>(1)?.map(DomainKey::new),
        serial: unsigned(row.get(2)?),
        previous,
        status: status_of(row.get(5)?),
        source: source_of(row.get(6)?),
        endpoint: endpoint.transpose()?,
        first_contact: day(8)?,
        last_contact: day(9)?,
    })
}
