//! What a group looks like from outside.

use commucat_crypto::secret::Secret;
use commucat_proto::id::{AccountKey, DeviceId, Domain, GroupId, Handle, SealedRef};

use super::device::Leaf;
use super::profile::{Context, Suite};
use super::propose::{Submission, suite_of};
use super::record::{Record, State};
use super::roles::{Role, Roles, Standing};
use super::{Chat, ChatError, device, keys};

/// A device in a group.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Member {
    /// Its pseudonym here.
    pub handle: Handle,
    /// Its account.
    pub account: AccountKey,
    /// Its id.
    pub device: DeviceId,
    /// What its account may do.
    pub role: Role,
}

impl Member {
    pub(super) fn of(leaf: &Leaf, roles: &Roles, all: &[Leaf]) -> Self {
        let standing = Standing::new(roles, all.iter().map(|leaf| &leaf.device.account));
        Self {
            handle: leaf.handle,
            account: leaf.device.account,
            device: leaf.device.id.clone(),
            role: standing.role(&leaf.device.account),
        }
    }
}

/// Whether this device is in a group.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Membership {
    /// Its external commit waits for the hub's answer.
    Joining,
    /// It is.
    Member,
    /// It was removed.
    Removed,
    /// The group was closed.
    Closed,
}

/// A group as this device knows it.
#[derive(Clone, Debug)]
pub struct Group {
    /// Its id.
    pub id: GroupId,
    /// Its hub.
    pub hub: Domain,
    /// Whether this device is in it.
    pub membership: Membership,
    /// The own handle.
    pub handle: Handle,
    /// The own reference: for JOIN, KEY_UPDATE and FETCH.
    pub sealed_ref: SealedRef,
    /// The highest log position handled. FETCH from the next.
    pub position: u64,
    /// The MLS epoch, 0 while joining.
    pub epoch: u64,
    /// All devices, in the order of the tree. Empty while joining.
    pub members: Vec<Member>,
    /// The roles as agreed.
    pub roles: Roles,
    /// Algorithms.
    pub suite: Suite,
    /// The key that seals GroupInfos: for the join link. Secret.
    pub group_key: Option<Secret<32>>,
    /// The join key's private half, if this device made it and it is in force: for the link. Secret.
    pub join_seed: Option<Secret<32>>,
    /// A commit that waits for the hub's answer.
    pub pending: Option<Submission>,
}

impl Chat {
    /// The groups of this device, in no order.
    ///
    /// # Errors
    ///
    /// [`ChatError::Store`].
    pub fn groups(&self) -> Result<Vec<GroupId>, ChatError> {
        Ok(Record::all(self.provider.store())?
            .into_iter()
            .map(|record| record.group)
            .collect())
    }

    /// One group.
    ///
    /// # Errors
    ///
    /// [`ChatError::UnknownGroup`].
    pub fn group(&mut self, group: &GroupId) -> Result<Group, ChatError> {
        let record = self.record(group)?;
        let pending = record
            .pending
            .as_ref()
            .map(|pending| record.submission(pending))
            .transpose()?;
        let mut view = Group {
            id: record.group,
            hub: record.hub.clone(),
            membership: match record.state {
                State::Joining => Membership::Joining,
                State::Member => Membership::Member,
                State::Removed => Membership::Removed,
                State::Closed => Membership::Closed,
            },
            handle: record.own_handle(),
            sealed_ref: record.sealed_ref,
            position: record.position,
            epoch: 0,
            members: Vec::new(),
            roles: Roles::default(),
            suite: Suite::default(),
            group_key: None,
            join_seed: None,
            pending,
        };
        if record.state == State::Joining {
            return Ok(view);
        }
        let mls = self.take(group)?;
        let leaves = device::leaves(&mls)?;
        let context =
            Context::of(mls.public_group().group_context()).ok_or(ChatError::NotMember)?;
        view.epoch = mls.epoch().as_u64();
        view.suite = suite_of(&mls)?;
        view.members = leaves
            .iter()
            .map(|leaf| Member::of(leaf, &context.roles, &leaves))
            .collect();
        let seed = record.join_seed.map(|seed| seed.0);
        view.join_seed = seed.filter(|seed| context.join_key == Some(keys::public(seed)));
        view.group_key = Some(context.group_key);
        view.roles = context.roles;
        self.put_back(*group, mls);
        Ok(view)
    }

    /// The suite of a group: for which key packages to claim.
    ///
    /// # Errors
    ///
    /// [`ChatError::NotMember`].
    pub fn suite(&mut self, group: &GroupId) -> Result<Suite, ChatError> {
        let mls = self.take(group)?;
        let suite = suite_of(&mls)?;
        self.put_back(*group, mls);
        Ok(suite)
    }
}
