//! Audit log of key changes with exchangeable sinks.
//!
//! Each registration and each change of a key becomes an [`Entry`]. The [`Ledger`] handle takes
//! entries, one [`Sink`] keeps them, and a caller goes on only when it has: whoever acknowledges a
//! key change to a client records it first.
//!
//! What the ledger holds of people is described at [`Change`]: hashes, versions and minutes.

pub mod conformance;
mod entry;
mod known;
mod sink;
mod writer;

pub use self::entry::{AccountMark, Change, DeviceMark, Entry, Hash};
pub use self::known::Known;
pub use self::sink::debug::DebugSink;
pub use self::sink::file::{FileError, FileSink};
pub use self::sink::null::NullSink;
pub use self::sink::{Sink, SinkError};
pub use self::writer::{Ledger, RecordError, Status, Worker};
