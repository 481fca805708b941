//! What is printed when a command was not carried out: error, causes, hint; and the exit code.

use std::error::Error;
use std::io::{self, Write as _};
use std::process::ExitCode;

use commucat_admin::{Failure, FailureKind, SocketError};
use commucat_config::ConfigError;
use commucat_crypto::keyring::KeyringError;
use commucat_storage::{BackupError, OpenError, ReplaceError, StoreError, TransferError};

/// Not done: the operator can do something about it.
pub const USER: u8 = 1;
/// Wrong use of the command line.
pub const USAGE: u8 = 2;
/// A defect of this program.
pub const OURS: u8 = 70;

/// An error as it is told.
#[derive(Debug)]
pub struct Report {
    code: u8,
    message: String,
    causes: Vec<String>,
    hint: Option<String>,
    is_silent: bool,
}

impl Report {
    /// An error with the causes of `error`, whose own text is the message.
    pub(crate) fn of(error: &dyn Error) -> Self {
        let causes = std::iter::successors(error.source(), |cause| (*cause).source());
        Self {
            code: USER,
            message: error.to_string(),
            causes: causes.map(ToString::to_string).collect(),
            hint: None,
            is_silent: false,
        }
    }

    /// An error without a cause.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self {
            code: USER,
            message: message.into(),
            causes: Vec::new(),
            hint: None,
            is_silent: false,
        }
    }

    /// A defect.
    pub(crate) fn defect(message: impl Into<String>) -> Self {
        let hint = "this is a defect: please report it with the command that you used";
        Self {
            code: OURS,
            ..Self::new(message).hint(hint)
        }
    }

    /// The same with the next step.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The error with its causes in one line, for `diagnose`.
    pub(crate) fn line(&self) -> String {
        let all = std::iter::once(&self.message).chain(&self.causes);
        all.map(String::as_str).collect::<Vec<_>>().join(": ")
    }

    /// The hint, for `diagnose`.
    pub(crate) fn next_step(&self) -> &str {
        self.hint.as_deref().unwrap_or("see the documentation")
    }

    /// Prints it on stderr; the code to end with.
    #[must_use]
    pub fn print(&self, is_json: bool) -> ExitCode {
        if self.is_silent {
            return ExitCode::SUCCESS;
        }
        let mut text = if is_json {
            self.to_json()
        } else {
            self.to_text()
        };
        text.push('\n');
        // Whoever closed stderr does not want to know.
        io::stderr().lock().write_all(text.as_bytes()).ok();
        ExitCode::from(self.code)
    }

    fn to_text(&self) -> String {
        let mut lines = vec![format!("Error: {}", self.message)];
        lines.extend(
            self.causes
                .iter()
                .map(|cause| format!("Caused by: {cause}")),
        );
        lines.extend(self.hint.iter().map(|hint| format!("Hint: {hint}")));
        lines.join("\n")
    }

    fn to_json(&self) -> String {
        serde_json::json!({
            "error": self.message,
            "causes": self.causes,
            "hint": self.hint,
            "exit_code": self.code,
        })
        .to_string()
    }
}

/// Writing to stdout failed.
impl From<io::Error> for Report {
    fn from(error: io::Error) -> Self {
        let is_silent = error.kind() == io::ErrorKind::BrokenPipe;
        let mut report = Self::new("cannot write to the standard output");
        report.causes.push(error.to_string());
        Self {
            is_silent,
            ..report
        }
    }
}

impl From<ConfigError> for Report {
    fn from(error: ConfigError) -> Self {
        Self::of(&error).hint("`commucat-cli config reference` lists every setting")
    }
}

impl From<KeyringError> for Report {
    fn from(error: KeyringError) -> Self {
        let hint = keys_hint(&error);
        Self::of(&error).hint(hint)
    }
}

/// What to do about keys that cannot be used.
pub(crate) fn keys_hint(error: &KeyringError) -> String {
    match error {
        KeyringError::Missing { .. } => {
            "run `commucat-cli init`, or name the server's directory with --data".to_owned()
        }
        KeyringError::Exposed { path, wanted, .. } => {
            format!("chmod {wanted:o} '{}'", path.display())
        }
        KeyringError::OtherDomain { .. } => {
            "`server.domain` cannot be changed: set it as it was, or name another --data".to_owned()
        }
        KeyringError::Damaged { .. } => {
            "put `keyring.json` back from your backup; a new one would be another domain".to_owned()
        }
        KeyringError::Io { .. } => "run this as the server's user".to_owned(),
        KeyringError::Full { .. } => {
            "keys that were replaced go after 30 days; try again then".to_owned()
        }
    }
}

impl From<OpenError> for Report {
    fn from(error: OpenError) -> Self {
        let hint = store_hint(&error);
        Self::of(&error).hint(hint)
    }
}

/// What to do about a store that does not open.
pub(crate) fn store_hint(error: &OpenError) -> &'static str {
    match error {
        OpenError::InUse => {
            "a process works on this store but does not answer on `admin.sock`: a server that is \
             starting or ending, or another command; try again"
        }
        OpenError::Directory(_) => "run this as the server's user",
        OpenError::UnknownSchema | OpenError::NewerSchema { .. } => {
            "use the release that wrote the store, or a newer one"
        }
        OpenError::OlderSchema { .. } => "make a backup, then run `commucat-cli migrate`",
        OpenError::Unfinished => {
            "repeat the command that was interrupted: `commucat-cli restore` or `store copy`"
        }
        OpenError::Migration { .. } | OpenError::Database(_) | OpenError::Setting(_) => {
            "is the disk full or failing, or the database down? Otherwise go back to your backup"
        }
        OpenError::Unsafe { .. } => "set it to `on` in postgresql.conf and reload PostgreSQL",
        OpenError::TooOld { .. } => "upgrade PostgreSQL",
        OpenError::Address(_) => "see `storage.url`",
    }
}

impl From<StoreError> for Report {
    fn from(error: StoreError) -> Self {
        Self::of(&error).hint("run `commucat-cli diagnose`")
    }
}

impl From<SocketError> for Report {
    fn from(error: SocketError) -> Self {
        let hint = match &error {
            SocketError::Connect { .. } => "run this as the server's user or as root",
            SocketError::Unknown => "restart the server: it is of another release",
            SocketError::Bind { .. }
            | SocketError::Broken(_)
            | SocketError::Closed
            | SocketError::Slow
            | SocketError::TooLong => "did the server just end? It may have done what you asked",
        };
        Self::of(&error).hint(hint)
    }
}

/// How a database of PostgreSQL is kept safe.
pub(crate) const POSTGRES_HINT: &str = "use PostgreSQL's own tools: `pg_basebackup` with archived WAL to go back to any moment, \
     or `pg_dump --format=custom` for a copy of one; both are consistent while servers run";

impl From<BackupError> for Report {
    fn from(error: BackupError) -> Self {
        let hint = match &error {
            BackupError::NotEmbedded => POSTGRES_HINT,
            BackupError::File(_) => "is the disk full? Run this as the server's user",
            BackupError::Store(_) => "run `commucat-cli diagnose`",
        };
        Self::of(&error).hint(hint)
    }
}

impl From<ReplaceError> for Report {
    fn from(error: ReplaceError) -> Self {
        let hint = match &error {
            ReplaceError::Damaged => "nothing was changed; take another backup",
            ReplaceError::Open(error) => store_hint(error),
            ReplaceError::Ready(_) => "nothing was changed; is the disk full?",
        };
        Self::of(&error).hint(hint)
    }
}

impl From<TransferError> for Report {
    fn from(error: TransferError) -> Self {
        let hint = match &error {
            TransferError::Direction => {
                "name them with --from sqlite:DIRECTORY --to postgres://..."
            }
            TransferError::Source(OpenError::InUse) => {
                "stop the server: what it writes during the copy would be missing"
            }
            TransferError::Source(OpenError::UnknownSchema) => {
                "name the directory of the store with --from sqlite:DIRECTORY"
            }
            TransferError::Source(error) | TransferError::Target(error) => store_hint(error),
            TransferError::NotEmpty => "name an empty database, or drop what is in this one",
            TransferError::OtherSource => "drop what is in the database, and begin again",
            TransferError::Read(_) => "run `commucat-cli diagnose`",
            TransferError::Write(_) | TransferError::Stopped => {
                "the same command goes on where this one ended"
            }
            TransferError::Count { .. } => "drop what is in the database, and begin again",
        };
        Self::of(&error).hint(hint)
    }
}

impl From<Failure> for Report {
    fn from(failure: Failure) -> Self {
        let hint = match failure.kind {
            FailureKind::NoInvite => "list invites with `commucat-cli invite list`",
            FailureKind::NoDevice => "list devices with `commucat-cli device list`",
            FailureKind::NoNode => "list nodes with `commucat-cli node list`",
            FailureKind::NoPeer => "list domains with `commucat-cli peer list`",
            FailureKind::NoPing => "`commucat-cli diagnose federation DOMAIN` looks at every step",
            FailureKind::Backup => "wait for the other backup, or see the server's log",
            FailureKind::NotEmbedded => POSTGRES_HINT,
            FailureKind::Ambiguous => "give more digits of the name in `commucat-cli invite list`",
            FailureKind::Invalid => "see the --help of this command",
            FailureKind::Keys | FailureKind::Storage => "run `commucat-cli diagnose`",
            FailureKind::UnknownRequest => "restart the server: it is of another release",
        };
        Self {
            causes: failure.causes,
            ..Self::new(failure.message).hint(hint)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_names_error_causes_and_the_next_step() {
        let failure = Failure {
            kind: FailureKind::Storage,
            message: "the store did not carry it out".to_owned(),
            causes: vec!["disk full".to_owned()],
        };

        let report = Report::from(failure);

        insta::assert_snapshot!(report.to_text(), @r"
        Error: the store did not carry it out
        Caused by: disk full
        Hint: run `commucat-cli diagnose`
        ");
        insta::assert_snapshot!(report.to_json(), @r#"{"causes":["disk full"],"error":"the store did not carry it out","exit_code":1,"hint":"run `commucat-cli diagnose`"}"#);
    }

    #[test]
    fn a_broken_pipe_is_silent() {
        let report = Report::from(io::Error::from(io::ErrorKind::BrokenPipe));

        assert!(report.is_silent);
    }
}
