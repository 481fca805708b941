//! What the engine remembers, as records in the vault.

use commucat_proto::id::{
    AccountId, AccountKey, ClaimId, DeviceId, Domain, DomainKey, GroupId, Handle, MessageId,
    NoiseKey, Token,
};
use serde::{Deserialize, Serialize};

use crate::record;

/// The own account, this device, and what is known of the home server. One record.
#[derive(Clone, Deserialize, Serialize)]
pub(crate) struct Account {
    /// Account key; absent on a device that is not linked yet.
    #[serde(with = "record::optional")]
    pub(crate) key: Option<AccountKey>,
    /// Entropy of the recovery phrase; on the first device only.
    #[serde(with = "record::optional")]
    pub(crate) entropy: Option<[u8; 32]>,
    #[serde(with = "record::raw")]
    pub(crate) device: DeviceId,
    /// Noise private key.
    #[serde(with = "record::raw")]
    pub(crate) noise: [u8; 32],
    /// Seed of the MLS signature key.
    #[serde(with = "record::raw")]
    pub(crate) mls: [u8; 32],
    /// The signed device list in force, encoded.
    #[serde(with = "record::optional")]
    pub(crate) list: Option<Vec<u8>>,
    pub(crate) list_version: u64,
    /// The capability in the own contact link.
    #[serde(with = "record::raw")]
    pub(crate) capability: Token,
    /// The server holds the capability.
    pub(crate) capability_published: bool,
    /// Invite token, until the registration succeeded.
    #[serde(with = "record::optional")]
    pub(crate) invite: Option<Token>,
    pub(crate) registered: bool,
    pub(crate) server: Option<Server>,
    /// The queue has a gap, and it was not read to its end since.
    #[serde(default)]
    pub(crate) had_gap: bool,
}

/// The home server.
#[derive(Clone, Deserialize, Serialize)]
pub(crate) struct Server {
    /// `host:port`.
    pub(crate) endpoint: String,
    #[serde(with = "record::raw")]
    pub(crate) domain: Domain,
    #[serde(with = "record::raw")]
    pub(crate) domain_key: DomainKey,
    /// Highest serial of a server keys statement seen.
    pub(crate) serial: u64,
    /// The Noise key in use; absent before the first contact.
    #[serde(with = "record::optional")]
    pub(crate) noise: Option<NoiseKey>,
    /// The user was told that the TLS certificate does not verify.
    pub(crate) warned: bool,
    /// It did not verify at the last login.
    #[serde(default)]
    pub(crate) certificate_failed: bool,
}

/// Somebody known.
#[derive(Clone, Deserialize, Serialize)]
pub(crate) struct Contact {
    #[serde(with = "record::raw")]
    pub(crate) account: AccountId,
    #[serde(with = "record::raw")]
    pub(crate) domain: Domain,
    pub(crate) petname: String,
    /// Lets this account claim key packages of the contact.
    #[serde(with = "record::optional")]
    pub(crate) capability: Option<Token>,
    #[serde(with = "record::optional")]
    pub(crate) key: Option<AccountKey>,
    /// Version of the pinned device list.
    pub(crate) list_version: u64,
    /// The pinned device list, signed and encoded.
    #[serde(with = "record::optional")]
    pub(crate) list: Option<Vec<u8>>,
    pub(crate) devices: Vec<String>,
    pub(crate) verified: bool,
    pub(crate) blocked: bool,
    /// The 1:1 conversation.
    #[serde(with = "record::optional")]
    pub(crate) conversation: Option<GroupId>,
}

/// How far a conversation is.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) enum Stage {
    /// Wanted; not made yet.
    Planned,
    /// Made here; the hub has not confirmed GROUP_CREATE.
    Creating,
    /// The hub has it and this device is in it.
    Active,
    /// This device is out of it for good.
    Left,
}

/// What a conversation is for.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) enum Kind {
    /// With one account.
    Direct,
    /// A named group.
    Group,
    /// The own devices among themselves: tells them about each other.
    Own,
}

/// A conversation.
#[derive(Clone, Deserialize, Serialize)]
pub(crate) struct Conversation {
    #[serde(with = "record::raw")]
    pub(crate) id: GroupId,
    #[serde(with = "record::raw")]
    pub(crate) hub: Domain,
    pub(crate) kind: Kind,
    pub(crate) stage: Stage,
    /// Name of a group.
    pub(crate) name: Option<String>,
    /// The other account of a 1:1.
    #[serde(with = "record::optional")]
    pub(crate) peer: Option<AccountId>,
    /// Handles that are said to be gone for good, until the hub's list shows whether they are.
    #[serde(default, with = "record::many")]
    pub(crate) gone: Vec<Handle>,
    /// Accounts whose missing devices shall be added.
    #[serde(with = "record::many")]
    pub(crate) wanted: Vec<AccountId>,
    /// Whoever was wanted at first is in it: messages may be sent.
    pub(crate) ready: bool,
    /// A stranger started it and nobody decided yet.
    #[serde(with = "record::optional")]
    pub(crate) request: Option<AccountId>,
    /// GROUP_CREATE as sent, until it is confirmed.
    #[serde(with = "record::optional")]
    pub(crate) create: Option<Vec<u8>>,
    /// The log has to be read: something is missing.
    pub(crate) behind: bool,
    /// The claim whose packages are not used yet, by account: a repeat returns the same.
    pub(crate) claims: Vec<Claim>,
    /// This device lost the thread and has to rejoin by an external commit.
    pub(crate) rejoin: bool,
    /// LEAVE for good was not answered yet.
    pub(crate) leaving: bool,
    /// When this device joined, for the light self-update within a day; 0 once it is done.
    pub(crate) update_due: u64,
    /// The highest log position handled; the chats hold the truth.
    pub(crate) position: u64,
    /// The highest log position that the queue has shown: what was said before it has come.
    #[serde(default)]
    pub(crate) seen: u64,
    /// The log position at which this device was added.
    #[serde(default)]
    pub(crate) joined: u64,
}

impl Conversation {
    /// A conversation that is only wanted so far.
    pub(crate) fn new(id: GroupId, hub: Domain, kind: Kind) -> Self {
        Self {
            id,
            hub,
            kind,
            stage: Stage::Planned,
            name: None,
            peer: None,
            gone: Vec::new(),
            wanted: Vec::new(),
            ready: false,
            request: None,
            create: None,
            behind: false,
            claims: Vec::new(),
            rejoin: false,
            leaving: false,
            update_due: 0,
            position: 0,
            seen: 0,
            joined: 0,
        }
    }
}

/// A claim of key packages under way.
#[derive(Clone, Deserialize, Serialize)]
pub(crate) struct Claim {
    #[serde(with = "record::raw")]
    pub(crate) account: AccountId,
    #[serde(with = "record::raw")]
    pub(crate) id: ClaimId,
    pub(crate) made: u64,
}

/// A content that the server has not acknowledged. The log number orders it.
#[derive(Clone, Deserialize, Serialize)]
pub(crate) struct Outgoing {
    #[serde(with = "record::raw")]
    pub(crate) message: MessageId,
    /// The plaintext; its counter is 0 until it is composed.
    #[serde(with = "record::raw")]
    pub(crate) content: Vec<u8>,
    /// It has its counter in the group.
    pub(crate) composed: bool,
    /// The MSG payload, once sealed: resent byte for byte.
    #[serde(with = "record::optional")]
    pub(crate) sealed: Option<Vec<u8>>,
    /// Position at which it was sealed.
    pub(crate) position: u64,
}

/// A message in a history.
#[derive(Clone, Deserialize, Serialize)]
pub(crate) struct Stored {
    #[serde(with = "record::raw")]
    pub(crate) id: MessageId,
    #[serde(with = "record::raw")]
    pub(crate) author: AccountId,
    #[serde(with = "record::raw")]
    pub(crate) device: DeviceId,
    pub(crate) counter: u64,
    pub(crate) sent: u64,
    pub(crate) text: String,
    /// 0 queued, 1 stored, 2 delivered, 3 read.
    pub(crate) tick: u8,
    /// Written by this device: its content can be sealed again.
    pub(crate) ours: bool,
    /// A read receipt was sent.
    pub(crate) read: bool,
}
