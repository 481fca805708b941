//! The task of a lane: reads the outbox, sends requests one after another, watches `T`, rests.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use commucat_federation::batch::{Parcel, RawEvent, Settled};
use commucat_federation::event::{Body, Lane};
use commucat_routing::lane::{Delivery, Effect, Envelope, Page, Position};
use commucat_routing::peer::{BATCH_BYTES, EVENTS_MAX, Next, PeerLane};
use commucat_routing::ticket::Reason;
use commucat_storage::{OutboxContent, OutboxPage, QueuePosition};
use tokio::time::{sleep, sleep_until};
use tracing::{debug, error, warn};

use super::lane::PeerQueue;
use super::outgoing::{Sent, Verdict, pack};
use super::{Peer, Peers, lease};
use crate::chain::chain;
use crate::federation::PostError;

/// Before the outbox is read again after the store failed.
pub(super) const PAGE_PAUSE: Duration = Duration::from_secs(1);

/// After so long with nothing to do the task ends.
const IDLE: Duration = Duration::from_secs(60);

/// Whether the task goes on.
#[derive(Eq, PartialEq)]
enum Goes {
    On,
    Ends,
}

/// Runs until the lane has had nothing to do for a while, or the server stops.
pub(super) async fn run(peers: Peers, peer: Arc<Peer>, number: Lane) {
    let Some(queue) = peer.queue(number) else {
        return;
    };
    let worker = Worker {
        peers: &peers,
        peer: &peer,
        queue,
    };
    loop {
        let goes = tokio::select! {
            () = peers.0.stop.cancelled() => return,
            goes = worker.turn() => goes,
        };
        if goes == Goes::Ends && queue.ends() {
            return;
        }
    }
}

struct Worker<'a> {
    peers: &'a Peers,
    peer: &'a Arc<Peer>,
    queue: &'a PeerQueue,
}

impl Worker<'_> {
    async fn turn(&self) -> Goes {
        self.delete().await;
        self.tick();
        let may_send = self.peers.hold(self.peer).await;
        let left = self.peer.rest.remaining(Instant::now());
        if !may_send {
            // Another node sends, from the outbox.
            self.peers
                .with_lane(self.peer, self.queue, |lane, effects| lane.failed(effects));
        } else if left.is_none() && !self.peers.is_draining() {
            self.peers
                .with_lane(self.peer, self.queue, |lane, effects| lane.connect(effects));
        }
        let mut next = self
            .peers
            .with_lane(self.peer, self.queue, |lane, _| lane.pump());
        loop {
            next = match next {
                // Reading the outbox may have taken long.
                Next::Send(_) if !self.peers.may_send(self.peer) => {
                    self.peers
                        .with_lane(self.peer, self.queue, |lane, effects| lane.failed(effects));
                    return Goes::On;
                }
                Next::Send(batch) => {
                    self.send(batch).await;
                    return Goes::On;
                }
                Next::ReadPage { after } => self.read(after).await,
                Next::Wait if may_send => return self.wait(left).await,
                Next::Wait => return self.wait_for_the_right().await,
            };
        }
    }

    /// Waits for something to do; ends if there was nothing for long.
    async fn wait(&self, rest: Option<Duration>) -> Goes {
        let deadline = self.queue.deadline();
        let wakes_at = deadline.unwrap_or_else(Instant::now);
        tokio::select! {
            () = self.queue.woken.notified() => Goes::On,
            () = sleep_until(wakes_at.into()), if deadline.is_some() => Goes::On,
            () = sleep(rest.unwrap_or_default()), if rest.is_some() => Goes::On,
            () = sleep(lease::RENEWAL), if self.peers.keeps(self.peer) => Goes::On,
            () = sleep(IDLE), if rest.is_none() => Goes::Ends,
        }
    }

    /// Another node may send to the peer: nothing is to be done here but to write the outbox.
    async fn wait_for_the_right(&self) -> Goes {
        tokio::select! {
            () = self.queue.woken.notified() => Goes::On,
            () = sleep(lease::RETRY) => Goes::Ends,
        }
    }

    fn tick(&self) {
        let now = Instant::now();
        self.peers
            .with_lane(self.peer, self.queue, |lane, effects| {
                lane.lane().tick(now, effects);
            });
    }

    /// Deletes the rows of settled events. A delete that is lost costs a repeat.
    async fn delete(&self) {
        let rows = self.queue.take_deletes(self.peer);
        if rows.is_empty() {
            return;
        }
        if let Err(failure) = self.peers.0.store.delete_outbox(rows.clone()).await {
            warn!(error = %chain(&failure), "cannot delete settled events");
            self.queue.put_deletes_back(&rows);
        }
    }

    async fn read(&self, after: Position) -> Next {
        let lane = self.queue.name(self.peer);
        let after = QueuePosition::new(after.get());
        let page = self
            .peers
            .0
            .store
            .outbox_page(&lane, after, BATCH_BYTES, EVENTS_MAX)
            .await;
        match page {
            Ok(page) => {
                let page = self.page(page);
                self.peers
                    .with_lane(self.peer, self.queue, |lane, _| lane.page(page))
            }
            Err(failure) => {
                self.peers.metrics().store_failures.inc();
                warn!(error = %chain(&failure), "cannot read the outbox");
                sleep(PAGE_PAUSE).await;
                self.peers.with_lane(self.peer, self.queue, |lane, _| {
                    lane.page_failed();
                    Next::Wait
                })
            }
        }
    }

    /// A page as the lane takes it, without settled events that are deleted in a moment.
    fn page(&self, stored: OutboxPage) -> Page {
        let mut rows = Vec::with_capacity(stored.rows.len());
        for row in stored.rows {
            if self.queue.is_deleted(row.position, &row.key) {
                continue;
            }
            let body = match row.content {
                OutboxContent::Event { event, return_to } => pack(return_to.as_ref(), &event),
                OutboxContent::Corrupt => {
                    error!("an event in the outbox is damaged; it is given up");
                    Bytes::new()
                }
            };
            let envelope = Envelope {
                key: row.key,
                group: None,
                frame: 0,
                body,
            };
            rows.push((Position::new(row.position.get()), envelope));
        }
        Page {
            rows,
            more: stored.more,
            head: Position::new(stored.head.get()),
        }
    }

    /// Sends one request and deals with its answer; `T` goes on meanwhile.
    async fn send(&self, batch: Vec<Delivery>) {
        let events: Vec<Option<Sent>> = batch.iter().map(Sent::of).collect();
        drop(batch);
        let mut parcel = Parcel::new();
        for sent in events.iter().flatten() {
            if !parcel.push(RawEvent::from(&sent.event)) {
                break;
            }
        }
        match self.post(&parcel).await {
            Ok(answer) => {
                self.peer.rest.end();
                self.count(&parcel, &answer);
                if !self.settle(events, answer).await {
                    self.peer.rest.begin(Instant::now());
                }
            }
            Err(PostError::Refused | PostError::RefusedThere) => {
                debug!(peer = %self.peer.domain.tag(), "events come back: the two domains do not talk");
                if !self.lose(events).await {
                    self.fail();
                }
            }
            Err(PostError::Budget(wait)) => {
                debug!(peer = %self.peer.domain.tag(), ?wait, "a peer takes no more for a while");
                self.peer.rest.pause(wait, Instant::now());
                self.peers
                    .with_lane(self.peer, self.queue, |lane, effects| lane.failed(effects));
            }
            Err(failure) => {
                debug!(peer = %self.peer.domain.tag(), error = %chain(&failure), "a peer took no events");
                self.peers.metrics().peer_failures.inc();
                self.fail();
            }
        }
    }

    async fn post(&self, parcel: &Parcel) -> Result<Vec<Settled>, PostError> {
        if parcel.is_empty() {
            return Ok(Vec::new());
        }
        let request = self.peers.0.client.post(&self.peer.domain, parcel);
        tokio::pin!(request);
        loop {
            let deadline = self.queue.deadline();
            let ticks_at = deadline.unwrap_or_else(Instant::now);
            tokio::select! {
                answer = &mut request => return answer,
                () = sleep_until(ticks_at.into()), if deadline.is_some() => self.tick(),
                // What comes meanwhile may have to be watched.
                () = self.queue.woken.notified() => {}
            }
        }
    }

    /// The peer rests; what is in memory goes to the outbox at once.
    fn fail(&self) {
        self.peer.rest.begin(Instant::now());
        self.peers
            .with_lane(self.peer, self.queue, |lane, effects| lane.failed(effects));
    }

    fn count(&self, parcel: &Parcel, answer: &[Settled]) {
        let metrics = self.peers.metrics();
        let settled = u64::try_from(answer.len()).unwrap_or(u64::MAX);
        metrics.relayed.inc_by(settled);
        if !parcel.is_empty() {
            metrics.peer_batches.inc();
        }
    }

    /// Settles the request's events by the answer, oldest first; `false` if some are left.
    async fn settle(&self, events: Vec<Option<Sent>>, answer: Vec<Settled>) -> bool {
        let mut outcomes: HashMap<_, _> = answer
            .into_iter()
            .map(|settled| (settled.event, settled.outcome))
            .collect();
        let verdict = move |sent: &Sent| {
            let outcome = outcomes.remove(&sent.event.id)?;
            Verdict::of(outcome, &sent.event)
        };
        self.settle_by(events, verdict).await
    }

    /// One of the two does not talk to the other: everything comes back.
    async fn lose(&self, events: Vec<Option<Sent>>) -> bool {
        self.settle_by(events, |_| Some(Verdict::Lost(Reason::Blocked)))
            .await
    }

    async fn settle_by(
        &self,
        events: Vec<Option<Sent>>,
        mut verdict: impl FnMut(&Sent) -> Option<Verdict>,
    ) -> bool {
        for sent in events {
            let settled = match sent {
                // Nobody can read it any more.
                None => {
                    let settle = |lane: &mut PeerLane<_>, effects: &mut _| lane.settle(effects);
                    let settled = self.peers.with_lane(self.peer, self.queue, settle);
                    settled.is_some()
                }
                Some(sent) => match verdict(&sent) {
                    Some(verdict) => self.settle_one(&sent, &verdict).await,
                    None => false,
                },
            };
            if !settled {
                self.peers
                    .with_lane(self.peer, self.queue, |lane, effects| lane.failed(effects));
                return false;
            }
        }
        self.peers
            .with_lane(self.peer, self.queue, |lane, effects| lane.landed(effects))
    }

    /// Settles the oldest event; `false` if what follows from it could not be made durable: then its
    /// row stays, and it is sent again.
    async fn settle_one(&self, sent: &Sent, verdict: &Verdict) -> bool {
        let mut effects = Vec::new();
        if self.queue.settle(&mut effects).is_none() {
            return false;
        }
        self.peers.departed(sent, verdict);
        let has_legs = effects
            .iter()
            .any(|effect| matches!(effect, Effect::Resolve(..)));
        // Who waits is told by the legs, but for a message that no hub will ever take.
        let is_lost = matches!(
            (&sent.event.body, verdict),
            (Body::Submit(_), Verdict::Lost(_))
        );
        if (!has_legs || is_lost) && !self.peers.came_back(&self.peer.domain, sent, verdict).await {
            return false;
        }
        let mut rest = Vec::new();
        for effect in effects {
            match effect {
                Effect::Resolve(leg, _) => leg.settle(verdict),
                other @ (Effect::Wake(_)
                | Effect::Spool(_)
                | Effect::Delete(_)
                | Effect::Replaced(_)) => rest.push(other),
            }
        }
        self.peers.carry_out(self.peer, self.queue, rest);
        true
    }
}
