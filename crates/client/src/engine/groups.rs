//! Conversations: whatever is missing between how one is and how it should be, step by step.
//!
//! `advance` looks at one conversation and sends the next request that brings it forward; the
//! answer wakes it up again. All of it restarts from the vault after a crash or a lost connection.

use commucat_proto::frame::FrameType;
use commucat_proto::frame::fetch::{Fetch, FetchAccess, Want};
use commucat_proto::frame::group_create::GroupCreate;
use commucat_proto::frame::key_package::KeyPackage;
use commucat_proto::frame::leave::Leave;
use commucat_proto::id::{AccountId, GroupId};
use commucat_proto::wire::Cbor as _;

use super::core::{Core, chat_error};
use super::model::{Conversation, Kind, Stage};
use super::online::Purpose;
use crate::chat::{Body, ChatError, Intent, Membership, NewGroup, Proposal, Role, Roles};
use crate::error::ClientError;
use crate::event::Change;
use crate::settings::Suite;

impl Core {
    /// Brings a conversation forward by what can be done now.
    pub(super) fn advance(&mut self, group: &GroupId) -> Result<(), ClientError> {
        let waits = self.retry.get(group).is_some_and(|at| *at > self.now);
        let Some(online) = &self.online else {
            return Ok(());
        };
        let stage = self.conversations.get(group).map(|one| one.stage);
        if online.busy.contains(group) || waits {
            return if self.may_send(group) {
                self.pump(group)
            } else {
                Ok(())
            };
        }
        // What is known of the log must not get far ahead of the queue: the keys for what is still in
        // there would be gone.
        let is_caught_up = online.caught_up.is_some();
        match stage {
            None | Some(Stage::Left) => {
                self.resume_leave(group);
                self.resume_invitation(group)
            }
            Some(Stage::Planned) => self.ask_reference(group),
            Some(Stage::Creating) => self.send_create(group),
            Some(Stage::Active) => {
                if is_caught_up
                    && !self.repair(group)?
                    && !self.commit_next(group)?
                    && !self.add_next(group)?
                {
                    self.check_ready(group)?;
                }
                if self.may_send(group) {
                    self.pump(group)
                } else {
                    Ok(())
                }
            }
        }
    }

    /// A new conversation of this device.
    pub(super) fn plan(
        &mut self,
        kind: Kind,
        name: Option<String>,
        wanted: Vec<AccountId>,
    ) -> Result<GroupId, ClientError> {
        let id = GroupId::new(commucat_crypto::secret::random_bytes());
        let hub = self
            .own_domain()
            .ok_or(ClientError::NotNow("not registered yet"))?;
        let peer = (kind == Kind::Direct)
            .then(|| wanted.first().cloned())
            .flatten();
        let mut wanted = wanted;
        wanted.push(self.own_id());
        let one = Conversation {
            name,
            peer,
            wanted,
            ..Conversation::new(id, hub, kind)
        };
        self.conversations.insert(id, one);
        self.dirty.insert(id);
        self.awake.insert(id);
        Ok(id)
    }

    fn ask_reference(&mut self, group: &GroupId) -> Result<(), ClientError> {
        let Some(hub) = self.conversations.get(group).map(|one| one.hub.clone()) else {
            return Ok(());
        };
        let ask = KeyPackage::OwnReference { group: *group, hub };
        self.busy_with(
            group,
            FrameType::KeyPackage,
            &ask,
            Purpose::Reference(*group),
        );
        Ok(())
    }

    /// The hub's reference came: make the group here, then there.
    pub(super) fn on_reference(
        &mut self,
        group: &GroupId,
        sealed_ref: commucat_proto::id::SealedRef,
    ) -> Result<(), ClientError> {
        let Some(one) = self.conversations.get(group).cloned() else {
            return Ok(());
        };
        if one.stage != Stage::Planned {
            return Ok(());
        }
        let mut roles = Roles::default();
        if let Some(key) = self.account.key {
            roles.set(key, Role::Owner);
        }
        // In a 1:1 both sides look after their own devices.
        if let Some(key) = one
            .peer
            .as_ref()
            .and_then(|peer| self.contacts.get(peer)?.key)
        {
            roles.set(key, Role::Admin);
        } else if one.kind == Kind::Direct {
            return self.wait_for_key(group, one.peer.as_ref());
        }
        let suite = match self.suite {
            Suite::Hybrid => crate::chat::Suite::Hybrid,
            Suite::Classical => crate::chat::Suite::Classical,
        };
        let new = NewGroup {
            group: *group,
            hub: one.hub,
            sealed_ref,
            suite,
            roles,
        };
        let create = match self.chat.create(new) {
            Ok(create) => create.encode(),
            Err(error) => return Err(chat_error(error)),
        };
        self.change(group, |one| {
            one.create = Some(create);
            one.stage = Stage::Creating;
        });
        self.awake.insert(*group);
        Ok(())
    }

    /// A 1:1 names the other account's key in its roles: the device list has it.
    fn wait_for_key(
        &mut self,
        group: &GroupId,
        peer: Option<&AccountId>,
    ) -> Result<(), ClientError> {
        if let Some(peer) = peer.cloned() {
            self.ask_list(&peer)?;
        }
        self.sent_nothing(group);
        Ok(())
    }

    fn send_create(&mut self, group: &GroupId) -> Result<(), ClientError> {
        let bytes = self
            .conversations
            .get(group)
            .and_then(|one| one.create.clone());
        let Some(create) = bytes.and_then(|bytes| GroupCreate::decode(&bytes).ok()) else {
            return Err(ClientError::Chat(
                "a stored GROUP_CREATE does not decode".to_owned(),
            ));
        };
        self.busy_with(
            group,
            FrameType::GroupCreate,
            &create,
            Purpose::Create(*group),
        );
        Ok(())
    }

    pub(super) fn on_created(&mut self, group: &GroupId) -> Result<(), ClientError> {
        self.change(group, |one| {
            one.create = None;
            one.stage = Stage::Active;
        });
        self.awake.insert(*group);
        let Some(one) = self.conversations.get(group).cloned() else {
            return Ok(());
        };
        if let Some(name) = one.name {
            self.post(group, Body::Settings { name })?;
        }
        if one.kind == Kind::Direct
            && let (Some(account), Some(domain)) = (self.account.key, self.own_domain())
        {
            // The other side may want to add this account to something, too.
            let capability = self.account.capability;
            self.post(
                group,
                Body::Capability {
                    account,
                    domain,
                    capability,
                },
            )?;
        }
        Ok(())
    }

    /// Reads the log, or the list, or rejoins where this device fell behind; true if it has to wait for that.
    fn repair(&mut self, group: &GroupId) -> Result<bool, ClientError> {
        let Some(one) = self.conversations.get(group) else {
            return Ok(true);
        };
        if one.rejoin {
            if self.chat.is_rejoining(group) {
                // Its commit leads past whatever is missing.
                return Ok(false);
            }
            let is_under_way = self
                .online
                .as_ref()
                .is_some_and(|online| online.rejoining.contains_key(group));
            if !is_under_way {
                self.fetch_infos(group, Purpose::Rejoin(*group))?;
            }
            return Ok(true);
        }
        if !one.behind {
            return self.look_for_gone(group);
        }
        let from = one.position.saturating_add(1);
        let want = Want {
            entries: true,
            ..Want::default()
        };
        self.fetch(group, from, want, Purpose::Log(*group))?;
        Ok(true)
    }

    pub(super) fn fetch_infos(
        &mut self,
        group: &GroupId,
        purpose: Purpose,
    ) -> Result<(), ClientError> {
        let want = Want {
            group_info: true,
            ..Want::default()
        };
        self.fetch(group, 0, want, purpose)
    }

    pub(super) fn fetch(
        &mut self,
        group: &GroupId,
        from: u64,
        want: Want,
        purpose: Purpose,
    ) -> Result<(), ClientError> {
        let Ok(view) = self.chat.group(group) else {
            return Ok(());
        };
        let access = FetchAccess::Member {
            handle: view.handle,
            sealed_ref: view.sealed_ref,
        };
        let fetch = Fetch {
            group: *group,
            hub: view.hub,
            access,
            from,
            want,
        };
        if !self
            .online
            .as_ref()
            .is_some_and(|online| online.is_pending(&purpose))
        {
            if matches!(purpose, Purpose::Log(_)) {
                self.overtaken.remove(group);
            }
            self.busy_with(group, FrameType::Fetch, &fetch, purpose);
        }
        Ok(())
    }

    /// Remembers a change of the group for the next commit.
    pub(super) fn intend(&mut self, group: &GroupId, intent: Intent) {
        match self.chat.intend(group, intent, self.now) {
            Ok(()) => {
                self.intents.insert(*group);
                self.awake.insert(*group);
            }
            Err(error) => tracing::warn!(%error, "a change of a group cannot be made"),
        }
    }

    /// Sends the next commit; true if one is under way.
    fn commit_next(&mut self, group: &GroupId) -> Result<bool, ClientError> {
        let due = self
            .conversations
            .get(group)
            .map_or(0, |one| one.update_due);
        if due > 0 && due <= self.now.as_millis() {
            self.change(group, |one| one.update_due = 0);
            self.intend(group, Intent::Update);
        }
        if !self.intents.contains(group) {
            return Ok(false);
        }
        loop {
            match self.chat.propose(group) {
                Ok(Proposal::Send(submission)) => {
                    let purpose = Purpose::Commit(*group);
                    self.busy_with(group, FrameType::KeyUpdate, &submission.update, purpose);
                    return Ok(true);
                }
                Ok(Proposal::Nothing) => {
                    self.intents.remove(group);
                    return Ok(false);
                }
                Ok(Proposal::Dropped(_, error)) => {
                    tracing::warn!(%error, "a change of a group was given up");
                }
                Err(error @ ChatError::Store(_)) => return Err(chat_error(error)),
                Err(_) => {
                    self.intents.remove(group);
                    return Ok(false);
                }
            }
        }
    }

    pub(super) fn busy_with(
        &mut self,
        group: &GroupId,
        kind: FrameType,
        value: &impl commucat_proto::wire::Cbor,
        purpose: Purpose,
    ) {
        if let Some(online) = &mut self.online {
            online.busy.insert(*group);
        }
        self.request(kind, value, purpose);
    }

    /// Leaves a conversation for good: the server forgets the way to this device.
    pub(super) fn leave(&mut self, group: &GroupId, change: Change) -> Result<(), ClientError> {
        self.change(group, |one| one.leaving = true);
        self.end(group, change)?;
        self.send_leave(group);
        Ok(())
    }

    /// Says again that this device leaves for good, if the server could not take it.
    fn resume_leave(&mut self, group: &GroupId) {
        let is_leaving = self.conversations.get(group).is_some_and(|one| one.leaving);
        let purpose = Purpose::Leave(*group);
        let is_pending = |online: &super::online::Online| online.is_pending(&purpose);
        if is_leaving && !self.online.as_ref().is_some_and(is_pending) {
            self.send_leave(group);
        }
    }

    pub(super) fn send_leave(&mut self, group: &GroupId) {
        let leave = Leave {
            group: *group,
            for_good: true,
        };
        self.request(FrameType::Leave, &leave, Purpose::Leave(*group));
    }

    /// Gives up the channel of a group under the handle that this device had in it. The server keeps it
    /// bound until it is told, also after a removal.
    pub(super) fn unbind(&mut self, group: &GroupId) {
        let was_bound = self
            .online
            .as_mut()
            .is_some_and(|online| online.release(group));
        if was_bound {
            let leave = Leave {
                group: *group,
                for_good: false,
            };
            self.request(FrameType::Leave, &leave, Purpose::Unbind(*group));
        }
    }

    /// The membership in a group is over, or another one begins: what failed or is under way in the old
    /// one says nothing about the next.
    pub(super) fn begin_anew(&mut self, group: &GroupId) {
        self.no_failures(group);
        self.unknown.remove(group);
        self.retry.remove(group);
        self.looks.remove(group);
        if let Some(online) = &mut self.online {
            online.forget_requests(group);
        }
    }

    /// Number of devices in a conversation.
    pub(super) fn devices_in(&mut self, group: &GroupId) -> usize {
        self.chat.group(group).map_or(0, |view| view.members.len())
    }

    /// Deletes the chat's state of a conversation that is over.
    pub(super) fn forget_conversation(&mut self, group: &GroupId) -> Result<(), ClientError> {
        let over = self.chat.group(group).is_ok_and(|view| {
            matches!(
                view.membership,
                Membership::Removed | Membership::Closed | Membership::Member
            )
        });
        if over {
            self.chat.forget(group).map_err(chat_error)
        } else {
            Ok(())
        }
    }
}
