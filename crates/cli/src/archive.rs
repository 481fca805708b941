//! A backup: a directory with a few files and a list of them with their sums.
//!
//! The list is written last: a directory without it is no backup.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::report::Report;

const LIST_FILE: &str = "manifest.json";
const FORMAT: &str = "commucat backup 1";
/// A list names three files.
const LIST_BYTES_MAX: u64 = 64 * 1024;
const CHUNK: usize = 256 * 1024;

/// What a backup may hold.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) enum Part {
    #[serde(rename = "store.sqlite3")]
    Store,
    #[serde(rename = "ledger.jsonl")]
    Ledger,
    #[serde(rename = "keyring.json")]
    Keys,
}

impl Part {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Store => "store.sqlite3",
            Self::Ledger => "ledger.jsonl",
            Self::Keys => "keyring.json",
        }
    }
}

/// The list.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Manifest {
    format: String,
    /// Whose store it is.
    pub(crate) domain: String,
    /// The release that made the backup.
    pub(crate) release: String,
    /// The moment that the store is of.
    pub(crate) taken_ms: u64,
    pub(crate) schema_version: u32,
    pub(crate) files: Vec<Listed>,
}

/// A file with its sum.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct Listed {
    pub(crate) name: Part,
    pub(crate) bytes: u64,
    /// In hex.
    pub(crate) blake3: String,
}

impl Manifest {
    pub(crate) fn new(domain: &str, taken_ms: u64, schema_version: u32) -> Self {
        Self {
            format: FORMAT.to_owned(),
            domain: domain.to_owned(),
            release: env!("CARGO_PKG_VERSION").to_owned(),
            taken_ms,
            schema_version,
            files: Vec::new(),
        }
    }

    pub(crate) fn part(&self, part: Part) -> Option<&Listed> {
        self.files.iter().find(|listed| listed.name == part)
    }
}

/// A backup's directory.
pub(crate) struct Archive(PathBuf);

impl Archive {
    /// A new one: the directory is made, or is empty.
    pub(crate) fn create(directory: &Path) -> Result<Self, Report> {
        let mut builder = DirBuilder::new();
        let made = builder.recursive(true).mode(0o700).create(directory);
        made.map_err(|error| at("make", directory, &error))?;
        let mut found = fs::read_dir(directory).map_err(|error| at("read", directory, &error))?;
        if found.next().is_some() {
            let hint = "name a directory that is empty or does not exist";
            let text = format!("`{}` is not empty", directory.display());
            return Err(Report::new(text).hint(hint));
        }
        Ok(Self(directory.to_owned()))
    }

    /// One that was made before, with its list.
    pub(crate) fn open(directory: &Path) -> Result<(Self, Manifest), Report> {
        let path = directory.join(LIST_FILE);
        let hint = "name the directory that `commucat-cli backup` made; one without a list was not \
                    finished";
        let no_backup = || {
            let text = format!("`{}` is no backup of this release", directory.display());
            Report::new(text).hint(hint)
        };
        let mut text = String::new();
        let opened = File::open(&path).map_err(|error| at("read", &path, &error).hint(hint))?;
        let read = opened.take(LIST_BYTES_MAX).read_to_string(&mut text);
        read.map_err(|error| at("read", &path, &error))?;
        let manifest: Manifest = serde_json::from_str(&text).map_err(|_| no_backup())?;
        if manifest.format != FORMAT || manifest.part(Part::Store).is_none() {
            return Err(no_backup());
        }
        Ok((Self(directory.to_owned()), manifest))
    }

    pub(crate) fn path(&self, part: Part) -> PathBuf {
        self.0.join(part.name())
    }

    /// Takes a file that is ours to move.
    pub(crate) fn take(&self, part: Part, from: &Path) -> Result<Listed, Report> {
        let path = self.path(part);
        if fs::rename(from, &path).is_ok() {
            let mut file = File::open(&path).map_err(|error| at("read", &path, &error))?;
            let listed = pour(part, &mut file, &mut io::sink());
            return listed.map_err(|error| at("read", &path, &error));
        }
        // On another file system.
        let mut file = File::open(from).map_err(|error| at("read", from, &error))?;
        self.add(part, &mut file)
    }

    /// Writes a file.
    pub(crate) fn add(&self, part: Part, from: &mut impl Read) -> Result<Listed, Report> {
        let path = self.path(part);
        let mut write = || {
            let mut file = private(&path)?;
            let listed = pour(part, from, &mut file)?;
            file.sync_all()?;
            Ok(listed)
        };
        write().map_err(|error: io::Error| at("write", &path, &error))
    }

    /// Ends it.
    pub(crate) fn seal(&self, manifest: &Manifest) -> Result<(), Report> {
        let path = self.0.join(LIST_FILE);
        let text = serde_json::to_string_pretty(manifest);
        let text = text.map_err(|_| Report::defect("the list cannot be written as JSON"))?;
        let write = || {
            let mut file = private(&path)?;
            file.write_all(text.as_bytes())?;
            file.write_all(b"\n")?;
            file.sync_all()?;
            File::open(&self.0)?.sync_all()
        };
        write().map_err(|error| at("write", &path, &error))
    }

    /// Writes a file of the backup to `to`, and refuses what is not as it is listed.
    pub(crate) fn extract(&self, listed: &Listed, to: &mut impl Write) -> Result<(), Report> {
        let path = self.path(listed.name);
        let opened = File::open(&path).map_err(|error| at("read", &path, &error))?;
        // No more than is listed, and a byte to see that there is more.
        let mut bounded = opened.take(listed.bytes.saturating_add(1));
        let found = pour(listed.name, &mut bounded, to);
        let found = found.map_err(|error| at("copy", &path, &error))?;
        if found == *listed {
            return Ok(());
        }
        let text = format!("`{}` is not what was backed up", path.display());
        Err(Report::new(text).hint("nothing was changed; take another backup"))
    }
}

/// A new file of its owner alone.
pub(crate) fn private(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600).open(path)
}

/// What the system says of a path.
pub(crate) fn at(what: &str, path: &Path, error: &io::Error) -> Report {
    let text = format!("cannot {what} `{}`: {error}", path.display());
    Report::new(text).hint("run this as the server's user or as root; is the disk full?")
}

fn pour(name: Part, from: &mut impl Read, to: &mut impl Write) -> io::Result<Listed> {
    let mut hasher = blake3::Hasher::new();
    let mut chunk = vec![0; CHUNK];
    let mut bytes = 0u64;
    loop {
        let read = match from.read(&mut chunk) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let part = chunk.get(..read).unwrap_or_default();
        hasher.update(part);
        to.write_all(part)?;
        bytes = bytes.saturating_add(u64::try_from(read).unwrap_or(u64::MAX));
    }
    Ok(Listed {
        name,
        bytes,
        blake3: hasher.finalize().to_hex().to_string(),
    })
}
