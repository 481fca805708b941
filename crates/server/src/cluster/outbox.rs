//! What waits to be said to other nodes and to Redis.

use std::collections::HashMap;

use commucat_proto::id::QueueId;
use commucat_routing::link::{Answer, Incarnation};

use super::wire::Item;

/// Announcements to all that wait; beyond, wakes are dropped, which costs a poll's two seconds, and
/// fork tags, which the next change of the group repeats.
const ALL_MAX: usize = 65_536;

/// An answer whose queue is looked at again when it is sent.
#[derive(Debug)]
pub(super) struct Owed {
    pub(super) queue: QueueId,
    pub(super) answer: Answer,
}

/// What waits for one node.
#[derive(Debug, Default)]
pub(super) struct Letters {
    pub(super) items: Vec<Item>,
    pub(super) answers: Vec<Owed>,
}

/// Everything that waits. Parcels are bounded by their link, answers by the parcels of others.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    pub(super) letters: HashMap<Incarnation, Letters>,
    pub(super) all: Vec<Item>,
    pub(super) asks: Vec<QueueId>,
    pub(super) announces: Vec<QueueId>,
    pub(super) removes: Vec<(QueueId, u64)>,
    /// See [`super::redis::Redis::mark`].
    pub(super) mark: bool,
}

impl Outbox {
    /// Something for one node.
    pub(super) fn letter(&mut self, to: Incarnation, item: Item) {
        self.letters.entry(to).or_default().items.push(item);
    }

    /// An answer for one node.
    pub(super) fn answer(&mut self, to: Incarnation, owed: Owed) {
        self.letters.entry(to).or_default().answers.push(owed);
    }

    /// Something for all.
    pub(super) fn tell_all(&mut self, item: Item) {
        if self.all.len() < ALL_MAX || !matches!(item, Item::Wake(_) | Item::Tag { .. }) {
            self.all.push(item);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.letters.is_empty()
            && self.all.is_empty()
            && self.asks.is_empty()
            && self.announces.is_empty()
            && self.removes.is_empty()
            && !self.mark
    }
}
