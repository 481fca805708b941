//! Merges the answers to a session's frames into the ranges of ACK key 0.

use crate::ticket::Status;

/// One range: `[first, count, status]`.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Range {
    /// The first sequence.
    pub first: u64,
    /// How many sequences in a row, all of them MSGs.
    pub count: u64,
    /// The answer to each.
    pub status: Status,
}

/// Answers that wait to be written.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub struct Ranges {
    ranges: Vec<Range>,
}

impl Ranges {
    /// Adds the answer to one frame; extends the latest range if it continues it.
    pub fn push(&mut self, sequence: u64, status: Status) {
        if let Some(last) = self.ranges.last_mut()
            && last.status == status
            && last.first.checked_add(last.count) == Some(sequence)
        {
            last.count += 1;
            return;
        }
        self.ranges.push(Range {
            first: sequence,
            count: 1,
            status,
        });
    }

    /// Whether nothing waits.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Takes what waits, ascending and merged.
    #[must_use]
    pub fn take(&mut self) -> Vec<Range> {
        let mut ranges = std::mem::take(&mut self.ranges);
        ranges.sort_unstable_by_key(|range| range.first);
        ranges.dedup_by(|next, kept| {
            let continues = kept.status == next.status
                && kept.first.checked_add(kept.count) == Some(next.first);
            if continues {
                kept.count = kept.count.saturating_add(next.count);
            }
            continues
        });
        ranges
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_out_of_order_become_one_ascending_range() {
        let mut ranges = Ranges::default();
        for sequence in [4, 2, 3, 6] {
            ranges.push(sequence, Status::Stored);
        }
        ranges.push(5, Status::Delivered);

        let taken = ranges.take();

        let range = |first, count, status| Range {
            first,
            count,
            status,
        };
        assert_eq!(
            taken,
            [
                range(2, 3, Status::Stored),
                range(5, 1, Status::Delivered),
                range(6, 1, Status::Stored)
            ]
        );
        assert!(ranges.is_empty());
    }

    #[test]
    fn a_hole_left_by_a_control_request_parts_two_ranges() {
        let mut ranges = Ranges::default();
        for sequence in [1, 2, 4] {
            ranges.push(sequence, Status::Delivered);
        }

        let counts: Vec<u64> = ranges.take().iter().map(|range| range.count).collect();

        assert_eq!(counts, [2, 1]);
    }
}
