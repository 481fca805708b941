//! The receiving half of a node: which parcels of other nodes are taken, and what they are owed.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use commucat_routing::link::{Arrival, Incarnation, Incoming};

/// Nodes remembered. One that was forgotten begins a new attempt at its next parcel.
const SENDERS_MAX: usize = 1_024;

/// Every node that sent something here.
#[derive(Debug)]
pub(super) struct Owner {
    senders: HashMap<Incarnation, Sender>,
    /// How long an answer may take before the sender is told that the parcel is held. Most are
    /// answered sooner, and an answer says that too.
    patience: Duration,
}

#[derive(Debug, Default)]
struct Sender {
    incoming: Incoming,
    /// Taken and not answered, in the present attempt.
    open: u64,
    /// When it is told what is held.
    held_due: Option<Instant>,
}

impl Owner {
    pub(super) fn new(hold: Duration) -> Self {
        Self {
            senders: HashMap::new(),
            patience: hold / 5,
        }
    }

    /// A parcel arrived.
    pub(super) fn arrives(
        &mut self,
        from: Incarnation,
        (attempt, number): (u64, u64),
        now: Instant,
    ) -> Arrival {
        if self.senders.len() >= SENDERS_MAX && !self.senders.contains_key(&from) {
            self.senders.clear();
        }
        let sender = self.senders.entry(from).or_default();
        let (before, _) = sender.incoming.taken();
        let arrival = sender.incoming.arrives(attempt, number);
        if sender.incoming.taken().0 != before {
            sender.open = 0;
        }
        if arrival == Arrival::Take {
            sender.open = sender.open.saturating_add(1);
            sender
                .held_due
                .get_or_insert_with(|| now.checked_add(self.patience).unwrap_or(now));
        }
        arrival
    }

    /// A parcel is answered.
    pub(super) fn answered(&mut self, from: Incarnation, attempt: u64) {
        if let Some(sender) = self.senders.get_mut(&from)
            && sender.incoming.taken().0 == attempt
        {
            sender.open = sender.open.saturating_sub(1);
            if sender.open == 0 {
                sender.held_due = None;
            }
        }
    }

    /// There is no custody for a parcel; `true` if the sender is to be told.
    pub(super) fn failed(&mut self, from: Incarnation, attempt: u64) -> bool {
        self.senders
            .get_mut(&from)
            .is_some_and(|sender| sender.incoming.fail(attempt))
    }

    /// When somebody is to be told what is held.
    pub(super) fn due(&self) -> Option<Instant> {
        self.senders
            .values()
            .filter_map(|sender| sender.held_due)
            .min()
    }

    /// Who is to be told now: attempt, and up to which number.
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<(Incarnation, u64, u64)> {
        let mut due = Vec::new();
        for (node, sender) in &mut self.senders {
            if sender.held_due.is_some_and(|at| at <= now) {
                sender.held_due = None;
                let (attempt, through) = sender.incoming.taken();
                due.push((*node, attempt, through));
            }
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FROM: Incarnation = Incarnation::new([1; 16]);
    const HOLD: Duration = Duration::from_millis(250);

    #[test]
    fn who_is_answered_at_once_is_not_told_that_its_parcel_is_held() {
        let now = Instant::now();
        let mut owner = Owner::new(HOLD);

        assert_eq!(owner.arrives(FROM, (1, 1), now), Arrival::Take);
        owner.answered(FROM, 1);

        assert_eq!(owner.due(), None);
    }

    #[test]
    fn who_waits_is_told_up_to_the_last_number() {
        let now = Instant::now();
        let mut owner = Owner::new(HOLD);

        for number in 1..=3 {
            assert_eq!(owner.arrives(FROM, (1, number), now), Arrival::Take);
        }
        owner.answered(FROM, 1);

        assert_eq!(owner.due(), Some(now + HOLD / 5));
        assert_eq!(owner.take_due(now + HOLD / 5), [(FROM, 1, 3)]);
        assert_eq!(owner.due(), None);
    }

    #[test]
    fn nothing_is_taken_behind_a_parcel_that_could_not_be_kept() {
        let now = Instant::now();
        let mut owner = Owner::new(HOLD);
        owner.arrives(FROM, (1, 1), now);

        assert!(owner.failed(FROM, 1));

        assert_eq!(owner.arrives(FROM, (1, 2), now), Arrival::Broken);
        assert_eq!(owner.arrives(FROM, (2, 1), now), Arrival::Take);
        assert!(!owner.failed(FROM, 1));
    }
}
