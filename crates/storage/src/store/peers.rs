//! Other domains: their pinned keys, and whether this domain talks to them (CCP-1 section 8).

use std::fmt;

use commucat_proto::id::{Domain, DomainKey};
use commucat_proto::time::Timestamp;

use super::{Store, on_backend};
use crate::StoreError;

/// Whether this domain talks to another.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum PeerStatus {
    /// Yes.
    Active,
    /// Not before the operator allows it.
    Pending,
    /// No: the operator has blocked it.
    Blocked,
}

/// Who brought a peer in.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum PeerSource {
    /// The configuration names it.
    Static,
    /// The operator added it.
    Operator,
    /// It was found by discovery.
    Discovered,
}

/// A domain key that was replaced and is accepted for a while.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PreviousKey {
    /// The key.
    pub key: DomainKey,
    /// Until when.
    pub until: Timestamp,
}

/// Another domain as stored.
#[derive(Clone, Eq, PartialEq)]
pub struct PeerRecord {
    /// Its name.
    pub domain: Domain,
    /// Its pinned key; `None` before the first contact.
    pub key: Option<DomainKey>,
    /// The highest serial of its server keys statement seen; 0 for none.
    pub serial: u64,
    /// The key before, while that is accepted.
    pub previous: Option<PreviousKey>,
    /// Whether this domain talks to it.
    pub status: PeerStatus,
    /// Who brought it in.
    pub source: PeerSource,
    /// Where it takes events: host and port.
    pub endpoint: Option<Domain>,
    /// The day of the first authenticated contact.
    pub first_contact: Option<Timestamp>,
    /// The day of the last authenticated contact.
    pub last_contact: Option<Timestamp>,
}

impl PeerRecord {
    /// A peer that nothing is known of yet.
    #[must_use]
    pub const fn new(domain: Domain, status: PeerStatus, source: PeerSource) -> Self {
        Self {
            domain,
            key: None,
            serial: 0,
            previous: None,
            status,
            source,
            endpoint: None,
            first_contact: None,
            last_contact: None,
        }
    }

    /// The peer with what was found of it at the first contact.
    pub(crate) fn met(self, found: &PeerFound, now: Timestamp) -> Self {
        Self {
            key: Some(found.key),
            serial: found.serial,
            endpoint: Some(found.endpoint.clone()),
            first_contact: Some(self.first_contact.unwrap_or_else(|| day_of(now))),
            last_contact: Some(day_of(now)),
            ..self
        }
    }

    /// What a change of its keys, found from the state `from`, makes of a stored peer: what is
    /// `Followed` is to be stored.
    pub(crate) fn followed(
        stored: Option<Self>,
        from: &Self,
        found: &PeerFound,
        previous_until: Timestamp,
    ) -> PeerFollowed {
        let Some((record, key)) = stored.and_then(|record| record.key.map(|key| (record, key)))
        else {
            return PeerFollowed::Unknown;
        };
        if record.key != from.key || record.serial != from.serial {
            return PeerFollowed::Conflict(record);
        }
        let previous = if key == found.key {
            record.previous
        } else {
            let until = previous_until;
            Some(PreviousKey { key, until })
        };
        PeerFollowed::Followed(Self {
            key: Some(found.key),
            serial: found.serial,
            endpoint: Some(found.endpoint.clone()),
            previous,
            ..record
        })
    }
}

impl fmt::Debug for PeerRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerRecord")
            .field("domain", &self.domain)
            .field("key", &self.key)
            .field("status", &self.status)
            .field("source", &self.source)
            .finish_non_exhaustive()
    }
}

/// What a discovery found of a domain.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PeerFound {
    /// Its key.
    pub key: DomainKey,
    /// The serial of the statement.
    pub serial: u64,
    /// Where it takes events.
    pub endpoint: Domain,
}

/// What became of following a peer to a newer statement.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum PeerFollowed {
    /// The record is this now.
    Followed(PeerRecord),
    /// Its key or serial is not what the caller started from; nothing was changed.
    Conflict(PeerRecord),
    /// There is no such peer, or it has no key.
    Unknown,
}

impl Store {
    /// Peers that wait for the operator's word at most; more are not noted.
    pub const PENDING_PEERS: u64 = 1_000;
    /// Peers found by discovery at most; more are refused.
    pub const DISCOVERED_PEERS: u64 = 100_000;

    /// The peer of that name.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store cannot be read.
    pub async fn peer(&self, domain: &Domain) -> Result<Option<PeerRecord>, StoreError> {
        on_backend!(self, backend => backend.peer(domain).await)
    }

    /// Peers in the order of their names, those after `after`, at most `rows_max`.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store cannot be read.
    pub async fn peers(
        &self,
        after: Option<&Domain>,
        rows_max: usize,
    ) -> Result<Vec<PeerRecord>, StoreError> {
        on_backend!(self, backend => backend.peers(after, rows_max).await)
    }

    /// Stores `record` in place of what is there: the operator's word, and the configuration's.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; nothing was changed, or see [`StoreError::Unavailable`].
    pub async fn put_peer(&self, record: PeerRecord) -> Result<(), StoreError> {
        on_backend!(self, backend => backend.put_peer(record).await)
    }

    /// Pins what discovery found, if no key is pinned: the first one wins, also among nodes. A peer
    /// that is not there is made with `status`; one that is keeps its status. Returns the record as
    /// it is then; `None` if it would be one above [`Store::DISCOVERED_PEERS`].
    ///
    /// # Errors
    ///
    /// [`StoreError`]; nothing was changed, or see [`StoreError::Unavailable`].
    pub async fn pin_peer(
        &self,
        domain: &Domain,
        found: PeerFound,
        status: PeerStatus,
        now: Timestamp,
    ) -> Result<Option<PeerRecord>, StoreError> {
        on_backend!(self, backend => backend.pin_peer(domain, found, status, now).await)
    }

    /// Follows a peer whose record is `from` to what its chain led to. If the key changes, the old
    /// one stays accepted until `previous_until`.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; nothing was changed, or see [`StoreError::Unavailable`].
    pub async fn follow_peer(
        &self,
        from: &PeerRecord,
        found: PeerFound,
        previous_until: Timestamp,
    ) -> Result<PeerFollowed, StoreError> {
        on_backend!(self, backend => backend.follow_peer(from, found, previous_until).await)
    }

    /// Changes the status of a peer that is there; `false` if it is not.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; nothing was changed, or see [`StoreError::Unavailable`].
    pub async fn set_peer_status(
        &self,
        domain: &Domain,
        status: PeerStatus,
    ) -> Result<bool, StoreError> {
        on_backend!(self, backend => backend.set_peer_status(domain, status).await)
    }

    /// Notes that an unknown domain asked, unless [`Store::PENDING_PEERS`] wait already.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; nothing was changed, or see [`StoreError::Unavailable`].
    pub async fn note_pending_peer(&self, domain: &Domain) -> Result<(), StoreError> {
        on_backend!(self, backend => backend.note_pending_peer(domain).await)
    }

    /// Notes the day of an authenticated contact. Writes at most once a day and peer.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; nothing was changed, or see [`StoreError::Unavailable`].
    pub async fn touch_peer(&self, domain: &Domain, now: Timestamp) -> Result<(), StoreError> {
        on_backend!(self, backend => backend.touch_peer(domain, now).await)
    }

    /// Forgets a peer with its pinned key, and its empty lanes; `false` if it is not there. What
    /// waits for it stays until it is delivered or given up.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; nothing was changed, or see [`StoreError::Unavailable`].
    pub async fn remove_peer(&self, domain: &Domain) -> Result<bool, StoreError> {
        on_backend!(self, backend => backend.remove_peer(domain).await)
    }
}

/// The beginning of the day of `time`: contacts are kept no finer.
pub(crate) fn day_of(time: Timestamp) -> Timestamp {
    const DAY_MS: u64 = 24 * 3600 * 1000;
    Timestamp::from_millis(time.as_millis() / DAY_MS * DAY_MS)
}
