//! What a device may ask for in a time. It outlives the connection: who connects again has what was
//! left, not a full bucket.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use commucat_proto::id::{Handle, QueueId};
use commucat_routing::hub::{Limiter, Rate};
use parking_lot::Mutex;

use super::Rules;

/// Devices remembered before those that have everything back are forgotten.
const SWEEP: usize = 1_024;

/// The budgets of all devices that were here lately. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Budgets(Arc<Mutex<Known>>);

#[derive(Default)]
struct Known {
    devices: HashMap<QueueId, Arc<Mutex<Budget>>>,
    sweep_at: usize,
}

/// One device's buckets.
pub(super) struct Budget {
    /// Control requests.
    pub(super) requests: Limiter<()>,
    /// MSGs, by the handle that sends.
    pub(super) submits: Limiter<Handle>,
    /// TYPING and fork tags: what is dropped beyond.
    pub(super) hints: Limiter<()>,
}

impl Budget {
    fn new(rules: &Rules) -> Self {
        let submits = rate(rules.submit_rate, rules.submit_burst);
        Self {
            requests: Limiter::new(rate(rules.request_rate, rules.request_burst)),
            submits: Limiter::new(submits),
            hints: Limiter::new(submits),
        }
    }

    fn is_full(&self, now: Instant) -> bool {
        self.requests.is_full(now) && self.submits.is_full(now) && self.hints.is_full(now)
    }
}

impl Budgets {
    /// The budget of the device that reads `queue`.
    pub(super) fn of(&self, queue: QueueId, rules: &Rules, now: Instant) -> Arc<Mutex<Budget>> {
        let mut known = self.0.lock();
        if known.devices.len() >= known.sweep_at.max(SWEEP) {
            known
                .devices
                .retain(|_, budget| Arc::strong_count(budget) > 1 || !budget.lock().is_full(now));
            known.sweep_at = known.devices.len().saturating_mul(2);
        }
        let budget = known.devices.entry(queue);
        Arc::clone(budget.or_insert_with(|| Arc::new(Mutex::new(Budget::new(rules)))))
    }
}

/// So many a second, and so many saved up.
pub(crate) fn rate(per_second: u32, burst: u32) -> Rate {
    Rate {
        interval: std::time::Duration::from_secs(1) / per_second.max(1),
        burst,
    }
}
