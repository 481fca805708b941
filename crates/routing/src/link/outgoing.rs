//! The sending half of a link to one node: what is on its way there and not answered.

use std::collections::VecDeque;
use std::time::Instant;

use commucat_proto::id::QueueId;

use super::{Parcel, Reading, Settings};
use crate::lane::Envelope;

/// What an entry on its way costs beside its body.
const SENT_BYTES: usize = 160;

/// An entry that the other node has not answered for.
#[derive(Clone, Debug)]
pub(super) struct Sent<L> {
    pub(super) queue: QueueId,
    pub(super) envelope: Envelope,
    pub(super) leg: L,
    since: Instant,
}

impl<L> Sent<L> {
    fn bytes(&self) -> usize {
        self.envelope.body.len().saturating_add(SENT_BYTES)
    }
}

/// One link's present attempt.
#[derive(Clone, Debug)]
pub(super) struct Outgoing<L> {
    attempt: u64,
    /// The number of the front of `sent`.
    first: u64,
    /// The other node said that it holds everything up to here.
    held: u64,
    sent: VecDeque<Option<Sent<L>>>,
    bytes: usize,
}

impl<L> Outgoing<L> {
    pub(super) const fn new(attempt: u64) -> Self {
        Self {
            attempt,
            first: 1,
            held: 0,
            sent: VecDeque::new(),
            bytes: 0,
        }
    }

    pub(super) const fn attempt(&self) -> u64 {
        self.attempt
    }

    /// Bytes on their way.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.sent.is_empty()
    }

    /// Gives an entry the next number.
    pub(super) fn send(
        &mut self,
        (queue, envelope, leg): (QueueId, Envelope, L),
        reading: Reading,
        now: Instant,
    ) -> Parcel {
        let parcel = Parcel {
            attempt: self.attempt,
            number: self.first.saturating_add(length(&self.sent)),
            reading,
            queue,
            envelope: envelope.clone(),
        };
        let sent = Sent {
            queue,
            envelope,
            leg,
            since: now,
        };
        self.bytes = self.bytes.saturating_add(sent.bytes());
        self.sent.push_back(Some(sent));
        parcel
    }

    /// The other node holds everything up to `through`.
    pub(super) fn held(&mut self, attempt: u64, through: u64) {
        if attempt == self.attempt {
            self.held = self.held.max(through);
        }
    }

    /// The entry that was answered for. Whoever answers for it also holds those before it.
    pub(super) fn answered(&mut self, attempt: u64, number: u64) -> Option<Sent<L>> {
        if attempt != self.attempt {
            return None;
        }
        let index = number.checked_sub(self.first)?;
        let sent = self.sent.get_mut(usize::try_from(index).ok()?)?.take()?;
        self.held = self.held.max(number);
        self.bytes = self.bytes.saturating_sub(sent.bytes());
        while let Some(None) = self.sent.front() {
            self.sent.pop_front();
            self.first = self.first.saturating_add(1);
        }
        Some(sent)
    }

    /// When this attempt has lasted too long.
    pub(super) fn deadline(&self, settings: &Settings) -> Option<Instant> {
        let front = self.sent.front()?.as_ref()?;
        let answer = front.since.checked_add(settings.answer);
        let unheld = self.held.saturating_add(1).saturating_sub(self.first);
        let unheld = usize::try_from(unheld).ok().and_then(|index| {
            self.sent
                .range(index.min(self.sent.len())..)
                .flatten()
                .next()
        });
        let hold = unheld.and_then(|sent| sent.since.checked_add(settings.hold));
        match (answer, hold) {
            (Some(answer), Some(hold)) => Some(answer.min(hold)),
            (answer, hold) => answer.or(hold),
        }
    }

    /// Ends the attempt and begins another: all that is unanswered, oldest first.
    pub(super) fn give_up(&mut self, attempt: u64) -> impl Iterator<Item = Sent<L>> + use<L> {
        let unanswered = std::mem::replace(self, Self::new(attempt));
        unanswered.sent.into_iter().flatten()
    }
}

fn length<T>(list: &VecDeque<T>) -> u64 {
    u64::try_from(list.len()).unwrap_or(u64::MAX)
}

#[cfg(test)]
impl<L: std::hash::Hash> Outgoing<L> {
    pub(super) fn digest(&self, state: &mut impl std::hash::Hasher) {
        use std::hash::Hash;

        (self.attempt, self.first, self.held).hash(state);
        for sent in &self.sent {
            sent.as_ref()
                .map(|sent| (sent.queue, &sent.envelope.key, &sent.leg))
                .hash(state);
        }
    }
}
