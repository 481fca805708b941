//! The engine's state and its step: one input, one transaction, then effects.
//!
//! No network, no task, no clock: inputs are values, the vault is the only thing touched. Effects
//! leave the step only after the transaction committed, so that nothing is sent, acknowledged,
//! answered or shown that a crash could take back.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::Bytes;
use commucat_proto::id::{AccountId, Domain, GroupId};
use commucat_proto::time::Timestamp;

use super::model::{Account, Contact, Conversation, Kind, Stage};
use super::online::Online;
use super::tables;
use crate::chat::{Chat, ChatError, Identity};
use crate::error::ClientError;
use crate::event::{Connection, Event};
use crate::record;
use crate::settings::Suite;
use crate::vault::{Vault, VaultError};

/// What a step wants done after its transaction.
pub(crate) enum Effect {
    /// Put these frames on the wire.
    Send(Bytes),
    /// Tell the application.
    Tell(Event),
    /// Answer a command.
    Answer(Box<dyn FnOnce() + Send>),
    /// The state of the connection changed.
    State(Connection),
    /// Close the connection; the reason is for people.
    Close(String),
}

/// Everything that the engine knows.
pub(crate) struct Core {
    pub(super) vault: Vault,
    pub(super) chat: Chat,
    pub(super) account: Account,
    pub(super) suite: Suite,
    pub(super) now: Timestamp,
    pub(super) conversations: BTreeMap<GroupId, Conversation>,
    pub(super) contacts: BTreeMap<AccountId, Contact>,
    pub(super) online: Option<Online>,
    pub(super) state: Connection,
    pub(super) effects: Vec<Effect>,
    /// Conversations to write at the end of the step.
    pub(super) dirty: BTreeSet<GroupId>,
    /// Conversations to look at again at the end of the step.
    pub(super) awake: BTreeSet<GroupId>,
    /// Conversations of which something newer was seen since their log was asked for: the answer does
    /// not end the search.
    pub(super) overtaken: BTreeSet<GroupId>,
    /// At which position of a group a possible split was told last.
    pub(super) split_told: HashMap<GroupId, u64>,
    /// When to look at a conversation again.
    pub(super) retry: BTreeMap<GroupId, Timestamp>,
    /// Lists that were looked at for whoever is said to be gone.
    pub(super) looks: BTreeMap<GroupId, super::gone::Look>,
    /// Receipts that are collected for a moment.
    pub(super) receipts: super::receipts::Collected,
    /// Since when contents of an author wait for one before them.
    pub(super) waiting: BTreeMap<(GroupId, Vec<u8>), Timestamp>,
    /// Counters of own contents that the hub may not have yet.
    pub(super) unsettled: BTreeMap<GroupId, BTreeSet<u64>>,
    /// An own content that the hub of another domain has, by its number in the outbox, and since when.
    pub(super) passed: BTreeMap<GroupId, (u64, Timestamp)>,
    pub(super) key_packages: Option<u64>,
    /// When old keys were deleted last, in this run.
    pub(super) tidied: Timestamp,
    /// Commands that wait for the server's answer.
    pub(super) replies: super::replies::Replies,
    /// Conversations in which a ciphertext was refused as too old.
    pub(super) stale: BTreeSet<GroupId>,
    /// Conversations whose chats may have a commit to make or to send again.
    pub(super) intents: BTreeSet<GroupId>,
    /// Failed attempts in a row, by conversation.
    pub(super) failures: HashMap<GroupId, u32>,
    /// Conversations in which a hub refused something as if this device had missed an entry: a log that
    /// shows none is no success.
    pub(super) doubted: BTreeSet<GroupId>,
    /// How often a hub said that it does not know this device, by conversation, since it last did.
    pub(super) unknown: HashMap<GroupId, u32>,
}

impl Core {
    /// Reads the state from the vault.
    ///
    /// # Errors
    ///
    /// [`ClientError::Vault`]; [`ClientError::Chat`] if the stored chats do not load.
    pub(crate) fn load(vault: Vault, suite: Suite, now: Timestamp) -> Result<Self, ClientError> {
        let account: Account =
            record::get(&vault, tables::ACCOUNT, (b"", b""))?.ok_or(VaultError::Damaged {
                table: tables::ACCOUNT,
            })?;
        let certificate = account.certificate().ok_or(ClientError::NotNow(
            "this device is not linked yet: finish with `commucat link --answer <answer>`",
        ))?;
        let certificate = Bytes::from(commucat_proto::wire::Cbor::encode(&certificate));
        let identity = Identity::new(certificate, &account.mls_seed()).map_err(chat_error)?;
        let rows = vault.list(tables::CHAT, b"")?;
        let rows = rows.into_iter().map(|(key, value)| (key, value.into()));
        let chat = Chat::load(identity, rows).map_err(chat_error)?;
        let conversations = record::list::<Conversation>(&vault, tables::CONVERSATION, b"")?;
        let contacts = record::list::<Contact>(&vault, tables::CONTACT, b"")?;
        let mut core = Self {
            vault,
            chat,
            account,
            suite,
            now,
            conversations: conversations.into_iter().map(|one| (one.id, one)).collect(),
            contacts: contacts
                .into_iter()
                .map(|one| (one.account.clone(), one))
                .collect(),
            online: None,
            state: Connection::Connecting,
            effects: Vec::new(),
            dirty: BTreeSet::new(),
            awake: BTreeSet::new(),
            overtaken: BTreeSet::new(),
            split_told: HashMap::new(),
            retry: BTreeMap::new(),
            looks: BTreeMap::new(),
            receipts: super::receipts::Collected::default(),
            waiting: BTreeMap::new(),
            unsettled: BTreeMap::new(),
            passed: BTreeMap::new(),
            key_packages: None,
            tidied: Timestamp::ZERO,
            replies: super::replies::Replies::default(),
            stale: BTreeSet::new(),
            intents: BTreeSet::new(),
            failures: HashMap::new(),
            doubted: BTreeSet::new(),
            unknown: HashMap::new(),
        };
        core.restore_waiting()?;
        core.restore_unsettled()?;
        Ok(core)
    }

    /// Runs one step in one transaction; returns what to do now that it is on disk.
    ///
    /// # Errors
    ///
    /// The store failed or a rule of the engine broke: nothing of the step is on disk, the state in
    /// memory is not to be used any more.
    pub(crate) fn step(
        &mut self,
        now: Timestamp,
        work: impl FnOnce(&mut Self) -> Result<(), ClientError>,
    ) -> Result<Vec<Effect>, ClientError> {
        self.now = now;
        let vault = self.vault.clone();
        vault.transaction(|| {
            work(self)?;
            self.settle()?;
            self.keep_notices()?;
            self.write()
        })?;
        self.chat.committed();
        Ok(std::mem::take(&mut self.effects))
    }

    /// Looks at every conversation that something happened to, until nothing more can be done now.
    fn settle(&mut self) -> Result<(), ClientError> {
        // A conversation that wakes itself up for ever is a fault; the bound makes it visible as a
        // slow engine instead of a stuck one.
        for _ in 0..self
            .conversations
            .len()
            .saturating_mul(8)
            .saturating_add(64)
        {
            let Some(group) = self.awake.pop_first() else {
                break;
            };
            self.advance(&group)?;
        }
        self.acknowledge()
    }

    fn write(&mut self) -> Result<(), ClientError> {
        for group in std::mem::take(&mut self.dirty) {
            let key = (b"".as_slice(), group.as_bytes().as_slice());
            match self.conversations.get(&group) {
                Some(one) => record::put(&self.vault, tables::CONVERSATION, key, one)?,
                None => {
                    self.vault.delete(tables::CONVERSATION, key.0, key.1)?;
                }
            }
        }
        for change in self.chat.changes() {
            match change.value {
                Some(value) => self.vault.put(tables::CHAT, b"", &change.key, &value)?,
                None => {
                    self.vault.delete(tables::CHAT, b"", &change.key)?;
                }
            }
        }
        Ok(())
    }

    /// When the engine wants to be called without any other input.
    pub(crate) fn wake_at(&self) -> Option<Timestamp> {
        let waiting = self.waiting.values();
        let mut times: Vec<Timestamp> = waiting
            .filter_map(|since| self.waits_until(*since))
            .collect();
        if let Some(online) = &self.online {
            times.extend(self.retry.values());
            times.extend(self.looks.values().filter_map(|look| look.at));
            times.extend(online.deadline());
        }
        times.extend(self.receipts.due());
        times.into_iter().min()
    }

    /// Whatever was waiting for its time.
    pub(crate) fn on_time(&mut self) -> Result<(), ClientError> {
        let now = self.now;
        let due: Vec<_> = self
            .retry
            .iter()
            .filter(|(_, at)| **at <= now)
            .map(|(group, _)| *group)
            .collect();
        for group in due {
            self.retry.remove(&group);
            self.awake.insert(group);
        }
        if self
            .online
            .as_ref()
            .and_then(Online::deadline)
            .is_some_and(|at| at <= now)
        {
            self.effects.push(Effect::Close(
                "no answer from the server in time".to_owned(),
            ));
        }
        self.looks_due();
        self.end_waiting()?;
        self.flush_receipts(super::receipts::When::Due)
    }

    /// The time for whatever is asked outside of a step.
    pub(crate) const fn set_time(&mut self, now: Timestamp) {
        self.now = now;
    }

    pub(super) fn tell(&mut self, event: Event) {
        self.effects.push(Effect::Tell(event));
    }

    pub(super) fn set_state(&mut self, state: Connection) {
        if self.state != state {
            self.state = state.clone();
            self.effects.push(Effect::State(state));
        }
    }

    pub(super) fn save_account(&self) -> Result<(), ClientError> {
        Ok(record::put(
            &self.vault,
            tables::ACCOUNT,
            (b"", b""),
            &self.account,
        )?)
    }

    /// Whether the part of the queue that is being read has a gap.
    pub(super) fn had_gap(&mut self, had: bool) -> Result<(), ClientError> {
        if std::mem::replace(&mut self.account.had_gap, had) == had {
            return Ok(());
        }
        self.save_account()
    }

    pub(super) fn save_contact(&mut self, contact: Contact) -> Result<(), ClientError> {
        let id = contact.account.clone();
        record::put(
            &self.vault,
            tables::CONTACT,
            (b"", id.as_str().as_bytes()),
            &contact,
        )?;
        self.contacts.insert(id, contact);
        Ok(())
    }

    /// Changes a conversation; it is written at the end of the step.
    pub(super) fn change(&mut self, group: &GroupId, change: impl FnOnce(&mut Conversation)) {
        if let Some(conversation) = self.conversations.get_mut(group) {
            change(conversation);
            self.dirty.insert(*group);
        }
    }

    pub(super) fn own_id(&self) -> AccountId {
        // A loaded core has a certificate, so it has an account.
        let key = self
            .account
            .key
            .unwrap_or(commucat_proto::id::AccountKey::new([0; 32]));
        AccountId::of_key(&key)
    }

    pub(super) fn own_domain(&self) -> Option<Domain> {
        self.account
            .server
            .as_ref()
            .map(|server| server.domain.clone())
    }

    /// The name of a group, be it one that this device has left.
    pub(super) fn group_name(&self, group: &GroupId) -> Option<String> {
        let conversation = self.conversations.get(group)?;
        (conversation.kind == Kind::Group).then(|| conversation.name.clone().unwrap_or_default())
    }

    pub(super) fn is_active(&self, group: &GroupId) -> bool {
        self.conversations
            .get(group)
            .is_some_and(|one| one.stage == Stage::Active)
    }
}

/// What the chats gave; none if they refuse. What a group is like others decide, so only a store that
/// fails ends the engine.
pub(super) fn unless_refused<T>(result: Result<T, ChatError>) -> Result<Option<T>, ClientError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error @ ChatError::Store(_)) => Err(chat_error(error)),
        Err(error) => {
            tracing::warn!(%error, "a chat refuses");
            Ok(None)
        }
    }
}

/// Errors of the chats that end the engine: those of the store. Others are the caller's to handle.
pub(super) fn chat_error(error: impl Into<ChatError>) -> ClientError {
    let error = error.into();
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    ClientError::Chat(text)
}
