//! A store with something in every table, copied to a real PostgreSQL.

use std::collections::BTreeSet;
use std::path::Path;

use commucat_services::{Database, Postgres};
use rusqlite::Connection;
use tempfile::tempdir;

use super::*;
use crate::{Migrations, Options, PostgresUrl, Store};

/// Tables and columns that only the target has, and what is in them after a copy.
const OWN: [(&str, &str); 7] = [
    ("commucat_schema", "version"),
    ("commucat_schema", "shape"),
    ("outbox_holders", "peer"),
    ("outbox_holders", "node"),
    ("outbox_holders", "held_until"),
    ("queues", "gap_shown"),
    ("", ""),
];

fn database() -> (Database<'static>, PostgresUrl) {
    let database = Postgres::shared().unwrap().database().unwrap();
    let url = database.url().parse().unwrap();
    (database, url)
}

async fn sqlite(directory: &Path) -> Store {
    let location = Location::Sqlite {
        directory: directory.to_owned(),
    };
    Store::open(location, Options::default()).await.unwrap()
}

/// Something in every table, with references, `NULL`s, shared bodies of one content and of several,
/// entries without a body, and more rows than a batch has.
const ROWS: &str = "
    INSERT INTO meta VALUES ('a value', x'00ff');
    INSERT INTO accounts VALUES (3, 'account three', x'03', 7, x'0303'), (9, 'nine', x'09', 1, x'');
    INSERT INTO queues VALUES (5, x'00000000000000000000000000000005', 9, 4, 22, 1, 8, 2, 0),
        (6, x'00000000000000000000000000000006', 3, 2, 12, 0, NULL, 0, 0),
        (7, x'00000000000000000000000000000007', 1, 0, 0, 0, NULL, 0, 1);
    INSERT INTO devices VALUES (1, 'device', 3, x'aa', 5, 9000, 5, 0),
        (2, 'other', 9, x'bb', 5, 9000, 6, 1);
    INSERT INTO queue_groups VALUES (11, 5, x'67', 4, 22, NULL), (12, 6, x'67', 2, 12, 44),
        (13, 5, x'68', 0, 0, 55);
    INSERT INTO bodies VALUES (1, x'101112131415161718191a1b1c1d1e1f', x'616161616161'),
        (2, x'101112131415161718191a1b1c1d1e1f', x'616161616161'),
        (3, x'202122232425262728292a2b2c2d2e2f', x'62626262');
    INSERT INTO shared_bodies VALUES (1, 2), (2, 3);
    INSERT INTO queue_entries VALUES
        (5, 1, x'00000000000000000000000000000001', 8, 11, 1, 6, 1000), (6, 1, x'00000000000000000000000000000001', 8, 12, 1, 6, 1000),
        (5, 2, x'00000000000000000000000000000002', 11, 11, 2, 6, 1001), (6, 2, x'00000000000000000000000000000002', 8, 12, 2, 6, 1001),
        (5, 4, x'00000000000000000000000000000003', 8, 11, 2, 6, 1002), (5, 5, x'00000000000000000000000000000004', 9, 11, 3, 4, 1003),
        (5, 8, x'00000000000000000000000000000005', 0, NULL, NULL, 0, 1004);
    INSERT INTO invites VALUES (x'1111', 5, 4, 100, 200);
    INSERT INTO capabilities VALUES (3, x'2222');
    INSERT INTO key_packages VALUES (4, 1, x'3333', 0, 900, NULL), (8, 1, x'3434', 1, 900, x'99');
    INSERT INTO claims VALUES (x'4444', 77);
    INSERT INTO claimed_packages VALUES (x'4444', 1, 0, x'98');
    INSERT INTO claim_budgets VALUES (zeroblob(16), 20000, 3);
    INSERT INTO groups VALUES (21, x'5555', x'56', 105, 6, NULL, NULL), (22, x'5757', x'58', 1, 1, x'59', 60);
    INSERT INTO group_fanout VALUES (31, 21, x'60', 'chat.example.org', x'61', 1);
    INSERT INTO group_gone VALUES (32, 21, x'62');
    INSERT INTO group_log VALUES (21, 105, x'63', x'64', 65, zeroblob(16), x'66');
    INSERT INTO group_infos VALUES (21, 105, zeroblob(16), x'67');
    INSERT INTO peers VALUES ('other.example.org', NULL, 4, x'68', 70, 1, 3, NULL, 71, NULL);
    INSERT INTO outbox_lanes VALUES (41, 'other.example.org', 7, 1790000000000, 1, 2);
    INSERT INTO outbox VALUES (41, 1789999999999, zeroblob(16), 72, zeroblob(16), x'7373', NULL);
    WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)
        INSERT INTO invites SELECT CAST('invite ' || i AS BLOB), 1, 1, i, i + 1 FROM n;
";

/// A closed store with those rows.
async fn filled(directory: &Path) -> Location {
    sqlite(directory).await.close().await;
    let connection = Connection::open(directory.join("store.sqlite3")).unwrap();
    connection.execute_batch(ROWS).unwrap();
    connection.close().unwrap();
    Location::Sqlite {
        directory: directory.to_owned(),
    }
}

fn go_on(_: TransferProgress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// Every row of a table of the source and of the target, as text.
fn both(directory: &Path, database: &Database<'_>, table: &Table) -> [BTreeSet<String>; 2] {
    let connection = Connection::open(directory.join("store.sqlite3")).unwrap();
    let parts = |written: &dyn Fn(&str, tables::Kind) -> String| {
        let all = table
            .columns
            .iter()
            .map(|(name, kind)| written(name, *kind));
        all.collect::<Vec<_>>().join(" || '|' || ")
    };
    let names: Vec<_> = table.columns.iter().map(|(name, _)| *name).collect();
    let here = parts(&|name, kind| match kind {
        tables::Kind::Bytes | tables::Kind::Uuid => {
            format!("iif({name} IS NULL, '-', lower(hex({name})))")
        }
        tables::Kind::Long
        | tables::Kind::Integer
        | tables::Kind::Short
        | tables::Kind::Flag
        | tables::Kind::Text => format!("coalesce(CAST({name} AS TEXT), '-')"),
    });
    let sql = format!(
        "WITH t ({}) AS ({}) SELECT {here} FROM t",
        names.join(", "),
        table.query
    );
    let mut statement = connection.prepare(&sql).unwrap();
    let rows = statement.query_map([], |row| row.get(0)).unwrap();
    let here: BTreeSet<String> = rows.map(Result::unwrap).collect();
    let there = parts(&|name, kind| match kind {
        tables::Kind::Bytes => format!("coalesce(encode({name}, 'hex'), '-')"),
        tables::Kind::Uuid => format!("coalesce(replace({name}::text, '-', ''), '-')"),
        tables::Kind::Flag => format!("({name}::integer)::text"),
        tables::Kind::Long | tables::Kind::Integer | tables::Kind::Short | tables::Kind::Text => {
            format!("coalesce({name}::text, '-')")
        }
    });
    let sql = format!("SELECT {there} FROM {}", table.name);
    let there = database.sql(&sql).unwrap();
    [here, there.lines().map(str::to_owned).collect()]
}

#[tokio::test]
async fn every_row_of_every_table_is_copied_and_a_store_opens_on_it() {
    let directory = tempdir().unwrap();
    let (database, url) = database();
    let from = filled(directory.path()).await;
    let before = std::fs::read(directory.path().join("store.sqlite3")).unwrap();

    let done = transfer(from, Location::Postgres { url: url.clone() }, go_on)
        .await
        .unwrap();

    for table in TABLES {
        let [here, there] = both(directory.path(), &database, table);
        assert!(!here.is_empty(), "nothing in {}", table.name);
        assert_eq!(here, there, "{}", table.name);
        let counted = done
            .tables
            .iter()
            .find(|(name, _)| *name == table.name)
            .unwrap();
        assert_eq!(counted.1, u64::try_from(here.len()).unwrap());
    }
    let after = std::fs::read(directory.path().join("store.sqlite3")).unwrap();
    assert!(before == after, "the source was changed");
    let store = Store::open(Location::Postgres { url }, Options::default())
        .await
        .unwrap();
    store.check_integrity().await.unwrap();
    store.close().await;
    // New rows get numbers of their own.
    let next = database
        .sql("SELECT nextval(pg_get_serial_sequence('queues', 'id'))")
        .unwrap();
    assert_eq!(next.trim(), "8");
}

#[tokio::test]
async fn no_table_and_no_column_is_forgotten() {
    let (_database, url) = database();
    let store = Store::open(Location::Postgres { url }, Options::default())
        .await
        .unwrap();

    let columns = store.columns().await.unwrap();

    for (table, column) in &columns {
        let is_copied = TABLES
            .iter()
            .any(|one| one.name == table && one.columns.iter().any(|(name, _)| name == column));
        assert!(
            is_copied != OWN.contains(&(table.as_str(), column.as_str())),
            "{table}.{column}"
        );
    }
}

#[tokio::test]
async fn an_interrupted_copy_is_shut_and_goes_on_where_it_ended() {
    let directory = tempdir().unwrap();
    let (database, url) = database();
    let from = filled(directory.path()).await;
    let to = Location::Postgres { url };
    // In the middle of a table of several batches.
    let stop = |progress: TransferProgress| {
        if progress.table == "invites" && progress.rows > 3_000 {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    };

    let stopped = transfer(from.clone(), to.clone(), stop).await;
    let shut = Store::open(to.clone(), Options::default()).await;
    let refusing = Options {
        migrations: Migrations::Refuse,
        ..Options::default()
    };
    let migrated = Store::open(to.clone(), refusing).await;
    let done = transfer(from, to.clone(), go_on).await.unwrap();

    assert!(matches!(stopped, Err(TransferError::Stopped)));
    assert!(matches!(shut, Err(OpenError::Unfinished)));
    assert!(matches!(migrated, Err(OpenError::Unfinished)));
    assert!(done.resumed > 3_000);
    for table in TABLES {
        let [here, there] = both(directory.path(), &database, table);
        assert_eq!(here, there, "{}", table.name);
    }
    Store::open(to, Options::default()).await.unwrap();
}

#[tokio::test]
async fn a_target_with_anything_in_it_is_refused_untouched() {
    let directory = tempdir().unwrap();
    let from = filled(directory.path()).await;
    let (other, other_url) = database();
    other
        .sql("CREATE TABLE somebody (s text); INSERT INTO somebody VALUES ('else')")
        .unwrap();
    let (used, used_url) = database();
    let location = Location::Postgres { url: used_url };
    Store::open(location.clone(), Options::default())
        .await
        .unwrap()
        .close()
        .await;
    used.sql("INSERT INTO invites VALUES ('\\x01', 1, 1, 1, 1)")
        .unwrap();

    let foreign = transfer(from.clone(), Location::Postgres { url: other_url }, go_on).await;
    let filled = transfer(from, location, go_on).await;

    assert!(
        matches!(foreign, Err(TransferError::NotEmpty)),
        "{foreign:?}"
    );
    assert!(matches!(filled, Err(TransferError::NotEmpty)), "{filled:?}");
    assert_eq!(
        used.sql("SELECT count(*) FROM invites").unwrap().trim(),
        "1"
    );
}

#[tokio::test]
async fn an_unfinished_copy_of_another_state_is_not_gone_on_with() {
    let directory = tempdir().unwrap();
    let (_database, url) = database();
    let from = filled(directory.path()).await;
    let to = Location::Postgres { url };
    let stop = |_| ControlFlow::Break(());
    transfer(from.clone(), to.clone(), stop).await.unwrap_err();
    let connection = Connection::open(directory.path().join("store.sqlite3")).unwrap();
    connection
        .execute_batch("DELETE FROM invites WHERE hash = x'1111'")
        .unwrap();
    connection.close().unwrap();

    let refused = transfer(from, to, go_on).await;

    assert!(
        matches!(refused, Err(TransferError::OtherSource)),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_source_in_use_and_one_that_is_none_are_refused() {
    let (directory, empty) = (tempdir().unwrap(), tempdir().unwrap());
    let (_database, url) = database();
    let to = Location::Postgres { url };
    let store = sqlite(directory.path()).await;
    let from = |directory: &Path| Location::Sqlite {
        directory: directory.to_owned(),
    };

    let in_use = transfer(from(directory.path()), to.clone(), go_on).await;
    let none = transfer(from(empty.path()), to.clone(), go_on).await;
    let backwards = transfer(to, from(empty.path()), go_on).await;

    assert!(matches!(
        in_use,
        Err(TransferError::Source(OpenError::InUse))
    ));
    assert!(matches!(
        none,
        Err(TransferError::Source(OpenError::UnknownSchema))
    ));
    assert!(matches!(backwards, Err(TransferError::Direction)));
    assert!(std::fs::read_dir(empty.path()).unwrap().next().is_none());
    store.close().await;
}
