//! The entries that a lane holds in memory, oldest first: stored, then spooling, then held ones.

use std::collections::VecDeque;
use std::time::Instant;

use super::entry::{Envelope, Position, SlotId};

/// What an entry costs beside its body; a bound on memory must not be passed by tiny bodies.
pub(super) const SLOT_BYTES: usize = 160;

/// The most legs that wait for one entry; a repeat beyond fails the oldest.
pub(super) const LEGS_MAX: usize = 4;

/// The legs that wait for one entry: one, save for repeats.
#[derive(Clone, Debug, Hash)]
pub(super) struct Legs<L> {
    first: Option<L>,
    more: VecDeque<L>,
}

impl<L> Legs<L> {
    pub(super) const fn one(leg: L) -> Self {
        Self {
            first: Some(leg),
            more: VecDeque::new(),
        }
    }

    /// Adds a leg; returns the oldest if there were [`LEGS_MAX`] already.
    pub(super) fn join(&mut self, leg: L) -> Option<L> {
        let ousted = if self.more.len() + 1 >= LEGS_MAX {
            self.first.take()
        } else {
            None
        };
        if self.first.is_none() {
            self.first = self.more.pop_front();
        }
        match self.first {
            None => self.first = Some(leg),
            Some(_) => self.more.push_back(leg),
        }
        ousted
    }

    pub(super) fn take(&mut self) -> impl Iterator<Item = L> + use<L> {
        self.first
            .take()
            .into_iter()
            .chain(std::mem::take(&mut self.more))
    }
}

/// Where an entry of the window is on its way.
#[derive(Clone, Debug, Hash)]
pub(super) enum Step<L> {
    /// In memory only.
    Held { legs: Legs<L> },
    /// In the transaction that runs; the far end may acknowledge it meanwhile.
    Spooling { legs: Legs<L>, acked: bool },
    /// Committed and sent on the present attachment; waits for the far end.
    Stored(Position),
}

/// One entry of the window.
#[derive(Clone, Debug)]
pub(super) struct Slot<L> {
    pub(super) id: SlotId,
    pub(super) since: Instant,
    pub(super) envelope: Envelope,
    pub(super) step: Step<L>,
}

impl<L> Slot<L> {
    fn bytes(&self) -> usize {
        self.envelope.body.len().saturating_add(SLOT_BYTES)
    }
}

/// The window: slots by ascending id.
#[derive(Clone, Debug)]
pub(super) struct Window<L> {
    slots: VecDeque<Slot<L>>,
    next: SlotId,
    bytes: usize,
    /// Slots below this id left the state `Held`.
    held_from: SlotId,
}

impl<L> Window<L> {
    pub(super) const fn new() -> Self {
        Self {
            slots: VecDeque::new(),
            next: SlotId(0),
            bytes: 0,
            held_from: SlotId(0),
        }
    }

    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// The slot of the entry that is pushed next.
    pub(super) const fn next(&self) -> SlotId {
        self.next
    }

    pub(super) fn push(&mut self, envelope: Envelope, leg: L, now: Instant) {
        let id = self.next;
        self.next = SlotId(id.0.wrapping_add(1));
        let slot = Slot {
            id,
            since: now,
            envelope,
            step: Step::Held {
                legs: Legs::one(leg),
            },
        };
        self.bytes = self.bytes.saturating_add(slot.bytes());
        self.slots.push_back(slot);
    }

    fn index(&self, id: SlotId) -> Option<usize> {
        if self.slots.front().is_some_and(|slot| slot.id == id) {
            return Some(0);
        }
        self.slots.binary_search_by_key(&id, |slot| slot.id).ok()
    }

    pub(super) fn find_mut(&mut self, id: SlotId) -> Option<&mut Slot<L>> {
        let index = self.index(id)?;
        self.slots.get_mut(index)
    }

    pub(super) fn find(&self, id: SlotId) -> Option<&Slot<L>> {
        self.slots.get(self.index(id)?)
    }

    /// Takes a slot out; the front in constant time.
    pub(super) fn remove(&mut self, id: SlotId) -> Option<Slot<L>> {
        let slot = match self.index(id)? {
            0 => self.slots.pop_front(),
            index => self.slots.remove(index),
        }?;
        self.bytes = self.bytes.saturating_sub(slot.bytes());
        Some(slot)
    }

    /// Drops the body of a slot that is never sent from memory again.
    pub(super) fn strip(&mut self, id: SlotId) {
        if let Some(slot) = self.find_mut(id) {
            let body = std::mem::take(&mut slot.envelope.body);
            self.bytes = self.bytes.saturating_sub(body.len());
        }
    }

    /// The slots from `id` on, oldest first.
    pub(super) fn from(&self, id: SlotId) -> impl Iterator<Item = &Slot<L>> {
        let start = match self.slots.front() {
            Some(front) if front.id >= id => 0,
            _ => self.slots.partition_point(|slot| slot.id < id),
        };
        self.slots.range(start..)
    }

    /// The oldest slot that is in memory only.
    pub(super) fn first_held(&self) -> Option<&Slot<L>> {
        self.from(self.held_from).next()
    }

    /// Starts a transaction with every held entry, oldest first. What is spooled is always the whole
    /// unspooled front of the queue.
    pub(super) fn spool(&mut self) -> Vec<Envelope> {
        let start = self.slots.partition_point(|slot| slot.id < self.held_from);
        self.spool_from(start)
    }

    /// The planted bug: only the newest entry goes to disk.
    #[cfg(test)]
    pub(super) fn spool_tail(&mut self) -> Vec<Envelope> {
        self.spool_from(self.slots.len().saturating_sub(1))
    }

    fn spool_from(&mut self, start: usize) -> Vec<Envelope> {
        self.held_from = self.next;
        let spool = |slot: &mut Slot<L>| {
            if let Step::Held { legs } = &mut slot.step {
                let legs = Legs {
                    first: legs.first.take(),
                    more: std::mem::take(&mut legs.more),
                };
                slot.step = Step::Spooling { legs, acked: false };
            }
            slot.envelope.clone()
        };
        self.slots.range_mut(start..).map(spool).collect()
    }

    /// The ids of all slots, oldest first.
    pub(super) fn ids(&self) -> Vec<SlotId> {
        self.slots.iter().map(|slot| slot.id).collect()
    }

    /// The ids of the slots in the running transaction, oldest first.
    pub(super) fn spooling(&self) -> Vec<SlotId> {
        let in_transaction = |slot: &&Slot<L>| matches!(slot.step, Step::Spooling { .. });
        self.slots
            .iter()
            .filter(in_transaction)
            .map(|slot| slot.id)
            .collect()
    }

    #[cfg(test)]
    pub(super) const fn age(&self, id: SlotId) -> u64 {
        self.next.0.wrapping_sub(id.0)
    }

    #[cfg(test)]
    pub(super) fn iter(&self) -> impl Iterator<Item = &Slot<L>> {
        self.slots.iter()
    }
}
