//! The conformance suite on SQLite, a fresh directory for each test.

use tempfile::TempDir;

use crate::conformance::{LIMITS, OUTBOX_LIMITS, run_conformance};
use crate::{Location, Options, Store};

async fn fresh() -> (Store, TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let location = Location::Sqlite {
        directory: directory.path().to_owned(),
    };
    let options = Options {
        queues: LIMITS,
        outbox: OUTBOX_LIMITS,
        ..Options::default()
    };
    (Store::open(location, options).await.unwrap(), directory)
}

run_conformance!(super::fresh);
