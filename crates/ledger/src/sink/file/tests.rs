//! The file keeps what it was given, through crashes, and shows what was done to it.

use commucat_proto::time::Timestamp;

use super::*;
use crate::conformance::{Durability, check};
use crate::entry::Change;

fn entry(index: u64) -> Entry {
    let change = Change::ServerKeysChanged {
        serial: index,
        statement: Hash::of_body(b"s"),
    };
    Entry::new(index, Timestamp::from_millis(1_767_225_600_000), change)
}

/// A ledger of three entries, closed.
fn ledger() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger.jsonl");
    let mut sink = FileSink::open(&path).unwrap();
    sink.append(&[entry(0), entry(1), entry(2)]).unwrap();
    (directory, path)
}

fn broken(path: &Path) -> (u64, &'static str) {
    let before = std::fs::read(path).unwrap();
    let error = FileSink::open(path).unwrap_err();
    assert_eq!(
        std::fs::read(path).unwrap(),
        before,
        "a broken file is left as it is"
    );
    let FileError::Broken { line, reason, .. } = error else {
        panic!("{error}")
    };
    (line, reason)
}

#[test]
fn the_file_sink_conforms() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger.jsonl");

    let open = || FileSink::open(&path).map_err(|error| SinkError::Io(io::Error::other(error)));
    check(open, Durability::Kept).unwrap();
}

#[test]
fn a_line_can_be_checked_with_text_tools() {
    let (_directory, path) = ledger();

    let text = std::fs::read_to_string(&path).unwrap();

    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 3);
    let zeros = "0".repeat(64);
    assert!(lines[0].contains(&format!(r#""previous":"{zeros}""#)));
    let (body, tail) = lines[0].split_at(lines[0].len() - 75);
    let hash = HEXLOWER.encode(blake3::hash(body.as_bytes()).as_bytes());
    assert_eq!(tail, format!(r#","hash":"{hash}"}}"#));
    assert!(lines[1].contains(&format!(r#""previous":"{hash}""#)));
}

#[test]
fn a_line_that_a_crash_cut_off_anywhere_is_removed_and_written_again() {
    let (_directory, path) = ledger();
    let whole = std::fs::read(&path).unwrap();
    let second = whole.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    let third = second
        + whole[second..]
            .iter()
            .position(|byte| *byte == b'\n')
            .unwrap()
        + 1;

    for cut in third..whole.len() {
        std::fs::write(&path, &whole[..cut]).unwrap();
        let mut sink = FileSink::open(&path).unwrap();
        assert_eq!(sink.next_index(), 2, "cut at {cut}");
        sink.append(&[entry(2)]).unwrap();
        drop(sink);
        assert!(std::fs::read(&path).unwrap() == whole, "cut at {cut}");
    }
}

#[test]
fn a_tail_of_zeros_that_a_crash_left_is_removed() {
    let (_directory, path) = ledger();
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, [whole.as_slice(), &[0; 300]].concat()).unwrap();

    let sink = FileSink::open(&path).unwrap();

    assert_eq!(sink.next_index(), 3);
    assert!(std::fs::read(&path).unwrap() == whole);
}

#[test]
fn any_changed_byte_is_found() {
    let (_directory, path) = ledger();
    let whole = std::fs::read(&path).unwrap();

    for at in 0..whole.len() - 1 {
        let mut changed = whole.clone();
        changed[at] ^= 1;
        std::fs::write(&path, &changed).unwrap();
        let line = whole[..at].iter().filter(|byte| **byte == b'\n').count() + 1;
        assert_eq!(broken(&path).0, u64::try_from(line).unwrap(), "byte {at}");
    }
}

#[test]
fn a_missing_moved_or_repeated_line_is_found() {
    let (_directory, path) = ledger();
    let text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = text.split_inclusive('\n').collect();

    for (what, kept) in [
        ("missing", vec![lines[0], lines[2]]),
        ("moved", vec![lines[0], lines[2], lines[1]]),
        ("repeated", vec![lines[0], lines[0], lines[1]]),
    ] {
        std::fs::write(&path, kept.concat()).unwrap();
        assert_eq!(
            broken(&path),
            (2, "the line does not follow the one before"),
            "{what}"
        );
    }
    std::fs::write(&path, lines[1]).unwrap();
    assert_eq!(broken(&path).0, 1, "the first is missing");
}

#[test]
fn a_line_without_end_is_not_read_into_memory() {
    let (_directory, path) = ledger();
    std::fs::write(&path, vec![b'x'; 100_000]).unwrap();

    assert_eq!(broken(&path), (1, "the line is too long"));
}

#[test]
fn a_second_process_is_kept_out() {
    let (_directory, path) = ledger();
    let first = FileSink::open(&path).unwrap();

    assert!(matches!(
        FileSink::open(&path),
        Err(FileError::InUse { .. })
    ));
    drop(first);
    assert!(FileSink::open(&path).is_ok());
}

#[test]
fn the_head_is_rebuilt_from_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger.jsonl");
    let mut sink = FileSink::open(&path).unwrap();
    assert_eq!(sink.head(), None);
    sink.append(&[entry(0), entry(1)]).unwrap();
    let head = sink.head();
    drop(sink);

    assert!(head.is_some());
    assert_eq!(FileSink::open(&path).unwrap().head(), head);
}

#[test]
fn what_a_failed_append_left_behind_is_removed_before_the_next() {
    let (_directory, path) = ledger();
    let whole = std::fs::read(&path).unwrap();
    let mut sink = FileSink::open(&path).unwrap();
    sink.file.write_all(b"half of a li").unwrap();
    sink.dirty = true;

    sink.append(&[entry(3)]).unwrap();
    drop(sink);

    assert!(std::fs::read(&path).unwrap().starts_with(&whole));
    assert_eq!(FileSink::open(&path).unwrap().next_index(), 4);
}

#[cfg(unix)]
#[test]
fn only_the_owner_may_read_the_file() {
    use std::os::unix::fs::PermissionsExt;

    let (_directory, path) = ledger();

    assert_eq!(
        std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
}

#[test]
fn a_file_that_cannot_be_opened_is_named() {
    let directory = tempfile::tempdir().unwrap();

    let error = FileSink::open(&directory.path().join("missing/ledger.jsonl")).unwrap_err();

    assert!(
        error
            .to_string()
            .ends_with("missing/ledger.jsonl` cannot be used"),
        "{error}"
    );
}
