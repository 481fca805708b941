//! Who the other domains are: their keys, whether this one talks to them, and a connection to each.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::net::Ipv6Addr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use commucat_config::NamedPeer;
use commucat_crypto::server_keys::Pin;
use commucat_federation::discovery::{self, DiscoveryError, WELL_KNOWN_PATH};
use commucat_federation::peer::PREVIOUS_KEY_ACCEPTED;
use commucat_federation::{Admission, PeerKeys, Policy, Standing};
use commucat_proto::id::Domain;
use commucat_proto::limits::WELL_KNOWN_MAX;
use commucat_storage::{
    PeerFollowed, PeerFound, PeerRecord, PeerSource, PeerStatus, Store, StoreError,
};
use http::{Request, StatusCode};
use parking_lot::Mutex;
use tokio::time::timeout;

use super::connect::{Connection, Connector, RequestError, exchange};
use crate::clock;

/// Discovery as a whole.
const DISCOVERY_WAIT: Duration = Duration::from_secs(10);

/// How long a failed discovery is remembered (CCP-1 section 8).
const FAILURE_KEPT: Duration = Duration::from_secs(600);

/// How long it is remembered that nobody answered: a network heals sooner than a document.
const SILENCE_KEPT: Duration = Duration::from_secs(30);

/// A domain that is known is looked at anew this often at most, whoever makes this server do it.
const ANEW_EVERY: Duration = Duration::from_secs(60);

/// Looks at different domains that do not wait for each other.
const LOOKS: usize = 16;

/// Failures and connections remembered; beyond it they are forgotten.
const DOMAINS_MAX: usize = 4_096;

/// Why another domain is not to be talked to now.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FindError {
    /// The policy or the operator does not allow it.
    #[error("this server does not talk to that domain")]
    Refused,
    /// It was not found a moment ago.
    #[error("the domain was not found a moment ago")]
    Recently,
    /// It could not be asked.
    #[error("the domain could not be asked for its keys")]
    Request(#[from] RequestError),
    /// It answered something else.
    #[error("the domain answered {0}")]
    Status(StatusCode),
    /// It cannot be believed.
    #[error(transparent)]
    Discovery(#[from] DiscoveryError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The other domains.
pub(super) struct Book {
    own: Domain,
    policy: Policy,
    store: Store,
    connector: Connector,
    /// Endpoints of the configuration: what a domain's document says does not take their place.
    named: HashMap<Domain, Domain>,
    /// Until when a domain is not looked at.
    failed: Mutex<HashMap<Domain, Instant>>,
    /// When a known domain was last looked at anew.
    renewed: Mutex<HashMap<Domain, Instant>>,
    connections: Mutex<HashMap<Domain, Connection>>,
    /// One look at a domain at a time: hundreds of events for a new one find it once.
    looking: [tokio::sync::Mutex<()>; LOOKS],
    hasher: RandomState,
}

/// A domain that may be talked to.
pub(super) struct Known {
    pub(super) keys: PeerKeys,
    pub(super) endpoint: Domain,
}

impl Book {
    pub(super) fn new(own: Domain, policy: Policy, store: Store, connector: Connector) -> Self {
        Self {
            own,
            policy,
            store,
            connector,
            named: HashMap::new(),
            failed: Mutex::default(),
            connections: Mutex::default(),
            renewed: Mutex::default(),
            looking: Default::default(),
            hasher: RandomState::new(),
        }
    }

    /// With the endpoints that the configuration names.
    pub(super) fn with_endpoints(mut self, named: &[NamedPeer]) -> Self {
        let named = named.iter();
        let named = named.filter_map(|peer| Some((peer.domain.clone(), peer.endpoint.clone()?)));
        self.named = named.collect();
        self
    }

    pub(super) const fn own(&self) -> &Domain {
        &self.own
    }

    pub(super) const fn store(&self) -> &Store {
        &self.store
    }

    /// The keys and the endpoint of a domain that this one talks to, found if they are not known.
    pub(super) async fn find(&self, domain: &Domain) -> Result<Known, FindError> {
        let record = self.store.peer(domain).await?;
        self.admit(domain, record.as_ref()).await?;
        if let Some(known) = record.as_ref().and_then(|record| self.known(record)) {
            return Ok(known);
        }
        let _looking = self.turn(domain).await;
        let record = self.store.peer(domain).await?;
        match record.as_ref().and_then(|record| self.known(record)) {
            Some(known) => Ok(known),
            None => self.look(domain, record).await,
        }
    }

    /// The same after the domain used a key that is not known: it may have changed.
    pub(super) async fn find_anew(&self, domain: &Domain) -> Result<Known, FindError> {
        let record = self.store.peer(domain).await?;
        self.admit(domain, record.as_ref()).await?;
        let now = Instant::now();
        {
            let mut renewed = self.renewed.lock();
            renewed.retain(|_, at| now.saturating_duration_since(*at) < ANEW_EVERY);
            if renewed.contains_key(domain) || renewed.len() >= DOMAINS_MAX {
                return Err(FindError::Recently);
            }
            renewed.insert(domain.clone(), now);
        }
        let _looking = self.turn(domain).await;
        self.look(domain, record).await
    }

    /// Waits until nobody else looks at this domain.
    async fn turn(&self, domain: &Domain) -> Option<tokio::sync::MutexGuard<'_, ()>> {
        let hash = self.hasher.hash_one(domain);
        let index = usize::try_from(hash).unwrap_or(0) % LOOKS;
        Some(self.looking.get(index)?.lock().await)
    }

    async fn admit(&self, domain: &Domain, record: Option<&PeerRecord>) -> Result<(), FindError> {
        if *domain == self.own {
            return Err(FindError::Refused);
        }
        let standing = match record.map(|record| (record.status, record.source)) {
            None => Standing::Unknown,
            Some((PeerStatus::Blocked, _)) => Standing::Blocked,
            Some((PeerStatus::Pending, _)) => Standing::Pending,
            Some((PeerStatus::Active, PeerSource::Discovered)) => Standing::Discovered,
            Some((PeerStatus::Active, PeerSource::Static | PeerSource::Operator)) => {
                Standing::Named
            }
        };
        match self.policy.admit(standing) {
            Admission::Talk => Ok(()),
            Admission::Note => {
                self.store.note_pending_peer(domain).await?;
                Err(FindError::Refused)
            }
            Admission::Refuse => Err(FindError::Refused),
        }
    }

    /// Reads the domain's document, and pins or follows what it proves.
    async fn look(&self, domain: &Domain, record: Option<PeerRecord>) -> Result<Known, FindError> {
        let now = Instant::now();
        {
            let mut failed = self.failed.lock();
            failed.retain(|_, until| *until > now);
            if failed.contains_key(domain) {
                return Err(FindError::Recently);
            }
        }
        let looked = timeout(DISCOVERY_WAIT, self.read(domain, record)).await;
        let looked = looked.unwrap_or(Err(FindError::Request(RequestError::Late)));
        let kept = match &looked {
            Err(FindError::Status(_) | FindError::Discovery(_)) => FAILURE_KEPT,
            Err(FindError::Request(_)) => SILENCE_KEPT,
            Err(FindError::Refused | FindError::Recently | FindError::Store(_)) | Ok(_) => {
                return looked;
            }
        };
        let mut failed = self.failed.lock();
        if let Some(until) = now.checked_add(kept)
            && failed.len() < DOMAINS_MAX
        {
            failed.insert(domain.clone(), until);
        }
        looked
    }

    async fn read(&self, domain: &Domain, record: Option<PeerRecord>) -> Result<Known, FindError> {
        let connection = self.connector.connect(domain).await?;
        let request = Request::get(url(domain, WELL_KNOWN_PATH))
            .body(())
            .map_err(RequestError::from)?;
        let answer = exchange(connection, request, Bytes::new(), WELL_KNOWN_MAX).await?;
        if answer.status() != StatusCode::OK {
            return Err(FindError::Status(answer.status()));
        }
        let raw = answer.into_body();
        let pin = record.as_ref().and_then(|record| {
            Some(Pin {
                domain: domain.clone(),
                key: record.key?,
                serial: record.serial,
            })
        });
        let found = discovery::read(&raw, domain, pin.as_ref())?;
        let found = PeerFound {
            key: found.key,
            serial: found.serial,
            endpoint: found.endpoint,
        };
        let record = match record.filter(|record| record.key.is_some()) {
            None => {
                let pinned = self
                    .store
                    .pin_peer(domain, found, PeerStatus::Active, clock::now());
                pinned.await?
            }
            Some(from) => {
                let until = clock::now().saturating_add(PREVIOUS_KEY_ACCEPTED);
                match self.store.follow_peer(&from, found, until).await? {
                    PeerFollowed::Followed(record) | PeerFollowed::Conflict(record) => Some(record),
                    PeerFollowed::Unknown => None,
                }
            }
        };
        let known = record.as_ref().and_then(|record| self.known(record));
        known.ok_or(FindError::Refused)
    }

    /// A connection to the domain: the one that is open, else a new one.
    pub(super) async fn connection(
        &self,
        domain: &Domain,
        endpoint: &Domain,
    ) -> Result<Connection, RequestError> {
        let open = self.connections.lock().get(domain).cloned();
        if let Some(connection) = open
            && let Ok(ready) = connection.ready().await
        {
            return Ok(ready);
        }
        let connection = self.connector.connect(endpoint).await?;
        let mut connections = self.connections.lock();
        if connections.len() >= DOMAINS_MAX {
            connections.clear();
        }
        connections.insert(domain.clone(), connection.clone());
        Ok(connection)
    }

    fn known(&self, record: &PeerRecord) -> Option<Known> {
        let keys = PeerKeys::new(record.key?);
        let keys = match record.previous {
            Some(previous) => keys.with_previous(previous.key, previous.until),
            None => keys,
        };
        let named = self.named.get(&record.domain);
        Some(Known {
            keys,
            endpoint: named.or(record.endpoint.as_ref())?.clone(),
        })
    }

    /// The operator changed what is known of a domain.
    pub(super) fn changed(&self, domain: &Domain) {
        self.failed.lock().remove(domain);
        self.forget(domain);
    }

    /// A connection failed: the next request makes another.
    pub(super) fn forget(&self, domain: &Domain) {
        self.connections.lock().remove(domain);
    }
}

pub(super) fn url(host: &Domain, path: &str) -> String {
    let host = host.as_str();
    match host.parse::<Ipv6Addr>() {
        Ok(address) => format!("https://[{address}]{path}"),
        Err(_) => format!("https://{host}{path}"),
    }
}
