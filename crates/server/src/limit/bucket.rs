//! A token bucket that is told the time.

use std::time::{Duration, Instant};

/// Lets `rate` a second pass on average and `burst` at once.
#[derive(Clone, Debug)]
pub struct Bucket {
    rate: f64,
    burst: f64,
    tokens: f64,
    filled: Instant,
}

impl Bucket {
    /// A full bucket.
    #[must_use]
    pub fn new(rate: u32, burst: u32, now: Instant) -> Self {
        let burst = f64::from(burst.max(1));
        Self {
            rate: f64::from(rate),
            burst,
            tokens: burst,
            filled: now,
        }
    }

    /// Takes `count` if there are so many.
    pub fn take(&mut self, count: u32, now: Instant) -> bool {
        self.fill(now);
        let count = f64::from(count);
        let enough = self.tokens >= count;
        if enough {
            self.tokens -= count;
        }
        enough
    }

    /// How long until `count` can be taken; zero if they can be now.
    pub fn wait(&mut self, count: u32, now: Instant) -> Duration {
        self.fill(now);
        let missing = f64::from(count) - self.tokens;
        if missing <= 0.0 || self.rate <= 0.0 {
            return Duration::ZERO;
        }
        Duration::try_from_secs_f64(missing / self.rate).unwrap_or(Duration::MAX)
    }

    /// Whether nothing was taken for long enough that it can be forgotten.
    #[must_use]
    pub fn is_full(&self, now: Instant) -> bool {
        let since = now.saturating_duration_since(self.filled).as_secs_f64();
        self.tokens + since * self.rate >= self.burst
    }

    fn fill(&mut self, now: Instant) {
        let since = now.saturating_duration_since(self.filled).as_secs_f64();
        self.tokens = (self.tokens + since * self.rate).min(self.burst);
        self.filled = self.filled.max(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_lets_the_burst_pass_and_then_the_rate() {
        let start = Instant::now();
        let mut bucket = Bucket::new(10, 3, start);

        let burst: Vec<bool> = (0..4).map(|_| bucket.take(1, start)).collect();

        assert_eq!(burst, [true, true, true, false]);
        assert_eq!(bucket.wait(1, start), Duration::from_millis(100));
        assert!(bucket.take(1, start + Duration::from_millis(101)));
        assert!(!bucket.take(1, start + Duration::from_millis(102)));
        assert!(bucket.is_full(start + Duration::from_secs(1)));
    }
}
