//! A lane: one queue in use, with the window of entries in memory and the only right to spool them.
//!
//! The same machine serves a device's mailbox and a peer's lane; only the far end and the meaning of
//! its acknowledgement differ ([`Settings::answer`]). It keeps the rules of custody: entries resolve
//! oldest first, what is spooled is always the whole unspooled front, a repeat joins the entry held,
//! deletion names position and key, and an acknowledgement of a replaced connection is still true.
//!
//! The caller owns clock, store and sessions: it calls methods, then carries out the [`Effect`]s
//! pushed into its buffer, in order, and may do so after it let go of its lock on the lane.

mod attach;
mod entry;
mod keys;
mod spool;
#[cfg(test)]
mod tests;
mod window;

use std::time::{Duration, Instant};

pub use self::entry::{
    Attachment, Closed, Delivery, Effect, Envelope, Page, Place, Position, Pumped, Row, SentEntry,
    SlotId, Spooled,
};
use self::keys::{Keys, Known};
use self::window::{Step, Window};
#[cfg(test)]
use crate::explore::bugs::Bug;
use crate::ticket::Outcome;

/// While a transaction runs for long, the window grows to this many times its bound; what comes
/// then fails at once, and its author sends it again.
const WINDOWS_MAX: usize = 4;

/// What distinguishes lanes.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// `T`: how long the front may wait in memory for an attached far end (250 ms; a peer: 1 s).
    pub hold: Duration,
    /// Beyond this many bytes in memory the window is spooled (1 MiB).
    pub window_bytes: usize,
    /// How many acknowledged keys are remembered (256). A repeat comes when its author has lost an
    /// ACK, that is soon; one that comes later is delivered again, and dropped by the far end. Each
    /// costs some 80 bytes in every busy lane.
    pub acked_keys: usize,
    /// What an acknowledgement of the far end means for the author: `Delivered` by a device,
    /// `Relayed` by a peer.
    pub answer: Outcome,
    /// What the smallest entry takes of the room that [`Lane::pump`] is given, in bytes: with it a
    /// bound on bytes bounds their number too.
    pub entry_bytes_min: usize,
}

impl Settings {
    /// A device's mailbox as CCP-1 section 4 has it.
    #[must_use]
    pub const fn mailbox() -> Self {
        Self {
            hold: Duration::from_millis(250),
            window_bytes: 1 << 20,
            acked_keys: 256,
            answer: Outcome::Delivered,
            entry_bytes_min: 1,
        }
    }
}

/// Whether the far end is there, and how far it has read.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
enum State {
    /// Nobody is attached: everything is spooled at once.
    Detached,
    /// The far end reads the store; nothing goes out from memory.
    CatchUp(Reader),
    /// The store is read to its end; entries go out from memory.
    Live(Reader),
    /// Out of the map for good.
    Closed,
}

/// One attachment's progress.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
struct Reader {
    id: Attachment,
    /// Every row up to here was sent on this attachment, or is deleted, or will be.
    cursor: Position,
    /// The store may hold rows above the cursor (meaningful while catching up).
    unread: bool,
    /// A page is on its way.
    reading: bool,
    /// The session waits for a wake.
    asleep: bool,
    /// Window slots below this id were sent on this attachment.
    sent: SlotId,
}

impl Reader {
    const fn new(id: Attachment) -> Self {
        Self {
            id,
            cursor: Position::new(0),
            unread: true,
            reading: false,
            asleep: false,
            sent: SlotId(0),
        }
    }
}

/// One queue in use. See the module's documentation.
#[derive(Clone, Debug)]
pub struct Lane<L> {
    settings: Settings,
    state: State,
    draining: bool,
    window: Window<L>,
    keys: Keys,
    /// A batch is out; at most one at a time.
    spooling: bool,
    #[cfg(test)]
    pub(crate) planted: Option<Bug>,
}

impl<L> Lane<L> {
    /// A lane to which nobody is attached.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            state: State::Detached,
            draining: false,
            window: Window::new(),
            keys: Keys::new(settings.acked_keys),
            spooling: false,
            #[cfg(test)]
            planted: None,
        }
    }

    /// Takes custody of one entry for the leg's ticket.
    ///
    /// A repeat of a key in the window joins it, one of a key that the far end acknowledged is
    /// answered, everything else is new. If the window is at its bound while a transaction
    /// runs, the leg fails.
    ///
    /// # Errors
    ///
    /// [`Closed`] gives envelope and leg back: the lane has left the map, look again.
    pub fn append(
        &mut self,
        envelope: Envelope,
        leg: L,
        now: Instant,
        out: &mut Vec<Effect<L>>,
    ) -> Result<(), Closed<L>> {
        if self.state == State::Closed {
            return Err(Closed { envelope, leg });
        }
        if self.is_overfull() && self.keys.find(&envelope.key).is_none() {
            out.push(Effect::Resolve(leg, Outcome::Failed));
            return Ok(());
        }
        match self.keys.find_or_insert(envelope.key, self.window.next()) {
            Some(Known::Acked) => out.push(Effect::Resolve(leg, self.settings.answer)),
            Some(Known::Window(slot)) => self.join(slot, leg, out),
            None => self.hold(envelope, leg, now, out),
        }
        Ok(())
    }

    /// Takes an entry, whose key is noted, into the window.
    fn hold(&mut self, envelope: Envelope, leg: L, now: Instant, out: &mut Vec<Effect<L>>) {
        self.window.push(envelope, leg, now);
        self.spool_if_due(out);
        if matches!(self.state, State::Live(_)) {
            self.wake(out);
        }
    }

    fn join(&mut self, slot: SlotId, leg: L, out: &mut Vec<Effect<L>>) {
        let answer = self.settings.answer;
        #[cfg(test)]
        if self.planted == Some(Bug::EarlyAckOfRepeat) {
            out.push(Effect::Resolve(leg, answer));
            return;
        }
        let effect = match self.window.find_mut(slot).map(|slot| &mut slot.step) {
            None => Some(Effect::Resolve(leg, Outcome::Failed)),
            Some(Step::Stored(_)) => Some(Effect::Resolve(leg, Outcome::Stored)),
            // A far end that is asked again for every repeat may have refused the entry: its answer
            // went to those who waited then. Whoever repeats it now keeps it and sends it again.
            Some(Step::Spooling { acked: true, .. }) if self.settings.acked_keys == 0 => {
                Some(Effect::Resolve(leg, Outcome::Failed))
            }
            Some(Step::Spooling { acked: true, .. }) => Some(Effect::Resolve(leg, answer)),
            Some(Step::Held { legs } | Step::Spooling { legs, acked: false }) => legs
                .join(leg)
                .map(|oldest| Effect::Resolve(oldest, Outcome::Failed)),
        };
        out.extend(effect);
    }

    /// The far end acknowledged entries that a session sent on any attachment, also a replaced one.
    ///
    /// `sent` is oldest first, as [`Unacked`](crate::unacked::Unacked) yields it. Constant time for
    /// each entry at the front.
    pub fn acked(&mut self, sent: impl IntoIterator<Item = SentEntry>, out: &mut Vec<Effect<L>>) {
        for entry in sent {
            match entry.place {
                Place::Row(position) => {
                    out.push(Effect::Delete(Row {
                        position,
                        key: entry.key,
                    }));
                    self.remember(entry);
                }
                Place::Window(slot) => self.acked_slot(slot, entry, out),
            }
        }
        self.close_if_drained();
    }

    fn acked_slot(&mut self, id: SlotId, entry: SentEntry, out: &mut Vec<Effect<L>>) {
        let answer = self.settings.answer;
        let slot = self
            .window
            .find_mut(id)
            .filter(|slot| slot.envelope.key == entry.key);
        match slot.map(|slot| &mut slot.step) {
            None => self.remember(entry),
            Some(Step::Spooling { legs, acked }) => {
                // The row may appear any moment: it is deleted when the transaction has ended.
                *acked = true;
                out.extend(legs.take().map(|leg| Effect::Resolve(leg, answer)));
                #[cfg(test)]
                if self.planted == Some(Bug::AckDuringSpooling) {
                    *acked = false;
                }
            }
            Some(Step::Held { legs }) => {
                out.extend(legs.take().map(|leg| Effect::Resolve(leg, answer)));
                self.retire(id);
            }
            Some(Step::Stored(position)) => {
                let position = *position;
                out.push(Effect::Delete(Row {
                    position,
                    key: entry.key,
                }));
                self.retire(id);
            }
        }
    }

    /// Takes an acknowledged slot out of the window and remembers its key.
    fn retire(&mut self, id: SlotId) {
        if let Some(slot) = self.window.remove(id) {
            self.keys.acknowledged(slot.envelope.key);
        }
    }

    /// Remembers an acknowledged key, unless a repeat of it waits in the window: that one is
    /// answered by its own acknowledgement.
    fn remember(&mut self, entry: SentEntry) {
        if !matches!(self.keys.find(&entry.key), Some(Known::Window(_))) {
            self.keys.acknowledged(entry.key);
        }
    }

    /// Never holds anything in memory again: the node stops.
    ///
    /// The lane closes by itself when the last entry has left it.
    pub fn drain(&mut self, out: &mut Vec<Effect<L>>) {
        if self.state == State::Closed {
            return;
        }
        self.draining = true;
        self.catch_up_again();
        self.spool_if_due(out);
        self.close_if_drained();
    }

    /// The device was revoked: its queue is gone with everything in it.
    ///
    /// Ends the lane; a batch that is still out is of no interest any more.
    pub fn revoke(&mut self, out: &mut Vec<Effect<L>>) {
        for id in self.window.ids() {
            self.drop_slot(id, Outcome::Gone, out);
        }
        self.state = State::Closed;
    }

    /// Closes the lane if nobody is attached, nothing is in memory and no batch is out.
    ///
    /// Call it, and on `true` remove the lane, under one hold of the map's lock.
    pub fn close_if_idle(&mut self) -> bool {
        if self.state == State::Detached && self.window.is_empty() && !self.spooling {
            self.state = State::Closed;
        }
        self.state == State::Closed
    }

    /// Forgets the acknowledged keys, up to some 20 KiB in a busy lane: repeats of them are delivered
    /// again, and dropped by the far end. For when memory is short.
    pub fn forget_acked(&mut self) {
        self.keys.forget_acked();
    }

    /// Whether the lane has ended; appends come back.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    /// The bytes that the window takes, for the bound over all lanes.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.window.bytes()
    }

    /// The number of entries in the window.
    #[must_use]
    pub fn len(&self) -> usize {
        self.window.len()
    }

    /// Whether every entry in the window is on disk: no ticket waits for this lane.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        !self.spooling && self.window.first_held().is_none()
    }

    /// Whether the window is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.window.is_empty()
    }

    fn close_if_drained(&mut self) {
        if self.draining && self.window.is_empty() && !self.spooling {
            self.state = State::Closed;
        }
    }

    const fn is_overfull(&self) -> bool {
        self.window.bytes() >= self.settings.window_bytes.saturating_mul(WINDOWS_MAX)
    }

    /// Takes a slot out and resolves the legs that still wait for it.
    fn drop_slot(&mut self, id: SlotId, outcome: Outcome, out: &mut Vec<Effect<L>>) {
        let Some(slot) = self.window.remove(id) else {
            return;
        };
        self.keys.forget(&slot.envelope.key);
        if let Step::Held { mut legs } | Step::Spooling { mut legs, .. } = slot.step {
            out.extend(legs.take().map(|leg| Effect::Resolve(leg, outcome)));
        }
    }
}

#[cfg(test)]
impl<L: std::hash::Hash> Lane<L> {
    /// Everything that its behaviour depends on: times left out, slots counted from the next one and
    /// positions from the store's last, since nothing but their order and distance matters.
    pub(crate) fn digest(&self, last: u64, hasher: &mut impl std::hash::Hasher) {
        use std::hash::Hash;

        std::mem::discriminant(&self.state).hash(hasher);
        if let State::CatchUp(reader) | State::Live(reader) = self.state {
            (reader.id, last.wrapping_sub(reader.cursor.get())).hash(hasher);
            (reader.unread, reader.reading, reader.asleep).hash(hasher);
            self.slot_age(reader.sent).hash(hasher);
        }
        (self.draining, self.spooling).hash(hasher);
        for slot in self.window.iter() {
            (self.slot_age(slot.id), slot.envelope.key).hash(hasher);
            match &slot.step {
                Step::Held { legs } => (0, legs).hash(hasher),
                Step::Spooling { legs, acked } => (1, legs, acked).hash(hasher),
                Step::Stored(position) => (2, last.wrapping_sub(position.get())).hash(hasher),
            }
        }
        for key in self.keys.acked() {
            key.hash(hasher);
        }
    }

    /// How many slots ago this one was given out.
    pub(crate) fn slot_age(&self, slot: SlotId) -> u64 {
        self.window.age(slot)
    }
}
