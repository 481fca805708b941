//! The server's secret keys on disk: domain key, Noise keys, reference keys, and the statements made
//! with them.
//!
//! All of it is one file, so that every change is one rename and no crash leaves half of one. The
//! file is `keyring.json` with mode 0600 in a directory with mode 0700; anything more open is
//! refused. A process that serves and a command that rotates may use it at the same time: changes
//! are made under a lock, to what the file then holds, and the other process calls
//! [`Keyring::reload`].

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use commucat_proto::id::{Domain, DomainKey};
use commucat_proto::identity::ServerNoiseKey;
use commucat_proto::limits::NOISE_KEY_OVERLAP;
use commucat_proto::signed::Signed;
use commucat_proto::time::Timestamp;

use crate::noise::StaticKey;
use crate::sealed_ref::RefKeys;
use crate::secret::Secret;
use crate::server_keys::{DomainSecret, NOISE_KEYS_MAX, Statement};

mod directory;
mod stored;

use self::directory::Directory;
use self::stored::Stored;

/// How long a Noise key is valid unless it is replaced.
pub const NOISE_KEY_LIFE: Duration = Duration::from_secs(2 * 365 * 86_400);

/// [`Keyring::maintain`] replaces a Noise key that has less than this left.
pub const NOISE_KEY_RENEWAL: Duration = Duration::from_secs(365 * 86_400);

/// How far the clock of a client may be behind when the very first Noise key is made.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(86_400);

/// Changes of the domain key that the well-known document has room for.
const CHAIN_MAX: usize = 32;

/// Why the keys cannot be had, or not be changed.
#[derive(Debug, thiserror::Error)]
pub enum KeyringError {
    /// The directory or a file in it cannot be used.
    #[error("`{}` cannot be used", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Others may read the directory or the file.
    #[error("`{}` is open to others (mode {mode:o} instead of {wanted:o})", path.display())]
    Exposed {
        /// Which.
        path: PathBuf,
        /// The mode it has.
        mode: u32,
        /// The mode it should have.
        wanted: u32,
    },
    /// There are no keys yet.
    #[error("no keys in `{}`", path.display())]
    Missing {
        /// The directory.
        path: PathBuf,
    },
    /// The file is not what was written.
    #[error("key file `{}` is damaged: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What does not hold.
        reason: &'static str,
    },
    /// The keys are of another domain than the one configured.
    #[error("the keys in `{}` are of another domain", path.display())]
    OtherDomain {
        /// The file.
        path: PathBuf,
    },
    /// No more keys of a kind can be added for now.
    #[error("no room for another {what}")]
    Full {
        /// The kind.
        what: &'static str,
    },
}

/// The server's keys.
#[derive(Debug)]
pub struct Keyring {
    directory: Directory,
    domain: Domain,
    stored: Stored,
    statement: Statement,
    chain: Vec<Signed>,
    noise: Vec<NoisePair>,
    references: RefKeys,
}

/// A Noise key pair and its validity.
#[derive(Clone, Debug)]
struct NoisePair {
    key: StaticKey,
    not_before: Timestamp,
    not_after: Timestamp,
}

impl Keyring {
    /// Opens the keys of `domain` in `path`, or makes them.
    ///
    /// # Errors
    ///
    /// [`KeyringError`]; nothing is overwritten.
    pub fn open_or_create(
        path: &Path,
        domain: &Domain,
        now: Timestamp,
    ) -> Result<Self, KeyringError> {
        let directory = Directory::create(path)?;
        let _lock = directory.lock()?;
        if let Some(stored) = directory.read()? {
            return Self::of(directory, stored, domain);
        }
        let stored = Stored::generate(domain, now)?;
        directory.write(&stored)?;
        Self::of(directory, stored, domain)
    }

    /// Opens the keys of `domain` in `path`.
    ///
    /// # Errors
    ///
    /// [`KeyringError::Missing`] if there are none yet, and the other [`KeyringError`]s.
    pub fn open(path: &Path, domain: &Domain) -> Result<Self, KeyringError> {
        let directory = Directory::open(path)?;
        let missing = || KeyringError::Missing {
            path: path.to_owned(),
        };
        let stored = directory.read()?.ok_or_else(missing)?;
        Self::of(directory, stored, domain)
    }

    fn of(directory: Directory, stored: Stored, domain: &Domain) -> Result<Self, KeyringError> {
        let damaged = |reason| KeyringError::Damaged {
            path: directory.file(),
            reason,
        };
        let parts = stored.check().map_err(damaged)?;
        if parts.statement.domain() != domain {
            return Err(KeyringError::OtherDomain {
                path: directory.file(),
            });
        }
        let stored::Parts {
            statement,
            chain,
            noise,
            references,
        } = parts;
        let domain = domain.clone();
        Ok(Self {
            directory,
            domain,
            stored,
            statement,
            chain,
            noise,
            references,
        })
    }

    /// The domain whose keys these are.
    #[must_use]
    pub const fn domain(&self) -> &Domain {
        &self.domain
    }

    /// The domain's public key, for invite links.
    #[must_use]
    pub const fn domain_key(&self) -> &DomainKey {
        self.statement.domain_key()
    }

    /// The domain's secret key, to sign with.
    #[must_use]
    pub fn domain_secret(&self) -> DomainSecret {
        self.stored.domain_secret()
    }

    /// The latest server keys statement.
    #[must_use]
    pub const fn statement(&self) -> &Statement {
        &self.statement
    }

    /// Earlier statements that hand over from one domain key to the next, oldest first.
    #[must_use]
    pub fn chain(&self) -> &[Signed] {
        &self.chain
    }

    /// The Noise key that HELLO names by the first 16 hex digits of its public half, unless it has
    /// expired.
    #[must_use]
    pub fn noise_key(&self, prefix: &str, now: Timestamp) -> Option<&StaticKey> {
        let is_named = |pair: &&NoisePair| key_prefix(&pair.key) == prefix;
        self.noise
            .iter()
            .find(is_named)
            .filter(|pair| pair.not_after >= now)
            .map(|pair| &pair.key)
    }

    /// The keys of sealed references.
    #[must_use]
    pub const fn references(&self) -> &RefKeys {
        &self.references
    }

    /// Reads the file again; returns whether another process changed the keys.
    ///
    /// # Errors
    ///
    /// [`KeyringError`]; the keys stay as they were.
    pub fn reload(&mut self) -> Result<bool, KeyringError> {
        let fresh = Self::open(self.directory.path(), &self.domain)?;
        let changed = fresh.stored != self.stored;
        if changed {
            *self = fresh;
        }
        Ok(changed)
    }

    /// Replaces a Noise key that will expire within [`NOISE_KEY_RENEWAL`]; returns whether it did.
    /// For every start and once a day.
    ///
    /// # Errors
    ///
    /// [`KeyringError`]; the keys stay as they were.
    pub fn maintain(&mut self, now: Timestamp) -> Result<bool, KeyringError> {
        let until = now.saturating_add(NOISE_KEY_RENEWAL);
        if self
            .noise
            .iter()
            .any(|pair| pair.not_before <= now && pair.not_after >= until)
        {
            return Ok(false);
        }
        self.rotate_noise(now)?;
        Ok(true)
    }

    /// Makes a new Noise key and a statement that names it. The old one stays valid for 30 days, so
    /// nobody is disconnected.
    ///
    /// # Errors
    ///
    /// [`KeyringError`]; the keys stay as they were.
    pub fn rotate_noise(&mut self, now: Timestamp) -> Result<(), KeyringError> {
        self.change(|stored| {
            let end = now.saturating_add(NOISE_KEY_OVERLAP);
            stored.retire_noise(now, end);
            if stored.noise_count() >= NOISE_KEYS_MAX {
                return Err(KeyringError::Full { what: "noise key" });
            }
            stored.add_noise(
                &StaticKey::generate(),
                now,
                now.saturating_add(NOISE_KEY_LIFE),
            );
            stored.issue(None, now)
        })
    }

    /// Makes a new domain key. A last statement of the old key names it and joins the chain by which
    /// clients follow; then the new key issues its first statement. Invite links that carry the old
    /// key keep working through the chain.
    ///
    /// # Errors
    ///
    /// [`KeyringError`]; the keys stay as they were.
    pub fn rotate_domain(&mut self, now: Timestamp) -> Result<(), KeyringError> {
        self.change(|stored| {
            if stored.chain_len() >= CHAIN_MAX {
                return Err(KeyringError::Full { what: "domain key" });
            }
            let next = DomainSecret::generate();
            stored.issue(Some(next.key()), now)?;
            stored.hand_over(&next);
            stored.issue(None, now)
        })
    }

    /// Makes a new key for sealed references. References of earlier keys open for ever.
    ///
    /// # Errors
    ///
    /// [`KeyringError`]; the keys stay as they were.
    pub fn rotate_references(&mut self) -> Result<(), KeyringError> {
        self.change(|stored| stored.add_reference(&Secret::random()))
    }

    /// Applies `change` to what the file holds at that moment, under the lock.
    fn change(
        &mut self,
        change: impl FnOnce(&mut Stored) -> Result<(), KeyringError>,
    ) -> Result<(), KeyringError> {
        let _lock = self.directory.lock()?;
        let missing = || KeyringError::Missing {
            path: self.directory.path().to_owned(),
        };
        let mut stored = self.directory.read()?.ok_or_else(missing)?;
        change(&mut stored)?;
        let fresh = Self::of(self.directory.clone(), stored, &self.domain)?;
        fresh.directory.write(&fresh.stored)?;
        *self = fresh;
        Ok(())
    }
}

impl NoisePair {
    fn public(&self) -> ServerNoiseKey {
        let Self {
            key,
            not_before,
            not_after,
        } = self;
        ServerNoiseKey {
            key: *key.public(),
            not_before: *not_before,
            not_after: *not_after,
        }
    }
}

/// The first 16 hex digits of a Noise public key, by which HELLO names it.
#[must_use]
pub fn key_prefix(key: &StaticKey) -> String {
    let public = key.public().as_bytes();
    data_encoding::HEXLOWER.encode(public.first_chunk::<8>().unwrap_or(&[0; 8]))
}

#[cfg(test)]
mod tests;
