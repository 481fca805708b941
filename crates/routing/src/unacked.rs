//! What a session sent and the far end has not acknowledged: sequence numbers to entries.
//!
//! The lane is told entries, never numbers, so that a late ACK of a replaced connection is still
//! true (custody rule R2).

use std::collections::VecDeque;

use crate::lane::SentEntry;

/// An ACK above the last sequence sent: fatal for the connection (`Sequence Out Of Order`).
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("acknowledges sequence {through}, but {sent} were sent")]
pub struct AheadError {
    /// What was acknowledged.
    pub through: u64,
    /// The last sequence sent.
    pub sent: u64,
}

/// The sequenced frames of one connection, s->c, that wait for an ACK.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub struct Unacked {
    entries: VecDeque<(SentEntry, usize)>,
    acked: u64,
    bytes: usize,
}

impl Unacked {
    /// Notes an entry that is about to be sent with `bytes` of payload; returns its sequence: 1, 2,
    /// 3, ...
    pub fn sent(&mut self, entry: SentEntry, bytes: usize) -> u64 {
        self.entries.push_back((entry, bytes));
        self.bytes = self.bytes.saturating_add(bytes);
        self.last_sent()
    }

    /// The last sequence given out; 0 before the first.
    #[must_use]
    pub fn last_sent(&self) -> u64 {
        self.acked
            .saturating_add(u64::try_from(self.entries.len()).unwrap_or(u64::MAX))
    }

    /// Takes the entries up to `through` out, oldest first; nothing if an earlier ACK covered it.
    ///
    /// # Errors
    ///
    /// [`AheadError`] if `through` was never sent; nothing is taken.
    pub fn acked(
        &mut self,
        through: u64,
    ) -> Result<impl Iterator<Item = SentEntry> + '_, AheadError> {
        let sent = self.last_sent();
        if through > sent {
            return Err(AheadError { through, sent });
        }
        let count = usize::try_from(through.saturating_sub(self.acked)).unwrap_or(usize::MAX);
        let count = count.min(self.entries.len());
        self.acked = self.acked.max(through);
        let freed: usize = self
            .entries
            .iter()
            .take(count)
            .map(|(_, bytes)| bytes)
            .sum();
        self.bytes = self.bytes.saturating_sub(freed);
        Ok(self.entries.drain(..count).map(|(entry, _)| entry))
    }

    /// The room that a bound on frames and payload bytes leaves, for
    /// [`Lane::pump`](crate::lane::Lane::pump): 0 when either is reached.
    #[must_use]
    pub fn room(&self, frames_max: usize, bytes_max: usize) -> usize {
        if self.entries.len() >= frames_max {
            0
        } else {
            bytes_max.saturating_sub(self.bytes)
        }
    }

    #[cfg(test)]
    pub(crate) fn iter(&self) -> impl Iterator<Item = &SentEntry> {
        self.entries.iter().map(|(entry, _)| entry)
    }

    /// How many frames wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use commucat_proto::id::DedupeKey;

    use super::*;
    use crate::lane::{Place, Position};

    fn entry(number: u8) -> SentEntry {
        SentEntry {
            place: Place::Row(Position::new(number.into())),
            key: DedupeKey::new([number; 16]),
        }
    }

    fn with(count: u8) -> Unacked {
        let mut unacked = Unacked::default();
        for number in 1..=count {
            assert_eq!(unacked.sent(entry(number), 10), u64::from(number));
        }
        unacked
    }

    #[test]
    fn an_ack_yields_exactly_the_entries_up_to_it_oldest_first() {
        let mut unacked = with(3);

        let taken: Vec<_> = unacked.acked(2).unwrap().collect();

        assert_eq!(taken, [entry(1), entry(2)]);
        assert_eq!(unacked.room(10, 25), 15);
        assert_eq!(unacked.sent(entry(4), 1), 4);
    }

    #[test]
    fn an_ack_below_an_earlier_one_is_ignored() {
        let mut unacked = with(3);
        assert_eq!(unacked.acked(3).unwrap().count(), 3);

        assert_eq!(unacked.acked(1).unwrap().count(), 0);
        assert_eq!(unacked.last_sent(), 3);
    }

    #[test]
    fn an_ack_above_the_last_sent_is_an_error_and_takes_nothing() {
        let mut unacked = with(1);

        assert_eq!(
            unacked.acked(2).map(Iterator::count),
            Err(AheadError {
                through: 2,
                sent: 1
            })
        );
        assert_eq!(unacked.len(), 1);
    }

    #[test]
    fn no_room_is_left_at_the_bound_on_frames() {
        assert_eq!(with(3).room(3, 1000), 0);
    }
}
