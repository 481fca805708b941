//! Errors of the SDK: what failed, why, and what to do next.

use crate::vault::VaultError;

/// Why something that the application asked for did not happen.
///
/// The text of the connection errors begins with the name that users find in the README's table of
/// frequent problems; [`Self::hint`] gives the next step.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// No TCP connection.
    #[error("tcp connect failed")]
    Tcp(#[source] std::io::Error),
    /// No TLS session.
    #[error("tls connect failed")]
    Tls(#[source] std::io::Error),
    /// The HTTP layer under the session failed.
    #[error("connection failed: {0}")]
    Http(String),
    /// The server refused the device, or is not the server that was pinned.
    #[error("handshake rejected: {0}")]
    Handshake(String),
    /// The server's identity statement is not signed by the expected key.
    #[error("server identity does not match: {0}")]
    Identity(&'static str),
    /// The server took too long.
    #[error("no answer from the server in time")]
    Timeout,
    /// The profile could not be read or written.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// A link, code or phrase that does not parse.
    #[error("this is not a valid {what}")]
    Invalid {
        /// What was expected.
        what: &'static str,
    },
    /// A name that nothing has.
    #[error("no {what} called `{name}`")]
    Unknown {
        /// What was looked for.
        what: &'static str,
        /// The name given.
        name: String,
    },
    /// A name that is taken.
    #[error("`{name}` is already the name of a contact or group")]
    NameTaken {
        /// The name given.
        name: String,
    },
    /// The server answered with an error.
    #[error("server answered `{title}`")]
    Server {
        /// Title of the ERROR frame (CCP-1 section 7).
        title: String,
    },
    /// Only the device that holds the account key can do this.
    #[error("this device does not hold the account key")]
    NotFirstDevice,
    /// The action does not fit the state of the conversation.
    #[error("{0}")]
    NotNow(&'static str),
    /// End-to-end encryption failed; the text names the step.
    #[error("encryption failed: {0}")]
    Chat(String),
    /// A value breaks a limit.
    #[error("{what} is larger than {max} bytes")]
    TooLarge {
        /// What.
        what: &'static str,
        /// The limit.
        max: usize,
    },
    /// The client has been shut down.
    #[error("client has stopped")]
    Stopped,
    /// The client has stopped by itself: its profile could not be read or written.
    #[error("{reason}")]
    Failed {
        /// What failed, with its causes.
        reason: String,
    },
}

impl ClientError {
    /// The next step for the user; empty if there is none to name.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Tcp(_) => "is the server running, and is the host and port of the link right?",
            Self::Tls(_) => {
                "the certificate did not verify: pass the server's CA with `--tls-ca FILE`, or \
                 check that nothing sits between you and the server"
            }
            Self::Http(_) => "is this address a CommuCat server? open it in a browser",
            Self::Handshake(_) => {
                "was the invite already used or expired, or this device revoked? ask for a new \
                 invite link"
            }
            Self::Identity(_) => {
                "the server at this address is not the one of your invite: ask its operator, and \
                 do not go on"
            }
            Self::Timeout => "try again; `commucat status` shows the state of the connection",
            Self::Vault(error) => vault_hint(error),
            Self::Invalid { .. } => "copy it whole, with nothing added; quote it in the shell",
            Self::Unknown {
                what: "request", ..
            } => "`commucat request list` shows who wants to talk to you",
            Self::Unknown { what: "device", .. } => "`commucat device list` shows your devices",
            Self::Unknown { .. } => "`commucat contacts` and `commucat groups` list the names",
            Self::NameTaken { .. } => "choose another name",
            Self::Server { .. } => "see section 7 of docs/PROTOCOL.md for what it means",
            Self::NotFirstDevice => "do this on the first device, or with the recovery phrase",
            Self::NotNow(_) | Self::Stopped => "",
            Self::Failed { .. } => STORAGE_HINT,
            Self::Chat(_) => "if it persists, remove the contact and add it again",
            Self::TooLarge { .. } => "send it in parts",
        }
    }

    /// Whether trying again later, unchanged, may help.
    #[must_use]
    pub const fn is_temporary(&self) -> bool {
        matches!(
            self,
            Self::Tcp(_) | Self::Tls(_) | Self::Http(_) | Self::Timeout
        )
    }

    /// The error with all its causes, in one line.
    #[must_use]
    pub fn chain(&self) -> String {
        let mut out = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(cause) = source {
            out.push_str(": ");
            out.push_str(&cause.to_string());
            source = cause.source();
        }
        out
    }
}

const STORAGE_HINT: &str = "check free space and permissions of the profile directory";

const fn vault_hint(error: &VaultError) -> &'static str {
    match error {
        VaultError::Missing(_) => {
            "`commucat join <invite>` makes one; `--profile DIR` names another"
        }
        VaultError::Exists(_) => "`--profile DIR` keeps several on one machine",
        VaultError::InUse { .. } => {
            "stop that process, or use another profile with `--profile DIR`"
        }
        VaultError::WrongKey => "type the passphrase again; nothing was changed",
        VaultError::PassphraseNeeded => "pass it with `--passphrase-file FILE` (its first line)",
        VaultError::KeyFile(_) => "without that file the profile cannot be opened; restore it",
        VaultError::Newer { .. } => "update this program",
        VaultError::Damaged { .. } | VaultError::Sqlite(_) | VaultError::Io(_) => STORAGE_HINT,
        VaultError::Random => "the system gives no random bytes: check /dev/urandom",
    }
}
