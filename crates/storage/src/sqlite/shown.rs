//! Which gap entries some page has shown: those may be on their way to the device, so that a later
//! refusal needs a new one. One process owns the store, so memory is enough: after a restart every
//! gap entry is sent again.

use std::collections::HashSet;

use commucat_proto::id::QueueId;
use parking_lot::Mutex;

/// Bounded by the number of queues: a queue has one gap entry, and its mark goes with it.
#[derive(Debug, Default)]
pub(super) struct ShownGaps(Mutex<HashSet<(QueueId, i64)>>);

impl ShownGaps {
    pub(super) fn mark(&self, queue: QueueId, position: i64) {
        self.0.lock().insert((queue, position));
    }

    pub(super) fn has(&self, queue: QueueId, position: i64) -> bool {
        self.0.lock().contains(&(queue, position))
    }

    pub(super) fn forget(&self, gaps: impl Iterator<Item = (QueueId, i64)>) {
        let mut marks = self.0.lock();
        for gap in gaps {
            marks.remove(&gap);
        }
    }
}
