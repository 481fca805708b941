//! The one place of this crate that reads the wall clock.

use std::time::{SystemTime, UNIX_EPOCH};

use commucat_proto::time::Timestamp;

/// Gives the time; a plain function, so that tests can give another.
pub type Clock = fn() -> Timestamp;

/// The system's time.
#[expect(
    clippy::disallowed_methods,
    reason = "the clock module is where the clock is read"
)]
#[must_use]
pub fn system() -> Timestamp {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
