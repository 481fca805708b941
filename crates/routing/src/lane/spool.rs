//! Spooling: when the window goes to disk, and what follows from the transaction's end.

use std::time::Instant;

use super::entry::{Effect, Position, SlotId, Spooled};
use super::window::Step;
use super::{Lane, State};
use crate::ticket::Outcome;

impl<L> Lane<L> {
    /// When [`Lane::tick`] has something to do; ask again after every call.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        if self.spooling || self.state == State::Closed {
            return None;
        }
        let front = self.window.first_held()?;
        front.since.checked_add(self.settings.hold)
    }

    /// Spools if the front has waited for [`Settings::hold`](super::Settings::hold).
    pub fn tick(&mut self, now: Instant, out: &mut Vec<Effect<L>>) {
        if self.deadline().is_some_and(|deadline| deadline <= now) {
            self.spool_now(out);
        }
    }

    /// Spools what is in memory: the bound over all lanes is reached.
    pub fn spool_now(&mut self, out: &mut Vec<Effect<L>>) {
        if self.spooling || self.state == State::Closed || self.window.first_held().is_none() {
            return;
        }
        #[cfg(test)]
        if self.planted == Some(crate::explore::bugs::Bug::SpoolOfTail) {
            self.spooling = true;
            out.push(Effect::Spool(self.window.spool_tail()));
            return;
        }
        self.spooling = true;
        out.push(Effect::Spool(self.window.spool()));
    }

    /// Spools at once when nobody will take the entries from memory, or there are too many.
    pub(super) fn spool_if_due(&mut self, out: &mut Vec<Effect<L>>) {
        let attached = matches!(self.state, State::CatchUp(_) | State::Live(_));
        if !attached || self.draining || self.window.bytes() > self.settings.window_bytes {
            self.spool_now(out);
        }
    }

    /// The batch is committed; `results` has one value for each of its entries, in order.
    ///
    /// Entries that the far end has on this attachment wait for its acknowledgement, without their
    /// bodies; all others are forgotten, and read from the store when their turn comes.
    pub fn spooled(
        &mut self,
        results: impl IntoIterator<Item = Spooled>,
        out: &mut Vec<Effect<L>>,
    ) {
        self.spooling = false;
        let mut results = results.into_iter();
        let mut rest = Rest::AllRead;
        for id in self.window.spooling() {
            match results.next() {
                Some(Spooled::Stored(position)) => self.stored(id, position, &mut rest, out),
                Some(Spooled::Refused(reason)) => {
                    rest = Rest::Unread;
                    self.leave(id, Outcome::Refused(reason), out);
                }
                Some(Spooled::Gone) => self.leave(id, Outcome::Gone, out),
                None => self.leave(id, Outcome::Failed, out),
            }
        }
        if rest == Rest::Unread || matches!(self.state, State::CatchUp(_)) {
            self.catch_up_again();
            self.wake(out);
        }
        self.spool_if_due(out);
        self.close_if_drained();
    }

    fn stored(
        &mut self,
        id: SlotId,
        position: Position,
        rest: &mut Rest,
        out: &mut Vec<Effect<L>>,
    ) {
        let was_sent = match self.state {
            State::CatchUp(reader) | State::Live(reader) => id < reader.sent,
            State::Detached | State::Closed => false,
        };
        let Some(slot) = self.window.find_mut(id) else {
            return;
        };
        let key = slot.envelope.key;
        let Step::Spooling { legs, acked } = &mut slot.step else {
            return;
        };
        let acked = *acked;
        out.extend(legs.take().map(|leg| Effect::Resolve(leg, Outcome::Stored)));
        if acked {
            out.push(Effect::Delete(super::Row { position, key }));
            self.retire(id);
        } else if was_sent {
            slot.step = Step::Stored(position);
            self.window.strip(id);
        } else {
            self.window.remove(id);
            self.keys.forget(&key);
        }
        self.advance(position, acked || was_sent, rest);
    }

    /// Moves a live reader's cursor over a row that it got from memory. Rows between them came
    /// past the lane, and have to be read.
    fn advance(&mut self, position: Position, in_hand: bool, rest: &mut Rest) {
        let State::Live(reader) = &mut self.state else {
            return;
        };
        if *rest == Rest::Unread || position <= reader.cursor {
            return;
        }
        if in_hand && position == reader.cursor.next() {
            reader.cursor = position;
        } else {
            *rest = Rest::Unread;
        }
    }

    /// Takes a slot of the batch out that did not get a row.
    fn leave(&mut self, id: SlotId, outcome: Outcome, out: &mut Vec<Effect<L>>) {
        match self.window.find(id).map(|slot| &slot.step) {
            Some(Step::Spooling { acked: true, .. }) => self.retire(id),
            _ => self.drop_slot(id, outcome, out),
        }
    }

    /// The batch failed for good, or its outcome stayed unknown for too long.
    ///
    /// Everything that is not resolved fails with it, so that its authors send it again in order.
    pub fn spool_failed(&mut self, out: &mut Vec<Effect<L>>) {
        self.spooling = false;
        for id in self.window.ids() {
            let is_stored = self
                .window
                .find(id)
                .is_some_and(|slot| matches!(slot.step, Step::Stored(_)));
            if !is_stored {
                self.leave(id, Outcome::Failed, out);
            }
        }
        // Some of it may be committed after all.
        self.catch_up_again();
        self.wake(out);
        self.close_if_drained();
    }
}

/// Whether the store holds rows that a live reader has not seen.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Rest {
    AllRead,
    Unread,
}
