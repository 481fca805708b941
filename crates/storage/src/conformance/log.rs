//! A group's log and GroupInfos: pages, and what is swept.

use std::time::Duration;

use super::groups::{commit, infos};
use super::*;
use crate::{Commit, ExpiryClock, LogPage, SweepCursor};

pub(crate) async fn closed_groups_and_old_entries_are_swept(store: &Store) {
    store.create_group(new_group(1), at(1)).await.unwrap();
    store.create_group(new_group(2), at(1)).await.unwrap();
    store.commit(commit(0, 1), at(1_000)).await.unwrap();
    let closing = Commit {
        group: group_id(2),
        close: true,
        ..commit(0, 1)
    };
    store.commit(closing, at(1_000)).await.unwrap();
    store.commit(commit(1, 2), at(2_000)).await.unwrap();
    let day = Duration::from_secs(24 * 3600);

    sweep(store, at(1_500).saturating_add(day)).await;
    assert_eq!(store.group(&group_id(2)).await.unwrap(), None);
    assert_eq!(positions(store, 0).await, [1, 2]);

    sweep(store, at(1_500).saturating_add(day * 30)).await;
    assert_eq!(positions(store, 0).await, [2]);
    let page = store.log_page(&group_id(1), 0, 99).await.unwrap().unwrap();
    assert_eq!((page.first_kept, page.head), (2, 2));

    sweep(store, at(2_500).saturating_add(day * 30)).await;
    let page = store.log_page(&group_id(1), 0, 99).await.unwrap().unwrap();
    assert_eq!((page.first_kept, page.head), (3, 2));
}

pub(crate) async fn log_pages_are_bounded_and_go_on(store: &Store) {
    store.create_group(new_group(1), at(1)).await.unwrap();
    for position in 0..5 {
        store.commit(commit(position, 1), at(2)).await.unwrap();
    }

    let page = store.log_page(&group_id(1), 2, 15).await.unwrap().unwrap();
    let small = store.log_page(&group_id(1), 5, 1).await.unwrap().unwrap();
    let end = store.log_page(&group_id(1), 6, 1).await.unwrap().unwrap();

    let numbers = |page: &LogPage| {
        page.entries
            .iter()
            .map(|entry| entry.position)
            .collect::<Vec<_>>()
    };
    assert_eq!((numbers(&page), page.more), (vec![2, 3], true));
    assert_eq!((numbers(&small), small.more), (vec![5], false));
    assert_eq!((numbers(&end), end.more), (vec![], false));
    assert_eq!(store.log_page(&group_id(2), 0, 9).await.unwrap(), None);
}

pub(crate) async fn group_infos_of_the_last_entries_are_kept(store: &Store) {
    store.create_group(new_group(1), at(1)).await.unwrap();
    for position in 0..20 {
        store.commit(commit(position, 1), at(2)).await.unwrap();
    }

    let kept = infos(store).await;

    let positions: Vec<u64> = kept.iter().map(|(position, _)| *position).collect();
    assert_eq!(positions, (5..=20).rev().collect::<Vec<_>>());
    assert_eq!(store.group_infos(&group_id(1), 1).await.unwrap().len(), 1);
}

async fn positions(store: &Store, from: u64) -> Vec<u64> {
    let page = store
        .log_page(&group_id(1), from, usize::MAX)
        .await
        .unwrap()
        .unwrap();
    page.entries.iter().map(|entry| entry.position).collect()
}

async fn sweep(store: &Store, clock: Timestamp) {
    let mut cursor = Some(SweepCursor::default());
    while let Some(next) = cursor {
        cursor = store.sweep_groups(ExpiryClock(clock), next).await.unwrap();
    }
}
