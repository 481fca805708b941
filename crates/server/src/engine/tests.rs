//! The engine as a whole, over carriers in this process.

use std::time::Duration;

use commucat_config::Sources;
use commucat_ledger::NullSink;
use commucat_proto::decoder::{Decoder, Incoming};
use commucat_proto::frame::{Direction, FrameType};
use commucat_storage::{Location, Options};
use tokio::time::timeout;

use super::*;
use crate::clock;

/// Longer than anything here takes, shorter than a handshake may.
const PATIENCE: Duration = Duration::from_secs(5);

async fn engine() -> (Arc<Engine>, tempfile::TempDir) {
    let place = tempfile::tempdir().unwrap();
    let config = Config::load(&Sources::default()).unwrap();
    let directory = place.path().join("data");
    let store = Store::open(Location::Sqlite { directory }, Options::default());
    let keys = Keys::open(
        &place.path().join("keys"),
        &config.server.domain,
        clock::now(),
    );
    let (ledger, _worker) = Ledger::start(NullSink::default()).unwrap();
    let (keys, store) = (keys.unwrap(), store.await.unwrap());
    let client = crate::federation::client(&config, keys.clone(), store.clone());
    let engine = Engine::new(Parts {
        client: client.unwrap(),
        config: Arc::new(config),
        keys,
        store,
        ledger,
        metrics: Metrics::new(),
        nodes: Nodes::default(),
    });
    Arc::clone(&engine).start();
    (engine, place)
}

#[tokio::test]
async fn a_session_takes_little_room() {
    let (engine, _place) = engine().await;
    let (near, _far) = Carrier::pair();

    let session = engine.serve(near);

    let bytes = size_of_val(&session);
    assert!(bytes <= 4 * 1024, "{bytes} bytes");
}

#[tokio::test]
async fn the_end_waits_for_no_handshake() {
    let (engine, _place) = engine().await;
    let (near, mut far) = Carrier::pair();
    let session = TaskTracker::new().spawn(Arc::clone(&engine).serve(near));

    timeout(PATIENCE, Arc::clone(&engine).drain())
        .await
        .unwrap();

    session.await.unwrap();
    let told = far.reader.next().await.unwrap().unwrap();
    let mut decoder = Decoder::clear(Direction::Down);
    decoder.push(&told);
    let Ok(Some(Incoming::Frame(frame))) = decoder.next_frame() else {
        panic!("no frame");
    };
    assert_eq!(frame.header.kind, FrameType::Error);
    assert!(String::from_utf8_lossy(&frame.payload).contains("Draining"));
}

#[tokio::test]
async fn a_session_whose_carrier_is_dropped_is_counted_no_more() {
    let (engine, _place) = engine().await;
    let (near, far) = Carrier::pair();
    let metrics = engine.sessions.metrics.clone();

    let session = TaskTracker::new().spawn(engine.serve(near));
    drop(far);
    timeout(PATIENCE, session).await.unwrap().unwrap();

    assert_eq!(metrics.sessions.get(), 0);
}
