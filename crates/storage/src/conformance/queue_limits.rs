//! Full queues: what is refused, what still finds room, and the gap entry left behind.

use super::*;
use crate::{QueueLimits, Refusal};

const FULL: Spooled = Spooled::Refused(Refusal::Full);

pub(crate) async fn a_group_uses_at_most_a_quarter_of_the_entries(store: &Store) {
    let queue = queue(store, 1).await;
    let entries: Vec<_> = (0..11).map(|number| message(1, number, 4)).collect();

    let outcomes = spool(store, queue, &entries).await;

    assert_eq!(
        outcomes.iter().filter(|outcome| **outcome == FULL).count(),
        1
    );
    assert_eq!(outcomes[10], FULL);
    assert!(matches!(
        spool(store, queue, &[message(2, 1, 4)]).await[0],
        Spooled::Stored(_)
    ));
}

pub(crate) async fn a_group_uses_at_most_a_quarter_of_the_bytes(store: &Store) {
    let queue = queue(store, 1).await;

    let outcomes = spool(
        store,
        queue,
        &[message(1, 1, 600), message(1, 2, 401), message(1, 3, 400)],
    )
    .await;

    assert!(matches!(
        outcomes[..],
        [Spooled::Stored(_), FULL, Spooled::Stored(_)]
    ));
}

pub(crate) async fn a_full_queue_refuses_entries_of_every_group(store: &Store) {
    let queue = filled(store).await;

    assert_eq!(spool(store, queue, &[message(9, 999, 4)]).await, [FULL]);
    let update = NewEntry {
        kind: EntryKind::KeyUpdate,
        ..message(9, 998, 4)
    };
    assert_eq!(spool(store, queue, &[update]).await, [FULL]);
}

pub(crate) async fn a_full_queue_knows_repeats(store: &Store) {
    let queue = filled(store).await;

    assert!(matches!(
        spool(store, queue, &[message(0, 0, 4)]).await[..],
        [Spooled::Repeat(_)]
    ));
    assert_eq!(gaps(&all(store, queue).await), 0);
}

pub(crate) async fn deletion_makes_room(store: &Store) {
    let queue = filled(store).await;
    let first = row_ids(queue, &all(store, queue).await)[0];

    store.delete_exact(vec![first]).await.unwrap();

    assert!(matches!(
        spool(store, queue, &[message(9, 999, 4)]).await[..],
        [Spooled::Stored(_)]
    ));
}

pub(crate) async fn invites_have_a_reserve(store: &Store) {
    let queue = filled(store).await;
    let invite = |number| NewEntry {
        kind: EntryKind::GroupInvite,
        ..message(200, 1_000 + number, 4)
    };
    let reserve = u32::try_from(QueueLimits::INVITES_RESERVED).unwrap();

    let entries: Vec<_> = (0..=reserve).map(invite).collect();
    let outcomes = spool(store, queue, &entries).await;

    assert_eq!(
        outcomes.iter().filter(|outcome| **outcome == FULL).count(),
        1
    );
    assert_eq!(outcomes.last(), Some(&FULL));
    let taken = all(store, queue).await;
    let last = *row_ids(queue, &taken).iter().rev().nth(1).unwrap();
    store.delete_exact(vec![last]).await.unwrap();
    assert!(matches!(
        spool(store, queue, &[invite(900)]).await[..],
        [Spooled::Stored(_)]
    ));
}

pub(crate) async fn refusals_merge_into_one_gap_entry_until_it_is_shown(store: &Store) {
    let queue = filled(store).await;
    let refused = |number: u32| message(9, 900 + number, 4);

    spool(store, queue, &[refused(0), refused(1)]).await;
    spool(store, queue, &[refused(2)]).await;

    let page = all(store, queue).await;
    assert_eq!(gaps(&page), 1);
    let shown = page.rows.last().unwrap();
    assert_eq!((&shown.content, shown.position.get()), (&Content::Gap, 41));
    assert_eq!(page.head.get(), 41);

    // It may be at the device already: the next refusal needs a gap entry of its own.
    let merged = store
        .spool(vec![delivery(queue, &[refused(3)])], at(1))
        .await
        .unwrap();
    assert_eq!(merged[0].head.get(), 42);
    let page = all(store, queue).await;
    assert_eq!(gaps(&page), 1);
    assert_eq!(page.rows.last().unwrap().position.get(), 42);
}

pub(crate) async fn an_acknowledged_gap_entry_is_gone_and_another_may_come(store: &Store) {
    let queue = filled(store).await;
    spool(store, queue, &[message(9, 900, 4)]).await;
    let gap = *row_ids(queue, &all(store, queue).await).last().unwrap();

    assert_eq!(store.delete_exact(vec![gap]).await.unwrap(), 1);

    assert_eq!(gaps(&all(store, queue).await), 0);
    spool(store, queue, &[message(9, 901, 4)]).await;
    assert_eq!(gaps(&all(store, queue).await), 1);
    assert_eq!(
        store.queue_state(&queue).await.unwrap().unwrap().entries,
        40
    );
}

pub(crate) async fn damaged_rows_can_be_replaced_by_a_gap_entry(store: &Store) {
    let queue = queue(store, 1).await;
    spool(store, queue, &[message(1, 1, 4), message(1, 2, 4)]).await;
    let rows = row_ids(queue, &all(store, queue).await);

    assert_eq!(store.replace_by_gap(vec![rows[0]], at(9)).await.unwrap(), 1);
    assert_eq!(store.replace_by_gap(vec![rows[0]], at(9)).await.unwrap(), 0);

    let page = all(store, queue).await;
    assert_eq!((bodies(&page).len(), gaps(&page)), (1, 1));
}

/// A queue with all 40 entries, of many groups.
async fn filled(store: &Store) -> QueueId {
    let queue = queue(store, 1).await;
    let entries: Vec<_> = (0..40_u8)
        .map(|number| message(number / 10, u32::from(number), 4))
        .collect();
    let outcomes = spool(store, queue, &entries).await;
    assert!(
        outcomes
            .iter()
            .all(|outcome| matches!(outcome, Spooled::Stored(_)))
    );
    queue
}
