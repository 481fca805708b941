//! What an application decides before a client starts.

use std::path::PathBuf;

use crate::clock::{self, Clock};
use crate::vault::Unlock;

/// Which TLS certificates are accepted. The server itself is authenticated by its Noise key, so a
/// failed check with a known domain key is a warning, not the end (CCP-1 section 1).
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum Trust {
    /// The system's certificate authorities.
    #[default]
    System,
    /// The certificates of this PEM file only (`--tls-ca`).
    Ca(PathBuf),
    /// Any certificate, without a warning (`--insecure`).
    Insecure,
}

/// The MLS cipher suite of conversations that this device starts.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Suite {
    /// 0x004E: ML-KEM-768 with X25519, AES-256-GCM, SHA-384, Ed25519.
    #[default]
    Hybrid,
    /// 0x0003: X25519, ChaCha20-Poly1305, SHA-256, Ed25519.
    Classical,
}

/// Settings of one client: a profile directory and how to reach the server.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The profile directory: holds the vault, its key file and its lock.
    pub directory: PathBuf,
    /// What opens the vault.
    pub unlock: Unlock,
    /// Which TLS certificates are accepted.
    pub trust: Trust,
    /// Suite of new conversations.
    pub suite: Suite,
    /// Whether records are filled up to size classes (CCP-1 section 3, "Sealed records").
    pub padding: bool,
    /// Where the time comes from.
    pub clock: Clock,
}

impl Settings {
    /// Settings with the defaults: key file beside the vault, system certificates, hybrid suite.
    #[must_use]
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            unlock: Unlock::KeyFileBeside,
            trust: Trust::System,
            suite: Suite::Hybrid,
            padding: false,
            clock: clock::system,
        }
    }
}
