//! Who may open a store, and which.

use std::time::Duration;

use commucat_storage::{Location, MetaKey, Migrations, OpenError, Options, QueuePosition, Store};
use rusqlite::Connection;
use tempfile::tempdir;

use crate::{delivery, open, queue};

#[tokio::test]
async fn one_process_at_a_time_has_the_store_open() {
    let directory = tempdir().unwrap();
    let store = open(directory.path()).await.unwrap();

    assert!(matches!(
        open(directory.path()).await,
        Err(OpenError::InUse)
    ));

    store.close().await;
    open(directory.path()).await.unwrap();
}

#[tokio::test]
async fn a_new_process_waits_for_the_old_one() {
    let directory = tempdir().unwrap();
    let old = open(directory.path()).await.unwrap();
    let queue = queue(&old).await;
    let location = Location::Sqlite {
        directory: directory.path().to_owned(),
    };
    let options = Options {
        lock_wait: Duration::from_secs(30),
        ..Options::default()
    };

    let (new, ()) = tokio::join!(Store::open(location, options), async {
        old.spool(vec![delivery(queue, &["last"])], Default::default())
            .await
            .unwrap();
        old.close().await;
    });

    let page = new
        .unwrap()
        .page(&queue, QueuePosition::START, 99, 99)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(page.rows.len(), 1);
}

#[tokio::test]
async fn a_dropped_store_lets_go_of_its_lock() {
    let directory = tempdir().unwrap();
    drop(open(directory.path()).await.unwrap());
    let location = Location::Sqlite {
        directory: directory.path().to_owned(),
    };
    let options = Options {
        lock_wait: Duration::from_secs(30),
        ..Options::default()
    };

    assert!(Store::open(location, options).await.is_ok());
}

#[tokio::test]
async fn a_newer_schema_is_refused_untouched() {
    let directory = tempdir().unwrap();
    open(directory.path()).await.unwrap().close().await;
    alter(directory.path(), "PRAGMA user_version = 99");

    let refused = open(directory.path()).await;

    assert!(matches!(
        refused,
        Err(OpenError::NewerSchema { found: 99, .. })
    ));
    alter(directory.path(), "PRAGMA user_version = 2");
    open(directory.path()).await.unwrap();
}

#[tokio::test]
async fn tables_of_another_program_are_refused_untouched() {
    let directory = tempdir().unwrap();
    alter(directory.path(), "CREATE TABLE notes (text TEXT)");
    let before = std::fs::read(directory.path().join("store.sqlite3")).unwrap();

    assert!(matches!(
        open(directory.path()).await,
        Err(OpenError::UnknownSchema)
    ));

    assert_eq!(
        std::fs::read(directory.path().join("store.sqlite3")).unwrap(),
        before
    );
}

#[tokio::test]
async fn an_altered_schema_is_refused() {
    let directory = tempdir().unwrap();
    open(directory.path()).await.unwrap().close().await;
    alter(directory.path(), "ALTER TABLE devices ADD COLUMN name TEXT");

    assert!(matches!(
        open(directory.path()).await,
        Err(OpenError::UnknownSchema)
    ));
}

#[tokio::test]
async fn a_file_that_is_no_database_is_refused() {
    let directory = tempdir().unwrap();
    std::fs::write(
        directory.path().join("store.sqlite3"),
        "not a database at all".repeat(99),
    )
    .unwrap();

    assert!(matches!(
        open(directory.path()).await,
        Err(OpenError::UnknownSchema)
    ));
}

#[tokio::test]
async fn a_store_can_be_opened_without_migrating() {
    let directory = tempdir().unwrap();
    let location = Location::Sqlite {
        directory: directory.path().to_owned(),
    };
    let options = Options {
        migrations: Migrations::Refuse,
        ..Options::default()
    };

    let store = Store::open(location, options).await.unwrap();

    assert_eq!(store.schema_version(), 2);
}

#[tokio::test]
async fn a_store_of_the_first_version_is_brought_up_to_date_when_that_is_allowed() {
    let directory = tempdir().unwrap();
    alter(
        directory.path(),
        concat!(
            include_str!("../../migrations/sqlite/0001_initial.sql"),
            "PRAGMA application_id = 0x43434154; PRAGMA user_version = 1;
             INSERT INTO meta (name, value) VALUES ('kept', x'01');"
        ),
    );
    let location = || Location::Sqlite {
        directory: directory.path().to_owned(),
    };
    let refusing = Options {
        migrations: Migrations::Refuse,
        ..Options::default()
    };

    let refused = Store::open(location(), refusing).await;
    assert!(matches!(
        refused,
        Err(OpenError::OlderSchema {
            found: 1,
            supported: 2
        })
    ));
    let store = Store::open(location(), Options::default()).await.unwrap();

    assert_eq!(store.schema_version(), 2);
    let kept = store.meta(MetaKey::new("kept")).await.unwrap();
    assert_eq!(kept.as_deref(), Some(&[1][..]));
    assert_eq!(store.peers(None, 9).await.unwrap(), []);
}

#[cfg(unix)]
#[tokio::test]
async fn files_are_readable_by_their_owner_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let parent = tempdir().unwrap();
    let directory = parent.path().join("data");
    let store = open(&directory).await.unwrap();
    queue(&store).await;

    let mode = |path: &std::path::Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&directory), 0o700);
    for file in std::fs::read_dir(&directory).unwrap() {
        assert_eq!(mode(&file.unwrap().path()), 0o600);
    }
}

#[tokio::test]
async fn what_was_spooled_is_there_after_a_restart() {
    let directory = tempdir().unwrap();
    let store = open(directory.path()).await.unwrap();
    let queue = queue(&store).await;
    store
        .spool(vec![delivery(queue, &["a", "b"])], Default::default())
        .await
        .unwrap();
    store.close().await;

    let store = open(directory.path()).await.unwrap();

    let page = store
        .page(&queue, QueuePosition::START, 99, 99)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(page.rows.len(), 2);
    assert_eq!(store.counters().commits, 0);
}

#[tokio::test]
async fn what_waits_together_is_committed_together() {
    let directory = tempdir().unwrap();
    let store = open(directory.path()).await.unwrap();
    let queue = queue(&store).await;
    let before = store.counters();
    let texts: Vec<&'static str> = (0..300)
        .map(|number| &*Box::leak(format!("text {number}").into_boxed_str()))
        .collect();

    let mut spools = tokio::task::JoinSet::new();
    for text in texts {
        let store = store.clone();
        spools.spawn(async move {
            store
                .spool(vec![delivery(queue, &[text])], Default::default())
                .await
                .unwrap();
        });
    }
    spools.join_all().await;

    let after = store.counters();
    assert_eq!(after.write_requests - before.write_requests, 300);
    assert!(
        after.commits - before.commits < 150,
        "{} commits",
        after.commits - before.commits
    );
}

fn alter(directory: &std::path::Path, sql: &str) {
    Connection::open(directory.join("store.sqlite3"))
        .unwrap()
        .execute_batch(sql)
        .unwrap();
}
