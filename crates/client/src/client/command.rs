//! What an application asks of the engine.

use commucat_proto::id::{GroupId, MessageId};
use tokio::sync::oneshot;

use super::view::{Contact, Conversation, Decision, Device, Me, SafetyNumber, Sent, Status};
use crate::error::ClientError;
use crate::event::{Message, Notice, Request, Tick};

/// Where an answer goes.
pub(crate) type Reply<T> = oneshot::Sender<Result<T, ClientError>>;

/// What an application asks of the engine.
pub(crate) enum Command {
    Me(Reply<Me>),
    AddContact {
        link: String,
        petname: String,
        reply: Reply<Contact>,
    },
    Contacts(Reply<Vec<Contact>>),
    Safety {
        who: String,
        reply: Reply<SafetyNumber>,
    },
    Verify {
        who: String,
        reply: Reply<()>,
    },
    Send {
        to: String,
        text: String,
        reply: Reply<Sent>,
    },
    Read {
        conversation: String,
        reply: Reply<()>,
    },
    CreateGroup {
        name: String,
        members: Vec<String>,
        reply: Reply<GroupId>,
    },
    Invite {
        group: String,
        who: String,
        reply: Reply<()>,
    },
    Remove {
        group: String,
        who: String,
        reply: Reply<()>,
    },
    Leave {
        group: String,
        reply: Reply<()>,
    },
    Conversations(Reply<Vec<Conversation>>),
    History {
        name: String,
        after: u64,
        limit: u32,
        reply: Reply<Vec<Message>>,
    },
    Tick {
        message: MessageId,
        reply: Reply<Option<Tick>>,
    },
    Unshown {
        limit: u32,
        reply: Reply<Vec<Message>>,
    },
    Shown {
        numbers: Vec<u64>,
        reply: Reply<()>,
    },
    Notices(Reply<Vec<Notice>>),
    NoticesShown {
        numbers: Vec<u64>,
        reply: Reply<()>,
    },
    Requests(Reply<Vec<Request>>),
    Decide {
        request: String,
        decision: Decision,
        reply: Reply<()>,
    },
    Devices(Reply<Vec<Device>>),
    LinkDevice {
        code: String,
        reply: Reply<String>,
    },
    RevokeDevice {
        device: String,
        reply: Reply<()>,
    },
    Phrase(Reply<String>),
    EnterPhrase {
        phrase: String,
        reply: Reply<()>,
    },
    Status(Reply<Status>),
}
