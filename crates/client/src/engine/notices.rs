//! Notices: what people have to hear of, be it by the next command: that messages are missing, that some
//! did not arrive, that a group is split or lost.
//!
//! They are stored with the step that found out, for an event is heard by whoever listens at that moment.

use commucat_proto::id::{GroupId, MessageId};
use serde::{Deserialize, Serialize};

use super::core::{Core, Effect};
use super::tables;
use crate::error::ClientError;
use crate::event::{Change, Event, Notice, UndeliveredReason};
use crate::record;

/// Notices that are kept. Each differs from the others, so that only undelivered messages can be so many;
/// of more than that people have been told enough.
const NOTICES_MAX: u32 = 256;

/// A notice as it is stored.
#[derive(Deserialize, Serialize)]
enum Stored {
    Gap {
        #[serde(with = "record::optional")]
        conversation: Option<GroupId>,
    },
    Fork {
        #[serde(with = "record::raw")]
        conversation: GroupId,
    },
    Lost {
        #[serde(with = "record::raw")]
        conversation: GroupId,
    },
    Undelivered {
        #[serde(with = "record::raw")]
        conversation: GroupId,
        #[serde(with = "record::raw")]
        message: MessageId,
        reason: UndeliveredReason,
    },
}

impl Core {
    /// Stores the notices among what this step tells.
    pub(super) fn keep_notices(&mut self) -> Result<(), ClientError> {
        let told = self.effects.iter().filter_map(|effect| match effect {
            Effect::Tell(event) => Stored::of(event),
            Effect::Send(_) | Effect::Answer(_) | Effect::State(_) | Effect::Close(_) => None,
        });
        for notice in told {
            let bytes = record::encode(tables::NOTICE, &notice)?;
            let kept = self.vault.entries(tables::NOTICE, b"", 0, NOTICES_MAX)?;
            let is_full = kept.len() >= usize::try_from(NOTICES_MAX).unwrap_or(usize::MAX);
            if !is_full && kept.iter().all(|(_, one)| *one != bytes) {
                self.vault.append(tables::NOTICE, b"", &bytes)?;
            }
        }
        Ok(())
    }

    /// What was not shown yet, oldest first.
    pub(super) fn notices(&self) -> Result<Vec<Notice>, ClientError> {
        let kept = self.vault.entries(tables::NOTICE, b"", 0, NOTICES_MAX)?;
        kept.into_iter()
            .map(|(number, bytes)| {
                let stored: Stored = record::decode(tables::NOTICE, &bytes)?;
                let event = stored.event();
                Ok(Notice { number, event })
            })
            .collect()
    }

    /// People have seen these.
    pub(super) fn noticed(&self, numbers: &[u64]) -> Result<(), ClientError> {
        for number in numbers {
            self.vault.remove(tables::NOTICE, b"", *number)?;
        }
        Ok(())
    }
}

impl Stored {
    fn of(event: &Event) -> Option<Self> {
        if !event.is_notice() {
            return None;
        }
        match *event {
            Event::Gap { conversation } => Some(Self::Gap { conversation }),
            Event::Fork { conversation } => Some(Self::Fork { conversation }),
            Event::Conversation {
                conversation,
                change: Change::Lost,
            } => Some(Self::Lost { conversation }),
            Event::Undelivered {
                conversation,
                message,
                reason,
            } => Some(Self::Undelivered {
                conversation,
                message,
                reason,
            }),
            Event::Message(_)
            | Event::Tick { .. }
            | Event::Request(_)
            | Event::Conversation { .. }
            | Event::Connection(_)
            | Event::Devices
            | Event::CertificateWarning
            | Event::Behind { .. } => None,
        }
    }

    fn event(self) -> Event {
        match self {
            Self::Gap { conversation } => Event::Gap { conversation },
            Self::Fork { conversation } => Event::Fork { conversation },
            Self::Lost { conversation } => Event::Conversation {
                conversation,
                change: Change::Lost,
            },
            Self::Undelivered {
                conversation,
                message,
                reason,
            } => Event::Undelivered {
                conversation,
                message,
                reason,
            },
        }
    }
}
