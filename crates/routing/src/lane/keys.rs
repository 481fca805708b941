//! Which keys a lane knows: those in its window, and the last ones that the far end acknowledged.

use std::collections::VecDeque;
use std::collections::hash_map::Entry;

use commucat_proto::id::DedupeKey;

use super::entry::SlotId;
use crate::keyed::KeyedMap;

/// Where a key is.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) enum Known {
    /// In the window.
    Window(SlotId),
    /// The far end acknowledged it.
    Acked,
}

/// The keys of a window and a bounded memory of acknowledged ones.
///
/// A message costs its lane three looks into this map. The hash is keyed, because authors choose what
/// keys are made of; SipHash took 4 % of the whole server's time here.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    known: KeyedMap<DedupeKey, Known>,
    acked: VecDeque<DedupeKey>,
    acked_max: usize,
}

impl Keys {
    pub(super) fn new(acked_max: usize) -> Self {
        Self {
            known: KeyedMap::default(),
            acked: VecDeque::new(),
            acked_max,
        }
    }

    pub(super) fn find(&self, key: &DedupeKey) -> Option<Known> {
        self.known.get(key).copied()
    }

    /// Where a key is; one that is nowhere is in `slot` from now on.
    pub(super) fn find_or_insert(&mut self, key: DedupeKey, slot: SlotId) -> Option<Known> {
        match self.known.entry(key) {
            Entry::Occupied(known) => Some(*known.get()),
            Entry::Vacant(free) => {
                free.insert(Known::Window(slot));
                None
            }
        }
    }

    /// Forgets a key that leaves the window without an acknowledgement.
    pub(super) fn forget(&mut self, key: &DedupeKey) {
        self.known.remove(key);
    }

    /// Notes that the far end acknowledged a key that is in no slot (any more).
    pub(super) fn acknowledged(&mut self, key: DedupeKey) {
        if self.known.insert(key, Known::Acked) == Some(Known::Acked) {
            return;
        }
        self.acked.push_back(key);
        if self.acked.len() <= self.acked_max {
            return;
        }
        if let Some(oldest) = self.acked.pop_front()
            && let Entry::Occupied(known) = self.known.entry(oldest)
            && *known.get() == Known::Acked
        {
            known.remove();
        }
    }

    pub(super) fn forget_acked(&mut self) {
        self.acked = VecDeque::new();
        self.known.retain(|_, known| *known != Known::Acked);
        self.known.shrink_to_fit();
    }

    #[cfg(test)]
    pub(super) fn acked(&self) -> impl Iterator<Item = &DedupeKey> {
        self.acked.iter()
    }
}
