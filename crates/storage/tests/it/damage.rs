//! Damaged bytes are noticed, and everything else is served.

use std::path::Path;

use commucat_storage::{Content, QueuePosition, RowId, StoreError};
use tempfile::tempdir;

use crate::{delivery, open, queue};

#[tokio::test]
async fn one_flipped_bit_in_a_body_is_noticed_and_the_rest_is_served() {
    let directory = tempdir().unwrap();
    let store = open(directory.path()).await.unwrap();
    let queue = queue(&store).await;
    let texts = [
        "the first message",
        "the second message",
        "the third message",
    ];
    store
        .spool(vec![delivery(queue, &texts)], Default::default())
        .await
        .unwrap();
    store.close().await;
    flip_one_bit(directory.path(), b"the second message");

    let store = open(directory.path()).await.unwrap();
    let page = store
        .page(&queue, QueuePosition::START, 9_999, 99)
        .await
        .unwrap()
        .unwrap();

    let served: Vec<bool> = page
        .rows
        .iter()
        .map(|row| matches!(row.content, Content::Frame { .. }))
        .collect();
    assert_eq!(served, [true, false, true]);
    assert_eq!(page.rows[1].content, Content::Corrupt);
    assert_eq!(store.counters().corrupt, 1);

    let damaged = RowId {
        queue,
        position: page.rows[1].position,
        key: page.rows[1].key,
    };
    store
        .replace_by_gap(vec![damaged], Default::default())
        .await
        .unwrap();
    let page = store
        .page(&queue, QueuePosition::START, 9_999, 99)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(page.rows.last().unwrap().content, Content::Gap);
    assert_eq!(store.counters().corrupt, 1);
}

#[tokio::test]
async fn a_damaged_page_fails_the_integrity_check() {
    let directory = tempdir().unwrap();
    let store = open(directory.path()).await.unwrap();
    let queue = queue(&store).await;
    store
        .spool(vec![delivery(queue, &["text"])], Default::default())
        .await
        .unwrap();
    store.check_integrity().await.unwrap();
    store.close().await;
    let file = directory.path().join("store.sqlite3");
    let mut bytes = std::fs::read(&file).unwrap();
    // The page of the first table after the schema: its header.
    bytes[4_096..4_200].fill(0xff);
    std::fs::write(&file, bytes).unwrap();

    let store = open(directory.path()).await.unwrap();

    assert!(matches!(
        store.check_integrity().await,
        Err(StoreError::Corrupt { .. })
    ));
}

#[tokio::test]
async fn a_damaged_log_entry_is_an_error_and_a_damaged_group_info_is_left_out() {
    use bytes::Bytes;
    use commucat_proto::id::{Domain, GroupId, Handle, SealedRef};
    use commucat_storage::{Commit, FanoutEntry, JoinKeyChange, NewGroup};

    let directory = tempdir().unwrap();
    let store = open(directory.path()).await.unwrap();
    let group = GroupId::new([7; 32]);
    let creator = FanoutEntry {
        handle: Handle::new([1; 32]),
        domain: Domain::parse("example.org").unwrap(),
        sealed_ref: SealedRef::new([1; 65]),
        admin: true,
    };
    let info = Some(Bytes::from_static(b"the first group info"));
    let new = NewGroup {
        group,
        request_hash: [1; 32],
        creator,
        group_info: info,
        join_key: None,
    };
    store.create_group(new, Default::default()).await.unwrap();
    let commit = Commit {
        group,
        expect: 0,
        body_hash: [2; 32],
        entry: Bytes::from_static(b"the first log entry"),
        group_info: Bytes::from_static(b"the second group info"),
        add: vec![],
        remove: vec![],
        admins: vec![],
        join_key: JoinKeyChange::Keep,
        close: false,
        deliveries: vec![],
        relays: vec![],
        refused: vec![],
    };
    store.commit(commit, Default::default()).await.unwrap();
    store.close().await;
    flip_one_bit(directory.path(), b"the second group info");
    flip_one_bit(directory.path(), b"the first log entry");

    let store = open(directory.path()).await.unwrap();

    let page = store.log_page(&group, 1, 999).await;
    assert!(matches!(
        page,
        Err(StoreError::Corrupt { what: "group_log" })
    ));
    let infos = store.group_infos(&group, 999).await.unwrap();
    assert_eq!(infos, [(0, Bytes::from_static(b"the first group info"))]);
}

/// Flips a bit in the only place of the database file that holds `text`.
fn flip_one_bit(directory: &Path, text: &[u8]) {
    let file = directory.join("store.sqlite3");
    let mut bytes = std::fs::read(&file).unwrap();
    let place = bytes
        .windows(text.len())
        .position(|window| window == text)
        .unwrap();
    bytes[place + 3] ^= 0x10;
    std::fs::write(&file, bytes).unwrap();
}
