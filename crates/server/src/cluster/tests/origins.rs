//! Nodes whose Redis server is another one than before: by Sentinels, and in a Cluster.

use commucat_services::redis::{Clustered, Watched};

use super::*;

/// Sentinels and Clusters take some seconds to replace a server.
const REPLACEMENT: Duration = Duration::from_secs(60);

/// Two nodes on the Redis of that address, which exchange messages before and after `breaks`.
async fn go_on(url: &str, breaks: impl FnOnce(&World)) {
    let world = World::new().await;
    let (one, two) = (
        world.node_at("one", url, "5s"),
        world.node_at("two", url, "5s"),
    );
    let both = [&one, &two];
    until("both nodes reach Redis", || {
        both.iter()
            .all(|node| node.metrics.cluster_connected.get() == 1)
    })
    .await;
    let (attached, device) = two.attach().await;
    let mut number = 0;
    cross(&one, (&attached, &device), &mut number).await;

    breaks(&world);
    until("a node misses Redis", || {
        both.iter()
            .any(|node| node.metrics.cluster_connected.get() == 0)
    })
    .await;

    cross(&one, (&attached, &device), &mut number).await;
}

/// Sends until a message reaches the device past the store.
async fn cross(from: &Node, (attached, device): (&Attached, &Link), number: &mut u8) {
    let crossing = async {
        loop {
            *number += 1;
            let before = from.metrics.parcels_sent.get();
            let author = from.send(*number);
            let sends = receive(attached, device).await;
            attached.acked(sends.iter().map(Delivery::sent).collect());
            let custody = custody_of(&author).await;
            if custody == [Custody::Delivered] && from.metrics.parcels_sent.get() > before {
                return;
            }
            sleep(Duration::from_millis(500)).await;
        }
    };
    let crossed = timeout(REPLACEMENT, crossing).await;
    assert!(crossed.is_ok(), "no message crosses");
}

#[tokio::test(flavor = "multi_thread")]
async fn sentinels_lead_to_the_new_primary() {
    let set = tokio::task::spawn_blocking(Watched::start).await;
    let set = set.unwrap().unwrap();

    go_on(&set.url(), |_| set.kill_primary().unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_leads_to_the_new_owner_of_the_keys() {
    let cluster = tokio::task::spawn_blocking(Clustered::start).await;
    let cluster = cluster.unwrap().unwrap();

    go_on(&cluster.url(), |world| {
        cluster
            .kill_owner(&format!("{{{}}}", world.prefix))
            .unwrap();
    })
    .await;
}
