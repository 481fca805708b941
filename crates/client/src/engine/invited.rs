//! Joining by a Welcome: conversations that others started.

use bytes::Bytes;
use commucat_proto::frame::FrameType;
use commucat_proto::frame::fetch::{Fetch, FetchAccess, Want};
use commucat_proto::frame::group_invite::GroupInvite;
use commucat_proto::id::{AccountId, GroupId};
use commucat_proto::wire::Cbor as _;

use super::core::{Core, chat_error};
use super::model::{Conversation, Kind, Stage};
use super::online::Purpose;
use super::tables;
use crate::chat::{ChatError, Group, Joined};
use crate::error::ClientError;
use crate::event::{Change, Event, Request};

/// A light self-update follows so long after joining, so that its keys are this device's own.
const UPDATE_AFTER_MS: u64 = 3_600_000;

/// Invitations that wait, of 256 KiB at most: as much as a queue holds. Whoever is invited when there are
/// so many has to be invited again.
const INVITED_MAX: usize = 256;

impl Core {
    /// A Welcome. One that comes while this device is in the group may be the way back after a removal of
    /// which it was not told, or lead it away (decision 0602): the log tells which.
    pub(super) fn on_invite(
        &mut self,
        invite: &GroupInvite,
        payload: &Bytes,
    ) -> Result<(), ClientError> {
        let group = invite.group;
        let known = self.conversations.get(&group);
        // The hub of a group never changes: another one's is another group. And a LEAVE that is not
        // answered yet would end the new membership too.
        if known.is_some_and(|one| one.leaving || one.hub != invite.hub) {
            tracing::warn!("an invitation is discarded");
            return Ok(());
        }
        let present = known.filter(|one| one.stage != Stage::Left);
        let is_in = present.is_some();
        let is_newer =
            |one: &Conversation| one.stage == Stage::Active && one.position < invite.position;
        if !present.is_none_or(is_newer) {
            return Ok(());
        }
        if self.vault.count_values(tables::INVITED, b"")? >= INVITED_MAX {
            tracing::warn!("too many invitations wait; one is discarded");
            return Ok(());
        }
        self.vault
            .put(tables::INVITED, b"", group.as_bytes(), payload)?;
        if is_in {
            self.fell_behind(&group);
            Ok(())
        } else {
            self.take_up(invite, &[])
        }
    }

    /// This device is out of a group: it may have been added again meanwhile.
    pub(super) fn invited_again(
        &mut self,
        group: &GroupId,
        change: Change,
    ) -> Result<(), ClientError> {
        let is_leaving = self.conversations.get(group).is_some_and(|one| one.leaving);
        match self.invitation(group)? {
            Some(invite) if change == Change::Left && !is_leaving => {
                self.take_up(&invite, &[])?;
                // Commits that came since were for the old membership.
                self.fell_behind(group);
                Ok(())
            }
            Some(_) | None => self.decline(group),
        }
    }

    /// Asks again for the GroupInfo that an invitation waits for.
    pub(super) fn resume_invitation(&mut self, group: &GroupId) -> Result<(), ClientError> {
        let purpose = Purpose::Welcome(*group);
        let is_asked = self
            .online
            .as_ref()
            .is_some_and(|online| online.is_pending(&purpose));
        match self.invitation(group)? {
            Some(invite) if !is_asked => self.take_up(&invite, &[]),
            Some(_) | None => Ok(()),
        }
    }

    /// The log shows that this device is in the group still at a position: a Welcome for that or an
    /// earlier one is not its way.
    pub(super) fn still_in(&self, group: &GroupId, position: u64) -> Result<(), ClientError> {
        match self.invitation(group)? {
            Some(invite) if invite.position <= position => self.uninvite(group),
            Some(_) | None => Ok(()),
        }
    }

    /// The invitation to a group that waits.
    pub(super) fn invitation(&self, group: &GroupId) -> Result<Option<GroupInvite>, ClientError> {
        let bytes = self.vault.get(tables::INVITED, b"", group.as_bytes())?;
        Ok(bytes.and_then(|bytes| GroupInvite::decode(&bytes).ok()))
    }

    pub(super) fn uninvite(&self, group: &GroupId) -> Result<(), ClientError> {
        self.vault.delete(tables::INVITED, b"", group.as_bytes())?;
        Ok(())
    }

    /// Nothing leads into a group, and nothing that was kept for that will open.
    pub(super) fn decline(&self, group: &GroupId) -> Result<(), ClientError> {
        self.vault.clear(tables::HELD, group.as_bytes())?;
        self.uninvite(group)
    }

    /// Joins by a Welcome; `infos` if it needs the tree from a GroupInfo.
    pub(super) fn take_up(
        &mut self,
        invite: &GroupInvite,
        infos: &[(u64, Bytes)],
    ) -> Result<(), ClientError> {
        let group = invite.group;
        match self.chat.join(invite, infos) {
            Ok(Joined::Member { by }) => {
                self.uninvite(&group)?;
                self.joined(invite, &AccountId::of_key(&by), !infos.is_empty())
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
            Ok(Joined::Known | Joined::NeedsGroupInfo) => self.decline(&group),
            Err(error @ ChatError::Store(_)) => Err(chat_error(error)),
            Err(error) => {
                tracing::warn!(%error, "an invitation cannot be used");
                self.decline(&group)
            }
        }
    }

    /// `waited` for the GroupInfo: commits that came meanwhile were not kept.
    fn joined(
        &mut self,
        invite: &GroupInvite,
        by: &AccountId,
        waited: bool,
    ) -> Result<(), ClientError> {
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
        self.forget_order(&group)?;
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
            // A full queue refuses copies of commits: those after the Welcome may be missing.
            behind: self.account.had_gap || waited,
            ..Conversation::new(group, invite.hub.clone(), company.kind.clone())
        };
        self.conversations.insert(group, one);
        self.unbind(&group);
        self.begin_anew(&group);
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
        // Frames that came while the GroupInfo was fetched, or before the removal was known.
        self.release(&group)?;
        if company.kind == Kind::Own {
            self.own_device_joined()
        } else {
            Ok(())
        }
    }

    /// Leaves a group into which somebody who is blocked has put this device.
    fn leave_at_once(&mut self, invite: &GroupInvite, kind: Kind) -> Result<(), ClientError> {
        let group = invite.group;
        let new = Conversation {
            stage: Stage::Left,
            ..Conversation::new(group, invite.hub.clone(), kind)
        };
        self.conversations.entry(group).or_insert(new);
        self.change(&group, |one| one.leaving = true);
        self.chat.forget(&group).map_err(chat_error)?;
        self.send_leave(&group);
        self.decline(&group)
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
