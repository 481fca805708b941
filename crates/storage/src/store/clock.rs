//! The stored clock that expiry runs on: a jump of the wall clock cannot rush it.

use std::time::Duration;

use commucat_proto::time::Timestamp;

use super::{Store, on_backend};
use crate::StoreError;

/// A time that expiry may trust. Only [`Store::advance_clock`] makes one.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct ExpiryClock(pub(crate) Timestamp);

impl ExpiryClock {
    /// The time it shows.
    #[must_use]
    pub const fn time(self) -> Timestamp {
        self.0
    }
}

impl Store {
    /// Advances the stored clock to the earlier of `wall` and itself plus twice `elapsed`, the
    /// monotonic time since the last call (since the start of the process for the first), and
    /// returns it. The very first call of a new store sets it to `wall`.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; the clock is unchanged, or see [`StoreError::Unavailable`].
    pub async fn advance_clock(
        &self,
        wall: Timestamp,
        elapsed: Duration,
    ) -> Result<ExpiryClock, StoreError> {
        on_backend!(self, backend => backend.advance_clock(wall, elapsed).await)
    }
}
