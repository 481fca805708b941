//! Notices of the hub: members that are gone, groups that are split, first messages that some did not
//! get.

use std::sync::Arc;
use std::time::Instant;

use commucat_proto::id::{GroupId, Handle, MessageId, QueueId};
use commucat_routing::hub::Fork;
use commucat_routing::lane::Envelope;
use commucat_routing::ticket::Reason;
use tracing::warn;

use super::view::View;
use super::{Hub, Member};
use crate::chain::chain;
use crate::custody::{self, Leg};
use crate::router::Place;
use crate::{clock, events};

impl Hub {
    /// Takes members whose references are gone out of the list, after everyone else has the notice:
    /// a crash in between repeats the notice and loses nothing.
    ///
    /// Once at a time for each group: every message until then finds the same.
    pub(super) fn depart(&self, group: GroupId, view: &Arc<View>) {
        if !self.0.departing.lock().insert(group) {
            return;
        }
        let (hub, view) = (self.clone(), Arc::clone(view));
        self.0.tasks.spawn(async move {
            hub.take_out(group, &view).await;
            hub.0.departing.lock().remove(&group);
        });
    }

    async fn take_out(&self, group: GroupId, view: &View) {
        let pairs = || view.handles.iter().zip(&view.places);
        let gone: Vec<Handle> = pairs()
            .filter(|(_, place)| **place == Place::Gone)
            .map(|(handle, _)| *handle)
            .collect();
        let stay: Vec<QueueId> = view.places.iter().filter_map(queue).collect();
        let notice = events::gone(&group, gone.clone());
        if !custody::keep(self.0.router.mailboxes(), stay, &notice).await {
            return;
        }
        if let Err(failure) = self
            .0
            .store
            .remove_handles(&group, gone, clock::now())
            .await
        {
            warn!(error = %chain(&failure), "members that are gone stay in a list");
            return;
        }
        self.refresh(&group).await;
    }

    /// Tells the author durably who did not get the first message of its commit.
    pub(super) async fn return_first_message(
        &self,
        author: &Member,
        (group, message): (&GroupId, &MessageId),
        missed: Vec<(Handle, Reason)>,
    ) {
        for reason in [Reason::Full, Reason::Gone, Reason::Forbidden] {
            let handles: Vec<Handle> = missed
                .iter()
                .filter(|(_, why)| *why == reason)
                .map(|(handle, _)| *handle)
                .collect();
            if handles.is_empty() {
                continue;
            }
            let event = events::undelivered(group, message, handles, reason);
            let queue = vec![author.queue];
            if !custody::keep(self.0.router.mailboxes(), queue, &event).await {
                warn!("an author does not hear who did not get its first message");
            }
        }
    }

    /// Tells of empty tags that have stood against others for too long.
    pub(crate) async fn tell_due_forks(&self, now: Instant) {
        let due: Vec<(GroupId, Fork)> = {
            let mut alarms = self.0.alarms.lock();
            let forks = alarms.iter_mut().flat_map(|(group, alarm)| {
                let forks = alarm.tick(now).into_iter();
                forks.map(|fork| (*group, fork))
            });
            forks.collect()
        };
        for (group, fork) in due {
            self.0.forks.inc();
            if let Ok(Some(view)) = self.load_if_unknown(&group).await {
                self.tell_fork(&group, &view, &fork);
            }
        }
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
        Place::Again(_) | Place::Gone | Place::Refused => None,
    }
}
