//! The far end of a lane: it attaches, reads the store to its end, then takes entries from memory.

use commucat_proto::id::DedupeKey;

use super::entry::{Attachment, Delivery, Effect, Page, Place, Position, Pumped, SlotId};
use super::window::{Slot, Step};
use super::{Known, Lane, Reader, State};

impl<L> Lane<L> {
    /// A connection takes the queue; the session pumps next.
    ///
    /// It reads the store from the beginning: everything unacknowledged is sent again.
    pub fn attach(&mut self, id: Attachment, out: &mut Vec<Effect<L>>) {
        if self.state == State::Closed {
            return;
        }
        if let Some(old) = self.attachment() {
            out.push(Effect::Replaced(old));
        }
        self.forget_stored();
        self.state = State::CatchUp(Reader::new(id));
        #[cfg(test)]
        if self.planted == Some(crate::explore::bugs::Bug::OutboxOvertaken) {
            self.state = State::Live(Reader::new(id));
        }
    }

    /// A connection has ended. Of one that was replaced nothing changes.
    ///
    /// Tell the lane the last acknowledgements of the connection first.
    pub fn detach(&mut self, id: Attachment, out: &mut Vec<Effect<L>>) {
        if self.attachment() != Some(id) {
            return;
        }
        self.forget_stored();
        self.state = State::Detached;
        self.spool_if_due(out);
    }

    /// The connection that has the queue.
    #[must_use]
    pub const fn attachment(&self) -> Option<Attachment> {
        match self.state {
            State::CatchUp(reader) | State::Live(reader) => Some(reader.id),
            State::Detached | State::Closed => None,
        }
    }

    /// Hands over what can be sent now, as much as fits into `room` bytes (at least one entry if
    /// there is any room), and says what to do next.
    pub fn pump(&mut self, id: Attachment, room: usize, sends: &mut Vec<Delivery>) -> Pumped {
        let least = self.settings.entry_bytes_min.max(1);
        match &mut self.state {
            State::Live(reader) if reader.id == id => {
                let mut left = room;
                for slot in self.window.from(reader.sent) {
                    if left == 0 {
                        return Pumped::Full;
                    }
                    left = left.saturating_sub(slot.envelope.body.len().max(least));
                    reader.sent = SlotId(slot.id.0.wrapping_add(1));
                    sends.extend(delivery(slot));
                }
                reader.asleep = true;
                Pumped::Idle
            }
            State::CatchUp(reader) if reader.id == id => {
                if reader.reading {
                    return Pumped::Reading;
                }
                if room == 0 {
                    return Pumped::Full;
                }
                if !reader.unread {
                    reader.asleep = true;
                    return Pumped::Idle;
                }
                reader.reading = true;
                reader.unread = false;
                Pumped::ReadPage {
                    after: reader.cursor,
                }
            }
            State::Live(_) | State::CatchUp(_) | State::Detached | State::Closed => {
                Pumped::Detached
            }
        }
    }

    /// The page that [`Pumped::ReadPage`] asked for.
    ///
    /// The last one ends the reading, unless the store has moved since it was asked for.
    pub fn page(&mut self, id: Attachment, page: Page, sends: &mut Vec<Delivery>) -> Pumped {
        let State::CatchUp(mut reader) = self.state else {
            return Pumped::Detached;
        };
        if reader.id != id {
            return Pumped::Detached;
        }
        reader.reading = false;
        reader.unread |= page.more;
        for (position, envelope) in page.rows {
            reader.cursor = reader.cursor.max(position);
            if !self.is_in_hand(reader, position, &envelope.key) {
                sends.push(Delivery {
                    place: Place::Row(position),
                    envelope,
                });
            }
        }
        if reader.unread || self.draining || self.awaits_rows(reader) {
            self.state = State::CatchUp(reader);
            return Pumped::More;
        }
        reader.cursor = reader.cursor.max(page.head);
        self.state = State::Live(reader);
        Pumped::Emptied
    }

    /// Whether the running transaction holds entries that the session has to get as rows.
    fn awaits_rows(&self, reader: Reader) -> bool {
        let is_unsent = |slot: &Slot<L>| matches!(slot.step, Step::Spooling { acked: false, .. });
        self.window.from(reader.sent).any(is_unsent)
    }

    /// Whether a row is one that the session got from memory on this attachment, so that the
    /// acknowledgement of that sending deletes it; or one that was acknowledged while it was
    /// written, so that the end of its transaction does.
    fn is_in_hand(&self, reader: Reader, position: Position, key: &DedupeKey) -> bool {
        let Some(Known::Window(slot)) = self.keys.find(key) else {
            return false;
        };
        let was_sent = slot < reader.sent;
        match self.window.find(slot).map(|slot| &slot.step) {
            Some(Step::Stored(at)) => was_sent && *at == position,
            Some(Step::Spooling { acked, .. }) => was_sent || *acked,
            Some(Step::Held { .. }) | None => false,
        }
    }

    /// The page could not be read: pump again after a back-off.
    pub fn page_failed(&mut self, id: Attachment) {
        if let State::CatchUp(reader) = &mut self.state
            && reader.id == id
        {
            reader.reading = false;
            reader.unread = true;
        }
    }

    /// Rows were inserted past the lane (a commit's transaction), before its result is sent.
    pub fn poke(&mut self, out: &mut Vec<Effect<L>>) {
        self.catch_up_again();
        self.wake(out);
    }

    /// The store's highest position of this queue, from a periodic look (a poke may get lost
    /// between nodes).
    pub fn poll(&mut self, head: Position, out: &mut Vec<Effect<L>>) {
        if let State::CatchUp(reader) | State::Live(reader) = self.state
            && head > reader.cursor
            && !self.spooling
        {
            self.poke(out);
        }
    }

    /// Whether a periodic look would turn the reader to the store.
    #[cfg(test)]
    pub(crate) fn is_behind(&self, head: Position) -> bool {
        match self.state {
            State::CatchUp(reader) | State::Live(reader) => head > reader.cursor && !self.spooling,
            State::Detached | State::Closed => false,
        }
    }

    /// Turns a live lane back to the store, and notes that there may be something to read.
    pub(super) fn catch_up_again(&mut self) {
        if let State::CatchUp(reader) | State::Live(reader) = self.state {
            self.state = State::CatchUp(Reader {
                unread: true,
                ..reader
            });
        }
    }

    pub(super) fn wake(&mut self, out: &mut Vec<Effect<L>>) {
        if let State::CatchUp(reader) | State::Live(reader) = &mut self.state
            && std::mem::take(&mut reader.asleep)
        {
            out.push(Effect::Wake(reader.id));
        }
    }

    /// Stored entries leave the window: the next attachment finds them in the store.
    fn forget_stored(&mut self) {
        for id in self.window.ids() {
            if self
                .window
                .find(id)
                .is_some_and(|slot| matches!(slot.step, Step::Stored(_)))
                && let Some(slot) = self.window.remove(id)
            {
                self.keys.forget(&slot.envelope.key);
            }
        }
    }
}

/// What to send of a slot; nothing of one that was acknowledged already or is on disk.
fn delivery<L>(slot: &Slot<L>) -> Option<Delivery> {
    match slot.step {
        Step::Held { .. } | Step::Spooling { acked: false, .. } => Some(Delivery {
            place: Place::Window(slot.id),
            envelope: slot.envelope.clone(),
        }),
        Step::Spooling { acked: true, .. } | Step::Stored(_) => None,
    }
}
