//! Notices of the hub: members that are gone, groups that are split.

use std::sync::Arc;
use std::time::Instant;

use commucat_proto::id::{GroupId, Handle, QueueId};
use commucat_routing::hub::Fork;
use commucat_routing::lane::Envelope;
use tracing::warn;

use super::Hub;
use super::view::View;
use crate::chain::chain;
use crate::custody::{self, Leg};
use crate::router::Place;
use crate::{clock, events};

impl Hub {
    /// Takes members whose references are gone out of the list, after everyone else has the notice:
    /// a crash in between repeats the notice and loses nothing.
    pub(super) fn depart(&self, group: GroupId, view: &Arc<View>) {
        let (hub, view) = (self.clone(), Arc::clone(view));
        self.0.tasks.spawn(async move {
            let pairs = || view.handles.iter().zip(&view.places);
            let gone: Vec<Handle> = pairs()
                .filter(|(_, place)| **place == Place::Gone)
                .map(|(handle, _)| *handle)
                .collect();
            let stay: Vec<QueueId> = view.places.iter().filter_map(queue).collect();
            let notice = events::gone(&group, gone.clone());
            if !custody::keep(hub.0.router.mailboxes(), stay, &notice).await {
                return;
            }
            if let Err(failure) = hub.0.store.remove_handles(&group, gone, clock::now()).await {
                warn!(error = %chain(&failure), "members that are gone stay in a list");
                return;
            }
            if let Err(failure) = hub.load(&group).await {
                warn!(error = %chain(&failure), "a group could not be read again");
            }
        });
    }

    /// Tells those who reported differing histories.
    pub(super) fn tell_fork(&self, group: &GroupId, view: &View, fork: &Fork) {
        let notice = events::fork(group, fork.position);
        for handle in &fork.told {
            if let Some(queue) = view
                .index(handle)
                .and_then(|index| view.places.get(index))
                .and_then(queue)
            {
                self.append_unattended(queue, &notice);
            }
        }
    }

    /// Puts an entry into a queue that nobody waits for the custody of.
    pub(super) fn append_unattended(&self, queue: QueueId, envelope: &Envelope) {
        let mailboxes = self.0.router.mailboxes();
        mailboxes.append(queue, envelope.clone(), Leg::unattended(), Instant::now());
    }
}

fn queue(place: &Place) -> Option<QueueId> {
    match place {
        Place::Here(queue) => Some(*queue),
        Place::Gone | Place::Refused => None,
    }
}
