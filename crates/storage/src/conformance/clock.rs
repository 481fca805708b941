//! The stored clock, and small values.

use std::time::Duration;

use super::*;
use crate::MetaKey;

pub(crate) async fn a_jump_of_the_wall_clock_cannot_rush_the_stored_one(store: &Store) {
    let second = Duration::from_secs(1);
    let show = async |wall, elapsed| {
        store
            .advance_clock(at(wall), elapsed)
            .await
            .unwrap()
            .time()
            .as_millis()
    };

    assert_eq!(show(1_000_000, Duration::ZERO).await, 1_000_000);
    assert_eq!(show(1_001_000, second).await, 1_001_000);
    assert_eq!(show(900_000_000, second).await, 1_003_000);
    assert_eq!(show(1_000_500, second).await, 1_000_500);
}

pub(crate) async fn values_are_kept_and_replaced(store: &Store) {
    let key = MetaKey::new("serial");
    assert_eq!(store.meta(key).await.unwrap(), None);

    store.set_meta(key, Bytes::from_static(b"1")).await.unwrap();
    store.set_meta(key, Bytes::from_static(b"2")).await.unwrap();

    assert_eq!(
        store.meta(key).await.unwrap(),
        Some(Bytes::from_static(b"2"))
    );
}

pub(crate) async fn what_changes_nothing_is_no_commit(store: &Store) {
    let before = store.counters();

    store.ping().await.unwrap();
    store.delete_exact(Vec::new()).await.unwrap();
    store.spool(Vec::new(), at(1)).await.unwrap();

    let after = store.counters();
    assert_eq!((after.commits, after.rows), (before.commits, before.rows));
    assert_eq!(after.write_requests, before.write_requests + 3);
}

pub(crate) async fn a_new_store_is_sound(store: &Store) {
    queue(store, 1).await;

    store.check_integrity().await.unwrap();

    assert!(store.schema_version() > 0);
}
