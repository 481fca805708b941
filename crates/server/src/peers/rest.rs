//! How long a peer is left alone after a failure.

use std::time::{Duration, Instant};

use commucat_federation::Backoff;
use parking_lot::Mutex;

/// A peer's back-off, shared by its lanes.
#[derive(Default)]
pub(super) struct Rest(Mutex<State>);

#[derive(Default)]
struct State {
    backoff: Backoff,
    until: Option<Instant>,
}

impl Rest {
    /// A try has failed: nothing is tried for longer than after the last one. Lanes whose tries
    /// fail together count once.
    pub(super) fn begin(&self, now: Instant) {
        let mut state = self.0.lock();
        if state.until.is_some_and(|until| until > now) {
            return;
        }
        let pause = state.backoff.failed(random());
        state.until = now.checked_add(pause);
    }

    /// The peer has said how long it takes nothing. It is there: that is no failure.
    pub(super) fn pause(&self, wait: Duration, now: Instant) {
        let mut state = self.0.lock();
        state.until = state.until.max(now.checked_add(wait));
    }

    /// The peer has answered.
    pub(super) fn end(&self) {
        *self.0.lock() = State::default();
    }

    /// The peer has shown that it is there: its back-off ends. Whether there was one.
    pub(super) fn is_over(&self) -> bool {
        std::mem::take(&mut *self.0.lock()).until.is_some()
    }

    /// Whether the peer is left alone now.
    pub(super) fn is_on(&self) -> bool {
        self.remaining(Instant::now()).is_some()
    }

    /// How long it still is.
    pub(super) fn remaining(&self, now: Instant) -> Option<Duration> {
        let until = self.0.lock().until?;
        until
            .checked_duration_since(now)
            .filter(|left| !left.is_zero())
    }
}

/// What jitter is made of. Without random bytes there is none.
fn random() -> u32 {
    getrandom::u32().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_at_the_same_time_count_once_and_a_success_ends_the_rest() {
        let (rest, now) = (Rest::default(), Instant::now());

        rest.begin(now);
        let first = rest.remaining(now).unwrap();
        rest.begin(now);
        assert_eq!(rest.remaining(now), Some(first));
        assert_eq!(rest.0.lock().backoff.failures(), 1);

        rest.pause(first + Duration::from_secs(1), now);
        assert_eq!(rest.remaining(now), Some(first + Duration::from_secs(1)));
        assert_eq!(rest.0.lock().backoff.failures(), 1);

        assert!(rest.is_over() && !rest.is_on());
        assert!(!rest.is_over());
    }
}
