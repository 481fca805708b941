//! Notes what all devices of a test do and see, while they do it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use commucat_proto::id::MessageId;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::history::{Act, Entry, History, Key};

/// How far a test is.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Progress {
    /// Acts noted.
    pub acts: usize,
    /// Messages acknowledged to their authors.
    pub acknowledged: usize,
    /// Showings of acknowledged messages that are still to come.
    pub missing: usize,
}

/// The one notebook of a test. Clones write into the same.
#[derive(Clone, Debug)]
pub struct Recorder {
    started: Instant,
    notes: Arc<Mutex<Notes>>,
    progress: Arc<watch::Sender<Progress>>,
}

#[derive(Debug, Default)]
struct Notes {
    history: History,
    keys: HashMap<MessageId, Key>,
    /// Acknowledged before the author's call returned.
    early: HashSet<MessageId>,
    acknowledged: HashSet<Key>,
    shown: HashSet<(Key, usize)>,
    missing: usize,
}

impl Recorder {
    /// For devices in these rooms.
    #[must_use]
    pub fn new(rooms: Vec<Vec<usize>>) -> Self {
        let notes = Notes {
            history: History {
                rooms,
                entries: Vec::new(),
            },
            ..Notes::default()
        };
        Self {
            started: Instant::now(),
            notes: Arc::new(Mutex::new(notes)),
            progress: Arc::new(watch::Sender::default()),
        }
    }

    /// Before the message is handed to the client.
    pub fn sends(&self, key: Key) {
        self.note(|notes| notes.add(self.started, key.author, Act::Send(key)));
    }

    /// The client took the message under this id.
    pub fn took(&self, key: Key, id: MessageId) {
        self.note(|notes| {
            notes.keys.insert(id, key);
            if notes.early.remove(&id) {
                notes.acknowledge(self.started, key);
            }
        });
    }

    /// The author is told that the server has custody of a message.
    pub fn acknowledged_id(&self, id: MessageId) {
        self.note(|notes| match notes.keys.get(&id).copied() {
            Some(key) => notes.acknowledge(self.started, key),
            None => drop(notes.early.insert(id)),
        });
    }

    /// The same, of a message that is known by its text.
    pub fn acknowledged(&self, key: Key) {
        self.note(|notes| notes.acknowledge(self.started, key));
    }

    /// A device shows a text in a room; those of the preparation do not count.
    pub fn shows(&self, device: usize, room: usize, text: &str) {
        if text == crate::people::PREPARATION {
            return;
        }
        self.note(|notes| match Key::parse(text) {
            Some(key) if key.room == room => notes.show(self.started, device, key),
            _ => notes.add(self.started, device, Act::ShowUnknown),
        });
    }

    fn note(&self, write: impl FnOnce(&mut Notes)) {
        let mut notes = self.notes.lock();
        write(&mut notes);
        self.progress.send_replace(Progress {
            acts: notes.history.entries.len(),
            acknowledged: notes.acknowledged.len(),
            missing: notes.missing,
        });
    }

    /// How far it is, and word of each change.
    #[must_use]
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    /// All that happened.
    #[must_use]
    pub fn history(&self) -> History {
        self.notes.lock().history.clone()
    }
}

impl Notes {
    fn add(&mut self, started: Instant, device: usize, act: Act) {
        let at_us = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.history.entries.push(Entry { at_us, device, act });
    }

    fn acknowledge(&mut self, started: Instant, key: Key) {
        if !self.acknowledged.insert(key) {
            return;
        }
        self.add(started, key.author, Act::Ack(key));
        let devices = self.history.rooms.get(key.room).into_iter().flatten();
        let missing = devices.filter(|device| !self.shown.contains(&(key, **device)));
        self.missing += missing.count();
    }

    fn show(&mut self, started: Instant, device: usize, key: Key) {
        self.add(started, device, Act::Show(key));
        let is_first = self.shown.insert((key, device));
        let rooms = &self.history.rooms;
        let is_in = |devices: &Vec<usize>| devices.contains(&device);
        if is_first && self.acknowledged.contains(&key) && rooms.get(key.room).is_some_and(is_in) {
            self.missing = self.missing.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_counted_whatever_comes_first() {
        let recorder = Recorder::new(vec![vec![0, 1, 2]]);
        let [first, second] = [1, 2].map(|number| Key {
            room: 0,
            author: 0,
            number,
        });
        let id = MessageId::new([7; MessageId::LEN]);
        let missing = || recorder.progress().borrow().missing;

        recorder.sends(first);
        recorder.shows(1, 0, &first.text());
        recorder.acknowledged_id(id);
        let before = missing();
        recorder.took(first, id);
        recorder.acknowledged(first);
        let after = missing();
        recorder.shows(0, 0, &first.text());
        recorder.shows(2, 0, &first.text());
        recorder.shows(2, 0, &first.text());
        recorder.sends(second);
        recorder.shows(2, 0, crate::people::PREPARATION);

        assert_eq!((before, after, missing()), (0, 2, 0));
        assert_eq!(recorder.history().entries.len(), 7);
        assert_eq!(
            crate::checker::check(&recorder.history()).twice,
            [(first, 2)]
        );
    }
}
