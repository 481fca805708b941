//! What opens a vault: a passphrase (Argon2id) or a key file.

use std::fmt;
use std::path::{Path, PathBuf};

use argon2::{Algorithm, Argon2, Params, Version};
use data_encoding::HEXLOWER;
use rusqlite::{Connection, params};
use zeroize::{Zeroize as _, Zeroizing};

use super::seal::{self, SecretKey};
use super::{VaultError, create_private_file};

/// The default key file, next to the vault.
pub const KEY_FILE: &str = "vault.key";

/// Argon2id cost: 64 MiB and 3 passes, about 0.15 s on a small machine.
const MEMORY_KIB: u32 = 64 * 1024;
const PASSES: u32 = 3;
const LANES: u32 = 1;
/// A header that asks for more than this is not ours.
const MEMORY_KIB_MAX: u32 = 1024 * 1024;

/// A passphrase, wiped when dropped.
#[derive(Clone)]
pub struct Passphrase(Zeroizing<String>);

impl Passphrase {
    /// Takes the passphrase over.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }
}

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passphrase(..)")
    }
}

/// What opens a vault.
#[derive(Clone, Debug)]
pub enum Unlock {
    /// The key file [`KEY_FILE`] in the profile directory (0600, made with the vault). Protects a
    /// copy of the database alone, not a copy of the whole directory.
    KeyFileBeside,
    /// A key file elsewhere, for example on a removable disk. Made with the vault if absent.
    KeyFile(PathBuf),
    /// A passphrase.
    Passphrase(Passphrase),
}

struct Header {
    kdf: String,
    salt: Vec<u8>,
    memory: u32,
    passes: u32,
    lanes: u32,
    wrapped: Vec<u8>,
}

impl Header {
    fn context(&self) -> Vec<u8> {
        let mut out = format!(
            "commucat vault key 1 {} {} {} {} ",
            self.kdf, self.memory, self.passes, self.lanes
        )
        .into_bytes();
        out.extend_from_slice(&self.salt);
        out
    }
}

/// Wraps the data key and writes the header (in place of an earlier one).
pub(super) fn write_header(
    connection: &Connection,
    directory: &Path,
    unlock: &Unlock,
    key: &SecretKey,
) -> Result<(), VaultError> {
    let mut salt = vec![0; 32];
    getrandom::fill(&mut salt).map_err(|_| VaultError::Random)?;
    let mut header = Header {
        kdf: "file".to_owned(),
        salt,
        memory: 0,
        passes: 0,
        lanes: 0,
        wrapped: Vec::new(),
    };
    let wrapping = match unlock {
        Unlock::Passphrase(passphrase) => {
            "argon2id".clone_into(&mut header.kdf);
            (header.memory, header.passes, header.lanes) = (MEMORY_KIB, PASSES, LANES);
            stretch(passphrase, &header)?
        }
        Unlock::KeyFileBeside => make_key_file(&directory.join(KEY_FILE))?,
        Unlock::KeyFile(path) => make_key_file(path)?,
    };
    header.wrapped = seal::wrap(&wrapping, &header.context(), key)?;
    connection.execute(
        "INSERT INTO header (one, kdf, salt, memory, passes, lanes, wrapped)
         VALUES (1, ?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT DO UPDATE SET kdf = ?1, salt = ?2, memory = ?3, passes = ?4, lanes = ?5,
             wrapped = ?6",
        params![
            header.kdf,
            header.salt,
            header.memory,
            header.passes,
            header.lanes,
            header.wrapped
        ],
    )?;
    Ok(())
}

/// Reads the header and opens the data key.
pub(super) fn read_header(
    connection: &Connection,
    directory: &Path,
    unlock: &Unlock,
) -> Result<SecretKey, VaultError> {
    let header = connection.query_row(
        "SELECT kdf, salt, memory, passes, lanes, wrapped FROM header",
        [],
        |row| {
            Ok(Header {
                kdf: row.get(0)?,
                salt: row.get(1)?,
                memory: row.get(2)?,
                passes: row.get(3)?,
                lanes: row.get(4)?,
                wrapped: row.get(5)?,
            })
        },
    )?;
    let wrapping = match (header.kdf.as_str(), unlock) {
        ("argon2id", Unlock::Passphrase(passphrase)) => stretch(passphrase, &header)?,
        ("argon2id", Unlock::KeyFileBeside | Unlock::KeyFile(_)) => {
            return Err(VaultError::PassphraseNeeded);
        }
        ("file", Unlock::KeyFile(path)) => read_key_file(path)?,
        // A passphrase that is not needed is no reason to stay locked.
        ("file", Unlock::KeyFileBeside | Unlock::Passphrase(_)) => {
            read_key_file(&directory.join(KEY_FILE))?
        }
        _ => return Err(VaultError::Damaged { table: "header" }),
    };
    seal::unwrap(&wrapping, &header.context(), &header.wrapped).ok_or(VaultError::WrongKey)
}

fn stretch(passphrase: &Passphrase, header: &Header) -> Result<SecretKey, VaultError> {
    let damaged = |_| VaultError::Damaged { table: "header" };
    if header.memory > MEMORY_KIB_MAX || header.passes > 64 {
        return Err(VaultError::Damaged { table: "header" });
    }
    let params = Params::new(header.memory, header.passes, header.lanes, Some(32));
    let argon = Argon2::new(
        Algorithm::Argon2id,
        Version::V0x13,
        params.map_err(damaged)?,
    );
    let mut out = Zeroizing::new([0; 32]);
    argon
        .hash_password_into(passphrase.0.as_bytes(), &header.salt, &mut *out)
        .map_err(damaged)?;
    Ok(out)
}

fn make_key_file(path: &Path) -> Result<SecretKey, VaultError> {
    use std::io::Write as _;

    if path.exists() {
        return read_key_file(path);
    }
    let key = seal::random_key()?;
    let mut text = Zeroizing::new(HEXLOWER.encode(&*key));
    text.push('\n');
    let mut file = create_private_file(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    Ok(key)
}

fn read_key_file(path: &Path) -> Result<SecretKey, VaultError> {
    let missing = || VaultError::KeyFile(path.to_owned());
    let text = Zeroizing::new(std::fs::read_to_string(path).map_err(|_| missing())?);
    let mut raw = HEXLOWER
        .decode(text.trim().as_bytes())
        .map_err(|_| missing())?;
    let key = raw
        .as_slice()
        .try_into()
        .map(Zeroizing::new)
        .map_err(|_| missing());
    raw.zeroize();
    key
}
