//! What is asked of another domain for a device, and what is said in passing: neither takes a lane,
//! neither is ever stored.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use commucat_federation::batch::{Outcome, Parcel, RawEvent};
use commucat_federation::event::{Body, Event, Request, Requested};
use commucat_proto::error::Title;
use commucat_proto::frame::error::Problem;
use commucat_proto::id::{DeviceId, Domain};
use commucat_proto::limits::ANSWER_PAYLOAD_MAX;
use commucat_proto::wire::reader::Reader;
use parking_lot::Mutex;
use tokio::time::timeout;
use tracing::debug;

use super::{Outgoing, Peer, Peers};
use crate::chain::chain;

/// No answer within this is `Federation Failure` (CCP-1 section 8).
const ANSWER_WAIT: Duration = Duration::from_secs(20);

/// When a device may contact another new domain at the latest.
const CONTACT_PAUSE: Duration = Duration::from_secs(360);

/// Room in an ACK beside the result.
const ACK_ROOM: usize = 64;

/// Ephemeral events that wait for a peer; more are dropped.
const HINTS_MAX: usize = 256;

/// Ephemeral events for a peer.
#[derive(Default)]
pub(super) struct Hints(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    events: Vec<Event>,
    /// Whether a task sends them.
    runs: bool,
}

impl Peers {
    /// Asks `domain` what `device` asked; the result as the ACK has it.
    ///
    /// # Errors
    ///
    /// [`Problem`] for the device: what the other domain says, or `Federation Failure`.
    pub(crate) async fn ask(
        &self,
        device: &DeviceId,
        domain: &Domain,
        frame: Requested,
        payload: Bytes,
    ) -> Result<Bytes, Problem> {
        if self.0.client.contact(device, domain).await.is_err() {
            let problem = Problem::new(Title::RateLimited, "too many domains that are new here");
            return Err(problem.retry_after(CONTACT_PAUSE.as_secs()));
        }
        let peer = self
            .peer(domain)
            .ok_or_else(|| failure("this server talks to too many domains already"))?;
        let event = Outgoing::new(Body::Request(Request { frame, payload }), None).into_event();
        let answered = timeout(ANSWER_WAIT, self.ask_peer(&peer, &event)).await;
        answered.unwrap_or_else(|_| Err(failure("the other domain did not answer in time")))
    }

    async fn ask_peer(&self, peer: &Arc<Peer>, event: &Event) -> Result<Bytes, Problem> {
        let _permit = peer.requests.acquire().await;
        let mut parcel = Parcel::new();
        if !parcel.push(RawEvent::from(event)) {
            return Err(Problem::new(Title::PayloadTooLarge, "too large to pass on"));
        }
        let answer = match self.0.client.post(&peer.domain, &parcel).await {
            Ok(answer) => answer,
            Err(error) => {
                debug!(peer = %peer.domain.tag(), error = %chain(&error), "a peer did not answer");
                self.metrics().peer_failures.inc();
                return Err(failure("the other domain cannot be reached"));
            }
        };
        self.heard(&peer.domain);
        let mut settled = answer.into_iter();
        match settled.find(|settled| settled.event == event.id) {
            Some(settled) => result_of(settled.outcome),
            None => Err(failure("the other domain did not say")),
        }
    }

    /// Says something in passing: nothing is kept, nobody waits, and under pressure it is dropped.
    pub(crate) fn hint(&self, domain: &Domain, body: Body) {
        let Some(peer) = self.peer(domain) else {
            return;
        };
        if peer.rest.is_on() || self.is_draining() {
            return;
        }
        {
            let mut waiting = peer.hints.0.lock();
            if waiting.events.len() >= HINTS_MAX {
                return;
            }
            waiting.events.push(Outgoing::new(body, None).into_event());
            if std::mem::replace(&mut waiting.runs, true) {
                return;
            }
        }
        let peers = self.clone();
        self.0.tasks.spawn(async move {
            let stop = peers.0.stop.clone();
            tokio::select! {
                () = peers.say(&peer) => {}
                () = stop.cancelled() => {}
            }
        });
    }

    async fn say(&self, peer: &Arc<Peer>) {
        loop {
            let events = {
                let mut waiting = peer.hints.0.lock();
                if waiting.events.is_empty() {
                    waiting.runs = false;
                    return;
                }
                std::mem::take(&mut waiting.events)
            };
            let mut parcel = Parcel::new();
            for event in &events {
                if !parcel.push(RawEvent::from(event)) {
                    break;
                }
            }
            let _permit = peer.requests.acquire().await;
            if let Err(error) = self.0.client.post(&peer.domain, &parcel).await {
                debug!(peer = %peer.domain.tag(), error = %chain(&error), "a peer took no hints");
            }
        }
    }
}

fn result_of(outcome: Outcome) -> Result<Bytes, Problem> {
    match outcome {
        Outcome::Result(result) if is_an_item(&result) => Ok(result),
        Outcome::Refused(mut problem) => {
            problem.sequence = None;
            Err(*problem)
        }
        Outcome::Result(_) => Err(failure(
            "the other domain answered what no client could read",
        )),
        Outcome::Later => Err(failure("the other domain is busy; try again")),
        Outcome::Custody(_) | Outcome::Gone => Err(failure("the other domain did not answer that")),
    }
}

/// Whether an ACK can carry it: a bad one would end the connection of the device that asked.
fn is_an_item(result: &Bytes) -> bool {
    let mut reader = Reader::new(result);
    result.len() <= ANSWER_PAYLOAD_MAX - ACK_ROOM && reader.skip().is_ok() && reader.end().is_ok()
}

fn failure(detail: &'static str) -> Problem {
    Problem::new(Title::FederationFailure, detail)
}
