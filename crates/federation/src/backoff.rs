//! When a peer that failed is tried again.

use std::time::Duration;

/// The first pause, at most.
const FIRST: Duration = Duration::from_secs(1);
/// The longest pause (CCP-1 section 8): a request that was under way as the network healed may last
/// 20 s more, and what waits is to be there within a minute.
const LONGEST: Duration = Duration::from_secs(30);

/// Pauses that double up to half a minute, each shortened at random by up to a half, so that peers
/// that failed together do not come back together.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// How often in a row it failed.
    #[must_use]
    pub const fn failures(&self) -> u32 {
        self.failures
    }

    /// Counts a failure; returns how long to pause. `random` is any 32 bits from the system.
    #[must_use]
    pub fn failed(&mut self, random: u32) -> Duration {
        let longest = FIRST
            .checked_mul(1_u32.checked_shl(self.failures).unwrap_or(u32::MAX))
            .map_or(LONGEST, |pause| pause.min(LONGEST));
        self.failures = self.failures.saturating_add(1);
        let off = longest / 2 * (random >> 16) / (1 << 16);
        longest - off
    }

    /// Forgets the failures: an answer, or authenticated traffic from the peer, shows that it is
    /// there.
    pub const fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_half_a_minute_and_start_anew_after_a_reset() {
        let mut backoff = Backoff::default();

        let pauses: Vec<_> = (0..40).map(|_| backoff.failed(0).as_secs()).collect();

        assert_eq!(pauses[..6], [1, 2, 4, 8, 16, 30]);
        assert!(pauses[6..].iter().all(|pause| *pause == 30));
        assert_eq!(backoff.failures(), 40);
        backoff.reset();
        assert_eq!(backoff.failed(0), Duration::from_secs(1));
    }

    #[test]
    fn a_pause_is_shortened_by_up_to_a_half() {
        let pause = |random| {
            let mut backoff = Backoff { failures: 30 };
            backoff.failed(random)
        };

        assert_eq!(pause(0), Duration::from_secs(30));
        assert_eq!(pause(1 << 31), Duration::from_millis(22_500));
        let shortest = pause(u32::MAX);
        assert!(shortest > Duration::from_secs(15) && shortest < Duration::from_secs(16));
    }
}
