//! Joining by a Welcome: conversations that others started.

use bytes::Bytes;
use commucat_proto::frame::FrameType;
use commucat_proto::frame::fetch::{Fetch, FetchAccess, Want};
use commucat_proto::frame::group_invite::GroupInvite;
use commucat_proto::id::AccountId;

use super::core::{Core, chat_error};
use super::model::{Conversation, Kind, Stage};
use super::online::Purpose;
use super::tables;
use crate::chat::{ChatError, Group, Joined};
use crate::error::ClientError;
use crate::event::{Change, Event, Request};

/// A light self-update follows so long after joining, so that its keys are this device's own.
const UPDATE_AFTER_MS: u64 = 3_600_000;

impl Core {
    /// Joins by a Welcome; `infos` if it needs the tree from a GroupInfo.
    pub(super) fn take_up(
        &mut self,
        invite: &GroupInvite,
        infos: &[(u64, Bytes)],
    ) -> Result<(), ClientError> {
        let group = invite.group;
        match self.chat.join(invite, infos) {
            Ok(Joined::Member { by }) => {
                self.vault.delete(tables::INVITED, b"", group.as_bytes())?;
                self.joined(invite, &AccountId::of_key(&by))
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

    fn joined(&mut self, invite: &GroupInvite, by: &AccountId) -> Result<(), ClientError> {
        let group = invite.group;
        let view = self.chat.group(&group).map_err(chat_error)?;
        let company = Company::of(&view, &self.own_id());
        if self.contacts.get(by).is_some_and(|one| one.blocked) {
            return self.leave_at_once(invite, company.kind);
        }
        for member in &view.members {
            self.meet(&member.account)?;
        }
        // Where another own device made the Welcome, the account has decided already.
        let request = (!self.is_known(by)).then(|| by.clone());
        let earlier = self.conversations.remove(&group);
        let peer = (company.kind == Kind::Direct)
            .then(|| company.others.first().cloned())
            .flatten();
        let one = Conversation {
            peer: peer.clone(),
            request: request.clone(),
            stage: Stage::Active,
            ready: true,
            position: invite.position,
            seen: invite.position,
            joined: invite.position,
            update_due: self.now.as_millis().saturating_add(UPDATE_AFTER_MS),
            name: earlier.and_then(|one| one.name),
            ..Conversation::new(group, invite.hub.clone(), company.kind.clone())
        };
        self.conversations.insert(group, one);
        self.unbind(&group);
        self.forget_order(&group)?;
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
                self.link_contact(peer.as_ref(), &group, company.owner.as_ref())?;
                self.tell(Event::Conversation {
                    conversation: group,
                    change: Change::Ready,
                });
            }
        }
        if self.vault.count(tables::HELD, group.as_bytes())? > 0 {
            // Frames that came while the GroupInfo was fetched; commits among them were not kept.
            self.change(&group, |one| one.behind = true);
            self.release(&group)?;
        }
        if company.kind == Kind::Own {
            self.own_device_joined()
        } else {
            Ok(())
        }
    }

    /// Leaves a group into which somebody who is blocked has put this device. It may be one that it was
    /// in: the Welcome has replaced its state.
    fn leave_at_once(&mut self, invite: &GroupInvite, kind: Kind) -> Result<(), ClientError> {
        let group = invite.group;
        let known = self.conversations.get(&group);
        if known.is_some_and(|one| one.stage != Stage::Left) {
            return self.leave(&group, Change::Left);
        }
        let new = Conversation {
            stage: Stage::Left,
            ..Conversation::new(group, invite.hub.clone(), kind)
        };
        self.conversations.entry(group).or_insert(new);
        self.change(&group, |one| one.leaving = true);
        self.chat.forget(&group).map_err(chat_error)?;
        self.send_leave(&group);
        Ok(())
    }

    fn is_known(&self, id: &AccountId) -> bool {
        *id == self.own_id()
            || self
                .contacts
                .get(id)
                .is_some_and(|one| !one.petname.is_empty())
    }
}

/// Who is in a group that this device was added to.
struct Company {
    /// Accounts other than the own one.
    others: Vec<AccountId>,
    owner: Option<AccountId>,
    kind: Kind,
}

impl Company {
    fn of(view: &Group, own: &AccountId) -> Self {
        let accounts = view
            .members
            .iter()
            .map(|member| AccountId::of_key(&member.account));
        let mut others: Vec<_> = accounts.filter(|id| id != own).collect();
        others.sort_unstable();
        others.dedup();
        let kind = match others.len() {
            0 => Kind::Own,
            1 => Kind::Direct,
            _ => Kind::Group,
        };
        let owner = view.roles.owners.iter().next().map(AccountId::of_key);
        Self {
            others,
            owner,
            kind,
        }
    }
}
