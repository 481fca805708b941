//! What a client tells its application, in the application's words.

use commucat_proto::id::{AccountId, DeviceId, GroupId, MessageId};
use commucat_proto::time::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;

/// Events that one slow listener may be behind before it is told [`Event::Behind`].
pub const BEHIND_MAX: usize = 8192;

/// Something an application wants to show or count.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// A message is in the history of a conversation, for the first and only time; also sent for
    /// messages of other devices of the own account.
    Message(Message),
    /// A sent message got further.
    Tick {
        /// Conversation.
        conversation: GroupId,
        /// The message.
        message: MessageId,
        /// How far it is now.
        tick: Tick,
    },
    /// Somebody who is not a contact wants to talk: accept, decline or block.
    Request(Request),
    /// A conversation was made or changed: members, name, own membership.
    Conversation {
        /// Which.
        conversation: GroupId,
        /// What happened.
        change: Change,
    },
    /// The connection to the server changed.
    Connection(Connection),
    /// Messages of a conversation are missing for good: their author says that they were settled and
    /// they are not here, a queue was full, or entries expired. Never said of what only comes late. The
    /// client has caught up with the group's log by itself.
    Gap {
        /// Which; `None`: it may concern any.
        conversation: Option<GroupId>,
    },
    /// Members of this group may see different histories (the hub told of it, or a message does not
    /// open that should): treat it as split, and offer a new group with the same people. A member who
    /// sends rubbish causes it too.
    Fork {
        /// Which.
        conversation: GroupId,
    },
    /// A message could not be handed to some recipients; it is sealed and sent again by itself
    /// where that helps.
    Undelivered {
        /// Conversation.
        conversation: GroupId,
        /// The message.
        message: MessageId,
        /// Why.
        reason: UndeliveredReason,
    },
    /// Another device of the own account appeared or was removed.
    Devices,
    /// The TLS certificate of the server could not be verified; the connection goes on because the
    /// server's own key is known and is verified. Sent once.
    CertificateWarning,
    /// This listener was too slow and missed events; read the histories again.
    Behind {
        /// How many.
        missed: u64,
    },
}

impl Event {
    /// Whether it is kept as a [`Notice`].
    #[must_use]
    pub const fn is_notice(&self) -> bool {
        match self {
            Self::Gap { .. }
            | Self::Fork { .. }
            | Self::Conversation {
                change: Change::Lost,
                ..
            } => true,
            // One of another epoch is sealed and sent again.
            Self::Undelivered { reason, .. } => !matches!(reason, UndeliveredReason::Epoch),
            Self::Message(_)
            | Self::Tick { .. }
            | Self::Request(_)
            | Self::Conversation { .. }
            | Self::Connection(_)
            | Self::Devices
            | Self::CertificateWarning
            | Self::Behind { .. } => false,
        }
    }
}

/// One message of a history.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Message {
    /// Position in the history of this device, rising.
    pub number: u64,
    /// Conversation.
    pub conversation: GroupId,
    /// Name of the group, which its members chose; `None` in a chat of two.
    pub group_name: Option<String>,
    /// The message's id, the same on all devices.
    pub id: MessageId,
    /// Account of the author.
    pub author: AccountId,
    /// Device of the author.
    pub device: DeviceId,
    /// Petname of the author, `me` for the own account, else the start of the account id.
    pub author_name: String,
    /// The author device's counter in the group: the order of its messages.
    pub counter: u64,
    /// When the author says it was sent.
    pub sent: Timestamp,
    /// The text.
    pub text: String,
    /// Whether the own account wrote it.
    pub own: bool,
    /// How far it is, for messages of this device.
    pub tick: Tick,
}

/// How far a sent message is.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub enum Tick {
    /// In this device's outbox, on disk.
    #[default]
    Queued,
    /// The server has custody: stored for, or handed to, every recipient device.
    Stored,
    /// A recipient device has it: the first receipt came.
    Delivered,
    /// Somebody has read it.
    Read,
}

impl Tick {
    /// The word for JSON and the terminal.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Stored => "stored",
            Self::Delivered => "delivered",
            Self::Read => "read",
        }
    }
}

/// A conversation that a stranger started.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Request {
    /// The conversation that waits for a decision.
    pub conversation: GroupId,
    /// Who started it.
    pub from: AccountId,
    /// The stranger's domain, if known.
    pub domain: String,
}

/// What happened to a conversation.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Change {
    /// It is there and ready.
    Ready,
    /// Members or devices changed.
    Members,
    /// Its name or roles changed.
    Settings,
    /// This account was removed, or left.
    Left,
    /// This device cannot find back into the group, mostly because it was away for longer than the
    /// log is kept and somebody was removed meanwhile. It has left: a member has to add it again.
    Lost,
    /// The group was closed.
    Closed,
}

/// State of the connection.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Connection {
    /// Trying to connect.
    Connecting,
    /// Signed in.
    Online,
    /// Everything that waited on the server is here, and others find this device's key packages.
    CaughtUp,
    /// The connection ended; the client tries again by itself.
    Offline {
        /// Why, in the words of the README's table of frequent problems.
        reason: String,
    },
    /// Another connection of this device took over; the client does not reconnect by itself.
    Replaced,
    /// This device was removed from the account; it cannot connect any more.
    Revoked,
    /// The client has stopped by itself: its store failed. Open it again when that is mended.
    Stopped {
        /// Why.
        reason: String,
    },
}

/// Something that people have to hear of, kept until they have: [`Event::Gap`], [`Event::Fork`],
/// [`Event::Undelivered`], or an [`Event::Conversation`] that is [`Change::Lost`].
#[derive(Clone, Debug)]
pub struct Notice {
    /// Its number, rising.
    pub number: u64,
    /// What happened, as the events of that moment told it.
    pub event: Event,
}

/// Why a message was returned.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum UndeliveredReason {
    /// A recipient's queue is full.
    Full,
    /// A recipient device is gone.
    Gone,
    /// It waited too long.
    Expired,
    /// Not allowed.
    Forbidden,
    /// It was sealed too long ago; it is sealed again.
    Epoch,
    /// The recipient's domain is blocked.
    Blocked,
}

/// A stream of events; made by `Client::subscribe`.
#[derive(Debug)]
pub struct Events {
    receiver: broadcast::Receiver<Event>,
}

impl Events {
    pub(crate) const fn new(receiver: broadcast::Receiver<Event>) -> Self {
        Self { receiver }
    }

    /// The next event; `None` when the client has stopped.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: no event is lost when the future is dropped.
    pub async fn next(&mut self) -> Option<Event> {
        match self.receiver.recv().await {
            Ok(event) => Some(event),
            Err(broadcast::error::RecvError::Lagged(missed)) => Some(Event::Behind { missed }),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}
