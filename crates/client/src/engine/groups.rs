//! Conversations: whatever is missing between how one is and how it should be, step by step.
//!
//! `advance` looks at one conversation and sends the next request that brings it forward; the
//! answer wakes it up again. All of it restarts from the vault after a crash or a lost connection.

use bytes::Bytes;
use commucat_proto::frame::FrameType;
use commucat_proto::frame::fetch::{Fetch, FetchAccess, Want};
use commucat_proto::frame::group_create::GroupCreate;
use commucat_proto::frame::group_invite::GroupInvite;
use commucat_proto::frame::key_package::{Claim as ClaimRequest, KeyPackage};
use commucat_proto::frame::leave::Leave;
use commucat_proto::id::{AccountId, ClaimId, GroupId};
use commucat_proto::limits::CLAIM_REPEAT;
use commucat_proto::time::Timestamp;
use commucat_proto::wire::Cbor as _;

use super::core::{Core, chat_error};
use super::model::{Claim, Conversation, Kind, Stage};
use super::online::Purpose;
use super::tables;
use crate::chat::{Body, ChatError, Intent, Joined, Membership, NewGroup, Proposal, Role, Roles};
use crate::error::ClientError;
use crate::event::{Change, Event, Request};
use crate::settings::Suite;

/// A light self-update follows so long after joining, so that its keys are this device's own.
const UPDATE_AFTER_MS: u64 = 3_600_000;

impl Core {
    /// Brings a conversation forward by what can be done now.
    pub(super) fn advance(&mut self, group: &GroupId) -> Result<(), ClientError> {
        let waits = self.retry.get(group).is_some_and(|at| *at > self.now);
        let Some(one) = self.conversations.get(group) else {
            return Ok(());
        };
        let Some(online) = &self.online else {
            return Ok(());
        };
        if online.busy.contains(group) || waits {
            return if self.may_send(group) {
                self.pump(group)
            } else {
                Ok(())
            };
        }
        match one.stage {
            Stage::Left => Ok(()),
            Stage::Planned => self.ask_reference(group),
            Stage::Creating => self.send_create(group),
            Stage::Active => {
                if !self.repair(group)? && !self.commit_next(group)? && !self.add_next(group)? {
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

    /// Reads the log or rejoins where this device fell behind; true if it has to wait for that.
    fn repair(&mut self, group: &GroupId) -> Result<bool, ClientError> {
        let Some(one) = self.conversations.get(group) else {
            return Ok(true);
        };
        if one.rejoin {
            self.fetch_infos(group, Purpose::Rejoin(*group))?;
            return Ok(true);
        }
        if !one.behind {
            return Ok(false);
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

    fn fetch(
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

    /// Claims key packages for the next account that shall be in; true if a claim is under way.
    fn add_next(&mut self, group: &GroupId) -> Result<bool, ClientError> {
        let Some(one) = self.conversations.get(group).cloned() else {
            return Ok(false);
        };
        let Some(account) = one.wanted.first().cloned() else {
            return Ok(false);
        };
        let own = account == self.own_id();
        if own
            && self
                .account
                .verified_list()
                .is_some_and(|list| list.certificates().len() < 2)
        {
            self.wanted_done(group, &account);
            return self.add_next(group);
        }
        let (domain, capability) = if own {
            (self.own_domain(), None)
        } else {
            match self.contacts.get(&account) {
                Some(contact) if contact.key.is_some() => {
                    (Some(contact.domain.clone()), contact.capability)
                }
                Some(_) => {
                    self.ask_list(&account)?;
                    self.sent_nothing(group);
                    return Ok(true);
                }
                None => (None, None),
            }
        };
        let Some(domain) = domain else {
            self.wanted_done(group, &account);
            return Ok(false);
        };
        let id = self.claim_id(group, &account);
        let claim = ClaimRequest {
            account: account.clone(),
            domain,
            capability,
            group: *group,
            hub: one.hub,
            id,
        };
        let purpose = Purpose::Claim(*group, account);
        self.busy_with(
            group,
            FrameType::KeyPackage,
            &KeyPackage::Claim(claim),
            purpose,
        );
        Ok(true)
    }

    /// The id of the claim: the same for a repeat, so that it gets the same packages.
    fn claim_id(&mut self, group: &GroupId, account: &AccountId) -> ClaimId {
        let now = self.now;
        let young =
            |claim: &Claim| now < Timestamp::from_millis(claim.made).saturating_add(CLAIM_REPEAT);
        let claims = self
            .conversations
            .get(group)
            .map(|one| one.claims.as_slice());
        let known = claims.unwrap_or_default().iter();
        if let Some(claim) = known
            .clone()
            .find(|one| one.account == *account && young(one))
        {
            return claim.id;
        }
        let id = ClaimId::new(commucat_crypto::secret::random_bytes());
        let claim = Claim {
            account: account.clone(),
            id,
            made: now.as_millis(),
        };
        self.change(group, |one| {
            one.claims.retain(|old| old.account != *account);
            one.claims.push(claim);
        });
        id
    }

    /// An account needs nothing more in this conversation.
    pub(super) fn wanted_done(&mut self, group: &GroupId, account: &AccountId) {
        self.change(group, |one| {
            one.wanted.retain(|other| other != account);
            one.claims.retain(|claim| claim.account != *account);
        });
        self.awake.insert(*group);
    }

    /// Messages may flow when those who were wanted at first are in.
    fn check_ready(&mut self, group: &GroupId) -> Result<(), ClientError> {
        let Some(one) = self.conversations.get(group) else {
            return Ok(());
        };
        if one.ready || !one.wanted.is_empty() {
            return Ok(());
        }
        let peer = one.peer.clone();
        let view = self.chat.group(group).map_err(chat_error)?;
        let inside = |account: &AccountId| {
            view.members
                .iter()
                .any(|member| AccountId::of_key(&member.account) == *account)
        };
        if peer.as_ref().is_none_or(inside) {
            self.change(group, |one| one.ready = true);
            self.tell(Event::Conversation {
                conversation: *group,
                change: Change::Ready,
            });
        }
        Ok(())
    }

    fn busy_with(
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
    pub(super) fn leave(&mut self, group: &GroupId) -> Result<(), ClientError> {
        self.change(group, |one| one.leaving = true);
        self.end(group, Change::Left)?;
        self.send_leave(group);
        Ok(())
    }

    pub(super) fn send_leave(&mut self, group: &GroupId) {
        let leave = Leave {
            group: *group,
            for_good: true,
        };
        self.request(FrameType::Leave, &leave, Purpose::Leave(*group));
    }

    /// Joins by a Welcome; `infos` if it needs the tree from a GroupInfo.
    pub(super) fn take_up(
        &mut self,
        invite: &GroupInvite,
        infos: &[(u64, Bytes)],
    ) -> Result<(), ClientError> {
        let group = invite.group;
        match self.chat.join(invite, infos) {
            Ok(Joined::Member) => {
                self.vault.delete(tables::INVITED, b"", group.as_bytes())?;
                self.joined(invite)
            }
            Ok(Joined::NeedsGroupInfo) if infos.is_empty() => {
                let want = Want {
                    group_info: true,
                    ..Want::default()
                };
                let (handle, sealed_ref) = (invite.handle, invite.sealed_ref);
                let access = FetchAccess::Member { handle, sealed_ref };
                let (hub, from) = (invite.hub.clone(), invite.position);
                let fetch = Fetch {
                    group,
                    hub,
                    access,
                    from,
                    want,
                };
                self.request(FrameType::Fetch, &fetch, Purpose::Welcome(group));
                Ok(())
            }
            Ok(Joined::Known | Joined::NeedsGroupInfo) => {
                self.vault.delete(tables::INVITED, b"", group.as_bytes())?;
                Ok(())
            }
            Err(error @ ChatError::Store(_)) => Err(chat_error(error)),
            Err(error) => {
                tracing::warn!(%error, "an invitation cannot be used");
                self.vault.delete(tables::INVITED, b"", group.as_bytes())?;
                Ok(())
            }
        }
    }

    fn joined(&mut self, invite: &GroupInvite) -> Result<(), ClientError> {
        let group = invite.group;
        let view = self.chat.group(&group).map_err(chat_error)?;
        let own = self.own_id();
        let mut others: Vec<AccountId> = view
            .members
            .iter()
            .map(|member| AccountId::of_key(&member.account))
            .collect();
        others.sort_unstable();
        others.dedup();
        let own_devices = view
            .members
            .iter()
            .filter(|m| AccountId::of_key(&m.account) == own);
        let second = own_devices.count() > 1;
        others.retain(|account| *account != own);
        let owner = view.roles.owners.iter().next().map(AccountId::of_key);
        let kind = match others.len() {
            0 => Kind::Own,
            1 => Kind::Direct,
            _ => Kind::Group,
        };
        let starter = owner.clone().or_else(|| others.first().cloned());
        let blocked = |id: &AccountId| self.contacts.get(id).is_some_and(|one| one.blocked);
        if !second && starter.as_ref().is_some_and(blocked) {
            self.chat.forget(&group).map_err(chat_error)?;
            self.send_leave(&group);
            return Ok(());
        }
        let known = |id: &AccountId| {
            *id == own
                || self
                    .contacts
                    .get(id)
                    .is_some_and(|one| !one.petname.is_empty())
        };
        let request = starter.filter(|id| !second && !known(id));
        for member in &view.members {
            self.meet(&member.account)?;
        }
        let earlier = self.conversations.remove(&group);
        let one = Conversation {
            peer: if kind == Kind::Direct {
                others.first().cloned()
            } else {
                None
            },
            request: request.clone(),
            stage: Stage::Active,
            ready: true,
            position: invite.position,
            update_due: self.now.as_millis().saturating_add(UPDATE_AFTER_MS),
            name: earlier.and_then(|one| one.name),
            ..Conversation::new(group, invite.hub.clone(), kind.clone())
        };
        let peer = one.peer.clone();
        self.conversations.insert(group, one);
        self.dirty.insert(group);
        self.intents.insert(group);
        self.awake.insert(group);
        match request {
            Some(from) => {
                let domain = invite.hub.as_str().to_owned();
                self.tell(Event::Request(Request {
                    conversation: group,
                    from,
                    domain,
                }));
            }
            None => {
                self.link_contact(peer.as_ref(), &group, owner.as_ref())?;
                self.tell(Event::Conversation {
                    conversation: group,
                    change: Change::Ready,
                });
            }
        }
        if kind == Kind::Own {
            self.own_device_joined()
        } else {
            Ok(())
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
