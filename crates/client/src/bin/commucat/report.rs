//! How a command ends: data on stdout, errors on stderr, an exit code that scripts can use.

use std::io::Write as _;
use std::process::ExitCode;

use commucat_client::ClientError;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Not done in time, but kept: the next command tries again.
pub(crate) const LATER: u8 = 3;

/// A failure as people and scripts see it.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Failure {
    pub(crate) error: String,
    pub(crate) causes: Vec<String>,
    pub(crate) hint: String,
    pub(crate) code: u8,
}

impl Failure {
    pub(crate) fn new(error: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            error: error.into(),
            causes: Vec::new(),
            hint: hint.into(),
            code: 1,
        }
    }

    fn json(&self) -> Value {
        json!({ "error": self.error, "causes": self.causes, "hint": self.hint })
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let mut causes = Vec::new();
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            causes.push(cause.to_string());
            source = cause.source();
        }
        let code = if matches!(error, ClientError::Timeout) {
            LATER
        } else {
            1
        };
        Self {
            error: error.to_string(),
            causes,
            hint: error.hint().to_owned(),
            code,
        }
    }
}

/// Writes one line to stdout; a closed pipe ends the program silently, as with other commands.
pub(crate) fn line(text: &str) {
    let mut out = std::io::stdout().lock();
    if writeln!(out, "{text}").and_then(|()| out.flush()).is_err() {
        std::process::exit(0);
    }
}

/// Writes one line to stderr, where everything goes that is not data.
pub(crate) fn note(text: &str) {
    // Nobody to tell if stderr is gone.
    drop(writeln!(std::io::stderr().lock(), "{text}"));
}

/// Shows a failure and gives the exit code.
pub(crate) fn fail(failure: &Failure, as_json: bool) -> ExitCode {
    if as_json {
        line(&failure.json().to_string());
    }
    note(&format!("Error: {}", failure.error));
    for cause in &failure.causes {
        note(&format!("Caused by: {cause}"));
    }
    if !failure.hint.is_empty() {
        note(&format!("Hint: {}", failure.hint));
    }
    ExitCode::from(failure.code)
}
