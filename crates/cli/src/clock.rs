//! The only place of this program that reads the wall clock.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use commucat_proto::time::Timestamp;

/// The wall clock's time now.
#[expect(
    clippy::disallowed_methods,
    reason = "this is the module that reads the clock"
)]
pub(crate) fn now() -> Timestamp {
    of(SystemTime::now())
}

/// A time that the file system gave.
pub(crate) fn of(time: SystemTime) -> Timestamp {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    Timestamp::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
