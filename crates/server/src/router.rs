//! The router: from a fan-out list's references to the places where entries go.
//!
//! A reference of this domain is opened to a queue; what happens there is the mailbox's business.
//! References of other domains go to their peers, one event for each domain.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use commucat_federation::event::{Body, Deliver, Delivered};
use commucat_proto::id::{Domain, GroupId, Handle, QueueId, SealedRef};
use commucat_routing::hub::Entry;
use commucat_routing::lane::Envelope;
use commucat_routing::ticket::{Outcome, Reason};
use commucat_storage::{Reference, ReferenceState, Store, StoreError};
use tokio::time::sleep;

use crate::custody::{self, Author, Frame, Home, Leg, Returned};
use crate::keys::Keys;
use crate::mailbox::Mailboxes;
use crate::peers::{AuthorOf, Outgoing, PeerLeg, Peers, ReturnTo};
use crate::session::{Batch, Hint};

/// How long a place is believed where other nodes may change it.
const BELIEVED: Duration = Duration::from_secs(1);

/// Where the entries for one member of a group go.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Place {
    /// A queue of this domain.
    Here(QueueId),
    /// A queue that an earlier entry of the list leads to already.
    Again(QueueId),
    /// The queue is revoked, or left the group for good.
    Gone,
    /// The reference does not open.
    Refused,
    /// Another domain; [`Placement::abroad`] has it.
    Abroad,
}

/// Where the entries for a list go.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Placement {
    /// Of each entry, in the list's order.
    pub(crate) places: Vec<Place>,
    /// Other domains with their members.
    pub(crate) abroad: Vec<Abroad>,
}

/// Members of a list whose home is one other domain, in the list's order.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Abroad {
    pub(crate) domain: Domain,
    pub(crate) members: Vec<Member>,
}

/// One of them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Member {
    /// Its place in the list.
    pub(crate) recipient: u16,
    pub(crate) handle: Handle,
    pub(crate) reference: SealedRef,
}

impl Placement {
    fn of(places: Vec<Place>, list: &[Entry]) -> Self {
        let mut domains: HashMap<&Domain, usize> = HashMap::new();
        let mut abroad: Vec<Abroad> = Vec::new();
        for ((recipient, entry), place) in (0..).zip(list).zip(&places) {
            if *place != Place::Abroad {
                continue;
            }
            let index = *domains.entry(&entry.domain).or_insert_with(|| {
                abroad.push(Abroad {
                    domain: entry.domain.clone(),
                    members: Vec::new(),
                });
                abroad.len() - 1
            });
            if let Some(peer) = abroad.get_mut(index) {
                peer.members.push(Member {
                    recipient,
                    handle: entry.handle,
                    reference: entry.sealed_ref,
                });
            }
        }
        Self { places, abroad }
    }
}

/// Opens references and places entries. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Router(Arc<Inner>);

struct Inner {
    domain: Domain,
    keys: Keys,
    store: Store,
    mailboxes: Mailboxes,
    peers: Peers,
    /// Raised whenever a queue is revoked: places found before may be stale.
    generation: AtomicU64,
}

impl Router {
    pub(crate) fn new(keys: Keys, store: Store, mailboxes: Mailboxes, peers: Peers) -> Self {
        Self(Arc::new(Inner {
            domain: peers.domain().clone(),
            keys,
            store,
            mailboxes,
            peers,
            generation: AtomicU64::new(0),
        }))
    }

    pub(crate) fn domain(&self) -> &Domain {
        &self.0.domain
    }

    pub(crate) fn mailboxes(&self) -> &Mailboxes {
        &self.0.mailboxes
    }

    pub(crate) fn peers(&self) -> &Peers {
        &self.0.peers
    }

    /// A queue was revoked: every place is looked up again when it is next used.
    pub(crate) fn forget_places(&self) {
        self.0.generation.fetch_add(1, Ordering::AcqRel);
    }

    /// Changes when places become stale.
    pub(crate) fn generation(&self) -> u64 {
        self.0.generation.load(Ordering::Acquire)
    }

    /// Whether places that were looked up at `read` are believed. Where there are other nodes a group
    /// may be changed and left there: they say so, but that may get lost, and who was removed or has
    /// left shall stop receiving soon.
    pub(crate) fn is_believed(&self, read: Instant) -> bool {
        self.0.mailboxes.cluster().is_none() || read.elapsed() < BELIEVED
    }

    /// Returns when no node believes any place that it looked up before the call.
    pub(crate) async fn until_all_look_again(&self) {
        if self.0.mailboxes.cluster().is_some() {
            sleep(BELIEVED).await;
        }
    }

    /// The queue that `reference` leads to, if it was made here for `group` and `hub`.
    pub(crate) fn open(
        &self,
        reference: &SealedRef,
        group: &GroupId,
        hub: &Domain,
    ) -> Option<QueueId> {
        self.0
            .keys
            .open_reference(reference, group, hub)
            .map(|opened| opened.queue)
    }

    /// Where each entry of `list` leads, for a group of which this domain is the hub.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store cannot be read.
    pub(crate) async fn place(
        &self,
        group: &GroupId,
        list: &[Entry],
    ) -> Result<Placement, StoreError> {
        let own = &self.0.domain;
        let references: Vec<SealedRef> = list
            .iter()
            .filter(|entry| entry.domain == *own)
            .map(|entry| entry.sealed_ref)
            .collect();
        let mut here = self.places(group, own, &references).await?.into_iter();
        let place = |entry: &Entry| {
            if entry.domain == *own {
                here.next().unwrap_or(Place::Refused)
            } else {
                Place::Abroad
            }
        };
        let places = list.iter().map(place).collect();
        Ok(Placement::of(places, list))
    }

    /// Where each of these references of this domain leads, for a group of `hub`.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store cannot be read.
    pub(crate) async fn places(
        &self,
        group: &GroupId,
        hub: &Domain,
        references: &[SealedRef],
    ) -> Result<Vec<Place>, StoreError> {
        let opened: Vec<Option<Reference>> = references
            .iter()
            .map(|reference| {
                let opened = self.0.keys.open_reference(reference, group, hub)?;
                Some(Reference {
                    queue: opened.queue,
                    group: *group,
                    issued: opened.issued,
                })
            })
            .collect();
        let known: Vec<Reference> = opened.iter().flatten().copied().collect();
        let mut states = if known.is_empty() {
            Vec::new().into_iter()
        } else {
            self.0.store.reference_states(known).await?.into_iter()
        };
        let place = |reference: Option<Reference>| {
            let Some(reference) = reference else {
                return Place::Refused;
            };
            match states.next() {
                Some(ReferenceState::Live) => Place::Here(reference.queue),
                Some(ReferenceState::Gone) => Place::Gone,
                Some(ReferenceState::Unknown) | None => Place::Refused,
            }
        };
        Ok(opened.into_iter().map(place).collect())
    }

    /// Passes ephemeral bytes on to the device of `queue`, if it is connected and has joined.
    pub(crate) fn hint(&self, queue: QueueId, group: GroupId, payload: &Bytes) {
        let mailboxes = &self.0.mailboxes;
        if let Some(link) = mailboxes.link(&queue) {
            link.hint(Hint {
                group,
                payload: payload.clone(),
            });
        } else if let Some(cluster) = mailboxes.cluster() {
            cluster.hint(queue, group, payload.clone());
        }
    }

    /// The author of what comes next may have been on another node before: whoever owns these queues
    /// reads the store before it takes that.
    pub(crate) fn read_stores_first(&self, places: &[Place]) {
        for place in places {
            if let Place::Here(queue) = place {
                self.0.mailboxes.read_store_first(queue);
            }
        }
    }

    /// The same for the domains that a message goes to, and their outboxes.
    pub(crate) fn read_outboxes_first(&self, placement: &Placement, group: &GroupId) {
        for peer in &placement.abroad {
            self.0.peers.read_outbox_first(&peer.domain, group);
        }
    }

    /// Takes a frame into custody and places it for every recipient but the one at `except`, without
    /// waiting in between. Who gets something is woken with `batch`.
    pub(crate) fn accept(
        &self,
        frame: Frame,
        envelope: &Envelope,
        (placement, except): (&Placement, Option<usize>),
        batch: &mut Batch,
    ) {
        let now = frame.since;
        let author = (!placement.abroad.is_empty()).then(|| self.author_of(&frame));
        let author = author.flatten();
        let (message, key) = (frame.message, frame.key);
        custody::accept(frame, self, |leg| {
            for (index, place) in placement.places.iter().enumerate() {
                let (Ok(recipient), false) = (u16::try_from(index), except == Some(index)) else {
                    continue;
                };
                match place {
                    Place::Here(queue) => {
                        let entry = (*queue, envelope.clone(), leg(recipient));
                        self.0.mailboxes.append_in_batch(entry, now, batch);
                    }
                    Place::Again(_) | Place::Abroad => {}
                    Place::Gone => leg(recipient).resolve(Outcome::Gone),
                    Place::Refused => leg(recipient).resolve(Outcome::Refused(Reason::Forbidden)),
                }
            }
            for peer in &placement.abroad {
                let is_meant = |member: &&Member| except != Some(usize::from(member.recipient));
                let members: Vec<Member> = peer.members.iter().filter(is_meant).copied().collect();
                let Some(first) = members.first() else {
                    continue;
                };
                let leg = leg(first.recipient);
                let return_to = ReturnTo {
                    author: author.clone().map(|(home, reference)| AuthorOf {
                        home,
                        reference,
                        message,
                        key,
                    }),
                    handles: members.iter().map(|member| member.handle).collect(),
                };
                self.relay(envelope, (&peer.domain, &members), return_to, leg);
            }
        });
    }

    /// Where a frame's author hears what comes back once its ticket is done.
    fn author_of(&self, frame: &Frame) -> Option<(Domain, SealedRef)> {
        match &frame.author {
            Author::Device { reference, .. } => Some((self.0.domain.clone(), *reference)),
            Author::Abroad {
                home, reference, ..
            } => Some((home.clone(), *reference)),
            Author::Hub { .. } => None,
        }
    }

    /// Hands an entry to the domain of `members`.
    pub(crate) fn relay(
        &self,
        envelope: &Envelope,
        (domain, members): (&Domain, &[Member]),
        return_to: ReturnTo,
        leg: Leg,
    ) {
        let Some(outgoing) = deliver(envelope, members, Some(return_to)) else {
            return;
        };
        let recipients = members.iter().map(|member| member.recipient).collect();
        self.0.peers.send(
            domain,
            outgoing,
            PeerLeg::new(leg, recipients),
            Instant::now(),
        );
    }

    /// Tells an author who did not get its message: in its queue, or by way of its domain.
    pub(crate) fn give_back(
        &self,
        home: &Home,
        returned: Returned,
        (handles, reason): (Vec<Handle>, Reason),
        leg: Leg,
    ) {
        self.0
            .peers
            .give_back(home, returned, (Some(handles), reason), leg);
    }
}

/// The `deliver` of an entry for members of one other domain; `None` for a frame that no event
/// carries.
pub(crate) fn deliver(
    envelope: &Envelope,
    members: &[Member],
    return_to: Option<ReturnTo>,
) -> Option<Outgoing> {
    let body = Body::Deliver(Deliver {
        group: envelope.group?,
        frame: Delivered::of_code(envelope.frame)?,
        payload: envelope.body.clone(),
        references: members.iter().map(|member| member.reference).collect(),
    });
    Some(Outgoing::new(body, return_to))
}

#[cfg(test)]
impl Router {
    /// A router without an engine, for tests of what it places entries into.
    pub(crate) fn alone(mailboxes: &Mailboxes, store: &Store, place: &std::path::Path) -> Self {
        let config = commucat_config::Config::load(&commucat_config::Sources::default()).unwrap();
        let domain = config.server.domain.clone();
        let keys = Keys::open(&place.join("keys"), &domain, crate::clock::now()).unwrap();
        let buckets = crate::limit::Buckets::alone(&config.limits);
        let metrics = mailboxes.metrics().clone();
        let client =
            crate::federation::client(&config, keys.clone(), store.clone(), (metrics, buckets));
        let (peers, _departures) = Peers::new(
            (domain, keys.clone()),
            (store.clone(), mailboxes.clone()),
            client.unwrap(),
            mailboxes.metrics().clone(),
            Default::default(),
        );
        Self::new(keys, store.clone(), mailboxes.clone(), peers)
    }
}
