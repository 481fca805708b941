//! People who are no contacts and want to talk: accept, decline, block.

use commucat_proto::id::{AccountId, GroupId};

use super::core::Core;
use super::model::{Contact, Stage};
use super::tables;
use crate::client::Decision;
use crate::error::ClientError;
use crate::event::{Change, Event, Message, Request};

impl Core {
    pub(super) fn requests(&self) -> Vec<Request> {
        self.conversations
            .values()
            .filter(|one| one.stage == Stage::Active)
            .filter_map(|one| {
                let from = one.request.clone()?;
                let domain = one.hub.as_str().to_owned();
                Some(Request {
                    conversation: one.id,
                    from,
                    domain,
                })
            })
            .collect()
    }

    pub(super) fn decide(&mut self, which: &str, decision: Decision) -> Result<(), ClientError> {
        let hex = |id: &GroupId| data_encoding::HEXLOWER.encode(id.as_bytes());
        let matches: Vec<_> = self
            .requests()
            .into_iter()
            .filter(|one| {
                one.from.as_str().starts_with(which) || hex(&one.conversation).starts_with(which)
            })
            .collect();
        let Some(first) = matches.first().filter(|_| !which.is_empty()).cloned() else {
            return Err(ClientError::Unknown {
                what: "request",
                name: which.to_owned(),
            });
        };
        let from = first.from;
        if let Decision::Accept { petname } = decision {
            return self.accept(&from, petname);
        }
        if decision == Decision::Block
            && let Some(contact) = self.contacts.get(&from).cloned()
        {
            self.save_contact(Contact {
                blocked: true,
                ..contact
            })?;
        }
        let all: Vec<_> = matches
            .iter()
            .filter(|one| one.from == from)
            .map(|one| one.conversation)
            .collect();
        all.iter()
            .try_for_each(|group| self.leave(group, Change::Left))
    }

    fn accept(&mut self, from: &AccountId, petname: String) -> Result<(), ClientError> {
        self.check_name(&petname)?;
        let Some(contact) = self.contacts.get(from).cloned() else {
            return Ok(());
        };
        self.save_contact(Contact {
            petname,
            blocked: false,
            ..contact
        })?;
        self.admit(from)
    }

    /// Lets everything in that a contact started while it was a stranger.
    pub(super) fn admit(&mut self, from: &AccountId) -> Result<(), ClientError> {
        let accepted: Vec<_> = self
            .conversations
            .values()
            .filter(|one| one.request.as_ref() == Some(from))
            .map(|one| (one.id, one.peer.clone()))
            .collect();
        for (id, peer) in accepted {
            self.change(&id, |one| one.request = None);
            self.link_contact(peer.as_ref(), &id, None)?;
            self.tell(Event::Conversation {
                conversation: id,
                change: Change::Ready,
            });
            for message in self.waiting_in(&id)? {
                self.vault
                    .put(tables::OWED, id.as_bytes(), message.id.as_bytes(), &[])?;
                self.tell(Event::Message(message));
            }
            self.restore_receipts(&id)?;
            self.awake.insert(id);
        }
        Ok(())
    }

    /// Another own device wrote something in `group`, be it a receipt: the account has decided.
    pub(super) fn decided_elsewhere(&mut self, group: &GroupId) -> Result<(), ClientError> {
        let undecided = self
            .conversations
            .get(group)
            .and_then(|one| one.request.clone());
        undecided.map_or(Ok(()), |from| self.admit(&from))
    }

    fn waiting_in(&self, group: &GroupId) -> Result<Vec<Message>, ClientError> {
        let own = self.own_id();
        Ok(self
            .page(group, 0, 10_000)?
            .into_iter()
            .filter(|one| one.author != own)
            .collect())
    }
}
