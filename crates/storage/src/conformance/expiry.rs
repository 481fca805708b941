//! Expiry of waiting entries and the emptying of revoked queues.

use std::time::Duration;

use super::*;
use crate::{ExpiryClock, SweepCursor};

const TTL: Duration = Duration::from_millis(10_000);

pub(crate) async fn old_entries_leave_a_gap_entry(store: &Store) {
    let queue = queue(store, 1).await;
    let young = message(1, 2, 10);
    spool_at(store, queue, message(1, 1, 10), 1_000).await;
    spool_at(store, queue, young.clone(), 2_000).await;

    let (expired, gaps_made) = expire(store, 11_500).await;

    assert_eq!(
        (expired, gaps_made),
        (1, vec![(queue, QueuePosition::new(3))])
    );
    let page = all(store, queue).await;
    assert_eq!((bodies(&page), gaps(&page)), (vec![young.body], 1));
    assert_eq!(expire(store, 11_500).await.0, 0);
}

pub(crate) async fn nothing_expires_before_its_time(store: &Store) {
    let queue = queue(store, 1).await;
    spool_at(store, queue, message(1, 1, 10), 1_000).await;

    assert_eq!(expire(store, 10_999).await, (0, vec![]));
    assert_eq!(expire(store, 500).await, (0, vec![]));

    assert_eq!(all(store, queue).await.rows.len(), 1);
}

pub(crate) async fn a_gap_entry_does_not_expire(store: &Store) {
    let queue = queue(store, 1).await;
    spool_at(store, queue, message(1, 1, 10), 1_000).await;
    expire(store, 50_000).await;

    expire(store, 900_000).await;

    assert_eq!(gaps(&all(store, queue).await), 1);
}

pub(crate) async fn revoked_queues_are_emptied(store: &Store) {
    let (queue_a, queue_b) = (queue(store, 1).await, queue(store, 2).await);
    let shared = message(1, 1, 10);
    spool_at(store, queue_a, shared.clone(), 1_000).await;
    spool_at(store, queue_b, shared.clone(), 1_000).await;
    store
        .put_list(list(1, 2, &[]), &device_id(1))
        .await
        .unwrap();

    assert_eq!(expire(store, 1_000).await, (1, vec![]));

    assert_eq!(bodies(&all(store, queue_b).await), [shared.body]);
    assert_eq!(expire(store, 1_000).await, (0, vec![]));
}

async fn spool_at(store: &Store, queue: QueueId, entry: NewEntry, millis: u64) {
    store
        .spool(vec![delivery(queue, &[entry])], at(millis))
        .await
        .unwrap();
}

/// Runs all steps by a clock that shows `millis`.
async fn expire(store: &Store, millis: u64) -> (u64, Vec<(QueueId, QueuePosition)>) {
    let mut cursor = Some(SweepCursor::default());
    let (mut entries, mut gaps) = (0, Vec::new());
    while let Some(next) = cursor {
        let step = store
            .expire_entries(ExpiryClock(at(millis)), TTL, next)
            .await
            .unwrap();
        entries += step.entries;
        gaps.extend(step.gaps);
        cursor = step.next;
    }
    (entries, gaps)
}
