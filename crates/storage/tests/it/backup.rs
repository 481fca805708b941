//! Copies of a store in use, and what is put back.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use commucat_proto::id::QueueId;
use commucat_proto::time::Timestamp;
use commucat_services::Postgres;
use commucat_storage::{
    Content, Location, OpenError, Options, Page, PostgresUrl, QueuePosition, ReplaceError,
    Replacement, RowId, Since, Store,
};
use tempfile::tempdir;

use crate::{delivery, open, queue};

const NOW: Timestamp = Timestamp::from_millis(5_000);

async fn page(store: &Store, queue: &QueueId) -> Page {
    let page = store.page(queue, QueuePosition::START, 99, 99).await;
    page.unwrap().unwrap()
}

/// Puts `copy` into the place of the store of `directory`.
async fn put_back(copy: &Path, directory: &Path, since: Since) {
    let replacement = Replacement::begin(directory, Duration::ZERO).unwrap();
    let (_, path) = replacement.file().unwrap();
    fs::copy(copy, path).unwrap();
    replacement.prepare(since, NOW).await.unwrap();
    replacement.finish(&directory.join("aside")).unwrap();
}

#[tokio::test]
async fn a_copy_shows_the_moment_at_which_it_began_whatever_is_written_meanwhile() {
    let (directory, other) = (tempdir().unwrap(), tempdir().unwrap());
    let store = open(directory.path()).await.unwrap();
    let queue = queue(&store).await;
    store
        .spool(vec![delivery(queue, &["one"])], NOW)
        .await
        .unwrap();
    let steps = Arc::new(AtomicU64::new(0));
    let seen = Arc::clone(&steps);

    let (copy, ()) = tokio::join!(
        store.copy(move |step| {
            assert!(step.done <= step.total);
            seen.fetch_add(1, Ordering::Relaxed);
        }),
        async {
            for _ in 0..50 {
                store
                    .spool(vec![delivery(queue, &["two"])], NOW)
                    .await
                    .unwrap();
                let row = page(&store, &queue).await.rows.pop().unwrap();
                let row = RowId {
                    queue,
                    position: row.position,
                    key: row.key,
                };
                store.delete_exact(vec![row]).await.unwrap();
            }
        }
    );

    let copy = copy.unwrap();
    assert!(steps.load(Ordering::Relaxed) > 0);
    fs::create_dir_all(other.path()).unwrap();
    fs::copy(&copy.path, other.path().join("store.sqlite3")).unwrap();
    assert_eq!(fs::metadata(&copy.path).unwrap().len(), copy.bytes);
    let opened = open(other.path()).await.unwrap();
    opened.check_integrity().await.unwrap();
    let rows = page(&opened, &queue).await.rows.len();
    assert!((1..=2).contains(&rows));
    store.forget_copy().await;
    assert!(!copy.path.exists());
}

#[tokio::test]
async fn what_is_put_back_gives_no_position_again_and_tells_every_device() {
    let directory = tempdir().unwrap();
    let store = open(directory.path()).await.unwrap();
    let queue = queue(&store).await;
    store
        .spool(vec![delivery(queue, &["old"])], NOW)
        .await
        .unwrap();
    let copy = store.copy(|_| ()).await.unwrap();
    let kept = directory.path().join("kept.sqlite3");
    fs::rename(copy.path, &kept).unwrap();
    store
        .spool(vec![delivery(queue, &["lost"])], NOW)
        .await
        .unwrap();
    let lost = page(&store, &queue).await.rows.pop().unwrap();
    store.close().await;

    put_back(&kept, directory.path(), Since::Unknown).await;

    let store = open(directory.path()).await.unwrap();
    let rows = page(&store, &queue).await.rows;
    let [old, gap] = rows.as_slice() else {
        panic!("{} rows", rows.len());
    };
    assert!(matches!(old.content, Content::Frame { .. }));
    assert!(matches!(gap.content, Content::Gap));
    assert!(gap.position > lost.position);
    assert!(directory.path().join("aside/store.sqlite3").exists());
}

#[tokio::test]
async fn a_database_that_was_put_back_gives_no_position_again_and_tells_every_device_once() {
    let cluster = Postgres::shared().unwrap();
    let database = cluster.database().unwrap();
    let location = || database.url().parse().unwrap();
    let store = Store::open(location(), Options::default()).await.unwrap();
    let queue = queue(&store).await;
    let spooled = store.spool(vec![delivery(queue, &["old"])], NOW);
    spooled.await.unwrap();
    let place = tempdir().unwrap();
    let dump = place.path().join("dump");
    let mut dumps = cluster.program("pg_dump");
    dumps.arg("-Fc").arg("-f").arg(&dump).arg(database.url());
    assert!(dumps.status().unwrap().success());
    let spooled = store.spool(vec![delivery(queue, &["lost"])], NOW);
    spooled.await.unwrap();
    let lost = page(&store, &queue).await.rows.pop().unwrap();
    store.close().await;

    let again = cluster.database().unwrap();
    let mut restores = cluster.program("pg_restore");
    restores.arg("--dbname").arg(again.url()).arg(&dump);
    assert!(restores.status().unwrap().success());
    let url: PostgresUrl = again.url().parse().unwrap();
    let url = url.named("a command");
    let store = Store::open(Location::Postgres { url }, Options::default());
    let store = store.await.unwrap();
    let alone = store.others_connected().await.unwrap();
    let server = Store::open(again.url().parse().unwrap(), Options::default());
    let server = server.await.unwrap();
    let beside = store.others_connected().await.unwrap();
    server.close().await;
    for _ in 0..2 {
        store.ready_after_restore(NOW).await.unwrap();
    }

    let rows = page(&store, &queue).await.rows;
    let [old, gap] = rows.as_slice() else {
        panic!("{} rows", rows.len());
    };
    assert!(matches!(old.content, Content::Frame { .. }));
    assert!(matches!(gap.content, Content::Gap));
    assert!(gap.position > lost.position);
    assert_eq!(alone, 0);
    assert!(beside > 0);
}

#[tokio::test]
async fn after_a_move_without_changes_nobody_is_told() {
    let directory = tempdir().unwrap();
    let store = open(directory.path()).await.unwrap();
    let queue = queue(&store).await;
    let copy = store.copy(|_| ()).await.unwrap();
    let kept = directory.path().join("kept.sqlite3");
    fs::rename(copy.path, &kept).unwrap();
    store.close().await;

    put_back(&kept, directory.path(), Since::Nothing).await;

    let store = open(directory.path()).await.unwrap();
    assert_eq!(page(&store, &queue).await.rows.len(), 0);
}

#[tokio::test]
async fn a_damaged_copy_is_refused_and_the_store_is_as_it_was() {
    let directory = tempdir().unwrap();
    let store = open(directory.path()).await.unwrap();
    queue(&store).await;
    let copy = store.copy(|_| ()).await.unwrap();
    let mut bytes = fs::read(copy.path).unwrap();
    store.close().await;
    bytes[4096..8192].fill(0xff);
    let replacement = Replacement::begin(directory.path(), Duration::ZERO).unwrap();
    fs::write(replacement.file().unwrap().1, bytes).unwrap();

    let refused = replacement.prepare(Since::Unknown, NOW).await;

    assert!(matches!(refused, Err(ReplaceError::Damaged)));
    drop(replacement);
    open(directory.path()).await.unwrap();
}

#[tokio::test]
async fn a_store_in_use_is_not_replaced() {
    let directory = tempdir().unwrap();
    let _store = open(directory.path()).await.unwrap();

    let refused = Replacement::begin(directory.path(), Duration::ZERO);

    assert!(matches!(refused, Err(OpenError::InUse)));
}
