//! Custody tickets at work: legs that always end, and the answer to the author.
//!
//! When the last leg of a frame has ended, the ticket's verdict is carried out: an ACK or an ERROR on
//! the connection that sent the frame, or the outcome of the event that brought it; and before it,
//! where recipients were missed, `undelivered` in the author's own queue, or on its way there.

mod author;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use commucat_proto::frame::error::Problem;
use commucat_proto::id::{DedupeKey, GroupId, Handle, MessageId};
use commucat_routing::ticket::{Missed, Outcome, Reason, Ticket, Verdict};
use parking_lot::Mutex;
use tokio::sync::oneshot;

pub(crate) use self::author::{Author, Home, Reply, Settled};
use crate::cluster::Far;
use crate::metrics::label;
use crate::router::Router;

/// What a verdict needs to know of its frame.
pub(crate) struct Frame {
    /// Who hears of it.
    pub(crate) author: Author,
    /// Its group.
    pub(crate) group: GroupId,
    /// Its id.
    pub(crate) message: MessageId,
    /// The dedupe key of its entries: with the id, what `undelivered` is about.
    pub(crate) key: DedupeKey,
    /// The fan-out list that legs name recipients in.
    pub(crate) recipients: Arc<[Handle]>,
    /// When it came.
    pub(crate) since: Instant,
}

/// A frame that comes back to its author: a message that is sealed again has the same id and
/// another key.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Returned {
    /// Its group.
    pub(crate) group: GroupId,
    /// Its id.
    pub(crate) message: MessageId,
    /// The dedupe key of its entries.
    pub(crate) key: DedupeKey,
}

struct Open {
    ticket: Mutex<Ticket>,
    frame: Frame,
    router: Router,
}

/// One leg of a ticket: a recipient's custody, ended once. Dropping it means that there is none.
pub(crate) struct Leg(Option<Part>);

enum Part {
    Delivery(Arc<Open>, commucat_routing::ticket::Leg),
    /// Part of returning a frame: the inner ticket counts the `undelivered` entries.
    Return(Arc<Returning>, commucat_routing::ticket::Leg),
    /// An entry of the server's own.
    Kept(Arc<Waiter>),
    /// An entry that another node sent. In a box: legs wait in every window, and are seldom this.
    Far(Box<Far>),
}

struct Returning {
    ticket: Mutex<Ticket>,
    of: Arc<Open>,
}

/// Takes a frame into custody: `place` gets a maker of legs, one call per recipient by its index in
/// the list (one per peer, by any of its recipients), and hands each leg on.
///
/// A guard leg keeps the ticket open until `place` has returned, so that it cannot be done before
/// all legs are there.
pub(crate) fn accept(frame: Frame, router: &Router, place: impl FnOnce(&dyn Fn(u16) -> Leg)) {
    let (ticket, guard) = Ticket::new();
    let open = Arc::new(Open {
        ticket: Mutex::new(ticket),
        frame,
        router: router.clone(),
    });
    place(&|recipient| {
        let leg = open.ticket.lock().add(recipient);
        Leg(Some(Part::Delivery(Arc::clone(&open), leg)))
    });
    let since = open.frame.since;
    Leg(Some(Part::Delivery(open, guard))).resolve_at(Outcome::Delivered, since);
}

impl Leg {
    /// A leg that nobody waits for.
    pub(crate) const fn unattended() -> Self {
        Self(None)
    }

    /// The leg of an entry that another node sent.
    pub(crate) fn far(parcel: Far) -> Self {
        Self(Some(Part::Far(Box::new(parcel))))
    }

    /// Ends the leg. May carry out the verdict: call it with no lock held.
    pub(crate) fn resolve(self, outcome: Outcome) {
        self.resolve_at(outcome, Instant::now());
    }

    /// The same for one of many, for which the clock was read once.
    pub(crate) fn resolve_at(mut self, outcome: Outcome, now: Instant) {
        self.end(outcome, now);
    }

    /// What a peer's answer says of single recipients; end the leg afterwards.
    pub(crate) fn missed(&self, missed: Missed) {
        if let Some(Part::Delivery(open, _)) = &self.0 {
            open.ticket.lock().missed(missed);
        }
    }

    /// The hub of another domain refused the frame: its author hears why, and keeps it.
    pub(crate) fn reject(mut self, problem: Problem) {
        match self.0.take() {
            Some(Part::Delivery(open, leg)) => {
                let was_open = open.ticket.lock().reject(leg);
                if was_open {
                    open.frame.author.rejected(problem);
                }
            }
            // Nobody is left to be told.
            other @ (Some(Part::Return(..) | Part::Kept(_) | Part::Far(_)) | None) => {
                Self(other).resolve(Outcome::Relayed);
            }
        }
    }

    fn end(&mut self, outcome: Outcome, now: Instant) {
        match self.0.take() {
            Some(Part::Delivery(open, leg)) => {
                let verdict = open.ticket.lock().settle(leg, outcome);
                Open::carry_out(&open, verdict, now);
            }
            Some(Part::Return(returning, leg)) => {
                let verdict = returning.ticket.lock().settle(leg, outcome);
                returning.carry_out(verdict.as_ref(), now);
            }
            Some(Part::Far(parcel)) => parcel.end(outcome),
            Some(Part::Kept(waiter)) if outcome == Outcome::Failed => {
                waiter.failed.store(true, Ordering::Release);
            }
            Some(Part::Kept(_)) | None => {}
        }
    }
}

impl Drop for Leg {
    fn drop(&mut self) {
        if self.0.is_some() {
            self.end(Outcome::Failed, Instant::now());
        }
    }
}

impl Open {
    fn carry_out(open: &Arc<Self>, verdict: Option<Verdict>, now: Instant) {
        match verdict {
            None => {}
            Some(Verdict::Done(status)) => {
                let elapsed = now.saturating_duration_since(open.frame.since);
                open.frame
                    .author
                    .done(status, elapsed, open.router.mailboxes().metrics());
            }
            Some(Verdict::Failed) => open.frame.author.failed(),
            Some(Verdict::Return(missed)) => Self::give_back(open, missed),
        }
    }

    /// Puts `undelivered` into the author's queue, one entry per reason, or on its way there; a hub
    /// hears it in the answer.
    fn give_back(open: &Arc<Self>, missed: Vec<Missed>) {
        let frame = &open.frame;
        let (ticket, guard) = Ticket::new();
        let returning = Arc::new(Returning {
            ticket: Mutex::new(ticket),
            of: Arc::clone(open),
        });
        let guard = Leg(Some(Part::Return(Arc::clone(&returning), guard)));
        let Some(home) = frame.author.home() else {
            frame.author.missed(missed);
            guard.resolve(Outcome::Delivered);
            return;
        };
        for (index, reason) in (0..).zip(REASONS) {
            let handles: Vec<Handle> = missed
                .iter()
                .filter(|missed| missed.reason == reason)
                .filter_map(|missed| frame.recipients.get(usize::from(missed.recipient)).copied())
                .collect();
            if handles.is_empty() {
                continue;
            }
            if reason == Reason::Gone {
                // Who names recipients has the group's list here.
                let gone = handles.clone();
                open.router.peers().depart(frame.group, gone);
            }
            let leg = returning.ticket.lock().add(index);
            let leg = Leg(Some(Part::Return(Arc::clone(&returning), leg)));
            let returned = Returned {
                group: frame.group,
                message: frame.message,
                key: frame.key,
            };
            let missed = (handles, reason);
            open.router.give_back(&home, returned, missed, leg);
        }
        guard.resolve(Outcome::Delivered);
    }
}

pub(crate) const fn return_label(reason: Reason) -> label::Return {
    match reason {
        Reason::Full => label::Return::Full,
        Reason::Gone => label::Return::Gone,
        Reason::Expired => label::Return::Expired,
        Reason::Forbidden => label::Return::Forbidden,
        Reason::Epoch => label::Return::Epoch,
        Reason::Blocked => label::Return::Blocked,
    }
}

/// Every reason for which a frame comes back.
pub(crate) const REASONS: [Reason; 6] = [
    Reason::Full,
    Reason::Gone,
    Reason::Expired,
    Reason::Forbidden,
    Reason::Epoch,
    Reason::Blocked,
];

impl Returning {
    fn carry_out(&self, verdict: Option<&Verdict>, now: Instant) {
        let outcome = match verdict {
            None => return,
            Some(Verdict::Failed) => Outcome::Failed,
            // Where the author's own queue is full, its gap entry stands for the event.
            Some(Verdict::Done(_) | Verdict::Return(_)) => Outcome::Stored,
        };
        let verdict = self.of.ticket.lock().returned(outcome);
        Open::carry_out(&self.of, verdict, now);
    }
}

/// Places entries of the server's own: `place` gets a maker of legs. `true` when each entry is on
/// disk, or its device or its domain has it, or will never take it.
pub(crate) async fn keep(place: impl FnOnce(&dyn Fn() -> Leg)) -> bool {
    let (kept, answer) = oneshot::channel();
    let waiter = Arc::new(Waiter {
        failed: AtomicBool::new(false),
        kept: Mutex::new(Some(kept)),
    });
    place(&|| Leg(Some(Part::Kept(Arc::clone(&waiter)))));
    drop(waiter);
    answer.await.unwrap_or(false)
}

/// Answers when the last leg that holds it has ended.
struct Waiter {
    failed: AtomicBool,
    kept: Mutex<Option<oneshot::Sender<bool>>>,
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let kept = !self.failed.load(Ordering::Acquire);
        if let Some(answer) = self.kept.lock().take()
            && answer.send(kept).is_err()
        {
            tracing::trace!("nobody waits for the entry any more");
        }
    }
}
