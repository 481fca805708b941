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
        if self.full_at.len() >= self.sweep_at {
            self.full_at.retain(|_, full_at| *full_at > now);
            self.sweep_at = Self::SWEEP.max(self.full_at.len().saturating_mul(2));
        }
        let full_at = self.full_at.entry(key).or_insert(now);
        *full_at = self.rate.charged(*full_at, now);
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
