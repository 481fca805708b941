//! Fork tags: devices of one group that are in different epochs at one position (CCP-1 section 5.2).

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use commucat_proto::id::Handle;

/// What a device reports of a position: a tag of its epoch, or `None` if it skipped the entry.
pub type Tag = Option<[u8; 16]>;

/// An empty tag may stand against others for this long before it counts.
pub const TAG_CONFLICT_HELD: Duration = Duration::from_secs(60);

/// GROUP_EVENT `fork` for these handles.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Fork {
    /// Where they differ.
    pub position: u64,
    /// All that reported and were not told yet.
    pub told: Vec<Handle>,
}

/// The tags reported for one group's last positions. Nothing at the hub depends on them.
#[derive(Clone, Debug, Default)]
pub struct Alarm {
    positions: BTreeMap<u64, Reports>,
}

/// Who tells a handle of a fork.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Teller {
    /// This node, when there is one.
    Here,
    /// This node has.
    Told,
    /// The node of this domain that it reported to.
    Elsewhere,
}

#[derive(Clone, Debug, Default)]
struct Reports {
    tags: HashMap<Handle, (Tag, Teller)>,
    /// Since when empty and non-empty tags stand against each other.
    mixed: Option<Instant>,
}

impl Alarm {
    /// Positions remembered: reports of older ones are dropped.
    pub const POSITIONS: usize = 16;

    /// Notes a report of a handle in the list, for a position up to the head.
    ///
    /// A later report of a handle replaces its earlier one.
    pub fn report(
        &mut self,
        position: u64,
        handle: Handle,
        tag: Tag,
        now: Instant,
    ) -> Option<Fork> {
        let reports = self.positions.entry(position).or_default();
        let teller = match reports.tags.get(&handle) {
            Some((_, Teller::Told)) => Teller::Told,
            Some((_, Teller::Here | Teller::Elsewhere)) | None => Teller::Here,
        };
        reports.tags.insert(handle, (tag, teller));
        reports.note_mix(now);
        let fork = reports.alarm(position, now);
        self.forget_old();
        fork
    }

    /// Notes a report that another node of this domain took, and checked: it tells the handle, and
    /// whoever reported here hears of a difference at the next [`Alarm::tick`].
    pub fn report_elsewhere(&mut self, position: u64, handle: Handle, tag: Tag, now: Instant) {
        let reports = self.positions.entry(position).or_default();
        reports.tags.insert(handle, (tag, Teller::Elsewhere));
        reports.note_mix(now);
        self.forget_old();
    }

    fn forget_old(&mut self) {
        if self.positions.len() > Self::POSITIONS {
            self.positions.pop_first();
        }
    }

    /// When [`Alarm::tick`] may have something to say.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let due = |reports: &Reports| reports.mixed?.checked_add(TAG_CONFLICT_HELD);
        let untold = self
            .positions
            .values()
            .filter(|reports| reports.has_untold());
        untold.filter_map(due).min()
    }

    /// The alarms that are due, because an empty tag stood for too long or another node took a report.
    #[must_use]
    pub fn tick(&mut self, now: Instant) -> Vec<Fork> {
        let positions = self.positions.iter_mut();
        positions
            .filter_map(|(position, reports)| reports.alarm(*position, now))
            .collect()
    }
}

impl Reports {
    fn is_mixed(&self) -> bool {
        let mut tags = self.tags.values().map(|(tag, _)| tag.is_some());
        let Some(first) = tags.next() else {
            return false;
        };
        tags.any(|tag| tag != first)
    }

    fn is_forked(&self) -> bool {
        let mut tags = self.tags.values().filter_map(|(tag, _)| *tag);
        let Some(first) = tags.next() else {
            return false;
        };
        tags.any(|tag| tag != first)
    }

    fn has_untold(&self) -> bool {
        let is_untold = |(_, teller): &(Tag, Teller)| *teller == Teller::Here;
        self.tags.values().any(is_untold)
    }

    fn note_mix(&mut self, now: Instant) {
        if !self.is_mixed() {
            self.mixed = None;
        } else if self.mixed.is_none() {
            self.mixed = Some(now);
        }
    }

    fn alarm(&mut self, position: u64, now: Instant) -> Option<Fork> {
        let held = self
            .mixed
            .and_then(|since| since.checked_add(TAG_CONFLICT_HELD));
        if !self.is_forked() && held.is_none_or(|due| now < due) {
            return None;
        }
        let mut told = Vec::new();
        for (handle, (_, teller)) in &mut self.tags {
            if *teller == Teller::Here {
                *teller = Teller::Told;
                told.push(*handle);
            }
        }
        told.sort_unstable();
        (!told.is_empty()).then_some(Fork { position, told })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Handle = Handle::new([1; 32]);
    const B: Handle = Handle::new([2; 32]);
    const C: Handle = Handle::new([3; 32]);
    const TAG: Tag = Some([7; 16]);
    const OTHER: Tag = Some([8; 16]);

    #[test]
    fn each_node_tells_those_who_reported_to_it() {
        let now = Instant::now();
        let (mut one, mut two) = (Alarm::default(), Alarm::default());

        let first = one.report(5, A, TAG, now);
        two.report_elsewhere(5, A, TAG, now);
        let second = two.report(5, B, OTHER, now);
        one.report_elsewhere(5, B, OTHER, now);
        let third = one.tick(now);

        let tells = |handle| Fork {
            position: 5,
            told: vec![handle],
        };
        assert_eq!(first, None);
        assert_eq!(second, Some(tells(B)));
        assert_eq!(third, [tells(A)]);
        assert!(one.tick(now).is_empty() && two.tick(now).is_empty());
    }

    #[test]
    fn different_tags_alarm_all_that_reported_once() {
        let now = Instant::now();
        let mut alarm = Alarm::default();

        assert_eq!(alarm.report(5, A, TAG, now), None);
        let fork = alarm.report(5, B, OTHER, now);

        assert_eq!(
            fork,
            Some(Fork {
                position: 5,
                told: vec![A, B]
            })
        );
        assert_eq!(alarm.report(5, B, OTHER, now), None);
        assert_eq!(
            alarm.report(5, C, TAG, now),
            Some(Fork {
                position: 5,
                told: vec![C]
            })
        );
    }

    #[test]
    fn equal_tags_and_tags_of_different_positions_are_no_alarm() {
        let now = Instant::now();
        let mut alarm = Alarm::default();

        assert_eq!(alarm.report(5, A, TAG, now), None);
        assert_eq!(alarm.report(5, B, TAG, now), None);
        assert_eq!(alarm.report(6, B, OTHER, now), None);
        assert_eq!(alarm.deadline(), None);
    }

    #[test]
    fn an_empty_tag_counts_after_a_minute() {
        let now = Instant::now();
        let mut alarm = Alarm::default();
        assert_eq!(alarm.report(5, A, TAG, now), None);
        assert_eq!(alarm.report(5, B, None, now), None);

        let due = now + TAG_CONFLICT_HELD;
        assert_eq!(alarm.deadline(), Some(due));
        assert_eq!(alarm.tick(due - Duration::from_millis(1)), []);
        assert_eq!(
            alarm.tick(due),
            [Fork {
                position: 5,
                told: vec![A, B]
            }]
        );
        assert_eq!(alarm.deadline(), None);
    }

    #[test]
    fn an_empty_tag_that_is_replaced_in_time_is_no_alarm() {
        let now = Instant::now();
        let mut alarm = Alarm::default();
        assert_eq!(alarm.report(5, A, TAG, now), None);
        assert_eq!(alarm.report(5, B, None, now), None);
        assert_eq!(alarm.report(5, B, TAG, now + Duration::from_secs(30)), None);

        assert_eq!(alarm.tick(now + Duration::from_secs(90)), []);
    }

    #[test]
    fn only_the_last_positions_are_remembered() {
        let now = Instant::now();
        let mut alarm = Alarm::default();
        for position in 0..40 {
            assert_eq!(alarm.report(position, A, TAG, now), None);
        }

        assert_eq!(alarm.positions.len(), Alarm::POSITIONS);
        assert_eq!(alarm.report(3, B, OTHER, now), None);
    }
}
