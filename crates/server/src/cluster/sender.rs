//! Says to Redis and to the other nodes what there is to say: all that waits in one round trip.

use std::time::{Duration, Instant};

use commucat_proto::id::QueueId;
use commucat_routing::lane::Attachment;
use commucat_routing::link::Incarnation;
use commucat_routing::ticket::Outcome;
use redis::aio::MultiplexedConnection;
use redis::{Pipeline, Value};
use tokio::time::{sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::outbox::{Letters, Owed};
use super::redis::{Announced, RedisFailure, announced, heard_by, route_of};
use super::wire::{Item, pack};
use super::{Cluster, Here};
use crate::chain::chain;
use crate::mailbox::Mailboxes;

/// Between two tries to reach Redis, at first and at the most.
const PAUSE: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Keys in one round trip at most: Redis serves nobody else meanwhile.
const KEYS_MAX: usize = 1_024;

/// What each answer of a round trip is to.
enum Asked {
    Letter(Incarnation),
    Told,
    Route(QueueId),
    Announce(QueueId, Attachment),
    Mark,
}

/// Runs until `stop`, then says what is left.
pub(super) async fn run(cluster: Cluster, mailboxes: Mailboxes, stop: CancellationToken) {
    let mut connection = None;
    let mut was_there = false;
    let mut pause = PAUSE;
    loop {
        if connection.is_none() && !stop.is_cancelled() {
            connection = cluster.reconnect(&mailboxes, &mut was_there).await;
            match &connection {
                Some(_) => pause = PAUSE,
                None => {
                    tokio::select! {
                        () = sleep(pause) => {}
                        () = stop.cancelled() => {}
                    }
                    pause = (pause * 2).min(PAUSE_MAX);
                    cluster.tick(&mailboxes);
                    continue;
                }
            }
        }
        let due = cluster.due();
        tokio::select! {
            () = cluster.0.ready.notified() => {}
            () = cluster.0.buckets.are_told() => {}
            () = sleep_until(due.unwrap_or_else(Instant::now).into()), if due.is_some() => {}
            () = stop.cancelled() => {}
        }
        cluster.tick(&mailboxes);
        cluster.collect_told();
        while let Some(redis) = &mut connection
            && !cluster.0.outbox.lock().is_empty()
        {
            if let Err(failure) = cluster.transmit(&mailboxes, redis).await {
                debug!(error = %chain(&failure), "Redis is lost");
                connection = None;
                cluster.reach(&mailboxes, |ways| ways.speaks = false);
            }
        }
        if stop.is_cancelled() {
            return;
        }
    }
}

impl Cluster {
    /// A connection, if there is a server. `was_there`: there was one before.
    async fn reconnect(
        &self,
        mailboxes: &Mailboxes,
        was_there: &mut bool,
    ) -> Option<MultiplexedConnection> {
        match self.0.redis.connect().await {
            Ok(connected) => {
                if std::mem::replace(was_there, true) {
                    self.0.moved.send_replace(());
                }
                self.reach(mailboxes, |ways| ways.speaks = true);
                Some(connected)
            }
            Err(failure) => {
                debug!(error = %chain(&failure), "Redis cannot be reached");
                // Nobody hears what waits: routes are announced anew, parcels fall back.
                self.forget_outbox();
                None
            }
        }
    }

    fn due(&self) -> Option<Instant> {
        let dispatch = self.0.core.lock().dispatch.deadline();
        let held = self.0.owner.lock().due();
        dispatch.into_iter().chain(held).min()
    }

    /// Lets time pass: links that are not answered are given up, senders that wait are told.
    fn tick(&self, mailboxes: &Mailboxes) {
        let now = Instant::now();
        let is_due = |at: Instant| at <= now;
        if self.0.core.lock().dispatch.deadline().is_some_and(is_due) {
            self.act(mailboxes, |dispatch, at, out| dispatch.tick(at, out));
        }
        let held = self.0.owner.lock().take_due(now);
        let mut outbox = self.0.outbox.lock();
        for (node, attempt, through) in held {
            outbox.letter(node, Item::Held { attempt, through });
        }
    }

    /// What was taken from common buckets goes out with the rest. Who hears nobody keeps it to itself.
    fn collect_told(&self) {
        let (taken, used) = self.0.buckets.take_telling();
        if self.0.nodes.lock().is_empty() {
            return;
        }
        let mut outbox = self.0.outbox.lock();
        for taken in taken {
            outbox.tell_all(Item::Taken(taken));
        }
        for used in used {
            outbox.tell_all(Item::Used(used));
        }
    }

    fn forget_outbox(&self) {
        let outbox = std::mem::take(&mut *self.0.outbox.lock());
        drop(outbox);
    }

    /// One round trip with all that waits.
    async fn transmit(
        &self,
        mailboxes: &Mailboxes,
        redis: &mut MultiplexedConnection,
    ) -> Result<(), RedisFailure> {
        let (pipeline, asked) = self.round(mailboxes);
        if asked.is_empty() {
            // Removals only, to which nobody wants an answer.
            let () = pipeline.query_async(redis).await?;
            return Ok(());
        }
        let values: Vec<Value> = pipeline.query_async(redis).await?;
        if values.len() != asked.len() {
            return Err(RedisFailure::Strange);
        }
        for (asked, value) in asked.into_iter().zip(&values) {
            self.take_up(mailboxes, &asked, value)?;
        }
        Ok(())
    }

    fn round(&self, mailboxes: &Mailboxes) -> (Pipeline, Vec<Asked>) {
        let redis = &self.0.redis;
        let (mut pipeline, mut asked) = (Pipeline::new(), Vec::new());
        let mut outbox = self.0.outbox.lock();
        let (letters, all) = (
            std::mem::take(&mut outbox.letters),
            std::mem::take(&mut outbox.all),
        );
        let asks = first(&mut outbox.asks);
        let announces = first(&mut outbox.announces);
        let removes = first(&mut outbox.removes);
        let mark = std::mem::take(&mut outbox.mark);
        drop(outbox);
        let key = self.key();
        for (node, letters) in letters {
            let channel = redis.inbox(node);
            let items = self.items(mailboxes, letters);
            for packet in pack(&key, &channel, self.0.me, items) {
                pipeline.cmd("PUBLISH").arg(&channel).arg(packet);
                asked.push(Asked::Letter(node));
            }
        }
        let channel = redis.all();
        for packet in pack(&key, &channel, self.0.me, all) {
            pipeline.cmd("PUBLISH").arg(&channel).arg(packet);
            asked.push(Asked::Told);
        }
        for queue in asks {
            redis.ask(&queue, &mut pipeline);
            asked.push(Asked::Route(queue));
        }
        for queue in announces {
            let here = self.0.attached.lock().get(&queue).copied();
            if let Some(Here {
                attachment,
                since,
                stamp,
            }) = here
            {
                let moment = (stamp, since.elapsed());
                redis.announce(&queue, self.0.me, moment, &mut pipeline);
                asked.push(Asked::Announce(queue, attachment));
            }
        }
        for (queue, stamp) in removes {
            redis.remove(&queue, (self.0.me, stamp), &mut pipeline);
        }
        if mark {
            redis.mark(self.0.me, &mut pipeline);
            asked.push(Asked::Mark);
        }
        (pipeline, asked)
    }

    /// What goes to one node. Whether a queue's device is still connected here is looked up now.
    fn items(&self, mailboxes: &Mailboxes, letters: Letters) -> Vec<Item> {
        let mut items = letters.items;
        items.extend(letters.answers.into_iter().map(|owed| {
            let Owed { queue, mut answer } = owed;
            answer.away = answer.outcome != Outcome::Delivered && !mailboxes.local(&queue).attached;
            Item::Answer(answer)
        }));
        items
    }

    fn take_up(
        &self,
        mailboxes: &Mailboxes,
        asked: &Asked,
        value: &Value,
    ) -> Result<(), RedisFailure> {
        match *asked {
            Asked::Letter(node) => {
                if heard_by(value).ok_or(RedisFailure::Strange)? == 0 {
                    // It is gone, or its own connection to Redis is.
                    self.act(mailboxes, |dispatch, at, out| dispatch.left(node, at, out));
                }
            }
            Asked::Told => {}
            Asked::Route(queue) => {
                let node = route_of(value).filter(|node| *node != self.0.me);
                self.0.outbox.lock().routed(queue, node);
                self.act(mailboxes, |dispatch, at, out| {
                    dispatch.routed(queue, node, at, out);
                });
            }
            Asked::Announce(queue, attachment) => {
                match announced(value).ok_or(RedisFailure::Strange)? {
                    Announced::Newest(stamp) => self.is_newest(queue, attachment, stamp),
                    Announced::Replaced { stamp } => {
                        self.replace_unstamped(mailboxes, queue, attachment, stamp);
                    }
                }
            }
            Asked::Mark => {
                if heard_by(value) == Some(0) {
                    debug!("Redis was flushed or has just been met; routes are announced");
                    self.announce_all();
                }
            }
        }
        Ok(())
    }

    /// Redis has the route: the others hear of a new one.
    fn is_newest(&self, queue: QueueId, attachment: Attachment, stamp: u64) {
        let mut attached = self.0.attached.lock();
        let here = attached.get_mut(&queue);
        let Some(here) = here.filter(|here| here.attachment == attachment) else {
            drop(attached);
            // It ended meanwhile.
            self.0.outbox.lock().removes.push((queue, stamp));
            return;
        };
        if here.stamp.replace(stamp) != Some(stamp) {
            drop(attached);
            self.tell_all(Item::Attached { queue, stamp });
        }
    }

    fn replace_unstamped(
        &self,
        mailboxes: &Mailboxes,
        queue: QueueId,
        attachment: Attachment,
        stamp: u64,
    ) {
        let mut attached = self.0.attached.lock();
        if let Some(here) = attached.get_mut(&queue)
            && here.attachment == attachment
        {
            here.stamp.get_or_insert(0);
        }
        drop(attached);
        self.replace(mailboxes, queue, stamp);
    }
}

/// Takes as much as one round trip may carry.
fn first<T>(list: &mut Vec<T>) -> Vec<T> {
    if list.len() <= KEYS_MAX {
        return std::mem::take(list);
    }
    list.drain(..KEYS_MAX).collect()
}
