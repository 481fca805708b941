//! The router: from a fan-out list's references to the places where entries go.
//!
//! A reference of this domain is opened to a queue; what happens there is the mailbox's business.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use commucat_proto::id::{Domain, GroupId, QueueId, SealedRef};
use commucat_routing::hub::Entry;
use commucat_routing::lane::Envelope;
use commucat_routing::ticket::{Outcome, Reason};
use commucat_storage::{Reference, ReferenceState, Store, StoreError};

use crate::custody::{self, Frame};
use crate::keys::Keys;
use crate::mailbox::Mailboxes;

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
}

/// Opens references and places entries. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Router(Arc<Inner>);

struct Inner {
    domain: Domain,
    keys: Keys,
    store: Store,
    mailboxes: Mailboxes,
    /// Raised whenever a queue is revoked: places found before may be stale.
    generation: AtomicU64,
}

impl Router {
    pub(crate) fn new(domain: Domain, keys: Keys, store: Store, mailboxes: Mailboxes) -> Self {
        Self(Arc::new(Inner {
            domain,
            keys,
            store,
            mailboxes,
            generation: AtomicU64::new(0),
        }))
    }

    pub(crate) fn domain(&self) -> &Domain {
        &self.0.domain
    }

    pub(crate) fn mailboxes(&self) -> &Mailboxes {
        &self.0.mailboxes
    }

    /// A queue was revoked: every place is looked up again when it is next used.
    pub(crate) fn forget_places(&self) {
        self.0.generation.fetch_add(1, Ordering::AcqRel);
    }

    /// Changes when places become stale.
    pub(crate) fn generation(&self) -> u64 {
        self.0.generation.load(Ordering::Acquire)
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
    pub(crate) async fn places(
        &self,
        group: &GroupId,
        list: &[Entry],
    ) -> Result<Vec<Place>, StoreError> {
        let opened: Vec<Option<Reference>> = list
            .iter()
            .map(|entry| {
                let reference = &entry.sealed_ref;
                let opened = self
                    .0
                    .keys
                    .open_reference(reference, group, &self.0.domain)?;
                Some(Reference {
                    queue: opened.queue,
                    group: *group,
                    issued: opened.issued,
                })
            })
            .collect();
        let known = opened.iter().flatten().copied().collect();
        let mut states = self.0.store.reference_states(known).await?.into_iter();
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

    /// The author of what comes next may have been on another node before: whoever owns these queues
    /// reads the store before it takes that.
    pub(crate) fn read_stores_first(&self, places: &[Place]) {
        for place in places {
            if let Place::Here(queue) = place {
                self.0.mailboxes.read_store_first(queue);
            }
        }
    }

    /// Takes a frame into custody and places it for every recipient but the one at `except`, without
    /// waiting in between.
    pub(crate) fn accept(
        &self,
        frame: Frame,
        envelope: &Envelope,
        places: &[Place],
        except: Option<usize>,
    ) {
        let now = frame.since;
        let mailboxes = &self.0.mailboxes;
        custody::accept(frame, mailboxes, |leg| {
            for (index, place) in places.iter().enumerate() {
                let (Ok(recipient), false) = (u16::try_from(index), except == Some(index)) else {
                    continue;
                };
                match place {
                    Place::Here(queue) => {
                        mailboxes.append(*queue, envelope.clone(), leg(recipient), now);
                    }
                    Place::Again(_) => {}
                    Place::Gone => leg(recipient).resolve(Outcome::Gone),
                    Place::Refused => leg(recipient).resolve(Outcome::Refused(Reason::Forbidden)),
                }
            }
        });
    }
}
