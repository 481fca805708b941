//! A sink that appends to a file of JSON lines, chained by BLAKE3.
//!
//! A line is `{"entry":{...},"previous":"<hash>","hash":"<hash>"}`. Its `hash` is BLAKE3 over the
//! line's own bytes in front of `,"hash":`, and `previous` is the `hash` of the line before (64
//! zeros in the first). So a changed, missing, moved or added line shows up, unless everything
//! behind it was made anew; against that helps only a head that was noted elsewhere.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use data_encoding::HEXLOWER;
use serde::Deserialize;

use super::{Sink, SinkError, new_entries};
use crate::entry::{Entry, Hash};
use crate::known::Known;

/// Longest line that is read; ours have less than 600 bytes.
const LINE_BYTES_MAX: u64 = 4_096;

const HASH_HEAD: &str = r#","hash":""#;
const HASH_TAIL: &str = "\"}";

/// How long the file's lock is tried. A process that has closed the file may still hold it for a moment:
/// whatever it started shares its files until it has begun its own program.
const LOCK_WAIT: Duration = Duration::from_millis(500);
const LOCK_RETRY: Duration = Duration::from_millis(10);

/// Why a ledger file was not opened.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The file cannot be opened, read or repaired.
    #[error("ledger file `{}` cannot be used", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Another process appends to the file.
    #[error("ledger file `{}` is in use by another process", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// A line is not what was written after the line before it.
    #[error("ledger file `{}` is broken at line {line}: {reason}", path.display())]
    Broken {
        /// The file.
        path: PathBuf,
        /// The line, counting from 1.
        line: u64,
        /// What does not hold.
        reason: &'static str,
    },
}

/// Appends entries to a file; each is on disk when [`Sink::append`] returns.
#[derive(Debug)]
pub struct FileSink {
    file: File,
    next: u64,
    head: Hash,
    /// Length of the file up to the last entry that is known to be on disk.
    kept_bytes: u64,
    /// Whether a failed append may have left something behind `kept_bytes`.
    dirty: bool,
}

impl FileSink {
    /// Opens the ledger in `path`, or makes it; checks every line and takes up behind the last.
    ///
    /// The end of a line that a crash cut off is removed: it was never acknowledged.
    ///
    /// # Errors
    ///
    /// [`FileError`]; a file whose chain is broken is left as it is.
    pub fn open(path: &Path) -> Result<Self, FileError> {
        Ok(Self::open_known(path)?.0)
    }

    /// [`Self::open`], and what the ledger says of the keys in force.
    ///
    /// # Errors
    ///
    /// As [`Self::open`].
    pub fn open_known(path: &Path) -> Result<(Self, Known), FileError> {
        let io_error = |source| FileError::Io {
            path: path.to_owned(),
            source,
        };
        let mut file = open_private(path).map_err(io_error)?;
        if !lock(&file).map_err(io_error)? {
            return Err(FileError::InUse {
                path: path.to_owned(),
            });
        }
        let found = scan(&mut file).map_err(|error| error.at(path))?;
        let mut sink = Self {
            file,
            next: found.next,
            head: found.head,
            kept_bytes: found.kept_bytes,
            dirty: true,
        };
        sink.repair().map_err(io_error)?;
        sync_directory(path).map_err(io_error)?;
        Ok((sink, found.known))
    }

    /// The hash of the last line: whoever notes it elsewhere can tell later whether the ledger still
    /// holds everything up to it. `None` for an empty ledger.
    #[must_use]
    pub fn head(&self) -> Option<Hash> {
        (self.next > 0).then_some(self.head)
    }

    /// Removes what a failed append, or a crash in one, left behind the kept entries.
    ///
    /// After a failed fsync the kernel may call pages clean that never reached the disk, so nothing
    /// of that append is relied on.
    fn repair(&mut self) -> io::Result<()> {
        if self.dirty {
            self.file.set_len(self.kept_bytes)?;
            self.file.seek(SeekFrom::Start(self.kept_bytes))?;
            self.file.sync_all()?;
            self.dirty = false;
        }
        Ok(())
    }
}

impl Sink for FileSink {
    fn next_index(&self) -> u64 {
        self.next
    }

    fn append(&mut self, entries: &[Entry]) -> Result<(), SinkError> {
        let new = new_entries(entries, self.next)?;
        let (mut text, mut head) = (String::new(), self.head);
        for entry in new {
            head = push_line(&mut text, entry, head)?;
        }
        if text.is_empty() {
            return Ok(());
        }
        self.repair()?;
        self.dirty = true;
        self.file.write_all(text.as_bytes())?;
        self.file.sync_data()?;
        self.dirty = false;
        self.head = head;
        self.next += as_u64(new.len());
        self.kept_bytes += as_u64(text.len());
        Ok(())
    }
}

/// Appends the line of `entry` to `text` and returns the line's hash.
fn push_line(text: &mut String, entry: &Entry, previous: Hash) -> Result<Hash, io::Error> {
    let entry = serde_json::to_string(entry)?;
    let previous = HEXLOWER.encode(previous.as_bytes());
    let body = format!(r#"{{"entry":{entry},"previous":"{previous}""#);
    let hash = Hash::of_body(body.as_bytes());
    text.push_str(&body);
    text.push_str(HASH_HEAD);
    text.push_str(&HEXLOWER.encode(hash.as_bytes()));
    text.push_str(HASH_TAIL);
    text.push('\n');
    Ok(hash)
}

/// What a scan found of an intact ledger.
struct Found {
    next: u64,
    head: Hash,
    kept_bytes: u64,
    known: Known,
}

enum ScanError {
    Io(io::Error),
    Broken { line: u64, reason: &'static str },
}

impl ScanError {
    fn at(self, path: &Path) -> FileError {
        let path = path.to_owned();
        match self {
            Self::Io(source) => FileError::Io { path, source },
            Self::Broken { line, reason } => FileError::Broken { path, line, reason },
        }
    }
}

impl From<io::Error> for ScanError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

fn scan(file: &mut File) -> Result<Found, ScanError> {
    file.seek(SeekFrom::Start(0))?;
    let mut reader = BufReader::new(file);
    let mut found = Found {
        next: 0,
        head: Hash::new([0; 32]),
        kept_bytes: 0,
        known: Known::default(),
    };
    let mut line = Vec::new();
    loop {
        line.clear();
        let len = io::Read::take(&mut reader, LINE_BYTES_MAX).read_until(b'\n', &mut line)?;
        let Some(text) = line.strip_suffix(b"\n") else {
            // Nothing, or a line whose end a crash cut off. A long one is not a cut line of ours.
            if as_u64(len) < LINE_BYTES_MAX {
                return Ok(found);
            }
            return Err(ScanError::Broken {
                line: found.next + 1,
                reason: "the line is too long",
            });
        };
        let checked = check_line(text, &found);
        let line = checked.map_err(|reason| ScanError::Broken {
            line: found.next + 1,
            reason,
        })?;
        found.head = line.hash;
        found.known.note(line.entry.change());
        found.next += 1;
        found.kept_bytes += as_u64(len);
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    entry: Entry,
    previous: Hash,
    hash: Hash,
}

/// A line that follows what was `found` so far, or what is wrong with it.
fn check_line(text: &[u8], found: &Found) -> Result<Line, &'static str> {
    let line: Line = serde_json::from_slice(text).map_err(|_| "the line is not a ledger entry")?;
    let tail_bytes = HASH_HEAD.len() + 64 + HASH_TAIL.len();
    let body = text
        .len()
        .checked_sub(tail_bytes)
        .and_then(|len| text.get(..len));
    let body = body.ok_or("the line is not a ledger entry")?;
    if Hash::of_body(body) != line.hash {
        return Err("the line does not have its hash");
    }
    if line.previous != found.head {
        return Err("the line does not follow the one before");
    }
    if line.entry.index() != found.next {
        return Err("the entry has another index");
    }
    Ok(line)
}

/// Whether the file is this process's now.
fn lock(file: &File) -> io::Result<bool> {
    let deadline = Instant::now() + LOCK_WAIT;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(true),
            Err(TryLockError::Error(error)) => return Err(error),
            Err(TryLockError::WouldBlock) if Instant::now() >= deadline => return Ok(false),
            Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_RETRY),
        }
    }
}

fn open_private(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Makes the file's name survive a crash as its content does.
fn sync_directory(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(directory) if cfg!(unix) && !directory.as_os_str().is_empty() => {
            File::open(directory)?.sync_all()
        }
        Some(_) | None => Ok(()),
    }
}

fn as_u64(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
