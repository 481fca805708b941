//! Joining because a member added this device: GROUP_INVITE (CCP-1 section 5.2).

use bytes::Bytes;
use commucat_proto::frame::group_invite::GroupInvite;
use commucat_proto::id::{AccountKey, GroupId};
use openmls::group::{JoinBuilder, MlsGroup, ProcessedWelcome};
use openmls::messages::group_info::VerifiableGroupInfo;
use openmls::prelude::{MlsMessageBodyIn, RatchetTreeIn, Welcome};

use super::package::{Published, Use};
use super::profile::{self, Context};
use super::record::{Doubts, Record, State};
use super::store::Label;
use super::{Chat, ChatError, device, keys};

/// What became of an invitation.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Joined {
    /// This device is a member. Look at [`Chat::group`] for with whom.
    Member {
        /// The account whose device made the Welcome.
        by: AccountKey,
    },
    /// The group is too large for its tree to be in the Welcome: FETCH the GroupInfo of the
    /// invitation's position, and give it to [`Chat::join`] with the same invitation.
    NeedsGroupInfo,
    /// The group's state here is at this position or later already.
    Known,
}

impl Chat {
    /// Joins a group by a Welcome.
    ///
    /// `infos` are sealed GroupInfos with their positions, as FETCH gave them; empty at first.
    ///
    /// # Errors
    ///
    /// [`ChatError::Welcome`] if no key package of this device is meant, or anything in it does not
    /// fit. The key package stays.
    pub fn join(
        &mut self,
        invite: &GroupInvite,
        infos: &[(u64, Bytes)],
    ) -> Result<Joined, ChatError> {
        let group = invite.group;
        let old = Record::load(self.provider.store(), &group)?;
        if let Some(old) = &old {
            let current = old.state == State::Member && old.position >= invite.position;
            if current || old.state == State::Closed {
                return Ok(Joined::Known);
            }
        }
        let result = self.attempt(&group, |chat| chat.join_group(invite, infos, old));
        match result {
            Err(ChatError::NoGroupInfo) => Ok(Joined::NeedsGroupInfo),
            other => other.map(|by| Joined::Member { by }),
        }
    }

    fn join_group(
        &mut self,
        invite: &GroupInvite,
        infos: &[(u64, Bytes)],
        old: Option<Record>,
    ) -> Result<AccountKey, ChatError> {
        let published = self.invited(invite)?;
        let welcome = welcome(&invite.welcome)?;
        let processed =
            ProcessedWelcome::new_from_welcome(&self.provider, &profile::join_config(), welcome)
                .map_err(ChatError::mls("welcome"))?;
        let unverified = processed.unverified_group_info();
        if unverified.group_id().as_slice() != invite.group.as_bytes() {
            return Err(ChatError::Welcome("it is for another group"));
        }
        let tree = match unverified.extensions().ratchet_tree() {
            Some(_) => None,
            None => Some(outside_tree(invite, unverified, infos)?),
        };
        if old.is_some() {
            self.groups.remove(&invite.group);
            if let Some(mut stale) = self.provider.group(&invite.group)? {
                stale.delete(self.provider.store())?;
            }
        }
        let mut builder = JoinBuilder::new(&self.provider, processed).skip_lifetime_validation();
        if let Some(tree) = tree {
            builder = builder.with_ratchet_tree(tree);
        }
        let staged = builder.build().map_err(ChatError::mls("welcome"))?;
        let by = staged
            .welcome_sender()
            .ok()
            .and_then(device::checked)
            .map(|(_, sender)| sender.account)
            .ok_or(ChatError::Welcome("its sender's leaf is not certified"))?;
        let mls = staged
            .into_group(&self.provider)
            .map_err(ChatError::mls("welcome"))?;
        trusted(&mls)?;
        let own = mls.own_leaf_node().and_then(profile::handle);
        if own != Some(invite.handle) {
            return Err(ChatError::Welcome("its handle is not the invited one"));
        }
        self.joined(invite, published, old, mls)?;
        Ok(by)
    }

    fn joined(
        &mut self,
        invite: &GroupInvite,
        published: Published,
        old: Option<Record>,
        mls: MlsGroup,
    ) -> Result<(), ChatError> {
        if published.usage == Use::Single {
            self.provider
                .store()
                .delete(Label::Package, &published.reference)?;
        }
        let record = Record {
            group: invite.group,
            hub: invite.hub.clone(),
            handle: published.handle.0,
            sealed_ref: invite.sealed_ref,
            position: invite.position,
            settled: invite.position,
            doubts: Doubts::default(),
            counter: old.map_or(0, |old| old.counter),
            oldest: 0,
            state: State::Member,
            join_seed: None,
            intents: Vec::new(),
            pending: None,
        };
        record.save(self.provider.store())?;
        self.put_back(invite.group, mls);
        Ok(())
    }

    /// The package whose handle the invitation names.
    fn invited(&self, invite: &GroupInvite) -> Result<Published, ChatError> {
        self.provider
            .store()
            .all::<Published>(Label::Package)?
            .into_iter()
            .find(|published| keys::public(&published.handle.0) == *invite.handle.as_bytes())
            .ok_or(ChatError::Welcome(
                "no key package of this device has its handle",
            ))
    }

    /// Deletes everything of a group: after LEAVE for good, a block, or a removal that was shown.
    ///
    /// # Errors
    ///
    /// [`ChatError::Store`].
    pub fn forget(&mut self, group: &GroupId) -> Result<(), ChatError> {
        self.attempt(group, |chat| {
            chat.groups.remove(group);
            if let Some(mut mls) = chat.provider.group(group)? {
                mls.delete(chat.provider.store())?;
            }
            Ok(chat
                .provider
                .store()
                .delete(Label::Group, group.as_bytes())?)
        })
    }
}

/// The tree in the sealed GroupInfo of the commit that the Welcome belongs to.
fn outside_tree(
    invite: &GroupInvite,
    welcome: &VerifiableGroupInfo,
    infos: &[(u64, Bytes)],
) -> Result<RatchetTreeIn, ChatError> {
    let context = Context::of(welcome.group_context()).ok_or(ChatError::Welcome(
        "the group's context is not of the profile",
    ))?;
    infos
        .iter()
        .filter(|(position, _)| *position == invite.position)
        .filter_map(|(position, sealed)| {
            keys::open_group_info(&context.group_key, &invite.group, *position, sealed)
        })
        .filter(|info| info.group_context() == welcome.group_context())
        .find_map(|info| Some(info.extensions().ratchet_tree()?.ratchet_tree().clone()))
        .ok_or(ChatError::NoGroupInfo)
}

/// That everyone in a tree that somebody else built is certified, and the context is readable.
pub(super) fn trusted(mls: &MlsGroup) -> Result<(), ChatError> {
    let untrusted = ChatError::Welcome("a member's leaf is not certified");
    let good = mls.members().all(|member| {
        mls.public_group()
            .leaf(member.index)
            .and_then(device::checked)
            .is_some()
    });
    if !good {
        return Err(untrusted);
    }
    Context::of(mls.public_group().group_context())
        .map(|_| ())
        .ok_or(ChatError::Welcome(
            "the group's context is not of the profile",
        ))
}

fn welcome(bytes: &[u8]) -> Result<Welcome, ChatError> {
    let Some(MlsMessageBodyIn::Welcome(welcome)) = keys::mls_message(bytes) else {
        return Err(ChatError::Welcome("it does not decode"));
    };
    Ok(welcome)
}
