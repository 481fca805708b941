//! What can be asked.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::response::{Hidden, PeerStanding};

/// Accounts that one invite opens at most.
pub const INVITE_USES_MAX: u32 = 10_000;

/// How long an invite lasts at most.
pub const INVITE_LASTS_MAX: Duration = Duration::from_secs(365 * 86_400);

/// One request.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(tag = "request", rename_all = "snake_case")]
pub enum Request {
    /// Whether the store takes writes.
    Health,
    /// Versions, keys, ledger.
    Status,
    /// Whether the structure of the store is sound. Reads all of it.
    CheckStore,
    /// Makes an invite.
    CreateInvite {
        /// Accounts that it opens, 1 to [`INVITE_USES_MAX`].
        uses: u32,
        /// How long it lasts, up to [`INVITE_LASTS_MAX`].
        lasts_seconds: u64,
    },
    /// Lists invites, oldest first, a page at a time.
    ListInvites {
        /// How many to pass over.
        skip: u64,
    },
    /// Removes an invite.
    RevokeInvite {
        /// The name in listings, or the beginning of it that no other has.
        invite: Hidden,
    },
    /// Lists devices, ascending by id, a page at a time.
    ListDevices {
        /// The last device of the page before.
        after: Option<Hidden>,
    },
    /// Shows one device.
    ShowDevice {
        /// Its id.
        device: Hidden,
    },
    /// Shuts a device out for good.
    RevokeDevice {
        /// Its id.
        device: Hidden,
    },
    /// Lists the nodes of the domain.
    ListNodes,
    /// Lets a node end in order.
    DrainNode {
        /// Its name; none: the server that is asked.
        node: Option<String>,
    },
    /// Lists other domains in the order of their names, a page at a time.
    ListPeers {
        /// The last domain of the page before.
        after: Option<String>,
    },
    /// Shows one of them.
    ShowPeer {
        /// Its name.
        domain: String,
    },
    /// Names a domain that this one shall talk to.
    AddPeer {
        /// Its name.
        domain: String,
        /// Host and port that take its events; none: found at the domain itself.
        endpoint: Option<String>,
        /// Its domain key in hex or base32; none: pinned at first contact.
        key: Option<String>,
    },
    /// Allows or blocks a domain.
    SetPeer {
        /// Its name.
        domain: String,
        /// What it shall be.
        standing: PeerStanding,
    },
    /// Forgets a domain with its pinned key.
    RemovePeer {
        /// Its name.
        domain: String,
    },
    /// Asks a domain for a signed answer. Needs a running server.
    PingPeer {
        /// Its name.
        domain: String,
    },
    /// A copy of the embedded store. It may take longer than an answer.
    Backup {
        /// What to do about it.
        step: BackupStep,
    },
    /// Makes new keys.
    RotateKeys {
        /// Which.
        keys: KeyKind,
    },
}

/// The life of a copy.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BackupStep {
    /// Begins it, as the store is now.
    Start,
    /// How far it is, and where it is once it is made.
    State,
    /// Removes it.
    End,
}

/// The kinds of keys that an operator may replace.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyKind {
    /// The key that proves the server in the handshake.
    Noise,
    /// The key that signs the others.
    Domain,
    /// The key that seals new references to queues.
    References,
}
