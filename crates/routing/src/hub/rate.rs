//! Token buckets that are told the time: commits, submits, requests.

use std::hash::Hash;
use std::time::{Duration, Instant};

use crate::keyed::KeyedMap;

/// How often something may happen.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Rate {
    /// The time in which one is earned.
    pub interval: Duration,
    /// How many may be saved up.
    pub burst: u32,
}

impl Rate {
    /// Accepted commits of one handle, or of one join key (CCP-1 section 5.2).
    pub const COMMIT: Self = Self {
        interval: Duration::from_secs(1),
        burst: 1,
    };

    /// `limits.submit_rate`: MSGs of one handle (CCP-1 section 5.3).
    pub const SUBMIT: Self = Self {
        interval: Duration::from_millis(5),
        burst: 2_000,
    };

    fn saved(self) -> Duration {
        self.interval.saturating_mul(self.burst.saturating_sub(1))
    }

    /// Whether a bucket that is full again at `full_at` has one now; else how long to wait.
    fn check(self, full_at: Instant, now: Instant) -> Result<(), Duration> {
        let missing = full_at.saturating_duration_since(now);
        match missing.checked_sub(self.saved()) {
            Some(wait) if !wait.is_zero() => Err(wait),
            _ => Ok(()),
        }
    }

    /// When a bucket that was full again at `full_at` is so after one was taken.
    fn charged(self, full_at: Instant, now: Instant) -> Instant {
        let full_at = full_at.max(now);
        full_at.checked_add(self.interval).unwrap_or(full_at)
    }
}

/// A bucket for each key. A key that has saved up everything takes no room.
#[derive(Clone, Debug)]
pub struct Limiter<K> {
    rate: Rate,
    /// When the key's bucket is full again.
    full_at: KeyedMap<K, Instant>,
    sweep_at: usize,
}

impl<K: Eq + Hash> Limiter<K> {
    /// Sweeps begin at this many keys; a key costs some 100 bytes.
    const SWEEP: usize = 1024;

    /// All buckets are full.
    #[must_use]
    pub fn new(rate: Rate) -> Self {
        Self {
            rate,
            full_at: KeyedMap::default(),
            sweep_at: Self::SWEEP,
        }
    }

    /// Whether `key` may now; takes nothing.
    ///
    /// # Errors
    ///
    /// How long to wait.
    pub fn check(&self, key: &K, now: Instant) -> Result<(), Duration> {
        self.full_at
            .get(key)
            .map_or(Ok(()), |full_at| self.rate.check(*full_at, now))
    }

    /// Whether every bucket is full: what was taken is forgotten.
    #[must_use]
    pub fn is_full(&self, now: Instant) -> bool {
        self.full_at.values().all(|full_at| *full_at <= now)
    }

    /// Takes one, whether there is one or not.
    pub fn charge(&mut self, key: K, now: Instant) {
        let rate = self.rate;
        let full_at = self.bucket(key, now);
        *full_at = rate.charged(*full_at, now);
    }

    /// Takes `count` that were taken elsewhere, whether there are so many or not. No more than another
    /// burst is owed.
    pub fn debit(&mut self, key: K, count: u32, now: Instant) {
        let rate = self.rate;
        let most = rate.interval.saturating_mul(rate.burst.saturating_mul(2));
        let full_at = self.bucket(key, now);
        let debited = (*full_at).max(now) + rate.interval.saturating_mul(count).min(most);
        *full_at = debited.min(now + most).max(*full_at);
    }

    /// How long until the bucket of `key` is full again.
    #[must_use]
    pub fn fills_in(&self, key: &K, now: Instant) -> Duration {
        let full_at = self.full_at.get(key);
        full_at.map_or(Duration::ZERO, |at| at.saturating_duration_since(now))
    }

    /// Lets the bucket of `key` be full in `wait` at the earliest.
    pub fn empty(&mut self, key: K, wait: Duration, now: Instant) {
        let rate = self.rate;
        let most = rate.interval.saturating_mul(rate.burst.saturating_mul(2));
        let full_at = self.bucket(key, now);
        *full_at = (*full_at).max(now + wait.min(most));
    }

    /// Whether more than a quarter is missing in the bucket of `key`.
    #[must_use]
    pub fn is_low(&self, key: &K, now: Instant) -> bool {
        self.fills_in(key, now) > self.rate.interval.saturating_mul(self.rate.burst / 4)
    }

    /// The keys whose buckets are low, with the time until they are full again.
    pub fn low(&self, now: Instant) -> impl Iterator<Item = (&K, Duration)> {
        self.full_at
            .keys()
            .filter(move |key| self.is_low(key, now))
            .map(move |key| (key, self.fills_in(key, now)))
    }

    /// Whether `key` can be counted without remembering more than `keys_max`; forgets full buckets
    /// first.
    pub fn has_room(&mut self, key: &K, keys_max: usize, now: Instant) -> bool {
        if self.full_at.len() < keys_max || self.full_at.contains_key(key) {
            return true;
        }
        self.full_at.retain(|_, full_at| *full_at > now);
        self.full_at.len() < keys_max
    }

    fn bucket(&mut self, key: K, now: Instant) -> &mut Instant {
        if self.full_at.len() >= self.sweep_at {
            self.full_at.retain(|_, full_at| *full_at > now);
            self.sweep_at = Self::SWEEP.max(self.full_at.len().saturating_mul(2));
        }
        self.full_at.entry(key).or_insert(now)
    }

    /// Takes one if there is one.
    ///
    /// # Errors
    ///
    /// How long to wait; nothing is taken.
    pub fn take(&mut self, key: K, now: Instant) -> Result<(), Duration> {
        if let Some(full_at) = self.full_at.get_mut(&key) {
            self.rate.check(*full_at, now)?;
            *full_at = self.rate.charged(*full_at, now);
        } else {
            self.charge(key, now);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_commit_waits_for_its_second() {
        let start = Instant::now();
        let mut limiter = Limiter::new(Rate::COMMIT);

        assert!(limiter.is_full(start));
        assert_eq!(limiter.take(1, start), Ok(()));
        assert!(!limiter.is_full(start));
        let early = start + Duration::from_millis(400);
        assert_eq!(limiter.take(1, early), Err(Duration::from_millis(600)));
        assert_eq!(limiter.take(2, early), Ok(()));
        assert_eq!(limiter.take(1, start + Duration::from_secs(1)), Ok(()));
    }

    #[test]
    fn a_burst_is_saved_up_and_then_the_rate_holds() {
        let start = Instant::now();
        let mut limiter = Limiter::new(Rate::SUBMIT);

        let taken = (0..3_000)
            .filter(|_| limiter.take((), start).is_ok())
            .count();

        assert_eq!(taken, 2_000);
        assert_eq!(limiter.check(&(), start), Err(Duration::from_millis(5)));
        assert_eq!(limiter.check(&(), start + Duration::from_millis(5)), Ok(()));
    }

    #[test]
    fn what_was_taken_elsewhere_is_missing_here_and_is_owed_if_there_was_nothing() {
        let start = Instant::now();
        let rate = Rate {
            interval: Duration::from_secs(1),
            burst: 8,
        };
        let mut limiter = Limiter::new(rate);

        limiter.debit(1, 2, start);
        assert!(!limiter.is_low(&1, start));
        limiter.debit(1, 6, start);
        assert_eq!(limiter.take(1, start), Err(Duration::from_secs(1)));
        limiter.debit(1, u32::MAX, start);
        assert_eq!(limiter.check(&1, start), Err(Duration::from_secs(9)));
        assert_eq!(limiter.take(2, start), Ok(()));

        let low: Vec<_> = limiter.low(start).collect();
        assert_eq!(low, [(&1, Duration::from_secs(16))]);
    }

    #[test]
    fn a_bucket_that_moved_is_as_empty_as_it_was_and_no_emptier_for_being_told_twice() {
        let start = Instant::now();
        let (mut old, mut new) = (Limiter::new(Rate::SUBMIT), Limiter::new(Rate::SUBMIT));
        for _ in 0..1_500 {
            old.charge(1, start);
        }

        for _ in 0..2 {
            new.empty(1, old.fills_in(&1, start), start);
        }

        let taken = (0..3_000).filter(|_| new.take(1, start).is_ok()).count();
        assert_eq!(taken, 500);
    }

    #[test]
    fn keys_beyond_the_bound_wait_until_others_are_full_again() {
        let start = Instant::now();
        let mut limiter = Limiter::new(Rate::COMMIT);
        limiter.charge(1, start);
        limiter.charge(2, start);

        assert!(limiter.has_room(&2, 2, start));
        assert!(!limiter.has_room(&3, 2, start));
        assert!(limiter.has_room(&3, 2, start + Duration::from_secs(1)));
    }

    #[test]
    fn full_buckets_take_no_room() {
        let start = Instant::now();
        let mut limiter = Limiter::new(Rate::COMMIT);
        for key in 0..5_000 {
            let later = start + Duration::from_secs(2 * key);
            limiter.charge(key, later);
        }

        assert!(limiter.full_at.len() <= Limiter::<u64>::SWEEP);
    }
}
