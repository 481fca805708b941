//! The contract of [`Sink`] as a check that any implementation can run in its tests.

use commucat_proto::time::Timestamp;

use crate::entry::{Change, Entry, Hash};
use crate::sink::{Sink, SinkError};

/// Whether a sink keeps entries when it is opened anew.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Durability {
    /// Entries are there again, as for files and databases.
    Kept,
    /// The sink starts empty, as for logs.
    Forgotten,
}

/// What a sink does wrong.
#[derive(Debug, thiserror::Error)]
pub enum Violation {
    /// An operation failed that has to succeed.
    #[error("{step}: the sink failed")]
    Failed {
        /// What was tried.
        step: &'static str,
        /// What the sink said.
        source: SinkError,
    },
    /// The sink did something else than it has to.
    #[error("{step}: next index {found} instead of {expected}")]
    NextIndex {
        /// What was tried.
        step: &'static str,
        /// The index that the contract asks for.
        expected: u64,
        /// The index that the sink has.
        found: u64,
    },
    /// The sink took an entry beyond the next one.
    #[error("the sink took an entry after a gap")]
    TookGap,
}

/// Runs the contract against sinks made by `open`, which opens the same place each time; the place
/// is empty at first.
///
/// # Errors
///
/// The first [`Violation`].
pub fn check<S: Sink>(
    mut open: impl FnMut() -> Result<S, SinkError>,
    durability: Durability,
) -> Result<(), Violation> {
    let mut reopen = |step| open().map_err(|source| Violation::Failed { step, source });
    let mut sink = reopen("open an empty place")?;
    expect("open an empty place", &sink, 0)?;
    append("append nothing", &mut sink, &[])?;
    expect("append nothing", &sink, 0)?;
    append("append one", &mut sink, &entries(0, 1))?;
    expect("append one", &sink, 1)?;
    append("append many", &mut sink, &entries(1, 40))?;
    expect("append many", &sink, 41)?;
    append("repeat what was kept", &mut sink, &entries(1, 40))?;
    expect("repeat what was kept", &sink, 41)?;
    append("repeat with more", &mut sink, &entries(39, 4))?;
    expect("repeat with more", &sink, 43)?;
    match sink.append(&entries(44, 1)) {
        Err(SinkError::OutOfOrder {
            expected: 43,
            found: 44,
        }) => {}
        Ok(()) | Err(_) => return Err(Violation::TookGap),
    }
    expect("refuse a gap", &sink, 43)?;
    append("go on after a refusal", &mut sink, &entries(43, 1))?;
    drop(sink);

    let mut sink = reopen("open again")?;
    let next = match durability {
        Durability::Kept => 44,
        Durability::Forgotten => 0,
    };
    expect("open again", &sink, next)?;
    append("append after opening again", &mut sink, &entries(next, 2))?;
    expect("append after opening again", &sink, next + 2)
}

fn append<S: Sink>(step: &'static str, sink: &mut S, entries: &[Entry]) -> Result<(), Violation> {
    sink.append(entries)
        .map_err(|source| Violation::Failed { step, source })
}

fn expect<S: Sink>(step: &'static str, sink: &S, expected: u64) -> Result<(), Violation> {
    let found = sink.next_index();
    if found == expected {
        Ok(())
    } else {
        Err(Violation::NextIndex {
            step,
            expected,
            found,
        })
    }
}

fn entries(first: u64, count: u64) -> Vec<Entry> {
    let entry = |index| {
        let change = Change::ServerKeysChanged {
            serial: index,
            statement: Hash::of_body(b"conformance"),
        };
        Entry::new(index, Timestamp::from_millis(1_767_225_600_000), change)
    };
    (first..first.saturating_add(count)).map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::debug::DebugSink;
    use crate::sink::null::NullSink;

    #[test]
    fn the_null_sink_conforms() {
        check(|| Ok(NullSink::default()), Durability::Forgotten).unwrap();
    }

    #[test]
    fn the_debug_sink_conforms() {
        check(|| Ok(DebugSink::default()), Durability::Forgotten).unwrap();
    }

    /// Keeps whatever it is given.
    struct Careless(u64);

    impl Sink for Careless {
        fn next_index(&self) -> u64 {
            self.0
        }

        fn append(&mut self, entries: &[Entry]) -> Result<(), SinkError> {
            self.0 += u64::try_from(entries.len()).unwrap();
            Ok(())
        }
    }

    #[test]
    fn a_sink_that_keeps_repeats_or_forgets_does_not_conform() {
        let repeats = check(|| Ok(Careless(0)), Durability::Forgotten);
        assert!(matches!(
            repeats,
            Err(Violation::NextIndex {
                step: "repeat what was kept",
                expected: 41,
                found: 81
            })
        ));
        let forgets = check(|| Ok(NullSink::default()), Durability::Kept);
        assert!(matches!(
            forgets,
            Err(Violation::NextIndex {
                step: "open again",
                ..
            })
        ));
    }
}
