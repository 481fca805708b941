//! Groups: creation, the compare-and-swap of commits, the log, removal, closing.

use super::*;
use crate::{Commit, CommitOutcome, GroupCreated, GroupDelivery, JoinKeyChange};

pub(crate) async fn a_group_is_created_once(store: &Store) {
    let create = async |group| store.create_group(group, at(1)).await.unwrap();

    assert_eq!(create(new_group(1)).await, GroupCreated::Created);
    assert_eq!(create(new_group(1)).await, GroupCreated::Repeat);
    let other = NewGroup {
        request_hash: [9; 32],
        ..new_group(1)
    };
    assert_eq!(create(other).await, GroupCreated::Conflict);

    let group = store.group(&group_id(1)).await.unwrap().unwrap();
    assert_eq!((group.head, group.closed, group.join_key), (0, false, None));
    assert_eq!(group.entries, [member(1, true)]);
    assert_eq!(infos(store).await, [(0, Bytes::from_static(b"info 0"))]);
    assert_eq!(store.group(&group_id(2)).await.unwrap(), None);
}

pub(crate) async fn a_commit_takes_the_next_position_with_all_its_effects(store: &Store) {
    store.create_group(new_group(1), at(1)).await.unwrap();
    let commit = Commit {
        add: vec![member(2, false), member(3, false)],
        join_key: JoinKeyChange::Set([7; 32]),
        ..commit(0, 1)
    };
    let before = store.group(&group_id(1)).await.unwrap().unwrap();

    let done = store.commit(commit, at(5)).await.unwrap();

    assert_eq!(done, committed(1));
    let group = store.group(&group_id(1)).await.unwrap().unwrap();
    assert_eq!(group.head, 1);
    assert!(group.revision > before.revision);
    assert_eq!(
        group.entries,
        [member(1, true), member(2, false), member(3, false)]
    );
    assert_eq!(group.join_key, Some([7; 32]));
    let page = store
        .log_page(&group_id(1), 1, 9_999)
        .await
        .unwrap()
        .unwrap();
    assert_eq!((page.head, page.first_kept, page.more), (1, 1, false));
    assert_eq!(page.entries[0].entry, Bytes::from_static(b"entry 1"));
    let newest = infos(store).await.remove(0);
    assert_eq!(newest, (1, Bytes::from_static(b"info of 1")));
}

pub(crate) async fn a_commit_removes_and_changes_flags(store: &Store) {
    store.create_group(new_group(1), at(1)).await.unwrap();
    let add = vec![member(2, false), member(3, false)];
    store
        .commit(
            Commit {
                add,
                ..commit(0, 1)
            },
            at(2),
        )
        .await
        .unwrap();

    let change = Commit {
        // One of them has left already: no effect.
        remove: vec![member(2, false).handle, member(9, false).handle],
        admins: vec![(member(3, true).handle, true)],
        join_key: JoinKeyChange::Clear,
        ..commit(1, 2)
    };
    store.commit(change, at(3)).await.unwrap();

    let group = store.group(&group_id(1)).await.unwrap().unwrap();
    assert_eq!(group.entries, [member(1, true), member(3, true)]);
    assert_eq!(group.join_key, None);
}

pub(crate) async fn a_taken_position_is_a_conflict_and_changes_nothing(store: &Store) {
    let queue = queue(store, 1).await;
    store.create_group(new_group(1), at(1)).await.unwrap();
    store.commit(commit(0, 1), at(2)).await.unwrap();
    let before = store.group(&group_id(1)).await.unwrap();

    let loser = Commit {
        add: vec![member(2, false)],
        deliveries: vec![delivery_to(queue, 2, &[message(1, 1, 9)])],
        ..commit(0, 2)
    };
    let lost = store.commit(loser, at(3)).await.unwrap();
    let ahead = store.commit(commit(5, 3), at(3)).await.unwrap();

    assert_eq!(lost, CommitOutcome::Conflict { head: 1 });
    assert_eq!(ahead, CommitOutcome::Conflict { head: 1 });
    assert_eq!(store.group(&group_id(1)).await.unwrap(), before);
    assert_eq!(all(store, queue).await.rows.len(), 0);
    let nowhere = Commit {
        group: group_id(2),
        ..commit(0, 1)
    };
    assert_eq!(
        store.commit(nowhere, at(3)).await.unwrap(),
        CommitOutcome::NotFound
    );
}

pub(crate) async fn a_repeated_commit_gets_its_result_however_far_the_head_is(store: &Store) {
    store.create_group(new_group(1), at(1)).await.unwrap();
    let nowhere = QueueId::new([9; 16]);
    let invite = NewEntry {
        kind: EntryKind::GroupInvite,
        ..message(1, 1, 9)
    };
    let first = Commit {
        add: vec![member(2, false)],
        deliveries: vec![delivery_to(nowhere, 2, &[invite])],
        refused: vec![member(3, false).handle],
        ..commit(0, 1)
    };
    let done = store.commit(first.clone(), at(2)).await.unwrap();
    store.commit(commit(1, 2), at(3)).await.unwrap();

    let again = store.commit(first, at(4)).await.unwrap();

    let handles = vec![member(3, false).handle, member(2, false).handle];
    assert!(matches!(done, CommitOutcome::Committed { refused, .. } if refused == handles));
    assert_eq!(
        again,
        CommitOutcome::Repeat {
            position: 1,
            refused: handles
        }
    );
    assert_eq!(
        store.group_head(&group_id(1)).await.unwrap().unwrap().head,
        2
    );
}

pub(crate) async fn queue_rows_are_part_of_the_commit(store: &Store) {
    let (queue_a, queue_b) = (queue(store, 1).await, queue(store, 2).await);
    store.create_group(new_group(1), at(1)).await.unwrap();
    let update = NewEntry {
        kind: EntryKind::KeyUpdate,
        ..message(1, 1, 9)
    };
    let first_message = message(1, 2, 9);
    let commit = Commit {
        deliveries: vec![
            delivery_to(queue_a, 1, &[update.clone(), first_message.clone()]),
            delivery_to(queue_b, 2, std::slice::from_ref(&update)),
        ],
        ..commit(0, 1)
    };

    let done = store.commit(commit, at(2)).await.unwrap();

    let CommitOutcome::Committed { spooled, .. } = done else {
        panic!("not committed")
    };
    assert_eq!((spooled[0].head.get(), spooled[1].head.get()), (2, 1));
    assert_eq!(
        bodies(&all(store, queue_a).await),
        [update.body.clone(), first_message.body]
    );
    assert_eq!(bodies(&all(store, queue_b).await), [update.body]);
}

pub(crate) async fn a_list_without_an_admin_makes_all_admins(store: &Store) {
    store.create_group(new_group(1), at(1)).await.unwrap();
    let add = vec![member(2, false), member(3, false)];
    store
        .commit(
            Commit {
                add,
                ..commit(0, 1)
            },
            at(2),
        )
        .await
        .unwrap();

    let gone = vec![member(1, true).handle, member(8, true).handle];
    let done = store
        .remove_handles(&group_id(1), gone, at(3))
        .await
        .unwrap()
        .unwrap();

    assert_eq!(done.removed, [member(1, true).handle]);
    assert_eq!(done.group.gone, done.removed);
    assert_eq!(done.group.entries, [member(2, true), member(3, true)]);
    assert_eq!(done.group.head, 1);
    assert_eq!(Some(done.group), store.group(&group_id(1)).await.unwrap());
}

pub(crate) async fn a_handle_off_the_list_is_remembered_until_a_commit_adds_it(store: &Store) {
    store.create_group(new_group(1), at(1)).await.unwrap();
    let add = vec![member(2, false), member(3, false)];
    store
        .commit(
            Commit {
                add,
                ..commit(0, 1)
            },
            at(2),
        )
        .await
        .unwrap();
    let (two, three) = (member(2, false).handle, member(3, false).handle);
    let gone = async || store.group(&group_id(1)).await.unwrap().unwrap().gone;

    store
        .remove_handles(&group_id(1), vec![two, three], at(3))
        .await
        .unwrap();
    assert_eq!(gone().await, [two, three]);
    store
        .commit(
            Commit {
                remove: vec![two],
                ..commit(1, 2)
            },
            at(4),
        )
        .await
        .unwrap();
    assert_eq!(gone().await, [two, three]);
    let again = vec![member(3, false)];
    store
        .commit(
            Commit {
                add: again,
                ..commit(2, 3)
            },
            at(5),
        )
        .await
        .unwrap();
    assert_eq!(gone().await, [two]);
    store
        .commit(
            Commit {
                remove: vec![three],
                ..commit(3, 4)
            },
            at(6),
        )
        .await
        .unwrap();
    assert_eq!(gone().await, [two, three]);
}

pub(crate) async fn removal_raises_the_revision_only_if_somebody_left(store: &Store) {
    store.create_group(new_group(1), at(1)).await.unwrap();
    store
        .commit(
            Commit {
                add: vec![member(2, false)],
                ..commit(0, 1)
            },
            at(2),
        )
        .await
        .unwrap();
    let head = async || store.group_head(&group_id(1)).await.unwrap().unwrap();
    let before = head().await;

    store
        .remove_handles(&group_id(1), vec![member(9, false).handle], at(3))
        .await
        .unwrap();
    assert_eq!(head().await, before);
    store
        .remove_handles(&group_id(1), vec![member(2, false).handle], at(3))
        .await
        .unwrap();
    assert_eq!(head().await.revision, before.revision + 1);

    assert_eq!(
        store
            .remove_handles(&group_id(2), vec![], at(3))
            .await
            .unwrap(),
        None
    );
}

pub(crate) async fn an_empty_list_closes_the_group(store: &Store) {
    store.create_group(new_group(1), at(1)).await.unwrap();

    let gone = vec![member(1, true).handle];
    let done = store
        .remove_handles(&group_id(1), gone, at(3))
        .await
        .unwrap()
        .unwrap();

    assert!(done.group.closed);
    assert_eq!(
        store.commit(commit(0, 1), at(4)).await.unwrap(),
        CommitOutcome::NotFound
    );
}

pub(crate) async fn a_closed_group_still_answers_the_commit_that_closed_it(store: &Store) {
    store.create_group(new_group(1), at(1)).await.unwrap();
    let closing = Commit {
        close: true,
        ..commit(0, 1)
    };

    assert_eq!(
        store.commit(closing.clone(), at(2)).await.unwrap(),
        committed(1)
    );

    assert!(store.group(&group_id(1)).await.unwrap().unwrap().closed);
    let again = store.commit(closing, at(3)).await.unwrap();
    assert_eq!(
        again,
        CommitOutcome::Repeat {
            position: 1,
            refused: vec![]
        }
    );
    assert_eq!(
        store.commit(commit(0, 9), at(3)).await.unwrap(),
        CommitOutcome::NotFound
    );
    assert_eq!(
        store.commit(commit(1, 9), at(3)).await.unwrap(),
        CommitOutcome::NotFound
    );
}

pub(crate) async fn of_concurrent_commits_one_wins(store: &Store) {
    store.create_group(new_group(1), at(1)).await.unwrap();
    let mut commits = tokio::task::JoinSet::new();
    for hash in 1..=10 {
        let store = store.clone();
        commits.spawn(async move { store.commit(commit(0, hash), at(2)).await.unwrap() });
    }

    let outcomes = commits.join_all().await;

    let won = outcomes
        .iter()
        .filter(|outcome| **outcome == committed(1))
        .count();
    let lost = CommitOutcome::Conflict { head: 1 };
    assert_eq!(
        (
            won,
            outcomes.iter().filter(|outcome| **outcome == lost).count()
        ),
        (1, 9)
    );
}

pub(crate) async fn an_impossible_commit_leaves_nothing_behind(store: &Store) {
    let queue = queue(store, 1).await;
    store.create_group(new_group(1), at(1)).await.unwrap();
    let before = store.group(&group_id(1)).await.unwrap();
    let twice = Commit {
        add: vec![member(2, false), member(1, true)],
        deliveries: vec![delivery_to(queue, 2, &[message(1, 1, 9)])],
        ..commit(0, 1)
    };

    let entries = [message(1, 7, 9)];
    let (refused, spooled) =
        tokio::join!(store.commit(twice, at(2)), spool(store, queue, &entries));

    assert!(matches!(refused, Err(crate::StoreError::Refused(_))));
    assert_eq!(spooled, [Spooled::Stored(QueuePosition::new(1))]);
    assert_eq!(store.group(&group_id(1)).await.unwrap(), before);
}

pub(crate) async fn a_deleted_group_is_gone(store: &Store) {
    store.create_group(new_group(1), at(1)).await.unwrap();
    store.commit(commit(0, 1), at(2)).await.unwrap();

    assert!(store.delete_group(&group_id(1)).await.unwrap());
    assert!(!store.delete_group(&group_id(1)).await.unwrap());

    assert_eq!(store.group(&group_id(1)).await.unwrap(), None);
    assert_eq!(infos(store).await, []);
}

/// The commit after `expect` of group 1, told from others by `hash`.
pub(super) fn commit(expect: u64, hash: u8) -> Commit {
    Commit {
        group: group_id(1),
        expect,
        body_hash: [hash; 32],
        entry: Bytes::from(format!("entry {}", expect + 1)),
        group_info: Bytes::from(format!("info of {}", expect + 1)),
        add: vec![],
        remove: vec![],
        admins: vec![],
        join_key: JoinKeyChange::Keep,
        close: false,
        deliveries: vec![],
        relays: vec![],
        refused: vec![],
    }
}

fn committed(position: u64) -> CommitOutcome {
    CommitOutcome::Committed {
        position,
        spooled: vec![],
        relayed: vec![],
        refused: vec![],
    }
}

fn delivery_to(queue: QueueId, handle: u8, entries: &[NewEntry]) -> GroupDelivery {
    GroupDelivery {
        handle: member(handle, false).handle,
        queue,
        entries: entries.to_vec(),
    }
}

pub(super) async fn infos(store: &Store) -> Vec<(u64, Bytes)> {
    store.group_infos(&group_id(1), usize::MAX).await.unwrap()
}
