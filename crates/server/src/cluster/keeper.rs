//! What a node does by the clock: says that it lives, keeps its routes, looks for what it missed.

use std::time::{Duration, Instant};

use commucat_proto::id::QueueId;
use commucat_routing::lane::Position;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::wire::Item;
use super::{Cluster, Surroundings};
use crate::chain::chain;

/// A lost wake costs so long at most.
const PERIOD: Duration = Duration::from_secs(2);

/// Routes are announced again every so many periods, three times in their life.
const ROUTES_EVERY: u32 = 10;

/// Queues of one query.
const QUEUES: usize = 4_096;

/// Runs until `stop`.
pub(super) async fn run(cluster: Cluster, around: Surroundings, stop: CancellationToken) {
    let mut period = interval(PERIOD);
    period.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut count: u32 = 0;
    loop {
        tokio::select! {
            _ = period.tick() => {}
            () = stop.cancelled() => return,
        }
        count = count.wrapping_add(1);
        cluster.keep_alive(&around);
        if count.is_multiple_of(ROUTES_EVERY) {
            cluster.announce_all();
        }
        cluster.look_for_missed(&around).await;
    }
}

impl Cluster {
    fn keep_alive(&self, around: &Surroundings) {
        let silent = self.0.nodes.lock().take_silent(Instant::now());
        for node in silent {
            self.act(&around.mailboxes, |dispatch, at, out| {
                dispatch.left(node, at, out);
            });
        }
        let others = self.0.nodes.lock().all().len();
        self.0
            .metrics
            .cluster_nodes
            .set(i64::try_from(others).unwrap_or(i64::MAX).saturating_add(1));
        self.0.outbox.lock().mark = true;
        self.tell_all(Item::Alive(self.status()));
    }

    /// Compares what the store has with what the lanes here have read, in one query for many queues.
    async fn look_for_missed(&self, around: &Surroundings) {
        let queues: Vec<QueueId> = self.0.attached.lock().keys().copied().collect();
        for some in queues.chunks(QUEUES) {
            let heads = match around.store.queue_heads(some.to_vec()).await {
                Ok(heads) => heads,
                Err(failure) => {
                    warn!(error = %chain(&failure), "cannot look for missed entries");
                    return;
                }
            };
            for (queue, head) in some.iter().zip(heads) {
                match head {
                    Some(head) => {
                        around.mailboxes.poll(queue, Position::new(head.get()));
                    }
                    None => {
                        around.router.forget_places();
                        around.mailboxes.revoke_here(queue);
                    }
                }
            }
        }
    }
}
