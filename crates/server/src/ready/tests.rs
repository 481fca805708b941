use commucat_config::{Config, Sources};
use commucat_ledger::NullSink;
use commucat_services::Postgres;
use commucat_services::postgres::{Options as Settings, Stop};
use commucat_storage::Options;

use super::*;
use crate::engine::{Nodes as Others, Parts};
use crate::keys::Keys;
use crate::limit::Buckets;

async fn readiness(url: &str) -> (Arc<Readiness>, tempfile::TempDir) {
    let place = tempfile::tempdir().unwrap();
    let config = Config::load(&Sources::default()).unwrap();
    let domain = config.server.domain.clone();
    let keys = Keys::open(&place.path().join("keys"), &domain, clock::now()).unwrap();
    let store = Store::open(url.parse().unwrap(), Options::default());
    let store = store.await.unwrap();
    let (ledger, _worker) = Ledger::start(NullSink::default()).unwrap();
    let buckets = Buckets::alone(&config.limits);
    let metrics = Metrics::new();
    let client = crate::federation::client(
        &config,
        keys.clone(),
        store.clone(),
        (metrics.clone(), buckets.clone()),
    );
    let engine = Engine::new(Parts {
        client: client.unwrap(),
        config: Arc::new(config),
        keys,
        store: store.clone(),
        ledger: ledger.clone(),
        metrics: metrics.clone(),
        buckets,
        nodes: Others::default(),
    });
    let readiness = Readiness::new((engine, Nodes::One), (store, ledger), metrics);
    (readiness, place)
}

#[tokio::test]
async fn a_database_that_goes_and_comes_back_is_told() {
    let cluster = Postgres::start(&Settings::default()).unwrap();
    let database = cluster.database().unwrap();
    let url = database.url();
    let (readiness, _place) = readiness(&url).await;

    readiness.look(true).await;
    let before = readiness.hindrance();
    cluster.stop(Stop::Immediate).unwrap();
    readiness.look(true).await;
    let away = readiness.hindrance();
    readiness.look(false).await;
    let still_away = readiness.hindrance();
    cluster.resurrect().unwrap();
    readiness.look(false).await;
    let back = readiness.hindrance();

    assert_eq!(before, None);
    assert_eq!(
        (away, still_away),
        (Some(Hindrance::Store), Some(Hindrance::Store))
    );
    assert_eq!(back, None);
    assert_eq!(readiness.metrics.not_ready.of(Hindrance::Store).get(), 0);
}

#[tokio::test]
async fn while_all_is_well_nothing_is_written() {
    let place = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", place.path().join("store").display());
    let (readiness, _place) = readiness(&url).await;
    let before = readiness.store.counters().commits;

    for _ in 0..3 {
        readiness.look(true).await;
    }

    assert_eq!(readiness.store.counters().commits, before);
    assert_eq!(readiness.hindrance(), None);
}

#[tokio::test]
async fn redis_matters_to_nodes_only() {
    let place = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", place.path().join("store").display());
    let (alone, _place) = readiness(&url).await;

    let among_nodes = Readiness::new(
        (Arc::clone(&alone.engine), Nodes::ThroughRedis),
        (alone.store.clone(), alone.ledger.clone()),
        alone.metrics.clone(),
    );

    assert_eq!(alone.hindrance(), None);
    assert_eq!(among_nodes.hindrance(), Some(Hindrance::Redis));
    alone.metrics.cluster_connected.set(1);
    assert_eq!(among_nodes.hindrance(), None);
}
