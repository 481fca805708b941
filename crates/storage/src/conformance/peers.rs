//! Peers: pins, what follows them, status, days of contact.

use commucat_proto::id::DomainKey;

use super::*;
use crate::{PeerFollowed, PeerFound, PeerRecord, PeerSource, PeerStatus, PreviousKey};

const DAY: u64 = 24 * 3600 * 1000;

fn domain(name: &str) -> Domain {
    Domain::parse(name).unwrap()
}

fn found(key: u8, serial: u64) -> PeerFound {
    PeerFound {
        key: DomainKey::new([key; 32]),
        serial,
        endpoint: domain("chat.near.example:8443"),
    }
}

async fn pin(store: &Store, name: &str, key: u8) -> PeerRecord {
    store
        .pin_peer(
            &domain(name),
            found(key, 4),
            PeerStatus::Active,
            at(9 * DAY + 5),
        )
        .await
        .unwrap()
        .unwrap()
}

pub(crate) async fn a_peer_is_kept_as_it_was_put(store: &Store) {
    let record = PeerRecord {
        domain: domain("near.example"),
        key: Some(DomainKey::new([1; 32])),
        serial: 7,
        previous: Some(PreviousKey {
            key: DomainKey::new([2; 32]),
            until: at(99),
        }),
        status: PeerStatus::Blocked,
        source: PeerSource::Static,
        endpoint: Some(domain("[::1]:8443")),
        first_contact: Some(at(DAY)),
        last_contact: Some(at(2 * DAY)),
    };
    let bare = PeerRecord::new(
        record.domain.clone(),
        PeerStatus::Pending,
        PeerSource::Operator,
    );

    store.put_peer(record.clone()).await.unwrap();
    assert_eq!(store.peer(&record.domain).await.unwrap(), Some(record));
    store.put_peer(bare.clone()).await.unwrap();
    assert_eq!(store.peer(&bare.domain).await.unwrap(), Some(bare));
    assert_eq!(store.peer(&domain("far.example")).await.unwrap(), None);
}

pub(crate) async fn the_first_pin_wins(store: &Store) {
    let first = pin(store, "near.example", 1).await;
    let second = pin(store, "near.example", 2).await;

    assert_eq!(first.key, Some(DomainKey::new([1; 32])));
    assert_eq!(
        (first.serial, first.status, first.source),
        (4, PeerStatus::Active, PeerSource::Discovered)
    );
    assert_eq!(first.first_contact, Some(at(9 * DAY)));
    assert_eq!(second, first);
    assert_eq!(store.peer(&first.domain).await.unwrap(), Some(first));
}

pub(crate) async fn a_pin_keeps_what_the_operator_said(store: &Store) {
    let said = PeerRecord::new(
        domain("near.example"),
        PeerStatus::Blocked,
        PeerSource::Operator,
    );
    store.put_peer(said).await.unwrap();

    let pinned = pin(store, "near.example", 1).await;

    assert_eq!(pinned.key, Some(DomainKey::new([1; 32])));
    assert_eq!(
        (pinned.status, pinned.source),
        (PeerStatus::Blocked, PeerSource::Operator)
    );
}

pub(crate) async fn following_changes_the_key_and_keeps_the_old_one(store: &Store) {
    let pinned = pin(store, "near.example", 1).await;

    let renewed = store
        .follow_peer(&pinned, found(1, 5), at(77))
        .await
        .unwrap();
    let PeerFollowed::Followed(renewed) = renewed else {
        panic!("not followed");
    };
    assert_eq!((renewed.serial, renewed.previous), (5, None));

    let changed = store
        .follow_peer(&renewed, found(2, 6), at(77))
        .await
        .unwrap();
    let PeerFollowed::Followed(changed) = changed else {
        panic!("not followed");
    };
    let previous = PreviousKey {
        key: DomainKey::new([1; 32]),
        until: at(77),
    };
    assert_eq!(changed.key, Some(DomainKey::new([2; 32])));
    assert_eq!(changed.previous, Some(previous));
    assert_eq!(store.peer(&changed.domain).await.unwrap(), Some(changed));
}

pub(crate) async fn following_from_an_outdated_record_is_a_conflict(store: &Store) {
    let pinned = pin(store, "near.example", 1).await;
    store
        .follow_peer(&pinned, found(2, 5), at(77))
        .await
        .unwrap();

    let late = store
        .follow_peer(&pinned, found(3, 6), at(77))
        .await
        .unwrap();

    let now = store.peer(&pinned.domain).await.unwrap().unwrap();
    assert_eq!(now.key, Some(DomainKey::new([2; 32])));
    assert_eq!(late, PeerFollowed::Conflict(now));
    let unknown = PeerRecord::new(
        domain("far.example"),
        PeerStatus::Active,
        PeerSource::Static,
    );
    assert_eq!(
        store
            .follow_peer(&unknown, found(3, 6), at(77))
            .await
            .unwrap(),
        PeerFollowed::Unknown
    );
}

pub(crate) async fn status_changes_and_removal(store: &Store) {
    let pinned = pin(store, "near.example", 1).await;
    let near = &pinned.domain;

    assert!(
        store
            .set_peer_status(near, PeerStatus::Blocked)
            .await
            .unwrap()
    );
    let blocked = store.peer(near).await.unwrap().unwrap();
    assert_eq!(
        (blocked.status, blocked.key),
        (PeerStatus::Blocked, pinned.key)
    );

    assert!(store.remove_peer(near).await.unwrap());
    assert!(!store.remove_peer(near).await.unwrap());
    assert!(
        !store
            .set_peer_status(near, PeerStatus::Active)
            .await
            .unwrap()
    );
    assert_eq!(store.peer(near).await.unwrap(), None);
}

pub(crate) async fn contacts_are_kept_by_the_day(store: &Store) {
    let pinned = pin(store, "near.example", 1).await;
    let before = store.counters().rows;

    store
        .touch_peer(&pinned.domain, at(9 * DAY + 7))
        .await
        .unwrap();
    assert_eq!(store.counters().rows, before);
    store
        .touch_peer(&pinned.domain, at(11 * DAY + 7))
        .await
        .unwrap();

    let touched = store.peer(&pinned.domain).await.unwrap().unwrap();
    assert_eq!(touched.first_contact, Some(at(9 * DAY)));
    assert_eq!(touched.last_contact, Some(at(11 * DAY)));
}

pub(crate) async fn peers_are_listed_in_order(store: &Store) {
    for name in ["c.example", "a.example", "b.example"] {
        pin(store, name, 1).await;
    }
    let names = async |after: Option<&str>, most| {
        let after = after.map(domain);
        let peers = store.peers(after.as_ref(), most).await.unwrap();
        peers
            .iter()
            .map(|peer| peer.domain.as_str().to_owned())
            .collect::<Vec<_>>()
    };

    assert_eq!(names(None, 2).await, ["a.example", "b.example"]);
    assert_eq!(names(Some("b.example"), 2).await, ["c.example"]);
}

pub(crate) async fn pending_peers_are_bounded(store: &Store) {
    let pinned = pin(store, "near.example", 1).await;
    for number in 0..=Store::PENDING_PEERS {
        let name = domain(&format!("p{number}.example"));
        store.note_pending_peer(&name).await.unwrap();
    }
    store.note_pending_peer(&pinned.domain).await.unwrap();

    let peers = store.peers(None, 9_999).await.unwrap();

    let pending = peers
        .iter()
        .filter(|peer| peer.status == PeerStatus::Pending);
    assert_eq!(
        u64::try_from(pending.count()).unwrap(),
        Store::PENDING_PEERS
    );
    assert_eq!(store.peer(&pinned.domain).await.unwrap(), Some(pinned));
}
