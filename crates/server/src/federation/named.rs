//! The domains that the configuration names, as the store keeps them.

use commucat_config::NamedPeer;
use commucat_proto::id::Domain;
use commucat_storage::{PeerRecord, PeerSource, PeerStatus, Store, StoreError};

/// Peers read from the store at once.
const PAGE: usize = 256;

/// Notes what the configuration says, and that it says no more of those it named before.
///
/// A block by the operator stays: who wants to talk again allows it.
///
/// # Errors
///
/// [`StoreError`]; some may be noted. Noting again does no harm.
pub(crate) async fn note(named: &[NamedPeer], store: &Store) -> Result<(), StoreError> {
    for peer in named {
        let known = store.peer(&peer.domain).await?;
        let mut record = known.clone().unwrap_or_else(|| {
            PeerRecord::new(peer.domain.clone(), PeerStatus::Active, PeerSource::Static)
        });
        record.source = PeerSource::Static;
        if record.status == PeerStatus::Pending {
            record.status = PeerStatus::Active;
        }
        if peer.endpoint.is_some() {
            record.endpoint.clone_from(&peer.endpoint);
        }
        if peer.key.is_some() && peer.key != record.key {
            record.key = peer.key;
            record.serial = 0;
            record.previous = None;
        }
        if known.as_ref() != Some(&record) {
            store.put_peer(record).await?;
        }
    }
    let mut after: Option<Domain> = None;
    loop {
        let page = store.peers(after.as_ref(), PAGE).await?;
        let Some(last) = page.last().map(|record| record.domain.clone()) else {
            return Ok(());
        };
        after = Some(last);
        for mut record in page {
            let is_named = named.iter().any(|peer| peer.domain == record.domain);
            if record.source == PeerSource::Static && !is_named {
                record.source = PeerSource::Discovered;
                store.put_peer(record).await?;
            }
        }
    }
}
