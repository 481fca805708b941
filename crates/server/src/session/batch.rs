//! What frames share that came in one piece: the time, and whom they give something to write.

use std::time::Instant;

use super::Link;

/// Sessions that wait at most; then they are woken at once.
const WAKES_MAX: usize = 1_024;

/// Frames that are handled in one go.
///
/// The sessions that they give something to are woken at the end: one that is woken by the first
/// message of many runs on another core meanwhile, writes that one message by itself, and is woken
/// again by the second. Dropping wakes them.
pub(crate) struct Batch {
    now: Instant,
    wakes: Vec<Link>,
}

impl Batch {
    /// A batch that came at `now`.
    pub(crate) const fn new(now: Instant) -> Self {
        let wakes = Vec::new();
        Self { now, wakes }
    }

    /// When it came. A clock that is read for each message takes 3 % of the server's time.
    pub(crate) const fn now(&self) -> Instant {
        self.now
    }

    /// More came, or time has passed.
    pub(crate) const fn set_now(&mut self, now: Instant) {
        self.now = now;
    }

    /// Has `link` woken, later.
    pub(crate) fn wake(&mut self, link: Link) {
        if self.wakes.len() >= WAKES_MAX {
            self.flush();
        }
        self.wakes.push(link);
    }

    /// Wakes everybody: before anything is waited for, and at the end.
    pub(crate) fn flush(&mut self) {
        for link in self.wakes.drain(..) {
            link.wake();
        }
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        self.flush();
    }
}
