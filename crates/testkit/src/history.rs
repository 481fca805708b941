//! What happened, as each device saw it: sent, acknowledged, shown.

use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::path::Path;

use serde::Serialize;

/// One message of a test: the `number`-th of a device in a room. Numbers begin at 1.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct Key {
    /// Which conversation, as an index of [`History::rooms`].
    pub room: usize,
    /// The author's device.
    pub author: usize,
    /// Its place in the author's order.
    pub number: u64,
}

impl Key {
    /// The message's text.
    #[must_use]
    pub fn text(&self) -> String {
        format!("r{} a{} n{}", self.room, self.author, self.number)
    }

    /// The message of a text; `None` for a text that no test wrote.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        let mut word = |prefix| words.next()?.strip_prefix(prefix);
        let key = Self {
            room: word("r")?.parse().ok()?,
            author: word("a")?.parse().ok()?,
            number: word("n")?.parse().ok()?,
        };
        (key.text() == text).then_some(key)
    }
}

/// Something that a device did or saw.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Act {
    /// The application of the author's device hands a message over.
    Send(Key),
    /// The author's device is told that the server has custody.
    Ack(Key),
    /// A device shows a message.
    Show(Key),
    /// A device shows what nobody wrote.
    ShowUnknown,
}

/// An act, where and when.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Entry {
    /// Monotonic time since the start, in microseconds.
    pub at_us: u64,
    /// The device.
    pub device: usize,
    /// What.
    pub act: Act,
}

/// All acts in the order in which they happened, and who is in which room.
#[derive(Clone, Debug, Default, Serialize)]
pub struct History {
    /// The devices of each room.
    pub rooms: Vec<Vec<usize>>,
    /// What happened.
    pub entries: Vec<Entry>,
}

impl History {
    /// Writes it as JSON lines: the rooms, then one entry a line.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let mut out = BufWriter::new(File::create(path)?);
        serde_json::to_writer(&mut out, &self.rooms)?;
        for entry in &self.entries {
            out.write_all(b"\n")?;
            serde_json::to_writer(&mut out, entry)?;
        }
        out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_from_its_own_text_and_from_no_other() {
        let key = Key {
            room: 1,
            author: 23,
            number: 456,
        };

        assert_eq!(key.text(), "r1 a23 n456");
        assert_eq!(Key::parse("r1 a23 n456"), Some(key));
        for wrong in [
            "",
            "hello",
            "r1 a23",
            "r1 a23 n456 ",
            "r01 a23 n456",
            "r1 a23 n-4",
        ] {
            assert_eq!(Key::parse(wrong), None, "{wrong}");
        }
    }
}
