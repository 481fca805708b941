//! Hears what other nodes say.

use std::time::{Duration, Instant};

use commucat_routing::link::Incarnation;
use futures_util::StreamExt as _;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::nodes::SILENCE;
use super::wire::{Item, unpack};
use super::{Cluster, Surroundings};
use crate::chain::chain;
use crate::session::Hint;

/// Between two tries to subscribe, at first and at the most.
const PAUSE: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Runs until `stop`.
pub(super) async fn run(cluster: Cluster, around: Surroundings, stop: CancellationToken) {
    let listening = async {
        let mut pause = PAUSE;
        loop {
            if cluster.listen(&around).await {
                pause = PAUSE;
            }
            sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    };
    tokio::select! {
        () = listening => {}
        () = stop.cancelled() => {}
    }
}

impl Cluster {
    /// Listens until the connection breaks; whether there was one.
    async fn listen(&self, around: &Surroundings) -> bool {
        let redis = &self.0.redis;
        let mut moved = self.0.moved.subscribe();
        let channels = [redis.all(), redis.inbox(self.0.me)];
        let mut heard = match redis.subscribe(&channels).await {
            Ok(heard) => heard,
            Err(failure) => {
                debug!(error = %chain(&failure), "cannot subscribe");
                return false;
            }
        };
        self.reach(&around.mailboxes, |ways| ways.hears = true);
        loop {
            // A node hears itself every two seconds: silence means that the connection is dead.
            let message = tokio::select! {
                message = timeout(SILENCE, heard.next()) => message,
                _ = moved.changed() => break,
            };
            let Ok(Some(message)) = message else {
                break;
            };
            let Some((from, items)) = unpack(&self.key(), &message.channel, &message.packet) else {
                debug!("a message is of no node of this domain");
                continue;
            };
            if from == self.0.me {
                continue;
            }
            for item in items {
                self.hear(around, from, item);
            }
        }
        self.reach(&around.mailboxes, |ways| ways.hears = false);
        true
    }

    fn hear(&self, around: &Surroundings, from: Incarnation, item: Item) {
        let mailboxes = &around.mailboxes;
        match item {
            Item::Parcel(parcel) => self.take(mailboxes, from, parcel),
            Item::Answer(answer) => self.act(mailboxes, |dispatch, at, out| {
                dispatch.answered(from, answer, at, out);
            }),
            Item::Held { attempt, through } => {
                self.0.core.lock().dispatch.held(from, attempt, through);
            }
            Item::Broken { attempt } => self.act(mailboxes, |dispatch, at, out| {
                dispatch.broken(from, attempt, at, out);
            }),
            Item::Hint {
                queue,
                group,
                payload,
            } => {
                if let Some(link) = mailboxes.link(&queue) {
                    link.hint(Hint { group, payload });
                }
            }
            Item::Wake(queue) => mailboxes.poke_here(&queue),
            Item::Attached { queue, stamp } => {
                self.replace(mailboxes, queue, stamp);
                self.act(mailboxes, |dispatch, at, out| {
                    dispatch.routed(queue, Some(from), at, out);
                });
            }
            Item::Revoked(queue) => {
                around.router.forget_places();
                mailboxes.revoke_here(&queue);
            }
            Item::Group(group) => around.hub.forget(&group),
            Item::Tag {
                group,
                handle,
                position,
                tag,
            } => around.hub.tagged_elsewhere(&group, handle, (position, tag)),
            Item::Alive(status) => {
                if status.keys != self.keys_mark() {
                    self.0.metrics.cluster_keys_differ.inc();
                }
                let is_news = self.0.nodes.lock().heard(from, status, Instant::now());
                self.0.core.lock().dispatch.back(from);
                if is_news {
                    debug!("another node is there");
                }
            }
            Item::Leaving => {
                self.0.nodes.lock().left(from);
                self.act(mailboxes, |dispatch, at, out| dispatch.left(from, at, out));
            }
            Item::Taken(taken) => {
                self.0.metrics.cluster_taken.inc_by(taken.count.into());
                self.0.buckets.debit(taken, Instant::now());
            }
            Item::Used(used) => around.budgets.used_elsewhere(used, Instant::now()),
            Item::Drain(name) => {
                if name == self.0.name {
                    self.0.drain.cancel();
                }
            }
        }
    }
}
