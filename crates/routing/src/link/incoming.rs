//! The receiving half of a link: which parcels are taken.

/// What to do with a parcel that arrived.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Arrival {
    /// Append it to the queue's lane here, and answer for it.
    Take,
    /// It was taken before, or its attempt is over: nothing.
    Old,
    /// One before it is missing, or could not be kept: tell the sender that this attempt is over.
    Broken,
}

/// What was taken from one other node.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub struct Incoming {
    attempt: u64,
    taken: u64,
    broken: bool,
}

impl Incoming {
    /// Takes number `k` only after `k - 1`, and nothing of an attempt that an earlier one ended.
    pub fn arrives(&mut self, attempt: u64, number: u64) -> Arrival {
        if attempt < self.attempt {
            return Arrival::Old;
        }
        if attempt > self.attempt {
            *self = Self {
                attempt,
                ..Self::default()
            };
        }
        if self.broken {
            return Arrival::Broken;
        }
        if number <= self.taken {
            return Arrival::Old;
        }
        if number != self.taken.saturating_add(1) {
            self.broken = true;
            return Arrival::Broken;
        }
        self.taken = number;
        Arrival::Take
    }

    /// There is no custody for an entry of `attempt`: those behind it must not be taken either, or
    /// they would overtake it. `true` if the sender is to be told.
    pub fn fail(&mut self, attempt: u64) -> bool {
        if attempt != self.attempt {
            return false;
        }
        self.broken = true;
        true
    }

    /// The present attempt and the last number taken in it: what `held` says.
    #[must_use]
    pub const fn taken(&self) -> (u64, u64) {
        (self.attempt, self.taken)
    }
}
