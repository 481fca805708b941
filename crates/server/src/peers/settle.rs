//! What follows from the end of an event that nobody waits for any more: its author hears of it
//! durably, and members that are gone leave their group.

use std::time::{Duration, Instant};

use commucat_federation::event::{Body, Return};
use commucat_proto::frame::msg::Msg;
use commucat_proto::id::{DedupeKey, Domain, GroupId, Handle};
use commucat_routing::ticket::Reason;
use commucat_storage::{ExpiryClock, OutboxContent, OutboxRowId, StoreError};

use super::Peers;
use super::outgoing::{AuthorOf, Outgoing, PeerLeg, Sent, Verdict, reason_for, reason_of};
use crate::custody::{self, Home, Leg, REASONS, Returned, return_label};
use crate::events;

/// Events looked at in one step of expiry.
const EXPIRED_ROWS: usize = 256;

impl Peers {
    /// Tells an author who did not get its message: in its queue, or by way of its domain. No handles
    /// mean that nobody got it.
    pub(crate) fn give_back(
        &self,
        home: &Home,
        returned: Returned,
        (handles, reason): (Option<Vec<Handle>>, Reason),
        leg: Leg,
    ) {
        let now = Instant::now();
        let Returned {
            group,
            message,
            key,
        } = returned;
        self.metrics().returned.of(return_label(reason)).inc();
        match home {
            Home::Here(queue) => {
                let envelope = events::undelivered(&group, (message, key), handles, reason);
                self.0.mailboxes.append(*queue, envelope, leg, now);
            }
            Home::Abroad(domain, author) => {
                let body = Body::Return(Return {
                    group,
                    message,
                    returned: key,
                    handles: handles.unwrap_or_default(),
                    reason: events::wire(reason),
                    author: *author,
                });
                let leg = PeerLeg::new(leg, Vec::new());
                self.send(domain, Outgoing::new(body, None), leg, now);
            }
        }
    }

    /// Tells the hub of members that their home domain says are gone.
    pub(super) fn departed(&self, sent: &Sent, verdict: &Verdict) {
        let (Body::Deliver(deliver), Verdict::Custody(unsettled), Some(to)) =
            (&sent.event.body, verdict, &sent.return_to)
        else {
            return;
        };
        let gone: Vec<Handle> = unsettled
            .iter()
            .filter(|one| one.gone)
            .filter_map(|one| to.handles.get(usize::try_from(one.index).ok()?).copied())
            .collect();
        if !gone.is_empty() {
            self.depart(deliver.group, gone);
        }
    }

    /// Tells the hub of members that are gone. Where too many wait for it these stay in the list until
    /// the next message to their group, which finds them again and reaches them no more than this one:
    /// the others hear later that they are gone, and nothing is lost by it.
    pub(crate) fn depart(&self, group: GroupId, gone: Vec<Handle>) {
        if self.0.departures.try_send((group, gone)).is_err() {
            tracing::debug!("members that are gone are found again by the next message");
        }
    }

    /// Tells the author of an event from the outbox what did not arrive; `true` when that is durable
    /// or there is nothing to tell.
    pub(super) async fn came_back(&self, peer: &Domain, sent: &Sent, verdict: &Verdict) -> bool {
        match &sent.event.body {
            Body::Deliver(deliver) => {
                let Some(to) = &sent.return_to else {
                    return true;
                };
                let Some(author) = &to.author else {
                    return true;
                };
                let missed = missed(&to.handles, verdict);
                if missed.is_empty() {
                    return true;
                }
                let AuthorOf {
                    home, reference, ..
                } = author;
                let home = if *home == self.0.domain {
                    let opened = self.0.keys.open_reference(reference, &deliver.group, home);
                    // A reference that does not open any more leads to nobody.
                    let Some(opened) = opened else { return true };
                    Home::Here(opened.queue)
                } else {
                    Home::Abroad(home.clone(), *reference)
                };
                let returned = Returned {
                    group: deliver.group,
                    message: author.message,
                    key: author.key,
                };
                custody::keep(|leg| {
                    for reason in REASONS {
                        let of = |(_, why): &&(Handle, Reason)| *why == reason;
                        let handles: Vec<Handle> = missed
                            .iter()
                            .filter(of)
                            .map(|(handle, _)| *handle)
                            .collect();
                        if !handles.is_empty() {
                            self.give_back(&home, returned, (Some(handles), reason), leg());
                        }
                    }
                })
                .await
            }
            Body::Submit(submit) => {
                let reason = match verdict {
                    Verdict::Custody(_) => return true,
                    Verdict::Refused(problem) => reason_for(problem),
                    Verdict::Lost(reason) => *reason,
                };
                let opened = self
                    .0
                    .keys
                    .open_reference(&submit.reference, &submit.group, peer);
                let (Some(opened), Ok(msg)) = (opened, Msg::decode(&submit.payload)) else {
                    return true;
                };
                let home = Home::Here(opened.queue);
                let returned = Returned {
                    group: submit.group,
                    message: msg.message(),
                    key: DedupeKey::of(&submit.group, &msg.message(), &msg.ciphertext()),
                };
                custody::keep(|leg| self.give_back(&home, returned, (None, reason), leg())).await
            }
            Body::Return(_) | Body::Tag(_) | Body::Request(_) => true,
        }
    }

    /// Gives up what has waited for `ttl` by the stored clock: its authors hear of it.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; what is left is given up by the next run.
    pub(crate) async fn expire(&self, clock: ExpiryClock, ttl: Duration) -> Result<(), StoreError> {
        loop {
            let rows = self
                .0
                .store
                .outbox_expired(clock, ttl, EXPIRED_ROWS)
                .await?;
            if rows.is_empty() || self.is_draining() {
                return Ok(());
            }
            let mut done = Vec::with_capacity(rows.len());
            for (lane, row) in rows {
                let sent = match &row.content {
                    OutboxContent::Event { event, return_to } => {
                        Sent::read(return_to.as_ref(), event)
                    }
                    OutboxContent::Corrupt => None,
                };
                let verdict = Verdict::Lost(Reason::Expired);
                let told = match sent {
                    Some(sent) => self.came_back(&lane.peer, &sent, &verdict).await,
                    None => true,
                };
                if told {
                    done.push(OutboxRowId {
                        lane,
                        position: row.position,
                        key: row.key,
                    });
                }
            }
            if done.is_empty() {
                return Ok(());
            }
            self.0.store.delete_outbox(done).await?;
        }
    }
}

/// Who did not get a `deliver`, and why.
fn missed(handles: &[Handle], verdict: &Verdict) -> Vec<(Handle, Reason)> {
    let all = |reason| handles.iter().map(|handle| (*handle, reason)).collect();
    match verdict {
        Verdict::Custody(unsettled) => unsettled
            .iter()
            .filter_map(|one| {
                let handle = handles.get(usize::try_from(one.index).ok()?)?;
                Some((*handle, reason_of(one)))
            })
            .collect(),
        Verdict::Refused(_) => all(Reason::Forbidden),
        Verdict::Lost(reason) => all(*reason),
    }
}
