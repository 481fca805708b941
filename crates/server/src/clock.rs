//! The only place of the server that reads the wall clock.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use commucat_proto::time::Timestamp;

/// The wall clock's time now.
#[must_use]
#[expect(
    clippy::disallowed_methods,
    reason = "this is the module that reads the clock"
)]
pub fn now() -> Timestamp {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    Timestamp::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
