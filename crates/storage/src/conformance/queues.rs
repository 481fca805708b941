//! Queues: positions, repeats, pages, exact deletion, references, leaving.

use super::*;
use crate::{Left, QueueState, Reference, ReferenceState, Refusal, StoreError};

pub(crate) async fn positions_ascend_and_pages_keep_the_order(store: &Store) {
    let queue = queue(store, 1).await;
    let entries = [message(1, 1, 10), message(2, 2, 10), message(1, 3, 10)];

    let outcomes = spool(store, queue, &entries).await;

    let stored = |number| Spooled::Stored(QueuePosition::new(number));
    assert_eq!(outcomes, [stored(1), stored(2), stored(3)]);
    let page = all(store, queue).await;
    assert_eq!(bodies(&page), entries.map(|entry| entry.body));
    assert_eq!(page.head, QueuePosition::new(3));
    assert!(!page.more);
}

pub(crate) async fn a_repeat_is_known_by_its_key(store: &Store) {
    let queue = queue(store, 1).await;
    let first = message(1, 1, 10);
    spool(store, queue, std::slice::from_ref(&first)).await;

    let outcomes = spool(store, queue, &[message(1, 2, 10), first.clone(), first]).await;

    let repeat = Spooled::Repeat(QueuePosition::new(1));
    assert_eq!(
        outcomes,
        [Spooled::Stored(QueuePosition::new(2)), repeat, repeat]
    );
    assert_eq!(all(store, queue).await.rows.len(), 2);
}

pub(crate) async fn positions_are_never_given_out_twice(store: &Store) {
    let queue = queue(store, 1).await;
    spool(store, queue, &[message(1, 1, 10), message(1, 2, 10)]).await;
    let rows = row_ids(queue, &all(store, queue).await);

    assert_eq!(store.delete_exact(rows).await.unwrap(), 2);
    let again = spool(store, queue, &[message(1, 2, 10)]).await;

    assert_eq!(again, [Spooled::Stored(QueuePosition::new(3))]);
}

pub(crate) async fn deletion_needs_queue_position_and_key(store: &Store) {
    let (queue_a, queue_b) = (queue(store, 1).await, queue(store, 2).await);
    let entries = [message(1, 1, 10), message(1, 2, 10)];
    spool(store, queue_a, &entries).await;
    let right = row_ids(queue_a, &all(store, queue_a).await);
    let wrong = vec![
        RowId {
            queue: queue_b,
            ..right[0]
        },
        RowId {
            position: QueuePosition::new(2),
            ..right[0]
        },
        RowId {
            key: right[1].key,
            ..right[0]
        },
    ];

    assert_eq!(store.delete_exact(wrong).await.unwrap(), 0);
    assert_eq!(store.delete_exact(vec![right[0]]).await.unwrap(), 1);
    assert_eq!(store.delete_exact(vec![right[0]]).await.unwrap(), 0);

    assert_eq!(row_ids(queue_a, &all(store, queue_a).await), [right[1]]);
}

pub(crate) async fn a_shared_body_stays_until_its_last_entry_goes(store: &Store) {
    let queues = [
        queue(store, 1).await,
        queue(store, 2).await,
        queue(store, 3).await,
    ];
    let entry = message(1, 1, 500);
    let deliveries = queues
        .map(|queue| delivery(queue, std::slice::from_ref(&entry)))
        .to_vec();
    store.spool(deliveries, at(1)).await.unwrap();

    for (gone, queue) in queues.iter().enumerate() {
        for left in &queues[gone..] {
            assert_eq!(
                bodies(&all(store, *left).await),
                std::slice::from_ref(&entry.body)
            );
        }
        let rows = row_ids(*queue, &all(store, *queue).await);
        store.delete_exact(rows).await.unwrap();
    }

    // A body made anew must not be mistaken for one that is gone.
    spool(store, queues[0], std::slice::from_ref(&entry)).await;
    assert_eq!(bodies(&all(store, queues[0]).await), [entry.body]);
}

pub(crate) async fn pages_are_bounded_and_go_on(store: &Store) {
    let queue = queue(store, 1).await;
    let entries: Vec<_> = (0..5).map(|number| message(1, number, 100)).collect();
    spool(store, queue, &entries).await;

    let by_rows = store
        .page(&queue, QueuePosition::START, 10_000, 2)
        .await
        .unwrap()
        .unwrap();
    let by_bytes = store
        .page(&queue, QueuePosition::new(2), 250, 9)
        .await
        .unwrap()
        .unwrap();
    let too_small = store
        .page(&queue, QueuePosition::new(3), 1, 9)
        .await
        .unwrap()
        .unwrap();
    let end = store
        .page(&queue, QueuePosition::new(5), 1, 9)
        .await
        .unwrap()
        .unwrap();

    let positions = |page: &Page| {
        page.rows
            .iter()
            .map(|row| row.position.get())
            .collect::<Vec<_>>()
    };
    assert_eq!((positions(&by_rows), by_rows.more), (vec![1, 2], true));
    assert_eq!((positions(&by_bytes), by_bytes.more), (vec![3, 4], true));
    assert_eq!((positions(&too_small), too_small.more), (vec![4], true));
    assert_eq!((positions(&end), end.more), (vec![], false));
}

pub(crate) async fn an_unknown_queue_is_gone(store: &Store) {
    let nowhere = QueueId::new([9; 16]);

    assert_eq!(
        spool(store, nowhere, &[message(1, 1, 9)]).await,
        [Spooled::Refused(Refusal::Gone)]
    );
    assert_eq!(
        store
            .page(&nowhere, QueuePosition::START, 9, 9)
            .await
            .unwrap(),
        None
    );
    assert_eq!(store.queue_state(&nowhere).await.unwrap(), None);
    assert_eq!(store.queue_heads(vec![nowhere]).await.unwrap(), [None]);
}

pub(crate) async fn one_refused_queue_does_not_touch_the_others(store: &Store) {
    let queue = queue(store, 1).await;
    let nowhere = QueueId::new([9; 16]);
    let entry = [message(1, 1, 10)];

    let deliveries = vec![delivery(nowhere, &entry), delivery(queue, &entry)];
    let done = store.spool(deliveries, at(1)).await.unwrap();

    assert_eq!(done[0].outcomes, [Spooled::Refused(Refusal::Gone)]);
    assert_eq!(done[1].outcomes, [Spooled::Stored(QueuePosition::new(1))]);
    assert_eq!(done[1].head, QueuePosition::new(1));
}

pub(crate) async fn heads_and_state_follow_the_queue(store: &Store) {
    let (queue_a, queue_b) = (queue(store, 1).await, queue(store, 2).await);
    spool(store, queue_a, &[message(1, 1, 10), message(1, 2, 30)]).await;
    let first = row_ids(queue_a, &all(store, queue_a).await)[0];
    store.delete_exact(vec![first]).await.unwrap();

    let state = store.queue_state(&queue_a).await.unwrap().unwrap();
    let heads = store.queue_heads(vec![queue_b, queue_a]).await.unwrap();

    assert_eq!(
        state,
        QueueState {
            head: QueuePosition::new(2),
            entries: 1,
            bytes: 30
        }
    );
    assert_eq!(
        heads,
        [Some(QueuePosition::START), Some(QueuePosition::new(2))]
    );
}

pub(crate) async fn leaving_drops_the_group_and_marks_it(store: &Store) {
    let queue = queue(store, 1).await;
    let stays = message(2, 2, 10);
    spool(
        store,
        queue,
        &[message(1, 1, 10), stays.clone(), message(1, 3, 10)],
    )
    .await;

    let left = store
        .leave_group(&queue, &group_id(1), at(500))
        .await
        .unwrap();

    assert_eq!(left, Left::Marked { dropped: 2 });
    assert_eq!(bodies(&all(store, queue).await), [stays.body]);
    assert_eq!(store.queue_state(&queue).await.unwrap().unwrap().entries, 1);
    let states = states(store, queue, &[(1, 500), (1, 501), (2, 500)]).await;
    assert_eq!(
        states,
        [
            ReferenceState::Gone,
            ReferenceState::Live,
            ReferenceState::Live
        ]
    );
}

pub(crate) async fn leaving_again_moves_the_mark_forward_only(store: &Store) {
    let queue = queue(store, 1).await;
    store
        .leave_group(&queue, &group_id(1), at(500))
        .await
        .unwrap();
    // The mark stays when entries of the group come and go.
    spool(store, queue, &[message(1, 1, 10)]).await;
    store
        .delete_exact(row_ids(queue, &all(store, queue).await))
        .await
        .unwrap();

    store
        .leave_group(&queue, &group_id(1), at(400))
        .await
        .unwrap();

    assert_eq!(
        states(store, queue, &[(1, 500)]).await,
        [ReferenceState::Gone]
    );
    store
        .leave_group(&queue, &group_id(1), at(600))
        .await
        .unwrap();
    assert_eq!(
        states(store, queue, &[(1, 600)]).await,
        [ReferenceState::Gone]
    );
}

pub(crate) async fn marks_of_groups_left_are_bounded(store: &Store) {
    let queue = queue(store, 1).await;
    let group = |number: u32| {
        let mut raw = [0; 32];
        raw[..4].copy_from_slice(&number.to_be_bytes());
        GroupId::new(raw)
    };
    for number in 0..4_096 {
        store
            .leave_group(&queue, &group(number), at(1))
            .await
            .unwrap();
    }

    assert_eq!(
        store
            .leave_group(&queue, &group(9_999), at(1))
            .await
            .unwrap(),
        Left::TooMany
    );
    let known = store.leave_group(&queue, &group(7), at(2)).await.unwrap();
    assert_eq!(known, Left::Marked { dropped: 0 });
}

pub(crate) async fn references_to_revoked_queues_are_gone_and_others_unknown(store: &Store) {
    let queue = queue(store, 1).await;
    spool(store, queue, &[message(1, 1, 10)]).await;
    store
        .put_list(list(1, 2, &[2]), &device_id(1))
        .await
        .unwrap();

    assert_eq!(
        states(store, queue, &[(1, 5)]).await,
        [ReferenceState::Gone]
    );
    let nowhere = QueueId::new([9; 16]);
    assert_eq!(
        states(store, nowhere, &[(1, 5)]).await,
        [ReferenceState::Unknown]
    );
    assert_eq!(
        spool(store, queue, &[message(1, 2, 9)]).await,
        [Spooled::Refused(Refusal::Gone)]
    );
    assert_eq!(
        store
            .page(&queue, QueuePosition::START, 99, 99)
            .await
            .unwrap(),
        None
    );
}

pub(crate) async fn concurrent_spools_lose_nothing(store: &Store) {
    let queue = queue(store, 1).await;
    let mut spools = tokio::task::JoinSet::new();
    for number in 0..30_u8 {
        let store = store.clone();
        spools.spawn(async move {
            spool(&store, queue, &[message(number, u32::from(number), 9)]).await
        });
    }

    let outcomes = spools.join_all().await;

    let mut positions: Vec<u64> = outcomes
        .into_iter()
        .flatten()
        .map(|outcome| match outcome {
            Spooled::Stored(position) => position.get(),
            Spooled::Repeat(_) | Spooled::Refused(_) => panic!("not stored"),
        })
        .collect();
    positions.sort_unstable();
    assert_eq!(positions, (1..=30).collect::<Vec<_>>());
    assert_eq!(all(store, queue).await.rows.len(), 30);
}

pub(crate) async fn a_closed_store_says_so(store: &Store) {
    let queue = queue(store, 1).await;

    store.close().await;

    let written = store
        .spool(vec![delivery(queue, &[message(1, 1, 9)])], at(1))
        .await;
    assert!(matches!(written, Err(StoreError::Closed)));
    let read = store.queue_state(&queue).await;
    assert!(matches!(read, Err(StoreError::Closed)));
}

async fn states(store: &Store, queue: QueueId, asked: &[(u8, u64)]) -> Vec<ReferenceState> {
    let references = asked
        .iter()
        .map(|(group, issued)| Reference {
            queue,
            group: group_id(*group),
            issued: at(*issued),
        })
        .collect();
    store.reference_states(references).await.unwrap()
}
