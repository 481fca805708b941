//! The directory of the key file: modes, lock, and writing that survives a crash.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::KeyringError;
use super::stored::Stored;

const FILE: &str = "keyring.json";
const FRESH_FILE: &str = "keyring.json.new";
const LOCK_FILE: &str = "keyring.lock";

const DIRECTORY_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

/// Largest key file that is read; a full one has some 40 KiB.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// A directory that only its owner may enter.
#[derive(Clone, Debug)]
pub(super) struct Directory(PathBuf);

impl Directory {
    /// Makes the directory, and those above it, unless it is there.
    pub(super) fn create(path: &Path) -> Result<Self, KeyringError> {
        let mut builder = DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, DIRECTORY_MODE);
        builder
            .create(path)
            .map_err(|source| io_error(path, source))?;
        Self::open(path)
    }

    pub(super) fn open(path: &Path) -> Result<Self, KeyringError> {
        let metadata = match fs::metadata(path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(KeyringError::Missing {
                    path: path.to_owned(),
                });
            }
            Err(source) => return Err(io_error(path, source)),
        };
        refuse_exposed(path, &metadata, DIRECTORY_MODE)?;
        Ok(Self(path.to_owned()))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    pub(super) fn file(&self) -> PathBuf {
        self.0.join(FILE)
    }

    /// Keeps other processes from changing keys until the result is dropped.
    pub(super) fn lock(&self) -> Result<File, KeyringError> {
        let path = self.0.join(LOCK_FILE);
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false);
        open_private(&mut options, &path)
            .and_then(|file| file.lock().map(|()| file))
            .map_err(|source| io_error(&path, source))
    }

    /// What the key file holds; `None` if there is none.
    pub(super) fn read(&self) -> Result<Option<Stored>, KeyringError> {
        let path = self.file();
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(io_error(&path, source)),
        };
        let metadata = file.metadata().map_err(|source| io_error(&path, source))?;
        refuse_exposed(&path, &metadata, FILE_MODE)?;
        let damaged = |reason| KeyringError::Damaged {
            path: path.clone(),
            reason,
        };
        if metadata.len() > FILE_BYTES_MAX {
            return Err(damaged("it is too large"));
        }
        // Sized before, so that no growing buffer leaves copies of keys behind.
        let capacity = usize::try_from(metadata.len()).unwrap_or_default();
        let mut text = Zeroizing::new(Vec::with_capacity(capacity + 1));
        file.take(FILE_BYTES_MAX)
            .read_to_end(&mut text)
            .map_err(|source| io_error(&path, source))?;
        match serde_json::from_slice(&text) {
            Ok(stored) => Ok(Some(stored)),
            // The parser's own message may quote what it found.
            Err(_) => Err(damaged("it is not a key file of this release")),
        }
    }

    /// Puts `stored` in the place of what the key file holds, all or nothing.
    pub(super) fn write(&self, stored: &Stored) -> Result<(), KeyringError> {
        let text = stored.to_text();
        let fresh = self.0.join(FRESH_FILE);
        let written = self.write_fresh(&fresh, &text);
        written.map_err(|source| io_error(&fresh, source))
    }

    fn write_fresh(&self, fresh: &Path, text: &[u8]) -> io::Result<()> {
        // What a crash left behind may have any content, but not another mode.
        match fs::remove_file(fresh) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let mut options = OpenOptions::new();
        let mut file = open_private(options.write(true).create_new(true), fresh)?;
        file.write_all(text)?;
        file.sync_all()?;
        fs::rename(fresh, self.file())?;
        if cfg!(unix) {
            File::open(&self.0)?.sync_all()?;
        }
        Ok(())
    }
}

fn open_private(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, FILE_MODE);
    options.open(path)
}

#[cfg(unix)]
fn refuse_exposed(path: &Path, metadata: &fs::Metadata, wanted: u32) -> Result<(), KeyringError> {
    let mode = std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o777;
    if mode & 0o077 == 0 {
        return Ok(());
    }
    Err(KeyringError::Exposed {
        path: path.to_owned(),
        mode,
        wanted,
    })
}

#[cfg(not(unix))]
fn refuse_exposed(_: &Path, _: &fs::Metadata, _: u32) -> Result<(), KeyringError> {
    Ok(())
}

fn io_error(path: &Path, source: io::Error) -> KeyringError {
    KeyringError::Io {
        path: path.to_owned(),
        source,
    }
}
