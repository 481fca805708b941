//! Watches `T`: how long the front of each window may stay in memory.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::sleep_until;
use tokio_util::sync::CancellationToken;

use super::{Mailbox, Mailboxes};

/// The part of `T` by which an alarm may be late, so that those due within it go off together: at 500
/// messages a second to 50 devices they wake the server 15 times a second, and one by one 75 times.
const SLACK_PART: u32 = 10;

/// One alarm per mailbox at most, so there are no more than mailboxes.
#[derive(Default)]
pub(super) struct Timers {
    alarms: Mutex<BinaryHeap<Reverse<Alarm>>>,
    sooner: Notify,
    full: Notify,
}

struct Alarm {
    at: Instant,
    mailbox: Arc<Mailbox>,
}

impl Timers {
    pub(super) fn arm(&self, at: Instant, mailbox: Arc<Mailbox>) {
        let mut alarms = self.alarms.lock();
        let is_next = alarms.peek().is_none_or(|next| at < next.0.at);
        alarms.push(Reverse(Alarm { at, mailbox }));
        if is_next {
            self.sooner.notify_one();
        }
    }

    /// Memory is at its bound: everything is spooled.
    pub(super) fn all_now(&self) {
        self.full.notify_one();
    }

    fn next(&self) -> Option<Instant> {
        self.alarms.lock().peek().map(|alarm| alarm.0.at)
    }

    fn due(&self, now: Instant) -> Option<Arc<Mailbox>> {
        let mut alarms = self.alarms.lock();
        if alarms.peek()?.0.at > now {
            return None;
        }
        alarms.pop().map(|alarm| alarm.0.mailbox)
    }
}

/// Runs until `stop`.
pub(super) async fn run(mailboxes: Mailboxes, stop: CancellationToken) {
    let timers = &mailboxes.0.timers;
    let slack = mailboxes.0.settings.hold / SLACK_PART;
    loop {
        let next = timers.next().map(|at| at + slack);
        tokio::select! {
            () = stop.cancelled() => return,
            () = timers.sooner.notified() => {}
            () = timers.full.notified() => {
                for mailbox in mailboxes.all() {
                    mailboxes.with_lane(&mailbox, |lane, effects| lane.spool_now(effects));
                }
            }
            () = sleep_until(next.unwrap_or_else(Instant::now).into()), if next.is_some() => {}
        }
        let now = Instant::now();
        while let Some(mailbox) = timers.due(now) {
            mailbox.state.lock().armed = false;
            mailboxes.with_lane(&mailbox, |lane, effects| lane.tick(now, effects));
        }
    }
}

impl PartialEq for Alarm {
    fn eq(&self, other: &Self) -> bool {
        self.at == other.at
    }
}

impl Eq for Alarm {}

impl PartialOrd for Alarm {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Alarm {
    fn cmp(&self, other: &Self) -> Ordering {
        self.at.cmp(&other.at)
    }
}
