//! The outbox: order of lanes, repeats, exact deletion, limits, expiry, and commits.

use std::time::Duration;

use super::groups::commit;
use super::*;
use crate::{
    Commit, CommitOutcome, GroupRelay, NewOutboxEntry, OutboxContent, OutboxLane, OutboxPage,
    OutboxRowId, Outboxed,
};

fn lane(peer: &str, number: u8) -> OutboxLane {
    OutboxLane {
        peer: Domain::parse(peer).unwrap(),
        number,
    }
}

fn near() -> OutboxLane {
    lane("near.example", 3)
}

/// An event told from others by `number`.
fn entry(lane: OutboxLane, number: u8, size: usize) -> NewOutboxEntry {
    NewOutboxEntry {
        lane,
        key: DedupeKey::new([number; 16]),
        event: Bytes::from(vec![number; size]),
        return_to: (number % 2 == 1).then(|| Bytes::from(format!("author of {number}"))),
    }
}

async fn append(store: &Store, entries: Vec<NewOutboxEntry>) -> Vec<Outboxed> {
    store.append_outbox(entries, at(1_000)).await.unwrap()
}

async fn page(store: &Store, lane: &OutboxLane) -> OutboxPage {
    store
        .outbox_page(lane, QueuePosition::START, usize::MAX, 1_000)
        .await
        .unwrap()
}

fn keys(page: &OutboxPage) -> Vec<u8> {
    page.rows.iter().map(|row| row.key.as_bytes()[0]).collect()
}

fn position(outboxed: Outboxed) -> QueuePosition {
    match outboxed {
        Outboxed::Stored(position) | Outboxed::Repeat(position) => position,
        Outboxed::Full => panic!("the outbox is full"),
    }
}

pub(crate) async fn entries_wait_in_the_order_of_their_lane(store: &Store) {
    let other = lane("near.example", 4);
    let done = append(
        store,
        vec![
            entry(near(), 5, 9),
            entry(other.clone(), 6, 9),
            entry(near(), 2, 9),
        ],
    )
    .await;

    let read = page(store, &near()).await;

    assert_eq!(keys(&read), [5, 2]);
    assert_eq!(keys(&page(store, &other).await), [6]);
    assert_eq!(read.rows[0].position, position(done[0]));
    assert!(position(done[0]) < position(done[2]));
    assert_eq!((read.head, read.more), (position(done[2]), false));
    let content = OutboxContent::Event {
        event: Bytes::from(vec![5; 9]),
        return_to: Some(Bytes::from_static(b"author of 5")),
    };
    assert_eq!(read.rows[0].content, content);
    let content = OutboxContent::Event {
        event: Bytes::from(vec![2; 9]),
        return_to: None,
    };
    assert_eq!(read.rows[1].content, content);
    assert_eq!(
        page(store, &lane("far.example", 3)).await,
        OutboxPage::default()
    );
}

pub(crate) async fn a_repeat_is_known_by_its_key_within_its_lane(store: &Store) {
    let first = append(store, vec![entry(near(), 1, 9)]).await;

    let again = append(
        store,
        vec![entry(near(), 1, 9), entry(lane("far.example", 3), 1, 9)],
    )
    .await;

    assert_eq!(again[0], Outboxed::Repeat(position(first[0])));
    assert!(matches!(again[1], Outboxed::Stored(_)));
    assert_eq!(keys(&page(store, &near()).await), [1]);
}

pub(crate) async fn deletion_needs_lane_position_and_key(store: &Store) {
    let done = append(store, vec![entry(near(), 1, 9), entry(near(), 2, 9)]).await;
    let first = OutboxRowId {
        lane: near(),
        position: position(done[0]),
        key: DedupeKey::new([1; 16]),
    };
    let wrong = vec![
        OutboxRowId {
            lane: lane("far.example", 3),
            ..first.clone()
        },
        OutboxRowId {
            position: position(done[1]),
            ..first.clone()
        },
        OutboxRowId {
            key: DedupeKey::new([2; 16]),
            ..first.clone()
        },
    ];

    assert_eq!(store.delete_outbox(wrong).await.unwrap(), 0);
    let twice = vec![first.clone(), first];
    assert_eq!(store.delete_outbox(twice).await.unwrap(), 1);

    assert_eq!(keys(&page(store, &near()).await), [2]);
    let states = store.outbox_states().await.unwrap();
    assert_eq!((states[0].entries, states[0].bytes), (1, 9));
}

pub(crate) async fn positions_of_a_lane_are_never_given_out_twice(store: &Store) {
    let done = append(store, vec![entry(near(), 1, 9)]).await;
    let row = OutboxRowId {
        lane: near(),
        position: position(done[0]),
        key: DedupeKey::new([1; 16]),
    };
    store.delete_outbox(vec![row.clone()]).await.unwrap();

    let again = append(store, vec![entry(near(), 1, 9)]).await;

    assert!(position(again[0]) > row.position);
    assert_eq!(store.delete_outbox(vec![row]).await.unwrap(), 0);
}

pub(crate) async fn pages_are_bounded_and_go_on(store: &Store) {
    let entries = (1..=5).map(|number| entry(near(), number, 100)).collect();
    append(store, entries).await;
    let read = async |after, bytes_max, rows_max| {
        store
            .outbox_page(&near(), after, bytes_max, rows_max)
            .await
            .unwrap()
    };

    let by_rows = read(QueuePosition::START, usize::MAX, 2).await;
    assert_eq!((keys(&by_rows), by_rows.more), (vec![1, 2], true));
    let by_bytes = read(by_rows.rows[1].position, 250, 9).await;
    assert_eq!((keys(&by_bytes), by_bytes.more), (vec![3, 4], true));
    let one_at_least = read(by_bytes.rows[1].position, 1, 9).await;
    assert_eq!((keys(&one_at_least), one_at_least.more), (vec![5], false));
}

pub(crate) async fn a_full_outbox_refuses_one_peer_alone(store: &Store) {
    let many = (0..20)
        .map(|number| entry(lane("near.example", number % 8), number, 9))
        .collect();
    let stored = append(store, many).await;
    assert!(
        stored
            .iter()
            .all(|done| matches!(done, Outboxed::Stored(_)))
    );

    let done = append(
        store,
        vec![
            entry(near(), 99, 9),
            entry(near(), 3, 9),
            entry(lane("far.example", 3), 99, 4_000),
            entry(lane("far.example", 4), 98, 1),
        ],
    )
    .await;

    assert_eq!(done[0], Outboxed::Full);
    assert_eq!(done[1], Outboxed::Repeat(position(stored[3])));
    assert!(matches!(done[2], Outboxed::Stored(_)));
    assert_eq!(done[3], Outboxed::Full);
}

pub(crate) async fn lanes_with_entries_are_found(store: &Store) {
    let far = lane("far.example", 7);
    let done = append(
        store,
        vec![
            entry(near(), 1, 9),
            entry(far.clone(), 2, 10),
            entry(far.clone(), 3, 11),
        ],
    )
    .await;
    let emptied = OutboxRowId {
        lane: near(),
        position: position(done[0]),
        key: DedupeKey::new([1; 16]),
    };
    store.delete_outbox(vec![emptied]).await.unwrap();

    let states = store.outbox_states().await.unwrap();

    assert_eq!(states.len(), 1);
    assert_eq!(states[0].lane, far);
    assert_eq!((states[0].entries, states[0].bytes), (2, 21));
    assert_eq!(states[0].head, position(done[2]));
}

pub(crate) async fn what_waited_too_long_is_found_and_stays(store: &Store) {
    let far = lane("far.example", 0);
    let old = vec![entry(near(), 1, 9), entry(far.clone(), 2, 9)];
    store.append_outbox(old, at(1_000)).await.unwrap();
    let young = vec![entry(near(), 3, 9)];
    store.append_outbox(young, at(2_000)).await.unwrap();
    let clock = store
        .advance_clock(at(6_000), Duration::ZERO)
        .await
        .unwrap();
    let found = async |ttl, most| {
        let ttl = Duration::from_millis(ttl);
        let rows = store.outbox_expired(clock, ttl, most).await.unwrap();
        rows.into_iter()
            .map(|(lane, row)| (lane, row.key.as_bytes()[0]))
            .collect::<Vec<_>>()
    };

    assert_eq!(found(5_001, 9).await, []);
    assert_eq!(found(5_000, 9).await, [(far.clone(), 2), (near(), 1)]);
    assert_eq!(found(5_000, 1).await, [(far, 2)]);
    assert_eq!(found(9_000, 9).await, []);
    assert_eq!(keys(&page(store, &near()).await), [1, 3]);
}

pub(crate) async fn events_of_a_commit_are_part_of_it(store: &Store) {
    store.create_group(new_group(1), at(1)).await.unwrap();
    let relay = |number, welcomes| GroupRelay {
        welcomes,
        entry: entry(near(), number, 9),
    };
    let winner = Commit {
        relays: vec![relay(1, Some(member(2, false).handle)), relay(2, None)],
        ..commit(0, 1)
    };
    let loser = Commit {
        relays: vec![relay(3, None)],
        ..commit(0, 2)
    };

    let won = store.commit(winner.clone(), at(2)).await.unwrap();
    let lost = store.commit(loser, at(2)).await.unwrap();
    let again = store.commit(winner, at(2)).await.unwrap();

    let CommitOutcome::Committed {
        relayed, refused, ..
    } = won
    else {
        panic!("not committed");
    };
    assert!(matches!(
        relayed[..],
        [Outboxed::Stored(_), Outboxed::Stored(_)]
    ));
    assert_eq!(refused, []);
    assert_eq!(lost, CommitOutcome::Conflict { head: 1 });
    assert!(matches!(again, CommitOutcome::Repeat { position: 1, .. }));
    assert_eq!(keys(&page(store, &near()).await), [1, 2]);
}

pub(crate) async fn a_welcome_that_finds_no_room_is_named(store: &Store) {
    store.create_group(new_group(1), at(1)).await.unwrap();
    append(store, vec![entry(near(), 1, 3_990)]).await;
    let newcomer = member(2, false);
    let relay = |number, welcomes| GroupRelay {
        welcomes,
        entry: entry(near(), number, 100),
    };
    let commit = Commit {
        add: vec![newcomer.clone()],
        relays: vec![relay(2, Some(newcomer.handle)), relay(3, None)],
        ..commit(0, 1)
    };

    let done = store.commit(commit, at(2)).await.unwrap();

    let expected = CommitOutcome::Committed {
        position: 1,
        spooled: vec![],
        relayed: vec![Outboxed::Full, Outboxed::Full],
        refused: vec![newcomer.handle],
    };
    assert_eq!(done, expected);
}
