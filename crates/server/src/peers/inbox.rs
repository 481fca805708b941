//! What other domains send: each event is placed in order, and answered when it is settled.
//!
//! A follower keeps no group state: a reference opens with the event's group and the batch's
//! authenticated origin as its hub, or it is refused (CCP-1 section 8).

mod opened;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use commucat_federation::batch::{Outcome, Unsettled};
use commucat_federation::event::{
    Body, Class, Deliver, Delivered, Event, EventId, Request, Requested, Return, Submit,
};
use commucat_proto::error::Title;
use commucat_proto::frame::Direction;
use commucat_proto::frame::directory::Directory;
use commucat_proto::frame::error::Problem;
use commucat_proto::frame::fetch::Fetch;
use commucat_proto::frame::group_event::{EventKind, GroupEvent};
use commucat_proto::frame::group_invite::GroupInvite;
use commucat_proto::frame::key_package::KeyPackage;
use commucat_proto::frame::key_update::{KeyUpdate, LogEntry};
use commucat_proto::frame::msg::Msg;
use commucat_proto::id::{DedupeKey, Domain, MessageId};
use commucat_proto::limits::ANSWER_PAYLOAD_MAX;
use commucat_proto::wire::Cbor;
use commucat_routing::lane::Envelope;
use commucat_routing::ticket::{Outcome as LegOutcome, Reason};
use tokio::sync::oneshot;
use tokio::time::{Instant as TokioInstant, timeout_at};
use tokio_util::task::TaskTracker;

use self::opened::OpenedCache;
use crate::accounts::Accounts;
use crate::custody::{self, Author, Frame, Home, Reply, Returned, Settled};
use crate::events;
use crate::hub::Hub;
use crate::router::{Place, Router};

/// What is not settled by then is answered "later": the sender waits for 20 s, and one slow device
/// must not hold up what others have taken.
const ANSWER_WITHIN: Duration = Duration::from_secs(12);

/// Takes what other domains send. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Inbox(Arc<Inner>);

struct Inner {
    router: Router,
    hub: Hub,
    accounts: Accounts,
    opened: OpenedCache,
    tasks: TaskTracker,
    /// `limits.max_payload`: a longer ciphertext would end the connections of its recipients.
    ciphertext_max: usize,
}

/// An event that was placed.
enum Placed {
    Done(Outcome),
    Ticket(oneshot::Receiver<Settled>),
    Kept(oneshot::Receiver<bool>),
    Asked(oneshot::Receiver<Outcome>),
}

impl Inbox {
    pub(crate) fn new(
        router: Router,
        hub: Hub,
        accounts: Accounts,
        tasks: TaskTracker,
        ciphertext_max: usize,
    ) -> Self {
        Self(Arc::new(Inner {
            router,
            hub,
            accounts,
            opened: OpenedCache::default(),
            tasks,
            ciphertext_max,
        }))
    }

    #[cfg(test)]
    pub(crate) fn router(&self) -> &Router {
        &self.0.router
    }

    /// Takes a verified batch of `origin`; one outcome per event, in order.
    ///
    /// Dropping the future loses outcomes, no event.
    pub(crate) async fn take(
        &self,
        origin: &Domain,
        events: Vec<Event>,
    ) -> Vec<(EventId, Outcome)> {
        let deadline = TokioInstant::now() + ANSWER_WITHIN;
        let mut placed = Vec::with_capacity(events.len());
        let (mut groups, mut held_up) = (HashSet::new(), HashSet::new());
        for event in events {
            let id = event.id;
            let group = event.body.lane_group().copied();
            let is_first = group.is_some_and(|group| groups.insert(group));
            // In order, one after another: what an author sent first is placed first.
            // Behind one of its group that could not be placed nothing is: it would come before it.
            let one = if group.is_some_and(|group| held_up.contains(&group)) {
                Placed::Done(Outcome::Later)
            } else {
                self.place(origin, event.body, is_first).await
            };
            if matches!(one, Placed::Done(Outcome::Later)) {
                held_up.extend(group);
            }
            placed.push((id, one));
        }
        let mut outcomes = Vec::with_capacity(placed.len());
        for (id, placed) in placed {
            let outcome = match timeout_at(deadline, placed.outcome()).await {
                Ok(outcome) => outcome,
                Err(_) => Outcome::Later,
            };
            outcomes.push((id, outcome));
        }
        outcomes
    }

    /// `is_first`: of its group in the batch; its sender may have been another node before.
    async fn place(&self, origin: &Domain, body: Body, is_first: bool) -> Placed {
        match body {
            Body::Deliver(deliver) if deliver.frame == Delivered::Typing => {
                self.pass_on(origin, &deliver).await;
                Placed::Done(custody())
            }
            Body::Deliver(deliver) => self.deliver(origin, deliver, is_first).await,
            Body::Submit(submit) => self.submit(origin, submit, is_first).await,
            Body::Return(returned) => self.give_back(origin, returned),
            Body::Tag(tag) => {
                self.0.hub.tag_from(origin, &tag).await;
                Placed::Done(custody())
            }
            Body::Request(request) => self.request(origin, request),
        }
    }

    /// A frame for devices of this domain, in a group whose hub is `origin`.
    async fn deliver(&self, origin: &Domain, deliver: Deliver, is_first: bool) -> Placed {
        let Some(envelope) = self.envelope(origin, &deliver) else {
            return Placed::Done(Outcome::Refused(Box::new(Problem::new(
                Title::InvalidControlPayload,
                "the payload is not what it must be",
            ))));
        };
        let Ok(places) = self.0.opened.places(&self.0.router, origin, &deliver).await else {
            return Placed::Done(Outcome::Later);
        };
        if is_first {
            self.0.router.read_stores_first(&places);
        }
        let (reply, answer) = Reply::new();
        let now = Instant::now();
        let frame = Frame {
            author: Author::Hub { reply },
            group: deliver.group,
            message: MessageId::new([0; 16]),
            key: envelope.key,
            recipients: Arc::default(),
            since: now,
        };
        let mailboxes = self.0.router.mailboxes();
        custody::accept(frame, &self.0.router, |leg| {
            for (recipient, place) in (0..).zip(&places) {
                match place {
                    Place::Here(queue) => {
                        mailboxes.append(*queue, envelope.clone(), leg(recipient), now);
                    }
                    Place::Again(_) => {}
                    Place::Gone => leg(recipient).resolve(LegOutcome::Gone),
                    Place::Refused | Place::Abroad => {
                        leg(recipient).resolve(LegOutcome::Refused(Reason::Forbidden));
                    }
                }
            }
        });
        Placed::Ticket(answer)
    }

    /// The entry for a queue, if the payload is what its type says, about this group and hub: a peer
    /// speaks for its own groups only, and nothing that it sends may end a client's connection.
    fn envelope(&self, origin: &Domain, deliver: &Deliver) -> Option<Envelope> {
        let (group, payload) = (deliver.group, &deliver.payload);
        if payload.len() > ANSWER_PAYLOAD_MAX {
            return None;
        }
        let (message, content) = match deliver.frame {
            Delivered::Message => {
                let msg = Msg::decode(payload).ok()?;
                let ciphertext = msg.ciphertext();
                if ciphertext.len() > self.0.ciphertext_max {
                    return None;
                }
                (msg.message(), ciphertext)
            }
            Delivered::KeyUpdate => {
                let entry = LogEntry::decode_shared(payload).ok()?;
                (entry.group == group).then_some((entry.message, payload.clone()))?
            }
            Delivered::GroupInvite => {
                let invite = GroupInvite::decode_shared(payload).ok()?;
                let is_true = invite.group == group
                    && invite.hub == *origin
                    && deliver.references.as_slice() == [invite.sealed_ref];
                is_true.then_some((invite.message, payload.clone()))?
            }
            Delivered::GroupEvent => {
                let event = GroupEvent::decode_shared(payload).ok()?;
                let is_the_hubs = matches!(
                    event.notice.kind,
                    EventKind::Gone | EventKind::Fork | EventKind::Closed
                );
                let is_true = is_the_hubs && event.notice.group == Some(group);
                is_true.then_some((event.message, payload.clone()))?
            }
            Delivered::Typing => return None,
        };
        Some(Envelope {
            key: DedupeKey::of(&group, &message, &content),
            group: Some(group),
            frame: deliver.frame.frame_type().code(),
            body: payload.clone(),
        })
    }

    /// Ephemeral bytes for whoever is there and has joined.
    async fn pass_on(&self, origin: &Domain, deliver: &Deliver) {
        let Ok(places) = self.0.opened.places(&self.0.router, origin, deliver).await else {
            return;
        };
        for place in places {
            if let Place::Here(queue) = place {
                self.0.router.hint(queue, deliver.group, &deliver.payload);
            }
        }
    }

    /// A message of a device of `origin`, for a group whose hub is here.
    async fn submit(&self, origin: &Domain, submit: Submit, is_first: bool) -> Placed {
        if submit.class == Class::Ephemeral {
            self.0.hub.typing_from(origin, submit).await;
            return Placed::Done(custody());
        }
        let terms = (self.0.ciphertext_max, is_first);
        match self.0.hub.submit(origin, &submit, terms).await {
            Ok(answer) => Placed::Ticket(answer),
            // The store failed, or the handle is too fast, which its own domain should have kept it
            // from: not a word about the message, which is sent again.
            Err(problem) if matches!(problem.title, Title::StorageFailure | Title::RateLimited) => {
                Placed::Done(Outcome::Later)
            }
            Err(problem) => Placed::Done(Outcome::Refused(Box::new(problem))),
        }
    }

    /// A message of a device of this domain comes back from its group's hub, which is `origin`.
    fn give_back(&self, origin: &Domain, returned: Return) -> Placed {
        let Return {
            group,
            message,
            returned: key,
            handles,
            reason,
            author,
        } = returned;
        let Some(queue) = self.0.router.open(&author, &group, origin) else {
            return Placed::Done(Outcome::Refused(Box::new(Problem::new(
                Title::NotFound,
                "no such group, or no entry of yours in it",
            ))));
        };
        let (kept, answer) = oneshot::channel();
        let handles = (!handles.is_empty()).then_some(handles);
        let peers = self.0.router.peers().clone();
        let reason = events::told(reason);
        self.0.tasks.spawn(async move {
            let home = Home::Here(queue);
            let returned = Returned {
                group,
                message,
                key,
            };
            let missed = (handles, reason);
            let is_kept =
                custody::keep(|leg| peers.give_back(&home, returned, missed, leg())).await;
            // The peer asks again if nobody waits any more.
            kept.send(is_kept).ok();
        });
        Placed::Kept(answer)
    }

    /// A control request of a device of `origin`. Runs to its end whoever waits.
    fn request(&self, origin: &Domain, request: Request) -> Placed {
        let (inbox, origin) = (self.clone(), origin.clone());
        let (answered, answer) = oneshot::channel();
        self.0.tasks.spawn(async move {
            let outcome = match inbox.answer(&origin, request).await {
                Ok(result) => Outcome::Result(result),
                Err(problem) => Outcome::Refused(Box::new(problem)),
            };
            answered.send(outcome).ok();
        });
        Placed::Asked(answer)
    }

    async fn answer(&self, origin: &Domain, request: Request) -> Result<Bytes, Problem> {
        let payload = &request.payload;
        let max = request.frame.frame_type().payload_max(Direction::Up, 0);
        if payload.len() > max {
            return Err(Problem::new(
                Title::PayloadTooLarge,
                "the request is too large",
            ));
        }
        let bytes = |result: Vec<u8>| Bytes::from(result);
        match request.frame {
            Requested::KeyUpdate => {
                let update = KeyUpdate::decode_shared(payload).map_err(invalid)?;
                let result = self.0.hub.key_update_from(origin, &update).await?;
                Ok(bytes(result.encode()))
            }
            Requested::Fetch => {
                let fetch = Fetch::decode_shared(payload).map_err(invalid)?;
                let result = self.0.hub.fetch_from(origin, &fetch).await?;
                Ok(bytes(result.encode()))
            }
            Requested::KeyPackage => match KeyPackage::decode_shared(payload).map_err(invalid)? {
                KeyPackage::Claim(claim) => {
                    let result = self.0.accounts.claim_from(origin, claim).await?;
                    Ok(bytes(result.encode()))
                }
                KeyPackage::Publish { .. }
                | KeyPackage::Count
                | KeyPackage::Capabilities { .. }
                | KeyPackage::OwnReference { .. } => Err(forbidden()),
            },
            Requested::Directory => match Directory::decode_shared(payload).map_err(invalid)? {
                Directory::Get {
                    account,
                    domain,
                    capability,
                } => {
                    let result = self.0.accounts.list_for(&account, &domain, capability);
                    Ok(bytes(result.await?.encode()))
                }
                Directory::Put { .. } => Err(forbidden()),
            },
        }
    }
}

impl Placed {
    async fn outcome(self) -> Outcome {
        match self {
            Self::Done(outcome) => outcome,
            Self::Ticket(answer) => match answer.await {
                Ok(Settled::Custody(missed)) => {
                    let unsettled = |missed: &commucat_routing::ticket::Missed| Unsettled {
                        index: missed.recipient.into(),
                        gone: missed.reason == Reason::Gone,
                        reason: events::wire(missed.reason),
                    };
                    let mut unsettled: Vec<_> = missed.iter().map(unsettled).collect();
                    unsettled.sort_unstable_by_key(|one| one.index);
                    unsettled.dedup_by_key(|one| one.index);
                    Outcome::Custody(unsettled)
                }
                Ok(Settled::Failed) | Err(_) => Outcome::Later,
            },
            Self::Kept(answer) => match answer.await {
                Ok(true) => custody(),
                Ok(false) | Err(_) => Outcome::Later,
            },
            Self::Asked(answer) => answer.await.unwrap_or(Outcome::Later),
        }
    }
}

const fn custody() -> Outcome {
    Outcome::Custody(Vec::new())
}

fn invalid(error: commucat_proto::wire::reader::CborError) -> Problem {
    Problem::new(error.into(), "the payload is not what it must be")
}

fn forbidden() -> Problem {
    Problem::new(Title::Forbidden, "a device asks its own server for this")
}
