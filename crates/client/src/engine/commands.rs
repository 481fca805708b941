//! What the application asks.

use commucat_proto::id::{AccountId, GroupId, MessageId};

use super::core::{Core, chat_error};
use super::model::{Contact as Known, Kind, Stage, Stored};
use super::replies::answer_with;
use super::tables;
use crate::chat::{Body, Content, Intent};
use crate::client::{Command, Contact, Conversation, Reply, Sent, Status};
use crate::error::ClientError;
use crate::event::Change;

/// Bytes of a text: fits any server's `limits.max_payload` default with room for sealing.
const TEXT_BYTES_MAX: usize = 64 * 1024;
/// What sealing adds to a text at most.
const SEALING: usize = 512;

impl Core {
    /// Runs one command; its answer leaves with the step's effects.
    ///
    /// # Errors
    ///
    /// The store failed. What is wrong with the command itself goes into its answer.
    pub(crate) fn on_command(&mut self, command: Command) -> Result<(), ClientError> {
        match command {
            Command::Me(reply) => self.answer(reply, Ok(self.me())),
            Command::AddContact {
                link,
                petname,
                reply,
            } => {
                let result = self.add_contact(&link, &petname);
                let result = result.and_then(|id| self.contact_of(&id));
                self.answer(reply, result)
            }
            Command::Contacts(reply) => self.answer(reply, Ok(self.all_contacts())),
            Command::Safety { who, reply } => self.answer(reply, self.safety(&who)),
            Command::Verify { who, reply } => {
                let result = self.verify(&who);
                self.answer(reply, result)
            }
            Command::Send { to, text, reply } => {
                let result = self.send(&to, text);
                self.answer(reply, result)
            }
            Command::Read {
                conversation,
                reply,
            } => {
                let result = self
                    .find(&conversation)
                    .and_then(|group| self.mark_read(&group));
                self.answer(reply, result)
            }
            Command::History {
                name,
                after,
                limit,
                reply,
            } => {
                let result = self
                    .find(&name)
                    .and_then(|group| self.page(&group, after, limit));
                self.answer(reply, result)
            }
            Command::Tick { message, reply } => {
                let tick = self.tick(&message);
                self.answer(reply, tick)
            }
            Command::Unshown { limit, reply } => self.answer(reply, self.unshown(limit)),
            Command::Shown { numbers, reply } => {
                let result = numbers.iter().try_for_each(|number| self.shown(*number));
                self.answer(reply, result)
            }
            Command::Notices(reply) => self.answer(reply, self.notices()),
            Command::NoticesShown { numbers, reply } => self.answer(reply, self.noticed(&numbers)),
            Command::Status(reply) => {
                let status = self.status();
                self.answer(reply, status)
            }
            other @ (Command::CreateGroup { .. }
            | Command::Invite { .. }
            | Command::Remove { .. }
            | Command::Leave { .. }
            | Command::Conversations(_)) => self.on_group_command(other),
            other @ (Command::Requests(_)
            | Command::Decide { .. }
            | Command::Devices(_)
            | Command::LinkDevice { .. }
            | Command::RevokeDevice { .. }
            | Command::Phrase(_)
            | Command::EnterPhrase { .. }) => self.on_account_command(other),
        }
    }

    fn on_group_command(&mut self, command: Command) -> Result<(), ClientError> {
        if let Command::CreateGroup {
            name,
            members,
            reply,
        } = command
        {
            let result = self.create_group(name, &members);
            self.answer(reply, result)
        } else if let Command::Invite { group, who, reply } = command {
            let result = self.group_and_contact(&group, &who);
            let result = result.map(|(group, account)| self.want(&group, &account));
            self.answer(reply, result)
        } else if let Command::Remove { group, who, reply } = command {
            let result = self.remove_member(&group, &who);
            self.answer(reply, result)
        } else if let Command::Leave { group, reply } = command {
            let result = self
                .find(&group)
                .and_then(|group| self.leave(&group, Change::Left));
            self.answer(reply, result)
        } else if let Command::Conversations(reply) = command {
            let conversations = self.all_conversations();
            self.answer(reply, conversations)
        } else {
            Ok(())
        }
    }

    fn on_account_command(&mut self, command: Command) -> Result<(), ClientError> {
        if let Command::Requests(reply) = command {
            self.answer(reply, Ok(self.requests()))
        } else if let Command::Decide {
            request,
            decision,
            reply,
        } = command
        {
            let result = self.decide(&request, decision);
            self.answer(reply, result)
        } else if let Command::Devices(reply) = command {
            self.answer(reply, Ok(self.devices()))
        } else if let Command::LinkDevice { code, reply } = command {
            self.link_device(&code, reply);
            Ok(())
        } else if let Command::RevokeDevice { device, reply } = command {
            self.revoke_device(&device, reply);
            Ok(())
        } else if let Command::Phrase(reply) = command {
            let phrase = self.account.phrase().ok_or(ClientError::NotFirstDevice);
            self.answer(reply, phrase.map(|phrase| phrase.words()))
        } else if let Command::EnterPhrase { phrase, reply } = command {
            let result = self.enter_phrase(&phrase);
            self.answer(reply, result)
        } else {
            Ok(())
        }
    }

    /// A failure of the store ends the engine; any other is the command's own.
    fn answer<T: Send + 'static>(
        &mut self,
        reply: Reply<T>,
        result: Result<T, ClientError>,
    ) -> Result<(), ClientError> {
        if let Err(ClientError::Vault(error)) = result {
            return Err(ClientError::Vault(error));
        }
        self.effects.push(answer_with(reply, result));
        Ok(())
    }

    /// A conversation by the name of a contact or group, or by its id in hex.
    fn find(&mut self, name: &str) -> Result<GroupId, ClientError> {
        let raw = data_encoding::HEXLOWER.decode(name.as_bytes());
        if let Some(id) = raw.ok().and_then(|raw| GroupId::parse(&raw).ok())
            && self.conversations.contains_key(&id)
        {
            return Ok(id);
        }
        if let Ok(contact) = self.contact(name) {
            return contact.conversation.ok_or(ClientError::Unknown {
                what: "conversation",
                name: name.to_owned(),
            });
        }
        let named = self
            .conversations
            .values()
            .filter(|one| one.name.as_deref() == Some(name));
        let (left, here): (Vec<_>, Vec<_>) = named.partition(|one| one.stage == Stage::Left);
        let found = here.first().or(left.last()).map(|one| one.id);
        let what = "contact or group";
        found.ok_or_else(|| ClientError::Unknown {
            what,
            name: name.to_owned(),
        })
    }

    /// The conversation to send to; made now for a contact without one.
    fn destination(&mut self, to: &str) -> Result<GroupId, ClientError> {
        let contact = self.contact(to).ok().cloned();
        let Some(contact) = contact else {
            return self.find(to);
        };
        let usable = contact.conversation.filter(|id| {
            self.conversations
                .get(id)
                .is_some_and(|one| one.stage != Stage::Left)
        });
        if let Some(id) = usable {
            return Ok(id);
        }
        let id = self.plan(Kind::Direct, None, vec![contact.account.clone()])?;
        self.save_contact(Known {
            conversation: Some(id),
            ..contact
        })?;
        Ok(id)
    }

    fn send(&mut self, to: &str, text: String) -> Result<Sent, ClientError> {
        if text.is_empty() {
            return Err(ClientError::Invalid {
                what: "message: it is empty",
            });
        }
        // A server may take less than its default.
        let named = self
            .online
            .as_ref()
            .map_or(usize::MAX, |online| online.limits.payload);
        let max = TEXT_BYTES_MAX.min(named.saturating_sub(SEALING));
        if text.len() > max {
            return Err(ClientError::TooLarge {
                what: "the message",
                max,
            });
        }
        let group = self.destination(to)?;
        let one = self.conversations.get(&group);
        if one.is_none_or(|one| one.stage == Stage::Left) {
            return Err(ClientError::NotNow(
                "you are not in this conversation any more",
            ));
        }
        if one.is_some_and(|one| one.request.is_some()) {
            return Err(ClientError::NotNow("accept the request first"));
        }
        let message = MessageId::new(commucat_crypto::secret::random_bytes());
        let stored = Stored {
            id: message,
            author: self.own_id(),
            device: self.account.device.clone(),
            counter: 0,
            sent: self.now.as_millis(),
            text: text.clone(),
            tick: 0,
            ours: true,
            read: true,
        };
        let number = self.remember(&group, stored)?;
        let place = [number.to_be_bytes().as_slice(), group.as_bytes()].concat();
        self.vault
            .put(tables::SENT, b"", message.as_bytes(), &place)?;
        let body = Body::Text(text);
        let content = Content {
            body,
            sent: self.now,
            reply_to: None,
            counter: 0,
            settled: None,
        };
        self.post_content(&group, message, &content)?;
        Ok(Sent {
            conversation: group,
            message,
        })
    }

    fn create_group(&mut self, name: String, who: &[String]) -> Result<GroupId, ClientError> {
        self.check_name(&name)?;
        let members = who.iter().map(|one| Ok(self.contact(one)?.account.clone()));
        let members = members.collect::<Result<Vec<AccountId>, ClientError>>()?;
        self.plan(Kind::Group, Some(name), members)
    }

    fn group_and_contact(
        &mut self,
        group: &str,
        who: &str,
    ) -> Result<(GroupId, AccountId), ClientError> {
        let account = self.contact(who)?.account.clone();
        let group = self.find(group)?;
        let kind = self.conversations.get(&group).map(|one| one.kind.clone());
        if kind != Some(Kind::Group) {
            return Err(ClientError::NotNow(
                "this is not a group: make one with `group create`",
            ));
        }
        Ok((group, account))
    }

    fn remove_member(&mut self, group: &str, who: &str) -> Result<(), ClientError> {
        let (group, account) = self.group_and_contact(group, who)?;
        let Some(key) = self.contacts.get(&account).and_then(|one| one.key) else {
            return Err(ClientError::Unknown {
                what: "member",
                name: who.to_owned(),
            });
        };
        self.wanted_done(&group, &account);
        match self
            .chat
            .intend(&group, Intent::RemoveAccount(key), self.now)
        {
            Ok(()) => {
                self.intents.insert(group);
                self.awake.insert(group);
                Ok(())
            }
            Err(error) => Err(chat_error(error)),
        }
    }

    fn all_contacts(&self) -> Vec<Contact> {
        let known = self.contacts.values().filter(|one| !one.petname.is_empty());
        let mut contacts: Vec<_> = known.map(contact_view).collect();
        contacts.sort_by(|a, b| a.petname.cmp(&b.petname));
        contacts
    }

    fn verify(&mut self, who: &str) -> Result<(), ClientError> {
        let contact = self.contact(who)?.clone();
        self.save_contact(Known {
            verified: true,
            ..contact
        })
    }

    fn shown(&self, number: u64) -> Result<(), ClientError> {
        self.vault
            .delete(tables::UNSHOWN, b"", &number.to_be_bytes())?;
        Ok(())
    }

    fn contact_of(&self, id: &AccountId) -> Result<Contact, ClientError> {
        let known = self.contacts.get(id).map(contact_view);
        known.ok_or_else(|| ClientError::Unknown {
            what: "contact",
            name: String::new(),
        })
    }

    fn all_conversations(&mut self) -> Result<Vec<Conversation>, ClientError> {
        let shown: Vec<_> = self
            .conversations
            .values()
            .filter(|one| one.kind != Kind::Own && one.stage != Stage::Left)
            .cloned()
            .collect();
        shown
            .into_iter()
            .map(|one| self.conversation_view(&one))
            .collect()
    }

    fn conversation_view(
        &mut self,
        one: &super::model::Conversation,
    ) -> Result<Conversation, ClientError> {
        let view = self.chat.group(&one.id).ok();
        let mut accounts: Vec<AccountId> = match &view {
            Some(view) => view
                .members
                .iter()
                .map(|m| AccountId::of_key(&m.account))
                .collect(),
            None => one.wanted.clone(),
        };
        accounts.sort_unstable();
        accounts.dedup();
        let members = accounts.into_iter().map(|id| {
            let name = self.name_of(&id);
            (id, name)
        });
        let members: Vec<_> = members.collect();
        let peer = one.peer.as_ref().map(|peer| self.name_of(peer));
        let suite = view.as_ref().map_or(0, |view| match view.suite {
            crate::chat::Suite::Hybrid => 0x004e,
            crate::chat::Suite::Classical => 0x0003,
        });
        Ok(Conversation {
            id: one.id,
            name: one.name.clone().or(peer).unwrap_or_default(),
            group: one.kind == Kind::Group,
            members,
            devices: view.map_or(0, |view| view.members.len()),
            suite,
            position: one.position,
            ready: self.may_send(&one.id),
            unsent: self.unsent(&one.id)?,
        })
    }

    fn is_busy(&self) -> bool {
        let unanswered = self
            .online
            .as_ref()
            .is_some_and(|one| !one.unanswered.is_empty());
        let soon = self.now.saturating_add(std::time::Duration::from_secs(1));
        let retried = self.retry.values().any(|at| *at <= soon);
        let mut groups = self.intents.iter();
        let changes = self.online.is_some() && groups.any(|group| self.has_intent(group, |_| true));
        unanswered || retried || changes || self.receipts.due().is_some()
    }

    fn status(&mut self) -> Result<Status, ClientError> {
        let mut outbox = 0;
        for group in self.conversations.keys() {
            outbox += self.unsent(group)?;
        }
        let conversations = self.all_conversations()?.len();
        let server = self.account.server.as_ref();
        Ok(Status {
            connection: self.state.clone(),
            me: self.me(),
            endpoint: server
                .map(|server| server.endpoint.clone())
                .unwrap_or_default(),
            outbox,
            conversations,
            contacts: self
                .contacts
                .values()
                .filter(|one| !one.petname.is_empty())
                .count(),
            key_packages: self.key_packages,
            certificate_failed: server.is_some_and(|server| server.certificate_failed),
            busy: self.is_busy(),
        })
    }
}

fn contact_view(one: &Known) -> Contact {
    Contact {
        petname: one.petname.clone(),
        account: one.account.clone(),
        domain: one.domain.as_str().to_owned(),
        devices: one.devices.len(),
        verified: one.verified,
        conversation: one.conversation,
    }
}
