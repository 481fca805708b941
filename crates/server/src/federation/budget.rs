//! What one other domain may send in a while.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use commucat_config::Size;
use commucat_federation::batch::{BATCH_MAX, EVENTS_MAX};
use commucat_proto::id::Domain;
use parking_lot::Mutex;

use crate::limit::Bucket;

/// Domains that are counted for at once; beyond it those are forgotten that have sent nothing lately.
const DOMAINS_MAX: usize = 4_096;

/// A burst is what this many seconds let pass, and one full request at least: smaller ones would
/// pass while a full one never did.
const BURST_SECONDS: u32 = 10;

/// Events and bytes of each domain.
pub(super) struct Budgets {
    events_per_second: u32,
    kib_per_second: u32,
    used: Mutex<HashMap<Domain, Used>>,
}

struct Used {
    events: Bucket,
    kib: Bucket,
}

impl Budgets {
    pub(super) fn new(events_per_second: u32, bytes_per_second: Size) -> Self {
        let kib_per_second = u32::try_from(bytes_per_second.bytes() / 1024).unwrap_or(u32::MAX);
        Self {
            events_per_second,
            kib_per_second,
            used: Mutex::default(),
        }
    }

    /// Whether there is room for a request that claims to be of `origin`; nothing is taken.
    ///
    /// # Errors
    ///
    /// How long the domain should wait.
    pub(super) fn look(
        &self,
        origin: &Domain,
        events: usize,
        bytes: usize,
        now: Instant,
    ) -> Result<(), Duration> {
        let mut used = self.used.lock();
        used.get_mut(origin)
            .map_or(Ok(()), |used| used.look(units(events, bytes), now))
    }

    /// Takes a request of `origin` out of its budget.
    ///
    /// # Errors
    ///
    /// How long the domain should wait; nothing was taken.
    pub(super) fn take(
        &self,
        origin: &Domain,
        events: usize,
        bytes: usize,
        now: Instant,
    ) -> Result<(), Duration> {
        let mut used = self.used.lock();
        if used.len() >= DOMAINS_MAX && !used.contains_key(origin) {
            used.retain(|_, used| !(used.events.is_full(now) && used.kib.is_full(now)));
            if used.len() >= DOMAINS_MAX {
                return Err(Duration::from_secs(1));
            }
        }
        let used = used.entry(origin.clone()).or_insert_with(|| Used {
            events: bucket(self.events_per_second, EVENTS_MAX, now),
            kib: bucket(self.kib_per_second, BATCH_MAX.div_ceil(1024), now),
        });
        let (events, kib) = units(events, bytes);
        used.look((events, kib), now)?;
        used.events.take(events, now);
        used.kib.take(kib, now);
        Ok(())
    }
}

impl Used {
    /// Whether so much is left of both; else how long to wait for it.
    fn look(&mut self, (events, kib): (u32, u32), now: Instant) -> Result<(), Duration> {
        let wait = self.events.wait(events, now).max(self.kib.wait(kib, now));
        if wait.is_zero() { Ok(()) } else { Err(wait) }
    }
}

/// Events and KiB that count: an empty batch and a short one cost something too.
fn units(events: usize, bytes: usize) -> (u32, u32) {
    let events = u32::try_from(events).unwrap_or(u32::MAX).max(1);
    let kib = u32::try_from(bytes / 1024).unwrap_or(u32::MAX).max(1);
    (events, kib)
}

fn bucket(rate: u32, request: usize, now: Instant) -> Bucket {
    let request = u32::try_from(request).unwrap_or(u32::MAX);
    let burst = rate.saturating_mul(BURST_SECONDS).max(request);
    Bucket::new(rate, burst, now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_domain_that_sends_too_much_waits_and_others_do_not() {
        let (budgets, now) = (Budgets::new(100, Size::new(1 << 20)), Instant::now());
        let (loud, quiet) = (
            Domain::parse("loud.example").unwrap(),
            Domain::parse("quiet.example").unwrap(),
        );

        assert_eq!(budgets.take(&loud, 1_000, 1_000, now), Ok(()));
        let wait = budgets.take(&loud, 50, 1_000, now);
        assert_eq!(wait, Err(Duration::from_millis(500)));
        assert_eq!(budgets.take(&quiet, 50, 1_000, now), Ok(()));
        assert_eq!(
            budgets.take(&loud, 50, 1_000, now + Duration::from_millis(501)),
            Ok(())
        );
    }

    #[test]
    fn bytes_count_as_well_as_events() {
        let (budgets, now) = (Budgets::new(100, Size::new(1024)), Instant::now());
        let domain = Domain::parse("a.example").unwrap();

        assert_eq!(budgets.take(&domain, 1, BATCH_MAX, now), Ok(()));
        assert!(budgets.take(&domain, 1, 0, now).is_err());
    }

    #[test]
    fn a_full_request_passes_whatever_the_rate() {
        let (budgets, now) = (Budgets::new(1, Size::new(64 * 1024)), Instant::now());
        let domain = Domain::parse("a.example").unwrap();

        assert_eq!(budgets.look(&domain, EVENTS_MAX, BATCH_MAX, now), Ok(()));
        assert_eq!(budgets.take(&domain, EVENTS_MAX, BATCH_MAX, now), Ok(()));
        let wait = budgets.look(&domain, EVENTS_MAX, 1, now).unwrap_err();
        assert_eq!(
            budgets.take(
                &domain,
                EVENTS_MAX,
                1,
                now + wait + Duration::from_millis(1)
            ),
            Ok(())
        );
    }
}
