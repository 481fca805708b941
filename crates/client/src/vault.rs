//! The vault: everything a device remembers, in one encrypted SQLite file.
//!
//! A random data key seals every row with XChaCha20-Poly1305; the associated data names the table
//! and the row, so rows cannot be swapped. The data key is wrapped by a passphrase or a key file
//! ([`Unlock`]). Names of rows are keyed hashes: the file shows how many rows there are, not whose.

mod lock;
mod log;
mod schema;
mod seal;
mod unlock;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use rusqlite::{Connection, OptionalExtension as _, params};

use self::lock::OwnerLock;
pub use self::log::Entry;
use self::seal::{Name, Sealer};
pub use self::unlock::{KEY_FILE, Passphrase, Unlock};

/// The file in the profile directory.
pub const FILE: &str = "vault.db";

/// Why the vault could not be opened, read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VaultError {
    /// There is no vault in this directory.
    #[error("no profile in `{}`", .0.display())]
    Missing(PathBuf),
    /// A vault is there already; nothing is overwritten.
    #[error("a profile is already in `{}`", .0.display())]
    Exists(PathBuf),
    /// Another process owns the vault.
    #[error("profile is in use by process {pid}")]
    InUse {
        /// Process id of the owner, 0 if unknown.
        pid: u32,
    },
    /// The passphrase or key file does not open this vault.
    #[error("passphrase or key file does not open this profile")]
    WrongKey,
    /// The vault wants a passphrase and none was given.
    #[error("profile is locked with a passphrase")]
    PassphraseNeeded,
    /// The vault was made with a key file that is not there.
    #[error("key file `{}` is missing or not readable", .0.display())]
    KeyFile(PathBuf),
    /// The vault was written by a newer program.
    #[error("profile has format {found}, this program knows {known}")]
    Newer {
        /// Format of the file.
        found: u32,
        /// Newest format known.
        known: u32,
    },
    /// A row does not open under its name: the file was damaged or tampered with.
    #[error("storage failure: a row of `{table}` does not open")]
    Damaged {
        /// Table of the row.
        table: &'static str,
    },
    /// SQLite reported an error.
    #[error("storage failure")]
    Sqlite(#[from] rusqlite::Error),
    /// A file could not be read or written.
    #[error("storage failure")]
    Io(#[from] std::io::Error),
    /// The system gave no random bytes.
    #[error("storage failure: no random bytes from the system")]
    Random,
}

/// A value with its id.
pub type Item = (Vec<u8>, Vec<u8>);

/// Handle of an open vault. Clones share one connection and one transaction: it is driven by one
/// thread at a time (the engine), never from two.
#[derive(Clone)]
pub struct Vault {
    inner: Arc<Inner>,
}

struct Inner {
    db: Mutex<Db>,
    sealer: Sealer,
    // Declared last: released after the connection is closed.
    _lock: Option<OwnerLock>,
}

struct Db {
    connection: Connection,
    depth: u32,
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Vault(..)")
    }
}

impl Vault {
    /// Makes a vault in `directory` (0700, made if absent; file 0600) and owns it.
    ///
    /// # Errors
    ///
    /// [`VaultError::Exists`] if one is there; nothing is changed then.
    pub fn create(directory: &Path, unlock: &Unlock) -> Result<Self, VaultError> {
        make_private_directory(directory)?;
        let lock = OwnerLock::take(directory)?;
        let path = directory.join(FILE);
        if path.exists() {
            return Err(VaultError::Exists(directory.to_owned()));
        }
        let temporary = directory.join("vault.new");
        remove_with_journal(&temporary)?;
        create_private_file(&temporary)?;
        let sealer = {
            let mut connection = Connection::open(&temporary)?;
            schema::migrate(&mut connection)?;
            let key = seal::random_key()?;
            unlock::write_header(&connection, directory, unlock, &key)?;
            Sealer::new(&key)
        };
        std::fs::rename(&temporary, &path)?;
        let connection = schema::open(&path)?;
        Ok(Self::assemble(connection, sealer, Some(lock)))
    }

    /// Opens the vault in `directory` and owns it until the last handle is dropped.
    ///
    /// # Errors
    ///
    /// [`VaultError::InUse`] if another process owns it; [`VaultError::WrongKey`] and
    /// [`VaultError::PassphraseNeeded`] if `unlock` does not fit.
    pub fn open(directory: &Path, unlock: &Unlock) -> Result<Self, VaultError> {
        let path = directory.join(FILE);
        if !path.exists() {
            return Err(VaultError::Missing(directory.to_owned()));
        }
        let lock = OwnerLock::take(directory)?;
        let mut connection = schema::open(&path)?;
        schema::migrate(&mut connection)?;
        let key = unlock::read_header(&connection, directory, unlock)?;
        Ok(Self::assemble(connection, Sealer::new(&key), Some(lock)))
    }

    /// A vault in memory, for tests and for programs that keep nothing.
    ///
    /// # Errors
    ///
    /// [`VaultError::Sqlite`] if SQLite cannot start.
    pub fn in_memory() -> Result<Self, VaultError> {
        let mut connection = Connection::open_in_memory()?;
        schema::migrate(&mut connection)?;
        Ok(Self::assemble(
            connection,
            Sealer::new(&seal::random_key()?),
            None,
        ))
    }

    fn assemble(connection: Connection, sealer: Sealer, lock: Option<OwnerLock>) -> Self {
        let db = Mutex::new(Db {
            connection,
            depth: 0,
        });
        Self {
            inner: Arc::new(Inner {
                db,
                sealer,
                _lock: lock,
            }),
        }
    }

    /// Runs `work` in one transaction: all of its writes are durable when this returns `Ok`, none
    /// of them when it returns `Err`. A nested call joins the outer transaction.
    ///
    /// # Errors
    ///
    /// What `work` returned, or the error of the commit (then nothing was written).
    pub fn transaction<T, E: From<VaultError>>(
        &self,
        work: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        self.enter()?;
        let result = work();
        self.leave(result.is_ok())?;
        result
    }

    fn enter(&self) -> Result<(), VaultError> {
        let mut db = self.inner.db.lock();
        if db.depth == 0 {
            db.connection.execute_batch("BEGIN IMMEDIATE")?;
        }
        db.depth += 1;
        Ok(())
    }

    fn leave(&self, good: bool) -> Result<(), VaultError> {
        let mut db = self.inner.db.lock();
        db.depth = db.depth.saturating_sub(1);
        if db.depth > 0 {
            return Ok(());
        }
        if good && let Err(error) = db.connection.execute_batch("COMMIT") {
            // Best effort: after a failed COMMIT the transaction may be open or gone.
            drop(db.connection.execute_batch("ROLLBACK"));
            return Err(error.into());
        }
        if !good {
            db.connection.execute_batch("ROLLBACK")?;
        }
        Ok(())
    }

    /// The value stored in `table` under `scope` and `id`.
    ///
    /// # Errors
    ///
    /// [`VaultError::Damaged`] if the row does not open.
    pub fn get(
        &self,
        table: &'static str,
        scope: &[u8],
        id: &[u8],
    ) -> Result<Option<Vec<u8>>, VaultError> {
        let name = self.inner.sealer.name(table, scope, id);
        let sealed: Option<Vec<u8>> = self
            .inner
            .db
            .lock()
            .connection
            .prepare_cached("SELECT value FROM item WHERE tab = ?1 AND scope = ?2 AND id = ?3")?
            .query_row(params![table, name.scope, name.id], |row| row.get(0))
            .optional()?;
        match sealed {
            Some(sealed) => Ok(Some(self.inner.sealer.open(&name, &sealed)?.1)),
            None => Ok(None),
        }
    }

    /// Whether [`Self::get`] would return a value; cheaper.
    ///
    /// # Errors
    ///
    /// [`VaultError::Sqlite`].
    pub fn contains(
        &self,
        table: &'static str,
        scope: &[u8],
        id: &[u8],
    ) -> Result<bool, VaultError> {
        let name = self.inner.sealer.name(table, scope, id);
        Ok(self
            .inner
            .db
            .lock()
            .connection
            .prepare_cached("SELECT 1 FROM item WHERE tab = ?1 AND scope = ?2 AND id = ?3")?
            .exists(params![table, name.scope, name.id])?)
    }

    /// Stores `value` in `table` under `scope` and `id`, in place of what was there.
    ///
    /// # Errors
    ///
    /// [`VaultError::Sqlite`]; nothing is changed then.
    pub fn put(
        &self,
        table: &'static str,
        scope: &[u8],
        id: &[u8],
        value: &[u8],
    ) -> Result<(), VaultError> {
        let name = self.inner.sealer.name(table, scope, id);
        let sealed = self.inner.sealer.seal(&name, id, value)?;
        self.inner
            .db
            .lock()
            .connection
            .prepare_cached(
                "INSERT INTO item (tab, scope, id, value) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT DO UPDATE SET value = excluded.value",
            )?
            .execute(params![table, name.scope, name.id, sealed])?;
        Ok(())
    }

    /// Removes one value; returns whether it was there.
    ///
    /// # Errors
    ///
    /// [`VaultError::Sqlite`].
    pub fn delete(&self, table: &'static str, scope: &[u8], id: &[u8]) -> Result<bool, VaultError> {
        let name = self.inner.sealer.name(table, scope, id);
        let count = self
            .inner
            .db
            .lock()
            .connection
            .prepare_cached("DELETE FROM item WHERE tab = ?1 AND scope = ?2 AND id = ?3")?
            .execute(params![table, name.scope, name.id])?;
        Ok(count > 0)
    }

    /// Removes every value of `table` under `scope`; returns how many.
    ///
    /// # Errors
    ///
    /// [`VaultError::Sqlite`].
    pub fn delete_scope(&self, table: &'static str, scope: &[u8]) -> Result<usize, VaultError> {
        let name = self.inner.sealer.name(table, scope, &[]);
        Ok(self
            .inner
            .db
            .lock()
            .connection
            .prepare_cached("DELETE FROM item WHERE tab = ?1 AND scope = ?2")?
            .execute(params![table, name.scope])?)
    }

    /// How many values `table` has under `scope`.
    ///
    /// # Errors
    ///
    /// [`VaultError::Sqlite`].
    pub fn count_values(&self, table: &'static str, scope: &[u8]) -> Result<usize, VaultError> {
        let name = self.inner.sealer.name(table, scope, &[]);
        let db = self.inner.db.lock();
        let mut statement = db
            .connection
            .prepare_cached("SELECT count(*) FROM item WHERE tab = ?1 AND scope = ?2")?;
        let count: i64 = statement.query_row(params![table, name.scope], |row| row.get(0))?;
        Ok(usize::try_from(count).unwrap_or(usize::MAX))
    }

    /// Every `(id, value)` of `table` under `scope`, by ascending id.
    ///
    /// # Errors
    ///
    /// [`VaultError::Damaged`] if a row does not open.
    pub fn list(&self, table: &'static str, scope: &[u8]) -> Result<Vec<Item>, VaultError> {
        let wanted = self.inner.sealer.name(table, scope, &[]);
        let db = self.inner.db.lock();
        let mut statement = db
            .connection
            .prepare_cached("SELECT id, value FROM item WHERE tab = ?1 AND scope = ?2")?;
        let mut rows = statement.query(params![table, wanted.scope])?;
        let mut out = Vec::new();
        while let Some(row) = rows.next()? {
            let name = Name {
                id: row.get(0)?,
                ..wanted
            };
            out.push(self.inner.sealer.open(&name, &row.get::<_, Vec<u8>>(1)?)?);
        }
        out.sort_unstable();
        Ok(out)
    }
}

fn make_private_directory(directory: &Path) -> Result<(), VaultError> {
    if directory.is_dir() {
        return Ok(());
    }
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    Ok(builder.create(directory)?)
}

fn create_private_file(path: &Path) -> Result<std::fs::File, std::io::Error> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

fn remove_with_journal(path: &Path) -> Result<(), VaultError> {
    for ending in ["", "-wal", "-shm", "-journal"] {
        let mut name = path.as_os_str().to_owned();
        name.push(ending);
        match std::fs::remove_file(PathBuf::from(name)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
