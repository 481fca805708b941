use commucat_ledger::FileSink;
use commucat_proto::id::DeviceId;
use commucat_storage::{Location, Options};

use super::*;
use crate::fixtures;

/// Registers a device as if the process had died before the ledger heard of it.
async fn register(store: &Store, number: u8) -> DeviceId {
    fixtures::device(store, number).await.device
}

/// A start: the kinds of the entries that were missing.
async fn start(store: &Store, path: &std::path::Path) -> Vec<String> {
    let lines = |path| std::fs::read_to_string(path).unwrap_or_default();
    let before = lines(path).lines().count();
    let (sink, known) = FileSink::open_known(path).unwrap();
    let (ledger, worker) = Ledger::start(sink).unwrap();
    settle(store, &ledger, known).await;
    worker.stop().await;
    let after = lines(path);
    let kind = |line: &str| {
        line.split(r#""kind":""#)
            .nth(1)?
            .split('"')
            .next()
            .map(str::to_owned)
    };
    after.lines().skip(before).filter_map(kind).collect()
}

#[tokio::test]
async fn what_a_crash_kept_from_the_ledger_is_written_once() {
    let place = tempfile::tempdir().unwrap();
    let location = Location::Sqlite {
        directory: place.path().join("store"),
    };
    let store = Store::open(location, Options::default()).await.unwrap();
    let path = place.path().join("ledger.jsonl");
    let device = register(&store, 1).await;

    let first = start(&store, &path).await;
    let again = start(&store, &path).await;
    register(&store, 2).await;
    store.revoke_device(&device).await.unwrap().unwrap();
    let after_more = start(&store, &path).await;
    let at_last = start(&store, &path).await;

    assert_eq!(first, ["device_registered", "list_changed"]);
    assert_eq!(
        after_more,
        ["device_registered", "list_changed", "device_revoked"]
    );
    assert_eq!((again, at_last), (Vec::new(), Vec::new()));
}
