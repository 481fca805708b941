//! `docs/data-manifest.toml` lists every stored column, with owner, reason and lifetime.

use std::collections::{BTreeMap, BTreeSet};

use commucat_services::Postgres;
use commucat_storage::{Location, Options, Store};
use tempfile::tempdir;

use crate::open;

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    meta: BTreeMap<String, String>,
    tables: BTreeMap<String, Table>,
}

#[derive(serde::Deserialize)]
struct Table {
    lifetime: String,
    #[serde(flatten)]
    columns: BTreeMap<String, Column>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Column {
    owner: String,
    reason: String,
    lifetime: String,
    /// Where it is; empty for everywhere.
    #[serde(default)]
    backends: Vec<String>,
}

const MANIFEST: &str = include_str!("../../../../docs/data-manifest.toml");

#[tokio::test]
async fn the_manifest_lists_exactly_the_columns_of_sqlite() {
    let directory = tempdir().unwrap();
    compare(&open(directory.path()).await.unwrap(), "sqlite").await;
}

#[tokio::test]
async fn the_manifest_lists_exactly_the_columns_of_postgresql() {
    let database = Postgres::shared().unwrap().database().unwrap();
    let url = database.url().parse().unwrap();
    let store = Store::open(Location::Postgres { url }, Options::default()).await;
    compare(&store.unwrap(), "postgres").await;
}

async fn compare(store: &Store, backend: &str) {
    let manifest: Manifest = toml::from_str(MANIFEST).unwrap();

    let live: BTreeSet<(String, String)> = store.columns().await.unwrap().into_iter().collect();

    let mut listed = BTreeSet::new();
    for (table, entry) in manifest.tables {
        for (name, column) in entry.columns {
            if column.backends.is_empty() || column.backends.iter().any(|one| one == backend) {
                listed.insert((table.clone(), name));
            }
        }
    }
    let missing: Vec<_> = live.difference(&listed).collect();
    let superfluous: Vec<_> = listed.difference(&live).collect();
    assert!(missing.is_empty(), "not in the manifest: {missing:?}");
    assert!(superfluous.is_empty(), "not in the store: {superfluous:?}");
}

#[test]
fn every_entry_of_the_manifest_says_something() {
    let manifest: Manifest = toml::from_str(MANIFEST).unwrap();

    assert!(manifest.meta.values().all(|reason| !reason.is_empty()));
    for (table, entry) in manifest.tables {
        assert!(entry.lifetime.len() > 3, "{table}");
        for (name, column) in entry.columns {
            let backends = ["sqlite", "postgres"];
            let is_backend = |name: &String| backends.contains(&name.as_str());
            assert!(column.backends.iter().all(is_backend), "{table}.{name}");
            let owners = ["account", "device", "group", "server"];
            assert!(owners.contains(&column.owner.as_str()), "{table}.{name}");
            assert!(
                !column.reason.is_empty() && !column.lifetime.is_empty(),
                "{table}.{name}"
            );
        }
    }
}
