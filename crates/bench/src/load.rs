//! The loop of one device: send as much as may be under way, take what comes, confirm it at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Result, bail};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::tally::{Seen, Stamp, Tally, add};
use crate::wire::{Inbox, Wire};

/// What all devices of a run share.
#[derive(Clone)]
pub(crate) struct Run {
    pub(crate) tally: Arc<Tally>,
    /// Nobody sends any more.
    pub(crate) enough: CancellationToken,
    /// Everything has come, or will not.
    pub(crate) over: CancellationToken,
}

impl Run {
    pub(crate) fn new(tally: &Arc<Tally>) -> Self {
        Self {
            tally: Arc::clone(tally),
            enough: CancellationToken::new(),
            over: CancellationToken::new(),
        }
    }
}

/// Deliveries that a receiver tells its sender of inside the generator, where the peer has no
/// acknowledgement of its own.
#[derive(Debug, Default)]
pub(crate) struct Credit {
    delivered: AtomicU64,
    changed: Notify,
}

/// How a device sends.
pub(crate) struct Sending {
    pub(crate) id: u32,
    pub(crate) outstanding: u64,
    pub(crate) quota: Option<u64>,
    pub(crate) interval: Option<Duration>,
    /// Receivers of each message.
    pub(crate) receivers: u64,
}

/// What one device does.
#[derive(Default)]
pub(crate) struct Job {
    pub(crate) sending: Option<Sending>,
    pub(crate) credit: Option<Arc<Credit>>,
    /// The id of the device whose messages it gets.
    pub(crate) from: Option<u32>,
}

/// State of a sender.
struct Pace {
    sent: u64,
    done: u64,
    due: Instant,
}

/// Runs a device until its run is over; what it saw of its sender.
///
/// # Errors
///
/// If its connection ends before.
pub(crate) async fn drive<W: Wire>(mut wire: W, job: Job, run: Run) -> Result<Seen> {
    let mut seen = Seen::default();
    let mut inbox = Inbox::default();
    let (mut pace, paced) = start(job.sending.as_ref());
    // What the set-up left, as the commit that brought this device into its group.
    wire.confirm();
    loop {
        if let Some(sending) = &job.sending {
            fill(sending, &mut pace, &mut wire, &run);
        }
        wire.flush().await?;
        tokio::select! {
            alive = wire.receive(&mut inbox) => {
                if !alive? && !run.over.is_cancelled() {
                    bail!("the server closed");
                }
            }
            () = tokio::time::sleep_until(pace.due), if paced && !run.enough.is_cancelled() => {}
            () = credited(&job) => {}
            () = run.over.cancelled() => return Ok(seen),
        }
        take(&job, &mut inbox, &mut seen, &run);
        pace.done += std::mem::take(&mut inbox.acknowledged);
        if let (Some(sending), Some(credit)) = (&job.sending, &job.credit) {
            let delivered = credit.delivered.load(Ordering::Acquire);
            pace.done = delivered / sending.receivers;
        }
        wire.confirm();
    }
}

fn start(sending: Option<&Sending>) -> (Pace, bool) {
    let interval = sending.and_then(|sending| sending.interval);
    // Senders at one rate would otherwise all send at once.
    let id = sending.map_or(0, |sending| sending.id);
    let offset = interval
        .unwrap_or_default()
        .mul_f64(f64::from(id % 97) / 97.0);
    let pace = Pace {
        sent: 0,
        done: 0,
        due: Instant::now() + offset,
    };
    (pace, interval.is_some())
}

async fn credited(job: &Job) {
    match (&job.sending, &job.credit) {
        (Some(_), Some(credit)) => credit.changed.notified().await,
        _ => std::future::pending().await,
    }
}

fn fill(sending: &Sending, pace: &mut Pace, wire: &mut impl Wire, run: &Run) {
    let begun = pace.sent;
    while pace.sent - pace.done < sending.outstanding
        && sending.quota.is_none_or(|quota| pace.sent < quota)
        && !run.enough.is_cancelled()
    {
        if let Some(interval) = sending.interval {
            if pace.due > Instant::now() {
                break;
            }
            pace.due += interval;
        }
        wire.put(Stamp {
            sender: sending.id,
            number: pace.sent,
            sent_ns: run.tally.nanos(),
        });
        pace.sent += 1;
    }
    add(&run.tally.sent, pace.sent - begun);
}

fn take(job: &Job, inbox: &mut Inbox, seen: &mut Seen, run: &Run) {
    add(&run.tally.acknowledged, inbox.acknowledged);
    add(&run.tally.refused, std::mem::take(&mut inbox.refused));
    let count = u64::try_from(inbox.stamps.len()).unwrap_or(u64::MAX);
    if count == 0 {
        return;
    }
    let now = run.tally.nanos();
    for stamp in inbox.stamps.drain(..) {
        if job.from == Some(stamp.sender) {
            seen.take(stamp, now);
        } else {
            seen.strange += 1;
        }
    }
    add(&run.tally.deliveries, count);
    if let (None, Some(credit)) = (&job.sending, &job.credit) {
        credit.delivered.fetch_add(count, Ordering::Release);
        credit.changed.notify_one();
    }
}
