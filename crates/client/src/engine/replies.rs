//! Commands that are answered only when the server has answered.

use super::core::Effect;
use crate::client::Reply;
use crate::error::ClientError;

/// A device list that the server is asked to take.
pub(crate) struct ListChange {
    /// The new signed list, encoded.
    pub(crate) list: Vec<u8>,
    pub(crate) version: u64,
    pub(crate) then: AfterList,
}

/// What follows when the list is taken.
pub(crate) enum AfterList {
    /// The new device gets this answer.
    Linked {
        answer: String,
        reply: Reply<String>,
    },
    /// The devices that are not in the list any more are removed everywhere.
    Revoked { reply: Reply<()> },
}

impl AfterList {
    /// The command succeeded.
    pub(super) fn done(self) -> Effect {
        match self {
            Self::Linked { answer, reply } => answer_with(reply, Ok(answer)),
            Self::Revoked { reply } => answer_with(reply, Ok(())),
        }
    }

    /// The command failed.
    pub(super) fn fail(self, error: ClientError) -> Effect {
        match self {
            Self::Linked { reply, .. } => answer_with(reply, Err(error)),
            Self::Revoked { reply } => answer_with(reply, Err(error)),
        }
    }
}

/// Answers a command after the step's transaction.
pub(super) fn answer_with<T: Send + 'static>(
    reply: Reply<T>,
    result: Result<T, ClientError>,
) -> Effect {
    // Whoever asked may be gone.
    Effect::Answer(Box::new(move || drop(reply.send(result))))
}

/// Waiting commands.
#[derive(Default)]
pub(crate) struct Replies {
    /// One change of the list at a time.
    pub(crate) list: Option<ListChange>,
}
