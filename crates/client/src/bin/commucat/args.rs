//! The command line: what can be asked, and the help that explains it.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use serde::{Deserialize, Serialize};

/// Talk end to end encrypted, from the command line
///
/// One profile is one device. The first steps:
///
///   commucat join 'commucat://host:8443/#i=...'   make an account with an invite link
///   commucat me                                   show your own contact link, give it to a friend
///   commucat add 'commucat:...' --as bob          add a friend by the friend's contact link
///   commucat send bob "hi"                        send a message (or: echo hi | commucat send bob -)
///   commucat listen                               show what arrives
///
/// Exit codes: 0 done, 1 not done (the error says why and what to do), 2 wrong usage, 3 not done in
/// time but kept and tried again by the next command, 70 a fault of this program.
#[derive(Debug, Parser)]
#[command(
    name = "commucat",
    version,
    verbatim_doc_comment,
    max_term_width = 100,
    arg_required_else_help = true
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options of every command
#[derive(Args, Debug)]
pub(crate) struct Common {
    /// Directory of the profile; several profiles on one machine are several devices
    #[arg(long, global = true, env = "COMMUCAT_PROFILE", value_name = "DIR")]
    pub(crate) profile: Option<PathBuf>,
    /// Print JSON: one object, or one line an event
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Read the passphrase of the profile from the first line of FILE; without it the profile is
    /// opened with a key file beside it
    #[arg(
        long,
        global = true,
        env = "COMMUCAT_PASSPHRASE_FILE",
        value_name = "FILE"
    )]
    pub(crate) passphrase_file: Option<PathBuf>,
    /// Key file of the profile, if it is not in the profile directory
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        conflicts_with = "passphrase_file"
    )]
    pub(crate) key_file: Option<PathBuf>,
    /// Accept only the TLS certificates (or CAs) in this PEM file
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) tls_ca: Option<PathBuf>,
    /// Accept any TLS certificate without a warning; the server's own key is still verified
    #[arg(long, global = true, conflicts_with = "tls_ca")]
    pub(crate) insecure: bool,
    /// Start conversations with the classical suite 0x0003 instead of the post-quantum one 0x004E
    #[arg(long, global = true)]
    pub(crate) classical: bool,
    /// Fill sealed records to size classes, so that their length tells less
    #[arg(long, global = true)]
    pub(crate) padding: bool,
    /// Seconds to wait for the server before giving up
    #[arg(long, global = true, value_name = "SECONDS", default_value_t = 30)]
    pub(crate) timeout: u64,
}

/// What to do
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make an account and this device with an invite link
    ///
    /// The link comes from whoever runs the server (`commucat-server` prints the first one,
    /// `commucat-cli invite create` makes more). Prints your contact link. Write down the recovery
    /// phrase afterwards: `commucat phrase show`.
    Join {
        /// commucat://host:port/#i=...,d=...,k=...
        invite: String,
    },
    /// Make this profile a further device of an account that you have on another device
    ///
    /// Shows a code. On the first device run `commucat device link <code>`; it prints an answer.
    /// Paste the answer here. To do it in two steps: run `commucat link`, then later
    /// `commucat link --answer <answer>`.
    Link {
        /// The answer of the first device, if it is there already
        #[arg(long)]
        answer: Option<String>,
    },
    /// Get your account back with the recovery phrase, when all its devices are lost
    ///
    /// Type the 24 words when asked, or pipe them in. Any other device of the account is signed
    /// out. Your contacts' clients add this device again to your conversations; older messages are
    /// gone. If one device is left, use `commucat phrase enter` and `commucat device` there.
    Recover {
        /// Any invite link of your server: it says where the server is
        invite: String,
    },
    /// Show messages and events as they arrive, until Ctrl-C
    ///
    /// First what arrived earlier and was not shown yet. Other commands on the same profile work
    /// meanwhile: they hand their work over to this process.
    Listen {
        /// Tell the authors that their messages were read
        #[arg(long)]
        read: bool,
        /// Stop after so many messages
        #[arg(long, value_name = "N")]
        count: Option<u64>,
    },
    #[command(flatten)]
    Ask(Request),
}

/// What a running client answers; it can be handed over to the process that has the profile open.
#[derive(Clone, Debug, Deserialize, Serialize, Subcommand)]
pub(crate) enum Request {
    /// Show your account, this device and your contact link (with a QR code)
    Me,
    /// Add a contact by its contact link
    Add {
        /// `commucat:ACCOUNT@DOMAIN#c=...`
        link: String,
        /// The name that you give
        #[arg(long = "as", value_name = "NAME")]
        petname: String,
    },
    /// List contacts
    Contacts,
    /// Send a text to a contact or a group
    ///
    /// The message is on disk before it is sent and is sent again until the server has it.
    Send {
        /// Name of a contact or group
        to: String,
        /// The text; `-` reads it from standard input
        text: String,
        /// Wait until the message is this far
        #[arg(long, value_enum, default_value_t = Wait::Stored)]
        wait: Wait,
    },
    /// Show past messages of a contact or group
    History {
        /// Name of a contact or group
        name: String,
        /// At most so many of the newest
        #[arg(long, default_value_t = 50)]
        limit: usize,
    },
    /// Show the safety number of a contact: compare it face to face or over a call
    Safety {
        /// Name of the contact
        name: String,
        /// Remember that it was compared and is right
        #[arg(long)]
        verified: bool,
    },
    /// List conversations
    Groups,
    /// Make and change groups
    #[command(subcommand)]
    Group(GroupRequest),
    /// List, accept, decline or block people who want to talk to you
    #[command(subcommand, name = "request")]
    Stranger(StrangerRequest),
    /// List, link and revoke the devices of your account
    #[command(subcommand)]
    Device(DeviceRequest),
    /// Show the recovery phrase
    #[command(subcommand)]
    Phrase(PhraseRequest),
    /// Show the state of this client and its connection
    Status,
}

impl Request {
    /// Whether the server has something to do with it, so that it is worth to stay connected.
    pub(crate) const fn changes_something(&self) -> bool {
        match self {
            Self::Me
            | Self::Contacts
            | Self::History { .. }
            | Self::Safety { .. }
            | Self::Groups
            | Self::Phrase(_)
            | Self::Status
            | Self::Stranger(StrangerRequest::List)
            | Self::Device(DeviceRequest::List) => false,
            Self::Add { .. }
            | Self::Send { .. }
            | Self::Group(_)
            | Self::Stranger(_)
            | Self::Device(_) => true,
        }
    }
}

/// Changes of groups
#[derive(Clone, Debug, Deserialize, Serialize, Subcommand)]
pub(crate) enum GroupRequest {
    /// Make a group
    Create {
        /// Its name
        name: String,
        /// Contacts in it
        #[arg(required = true)]
        members: Vec<String>,
    },
    /// Add a contact
    Invite {
        /// Name of the group
        group: String,
        /// Name of the contact
        name: String,
    },
    /// Remove a member
    Remove {
        /// Name of the group
        group: String,
        /// Name of the contact
        name: String,
    },
    /// Leave for good
    Leave {
        /// Name of the group
        group: String,
    },
}

/// Decisions on strangers
#[derive(Clone, Debug, Deserialize, Serialize, Subcommand)]
pub(crate) enum StrangerRequest {
    /// List requests
    List,
    /// Accept one; the stranger becomes a contact
    Accept {
        /// Account id, or the start of it
        who: String,
        /// The name that you give
        #[arg(long = "as", value_name = "NAME")]
        petname: String,
    },
    /// Leave the conversation
    Decline {
        /// Account id, or the start of it
        who: String,
    },
    /// Leave the conversation and drop later requests of this account
    Block {
        /// Account id, or the start of it
        who: String,
    },
}

/// Devices of the account
#[derive(Clone, Debug, Deserialize, Serialize, Subcommand)]
pub(crate) enum DeviceRequest {
    /// List devices
    List,
    /// Sign in a new device by the code that `commucat link` shows on it; prints the answer
    Link {
        /// The code
        code: String,
    },
    /// Remove a device: it loses the connection, its queue and its place in all conversations
    Revoke {
        /// Device id, or the start of it
        device: String,
        /// Really do it
        #[arg(long)]
        yes: bool,
    },
}

/// The recovery phrase
#[derive(Clone, Debug, Deserialize, Serialize, Subcommand)]
pub(crate) enum PhraseRequest {
    /// Show the 24 words; whoever has them has the account
    Show,
    /// Give this device the account key: type the words, or pipe them in
    ///
    /// For when the first device is lost and this one is left: it can then link new devices and
    /// revoke the lost one.
    Enter {
        #[arg(skip)]
        words: String,
    },
}

/// How far a message should be before the command ends
#[derive(Clone, Copy, Debug, Deserialize, Serialize, ValueEnum)]
pub(crate) enum Wait {
    /// In the outbox of this device, on disk
    Queued,
    /// With the server, on disk or handed on
    Stored,
    /// On a device of a recipient
    Delivered,
    /// Read by a recipient
    Read,
}
