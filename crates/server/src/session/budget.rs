//! What a device may send in a time. It outlives the connection: who connects again has what was left,
//! not a full bucket, at another node too.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use commucat_proto::id::{Handle, QueueId};
use commucat_routing::hub::{Limiter, Rate};
use parking_lot::{Mutex, MutexGuard};

use super::Rules;
use crate::limit::{Buckets, Kind, Used};

/// Devices remembered before those that have everything back are forgotten.
const SWEEP: usize = 1_024;

/// Handles of one device that other nodes hear of; a device is a few hundred at most.
const USED_MAX: usize = 256;

/// The budgets of all devices that were here lately. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Budgets(Arc<Inner>);

struct Inner {
    rate: Rate,
    buckets: Buckets,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    devices: HashMap<QueueId, Arc<Mutex<Budget>>>,
    sweep_at: usize,
}

/// One device's buckets.
pub(super) struct Budget {
    /// MSGs, by the handle that sends.
    pub(super) submits: Limiter<Handle>,
    /// TYPING and fork tags: what is dropped beyond.
    pub(super) hints: Limiter<()>,
}

/// The budget of a device that is connected here. Dropped, it lets other nodes know what was used.
pub(super) struct Lent {
    queue: QueueId,
    budget: Arc<Mutex<Budget>>,
    buckets: Buckets,
}

impl Budget {
    fn new(rate: Rate) -> Self {
        Self {
            submits: Limiter::new(rate),
            hints: Limiter::new(rate),
        }
    }

    fn is_full(&self, now: Instant) -> bool {
        self.submits.is_full(now) && self.hints.is_full(now)
    }

    /// What is missing where much is; `None` if nowhere.
    fn used(&self, queue: QueueId, now: Instant) -> Option<Used> {
        let hints = self.hints.low(now).next();
        let hints = hints.map_or(Duration::ZERO, |(_, wait)| wait);
        let low = self.submits.low(now).take(USED_MAX);
        let submits: Vec<_> = low.map(|(handle, wait)| (*handle, wait)).collect();
        let used = Used {
            queue,
            hints,
            submits,
        };
        (!used.hints.is_zero() || !used.submits.is_empty()).then_some(used)
    }
}

impl Budgets {
    /// Full budgets for everybody.
    pub(crate) fn new(rules: &Rules, buckets: Buckets) -> Self {
        Self(Arc::new(Inner {
            rate: rate(rules.submit_rate, rules.submit_burst),
            buckets,
            known: Mutex::default(),
        }))
    }

    /// The budget of the device that reads `queue`, and connected here.
    pub(super) fn lend(&self, queue: QueueId, now: Instant) -> Lent {
        Lent {
            queue,
            budget: self.of(queue, now),
            buckets: self.0.buckets.clone(),
        }
    }

    /// A device was connected to another node and has used this there.
    pub(crate) fn used_elsewhere(&self, used: Used, now: Instant) {
        let budget = self.of(used.queue, now);
        let mut budget = budget.lock();
        budget.hints.empty((), used.hints, now);
        for (handle, wait) in used.submits {
            budget.submits.empty(handle, wait, now);
        }
    }

    fn of(&self, queue: QueueId, now: Instant) -> Arc<Mutex<Budget>> {
        let mut known = self.0.known.lock();
        if known.devices.len() >= known.sweep_at.max(SWEEP) {
            known
                .devices
                .retain(|_, budget| Arc::strong_count(budget) > 1 || !budget.lock().is_full(now));
            known.sweep_at = known.devices.len().saturating_mul(2);
        }
        let budget = known.devices.entry(queue);
        Arc::clone(budget.or_insert_with(|| Arc::new(Mutex::new(Budget::new(self.0.rate)))))
    }
}

/// So many a second, and so many saved up.
pub(crate) fn rate(per_second: u32, burst: u32) -> Rate {
    Rate {
        interval: Duration::from_secs(1) / per_second.max(1),
        burst,
    }
}

impl Lent {
    pub(super) fn lock(&self) -> MutexGuard<'_, Budget> {
        self.budget.lock()
    }

    /// Whether the device may make a control request.
    ///
    /// # Errors
    ///
    /// How long it should wait.
    pub(super) fn request(&self, now: Instant) -> Result<(), Duration> {
        let device = self.buckets.tag(self.queue.as_bytes());
        self.buckets.take(Kind::Request, device, now)
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if !self.buckets.are_shared() {
            return;
        }
        let used = self.budget.lock().used(self.queue, Instant::now());
        if let Some(used) = used {
            self.buckets.tell_used(used);
        }
    }
}

#[cfg(test)]
mod tests {
    use commucat_config::{Config, Sources};

    use super::*;

    const QUEUE: QueueId = QueueId::new([1; 16]);
    const HANDLE: Handle = Handle::new([2; 32]);

    fn node() -> (Budgets, Buckets) {
        let limits = Config::load(&Sources::default()).unwrap().limits;
        let buckets = Buckets::shared(&limits, [0; 32]);
        let inner = Inner {
            rate: Rate::SUBMIT,
            buckets: buckets.clone(),
            known: Mutex::default(),
        };
        (Budgets(Arc::new(inner)), buckets)
    }

    #[test]
    fn a_device_that_goes_to_another_node_finds_what_it_left() {
        let ((one, told), (two, _)) = (node(), node());
        let now = Instant::now();

        let lent = one.lend(QUEUE, now);
        for _ in 0..2_000 {
            lent.lock().submits.take(HANDLE, now).unwrap();
        }
        drop(lent);
        let (_, used) = told.take_telling();
        for used in used {
            two.used_elsewhere(used, now);
        }

        let lent = two.lend(QUEUE, now);
        let again = (0..2_000).filter(|_| lent.lock().submits.take(HANDLE, now).is_ok());
        // What came back while this test ran.
        assert!(again.count() < 1_000);
        assert!(lent.lock().hints.is_full(now));
    }

    #[test]
    fn of_a_device_that_sent_little_nothing_is_told() {
        let ((one, told), now) = (node(), Instant::now());

        let lent = one.lend(QUEUE, now);
        lent.lock().submits.take(HANDLE, now).unwrap();
        drop(lent);

        assert!(told.take_telling().1.is_empty());
    }
}
