//! Other domains: added, listed, allowed, blocked, forgotten, pinged.

use commucat_proto::id::{Domain, DomainKey, base32};
use commucat_storage::{PeerRecord, PeerSource, PeerStatus};

use super::{ExecuteError, Executor, Live, PAGE};
use crate::response::{Peer, PeerStanding, Peers, Ping, millis};

impl<L: Live> Executor<L> {
    pub(super) async fn list_peers(&self, after: Option<&str>) -> Result<Peers, ExecuteError> {
        let after = after.map(parse).transpose()?;
        let mut peers = self.site.store.peers(after.as_ref(), PAGE + 1).await?;
        let more = peers.len() > PAGE;
        peers.truncate(PAGE);
        Ok(Peers {
            peers: peers.iter().map(shown).collect(),
            more,
        })
    }

    pub(super) async fn show_peer(&self, domain: &str) -> Result<Peer, ExecuteError> {
        Ok(shown(&self.peer(&parse(domain)?).await?))
    }

    /// Names a peer. What is known of it stays, unless the operator says otherwise.
    pub(super) async fn add_peer(
        &self,
        domain: &str,
        endpoint: Option<&str>,
        key: Option<&str>,
    ) -> Result<Peer, ExecuteError> {
        let domain = parse(domain)?;
        if domain == self.site.domain {
            return Err(ExecuteError::Invalid("that is this domain itself"));
        }
        let endpoint = endpoint.map(parse).transpose()?;
        let key = key.map(parse_key).transpose()?;
        let known = self.site.store.peer(&domain).await?;
        let mut record = known.unwrap_or_else(|| {
            PeerRecord::new(domain.clone(), PeerStatus::Active, PeerSource::Operator)
        });
        record.status = PeerStatus::Active;
        record.source = PeerSource::Operator;
        if endpoint.is_some() {
            record.endpoint = endpoint;
        }
        if let Some(key) = key
            && record.key != Some(key)
        {
            // Another key is another statement: its serial starts anew, and no key is before it.
            record.key = Some(key);
            record.serial = 0;
            record.previous = None;
        }
        self.site.store.put_peer(record.clone()).await?;
        self.live.peer_changed(&domain);
        Ok(shown(&record))
    }

    pub(super) async fn set_peer(
        &self,
        domain: &str,
        standing: PeerStanding,
    ) -> Result<Peer, ExecuteError> {
        let domain = parse(domain)?;
        let mut record = match self.site.store.peer(&domain).await? {
            Some(record) => record,
            // Whom nobody has heard of can be blocked, so that it stays so.
            None if standing == PeerStanding::Blocked => {
                PeerRecord::new(domain.clone(), PeerStatus::Blocked, PeerSource::Operator)
            }
            None => return Err(ExecuteError::NoPeer),
        };
        record.status = match standing {
            PeerStanding::Active => PeerStatus::Active,
            PeerStanding::Pending => PeerStatus::Pending,
            PeerStanding::Blocked => PeerStatus::Blocked,
        };
        record.source = PeerSource::Operator;
        self.site.store.put_peer(record.clone()).await?;
        self.live.peer_changed(&domain);
        Ok(shown(&record))
    }

    pub(super) async fn remove_peer(&self, domain: &str) -> Result<Peer, ExecuteError> {
        let domain = parse(domain)?;
        let record = self.peer(&domain).await?;
        if !self.site.store.remove_peer(&domain).await? {
            return Err(ExecuteError::NoPeer);
        }
        self.live.peer_changed(&domain);
        Ok(shown(&record))
    }

    pub(super) async fn ping_peer(&self, domain: &str) -> Result<Ping, ExecuteError> {
        let domain = parse(domain)?;
        let round_trip = self.live.ping_peer(&domain).await;
        let round_trip = round_trip.map_err(ExecuteError::NoPing)?;
        Ok(Ping {
            domain: domain.as_str().to_owned(),
            milliseconds: u64::try_from(round_trip.as_millis()).unwrap_or(u64::MAX),
        })
    }

    async fn peer(&self, domain: &Domain) -> Result<PeerRecord, ExecuteError> {
        let record = self.site.store.peer(domain).await?;
        record.ok_or(ExecuteError::NoPeer)
    }
}

fn parse(domain: &str) -> Result<Domain, ExecuteError> {
    Domain::parse(domain).map_err(|_| {
        ExecuteError::Invalid(
            "a domain is a lower-case DNS name or an IP address, optionally with :port",
        )
    })
}

fn parse_key(text: &str) -> Result<DomainKey, ExecuteError> {
    DomainKey::from_text(text).ok_or(ExecuteError::Invalid(
        "a domain key is 64 hex digits, or 52 characters as in an invite link",
    ))
}

fn shown(record: &PeerRecord) -> Peer {
    Peer {
        domain: record.domain.as_str().to_owned(),
        standing: match record.status {
            PeerStatus::Active => PeerStanding::Active,
            PeerStatus::Pending => PeerStanding::Pending,
            PeerStatus::Blocked => PeerStanding::Blocked,
        },
        named_by: match record.source {
            PeerSource::Static => "configuration",
            PeerSource::Operator => "operator",
            PeerSource::Discovered => "discovery",
        }
        .to_owned(),
        endpoint: record.endpoint.as_ref().map(|at| at.as_str().to_owned()),
        domain_key: record.key.map(|key| base32(key.as_bytes())),
        serial: record.serial,
        previous_key_until_ms: record.previous.map(|previous| millis(previous.until)),
        first_contact_ms: record.first_contact.map(millis),
        last_contact_ms: record.last_contact.map(millis),
    }
}
