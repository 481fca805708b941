//! What a client answers: plain values for screens and scripts.

use commucat_proto::id::{AccountId, DeviceId, GroupId, MessageId};

use crate::event::Connection;

/// The own account and device.
#[derive(Clone, Debug)]
pub struct Me {
    /// Account id.
    pub account: AccountId,
    /// Domain of the home server.
    pub domain: String,
    /// This device.
    pub device: DeviceId,
    /// The link that others add this account by (CCP-1 section 6, "Contact link").
    pub contact_link: String,
    /// Whether this device holds the account key, so that it can link and revoke devices.
    pub holds_account_key: bool,
}

/// Somebody the account knows.
#[derive(Clone, Debug)]
pub struct Contact {
    /// The name that the own account gave.
    pub petname: String,
    /// Account id.
    pub account: AccountId,
    /// Domain of the contact's home server.
    pub domain: String,
    /// Devices in the contact's newest known list; 0 until it was fetched.
    pub devices: usize,
    /// Whether the safety number was compared and confirmed.
    pub verified: bool,
    /// The 1:1 conversation, once there is one.
    pub conversation: Option<GroupId>,
}

/// A conversation: with one contact, or a group.
#[derive(Clone, Debug)]
pub struct Conversation {
    /// Group id.
    pub id: GroupId,
    /// Petname of the contact, or name of the group.
    pub name: String,
    /// Whether it is a named group.
    pub group: bool,
    /// Accounts in it, with the names that the own account gave.
    pub members: Vec<(AccountId, String)>,
    /// Devices in it.
    pub devices: usize,
    /// MLS cipher suite, as its code point.
    pub suite: u16,
    /// Position of the last commit applied.
    pub position: u64,
    /// Whether messages can be sent now.
    pub ready: bool,
    /// Messages in the outbox that the server has not acknowledged.
    pub unsent: usize,
}

/// One of the own account's devices.
#[derive(Clone, Debug)]
pub struct Device {
    /// Device id.
    pub id: DeviceId,
    /// Whether it is this one.
    pub current: bool,
}

/// What two people compare to know that nobody sits between them.
#[derive(Clone, Debug)]
pub struct SafetyNumber {
    /// 60 digits in groups of five, the same on both sides.
    pub digits: String,
    /// The text for a QR code.
    pub qr: String,
}

/// State of the client, for people and monitoring.
#[derive(Clone, Debug)]
pub struct Status {
    /// State of the connection.
    pub connection: Connection,
    /// Own account and device.
    pub me: Me,
    /// Endpoint that the client connects to, `host:port`.
    pub endpoint: String,
    /// Messages in the outbox.
    pub outbox: usize,
    /// Conversations.
    pub conversations: usize,
    /// Contacts.
    pub contacts: usize,
    /// Single-use key packages left on the server, once counted.
    pub key_packages: Option<u64>,
    /// The server's TLS certificate did not verify at the last login; its own key did.
    pub certificate_failed: bool,
    /// Requests or messages are unanswered, or will be tried again in a moment.
    pub busy: bool,
}

/// A message accepted into the outbox.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    /// The conversation.
    pub conversation: GroupId,
    /// The message's id.
    pub message: MessageId,
}

/// What to do with a request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Decision {
    /// Talk; the stranger becomes a contact under this petname.
    Accept {
        /// Name to give.
        petname: String,
    },
    /// Leave the conversation.
    Decline,
    /// Leave it, and drop later requests of this account.
    Block,
}
