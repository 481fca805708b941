//! Notices of the hub: members that are gone, groups that are split, first messages that some did not
//! get.

use std::sync::Arc;
use std::time::Instant;

use commucat_proto::id::{GroupId, Handle, QueueId};
use commucat_routing::hub::Fork;
use commucat_routing::lane::Envelope;
use commucat_routing::ticket::Reason;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::view::View;
use super::{Hub, abroad};
use crate::chain::chain;
use crate::custody::{self, Home, Leg, Returned};
use crate::peers::Departure;
use crate::router::Place;
use crate::{clock, events};

impl Hub {
    /// Takes members whose references are gone out of the list, after everyone else has the notice:
    /// a crash in between repeats the notice and loses nothing.
    ///
    /// Once at a time for each group: every message until then finds the same.
    pub(super) fn depart(&self, group: GroupId, view: Arc<View>, abroad: Vec<Handle>) {
        if !self.0.departing.lock().insert(group) {
            return;
        }
        let hub = self.clone();
        self.0.tasks.spawn(async move {
            hub.take_out(group, &view, &abroad).await;
            hub.0.departing.lock().remove(&group);
        });
    }

    /// Takes members out that were found gone after their messages had been placed, until `stop`.
    pub(crate) async fn follow_departures(
        self,
        mut departures: mpsc::Receiver<Departure>,
        stop: CancellationToken,
    ) {
        loop {
            let departure = tokio::select! {
                departure = departures.recv() => departure,
                () = stop.cancelled() => return,
            };
            let Some((group, handles)) = departure else {
                return;
            };
            if self.0.departing.lock().contains(&group) {
                // Every message until it is through finds the same, and the store need not be read for it.
                continue;
            }
            // As the store has it: the view at hand may be the one that led to a queue that is gone.
            match self.load(&group).await {
                Ok(Some(view)) => {
                    // Of members here the places say it by themselves, of others their domains alone.
                    let is_abroad = |handle: &Handle| view.place(handle) == Some(Place::Abroad);
                    let abroad: Vec<Handle> = handles.into_iter().filter(is_abroad).collect();
                    if !abroad.is_empty() || view.placement.places.contains(&Place::Gone) {
                        self.depart(group, view, abroad);
                    }
                }
                Ok(None) => {}
                Err(failure) => {
                    warn!(error = %chain(&failure), "members that are gone stay in a list");
                }
            }
        }
    }

    /// `abroad` are those that are gone elsewhere.
    async fn take_out(&self, group: GroupId, view: &View, abroad: &[Handle]) {
        let pairs = view.handles.iter().zip(&view.placement.places);
        let gone: Vec<Handle> = pairs
            .filter(|(handle, place)| **place == Place::Gone || abroad.contains(handle))
            .map(|(handle, _)| *handle)
            .collect();
        let notice = events::gone(&group, gone.clone());
        let now = Instant::now();
        let kept = custody::keep(|leg| {
            for queue in view.placement.places.iter().filter_map(queue) {
                let mailboxes = self.0.router.mailboxes();
                mailboxes.append(queue, notice.clone(), leg(), now);
            }
            for peer in &view.placement.abroad {
                let stays = |member: &&abroad::Listed| !gone.contains(&member.handle);
                let members: Vec<_> = peer.members.iter().filter(stays).copied().collect();
                self.notify_abroad(&peer.domain, &notice, &members, leg());
            }
        });
        if !kept.await {
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
        author: &Home,
        returned: Returned,
        missed: Vec<(Handle, Reason)>,
    ) {
        let peers = self.0.router.peers();
        for reason in [Reason::Full, Reason::Gone, Reason::Forbidden] {
            let handles: Vec<Handle> = missed
                .iter()
                .filter(|(_, why)| *why == reason)
                .map(|(handle, _)| *handle)
                .collect();
            if handles.is_empty() {
                continue;
            }
            if reason == Reason::Gone {
                peers.depart(returned.group, handles.clone());
            }
            let kept = custody::keep(|leg| {
                peers.give_back(author, returned, (Some(handles), reason), leg());
            });
            if !kept.await {
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
                .and_then(|index| view.placement.places.get(index))
                .and_then(queue)
            {
                self.append_unattended(queue, &notice);
            }
        }
        for peer in &view.placement.abroad {
            let is_told = |member: &&abroad::Listed| fork.told.contains(&member.handle);
            let members: Vec<_> = peer.members.iter().filter(is_told).copied().collect();
            self.notify_abroad(&peer.domain, &notice, &members, Leg::unattended());
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
        Place::Again(_) | Place::Gone | Place::Refused | Place::Abroad => None,
    }
}
