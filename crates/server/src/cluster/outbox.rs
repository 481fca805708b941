//! What waits to be said to other nodes and to Redis.

use std::collections::HashMap;

use commucat_proto::id::QueueId;
use commucat_routing::link::{Answer, Incarnation};

use super::wire::Item;

/// Announcements to all that wait; beyond, wakes are dropped, which costs a poll's two seconds,
/// fork tags, which the next change of the group repeats, and what was taken from common buckets.
const ALL_MAX: usize = 65_536;

/// Ephemeral frames for devices whose node is asked for; more are dropped.
const HINTS_MAX: usize = 1_024;

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
    /// Until their queues' routes are known.
    hints: Vec<(QueueId, Item)>,
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

    /// Something ephemeral for the node of `queue`, which is asked for.
    pub(super) fn hint(&mut self, queue: QueueId, hint: Item) {
        if self.hints.len() < HINTS_MAX {
            if self.hints.iter().all(|(other, _)| *other != queue) {
                self.asks.push(queue);
            }
            self.hints.push((queue, hint));
        }
    }

    /// Where `queue` is read is known now, if anywhere.
    pub(super) fn routed(&mut self, queue: QueueId, node: Option<Incarnation>) {
        for (_, hint) in self
            .hints
            .extract_if(.., |(other, _)| *other == queue)
            .collect::<Vec<_>>()
        {
            if let Some(node) = node {
                self.letter(node, hint);
            }
        }
    }

    /// An answer for one node.
    pub(super) fn answer(&mut self, to: Incarnation, owed: Owed) {
        self.letters.entry(to).or_default().answers.push(owed);
    }

    /// Something for all.
    pub(super) fn tell_all(&mut self, item: Item) {
        let may_be_dropped = matches!(
            item,
            Item::Wake(_) | Item::Tag { .. } | Item::Taken(_) | Item::Used(_)
        );
        if self.all.len() < ALL_MAX || !may_be_dropped {
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
