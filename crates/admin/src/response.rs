//! What is answered.

use std::error::Error;
use std::fmt;
use std::path::PathBuf;

use commucat_proto::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::request::KeyKind;

/// A text that no log may show: an id or a link.
#[derive(Clone, Deserialize, Eq, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Hidden(String);

impl Hidden {
    /// Wraps `text`.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, for the operator.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hidden(..)")
    }
}

/// One response.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Response {
    /// It was done.
    Done(Answer),
    /// It was not.
    Failed(Failure),
}

/// What came of a request.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// All is well.
    Healthy,
    /// To [`Request::Status`](crate::Request::Status).
    Status(Status),
    /// To [`Request::CreateInvite`](crate::Request::CreateInvite).
    Created(NewInvite),
    /// To [`Request::ListInvites`](crate::Request::ListInvites).
    Invites(Invites),
    /// The invite that is gone now.
    InviteRevoked(Invite),
    /// To [`Request::ListDevices`](crate::Request::ListDevices).
    Devices(Devices),
    /// To [`Request::ShowDevice`](crate::Request::ShowDevice).
    Device(DeviceDetails),
    /// The device that is shut out now.
    DeviceRevoked(Device),
    /// The keys as they are now.
    Keys(Keys),
    /// To [`Request::ListNodes`](crate::Request::ListNodes).
    Nodes(Nodes),
    /// The node ends.
    Draining,
    /// To [`Request::ListPeers`](crate::Request::ListPeers).
    Peers(Peers),
    /// A domain as it is kept now.
    Peer(Peer),
    /// The domain that is forgotten now.
    PeerRemoved(Peer),
    /// To [`Request::PingPeer`](crate::Request::PingPeer).
    Pinged(Ping),
    /// To [`Request::Backup`](crate::Request::Backup).
    Backup(BackupState),
}

/// How far a copy of the store is.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct BackupState {
    /// The moment that it shows, in unix milliseconds, or shortly after.
    pub taken_ms: u64,
    /// Pages copied.
    pub pages: u64,
    /// Pages to copy; 0 before that is known.
    pub pages_total: u64,
    /// The copy, once it is made.
    pub made: Option<BackupMade>,
}

/// A copy of the store.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct BackupMade {
    /// Where it is: in the directory of the store, to be taken away.
    pub file: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// Version of its schema.
    pub schema_version: u32,
}

/// Whether this domain talks to another.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PeerStanding {
    /// Yes.
    Active,
    /// It asked, and waits for the operator's word.
    Pending,
    /// No.
    Blocked,
}

/// Another domain as it is kept.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Peer {
    /// Its name.
    pub domain: String,
    /// Whether this domain talks to it.
    pub standing: PeerStanding,
    /// Who brought it in: `configuration`, `operator` or `discovery`.
    pub named_by: String,
    /// Host and port that take its events, once known.
    pub endpoint: Option<String>,
    /// Its pinned key, as in invite links; none before the first contact.
    pub domain_key: Option<String>,
    /// The highest serial of its statement seen.
    pub serial: u64,
    /// Until when the key before is accepted, in unix milliseconds.
    pub previous_key_until_ms: Option<u64>,
    /// The day of the first authenticated contact.
    pub first_contact_ms: Option<u64>,
    /// The day of the last one.
    pub last_contact_ms: Option<u64>,
}

/// A page of domains.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Peers {
    /// In the order of their names.
    pub peers: Vec<Peer>,
    /// Whether more follow.
    pub more: bool,
}

/// A domain's signed answer to an empty batch.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Ping {
    /// Who answered.
    pub domain: String,
    /// How long it took, discovery included.
    pub milliseconds: u64,
}

/// The nodes of a domain.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Nodes {
    /// The one that was asked first; none if the server has no Redis.
    pub nodes: Vec<Node>,
}

/// A node as it says of itself.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Node {
    /// `server.node_id`.
    pub name: String,
    /// Its program's version.
    pub version: String,
    /// Devices that are connected to it.
    pub sessions: u64,
    /// It is about to end.
    pub draining: bool,
    /// It has the keys that the node asked has.
    pub same_keys: bool,
}

/// An invite that was just made.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct NewInvite {
    /// The link. It cannot be shown again.
    pub link: Hidden,
    /// How it is listed.
    #[serde(flatten)]
    pub invite: Invite,
}

/// An invite as it is kept.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Invite {
    /// Its name: the first 16 hex digits of its token's hash.
    pub id: String,
    /// Accounts that it was made for.
    pub uses: u32,
    /// Accounts that it may still open.
    pub uses_left: u32,
    /// When it was made, in unix milliseconds.
    pub created_ms: u64,
    /// When it ends.
    pub expires_ms: u64,
}

/// A page of invites.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Invites {
    /// Oldest first.
    pub invites: Vec<Invite>,
    /// Whether more follow.
    pub more: bool,
}

/// A device as it is kept.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Device {
    /// Its id.
    pub device: Hidden,
    /// Its account.
    pub account: Hidden,
    /// When its certificate begins to hold, in unix milliseconds.
    pub not_before_ms: u64,
    /// When it ends.
    pub not_after_ms: u64,
}

/// A device and what waits for it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct DeviceDetails {
    /// The device.
    #[serde(flatten)]
    pub device: Device,
    /// Messages that wait for it on disk.
    pub queue_entries: u64,
    /// Their bytes.
    pub queue_bytes: u64,
    /// Key packages that others can claim.
    pub key_packages: u64,
    /// Whether it has a last resort for when those are used up.
    pub last_resort: bool,
}

/// A page of devices.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Devices {
    /// Ascending by id.
    pub devices: Vec<Device>,
    /// Whether more follow.
    pub more: bool,
}

/// The public side of a domain's keys.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Keys {
    /// What was replaced; `None` if nothing was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rotated: Option<KeyKind>,
    /// The domain key, as in invite links.
    pub domain_key: String,
    /// Serial of the statement in force.
    pub serial: u64,
    /// Every Noise key that is accepted.
    pub noise_keys: Vec<NoiseKey>,
    /// Domain keys before this one.
    pub earlier_domain_keys: u64,
}

/// A Noise key and its validity.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct NoiseKey {
    /// Its first 16 hex digits, as HELLO names it.
    pub name: String,
    /// From when it is used, in unix milliseconds.
    pub not_before_ms: u64,
    /// Until when it is accepted.
    pub not_after_ms: u64,
}

/// The state of a server.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Status {
    /// Release of the process that answers.
    pub version: String,
    /// Its domain.
    pub domain: String,
    /// Where invites lead.
    pub endpoint: String,
    /// Version of the store's schema.
    pub schema_version: u32,
    /// Rows found damaged since the start.
    pub corrupt_rows: u64,
    /// The domain's keys.
    pub keys: Keys,
    /// The ledger.
    pub ledger: LedgerState,
}

/// How the ledger fares.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct LedgerState {
    /// Entries kept since the start.
    pub kept: u64,
    /// Appends that failed since the start.
    pub failures: u64,
    /// Whether changes of keys wait because the last append failed.
    pub failing: bool,
}

/// Why a request was not carried out.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Failure {
    /// What kind of reason.
    pub kind: FailureKind,
    /// The reason, for people.
    pub message: String,
    /// What is behind it, outermost first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<String>,
}

/// The kinds of reasons.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// There is no such invite.
    NoInvite,
    /// There is no such device.
    NoDevice,
    /// There is no such node.
    NoNode,
    /// No such domain is known.
    NoPeer,
    /// A domain gave no signed answer.
    NoPing,
    /// Another backup is being made, or none.
    Backup,
    /// The store is no file.
    NotEmbedded,
    /// More than one invite begins like that.
    Ambiguous,
    /// A value that is not allowed.
    Invalid,
    /// The keys cannot be used or changed.
    Keys,
    /// The store or the ledger does not work.
    Storage,
    /// The request is of another release.
    UnknownRequest,
}

impl Failure {
    /// A failure with the causes of `error`, whose own text is the message.
    #[must_use]
    pub fn of(kind: FailureKind, error: &dyn Error) -> Self {
        let causes = std::iter::successors(error.source(), |cause| (*cause).source());
        Self {
            kind,
            message: error.to_string(),
            causes: causes.map(ToString::to_string).collect(),
        }
    }
}

pub(crate) const fn millis(time: Timestamp) -> u64 {
    time.as_millis()
}
