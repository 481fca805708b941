//! Which commits are valid (CCP-1 sections 5.2 and 5.5).
//!
//! All members must agree, so nothing here may depend on anything but the group's state and the
//! entry's bytes: no clock, no directory, no opinion.

use std::collections::BTreeSet;

use commucat_proto::frame::bundle::AuthenticatedData;
use commucat_proto::frame::fanout::{AdminChange, Change, JoinKeyChange};
use commucat_proto::id::{AccountKey, Handle};
use openmls::group::{MlsGroup, StagedCommit};
use openmls::prelude::{LeafNode, Proposal, Sender};

use super::device::{self, Device, Leaf};
use super::keys;
use super::profile::{self, Context};
use super::roles::{Role, Standing, flag_changes};

/// Why all members skip a commit. It uses up its position and changes nothing.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Invalid {
    /// Not a commit as section 5.5 frames it.
    #[error("not a commit of the profile")]
    Framing,
    /// An external commit that does not open with the group key.
    #[error("external commit does not open with the group key")]
    Sealed,
    /// Made for another epoch.
    #[error("made for another epoch")]
    Epoch,
    /// MLS refuses it.
    #[error("mls refuses it")]
    Mls,
    /// Its authenticated data is not the hash of its entry.
    #[error("its authenticated data is not the hash of its entry")]
    Terms,
    /// The entry names another author than the commit.
    #[error("the entry names another author")]
    Author,
    /// It holds a proposal that the profile does not know.
    #[error("it holds a proposal that the profile does not allow")]
    Proposals,
    /// Its Add proposals are not the entry's `add`.
    #[error("its added leaves are not the entry's `add`")]
    Add,
    /// Its Remove proposals are not the entry's `remove`.
    #[error("its removed leaves are not the entry's `remove`")]
    Remove,
    /// A leaf without a good certificate, or one that becomes somebody else.
    #[error("a leaf is not certified, or changes its owner")]
    Leaf,
    /// The group's context would be malformed, or a removal keeps the group key.
    #[error("the group's context does not fit what the commit does")]
    Context,
    /// The roles do not allow it.
    #[error("the roles do not allow it")]
    Roles,
    /// The admin flags of the entry do not agree with the roles.
    #[error("admin flags do not agree with the roles")]
    Flags,
    /// Joining by link is off, or the join key did not sign.
    #[error("joining by link is not allowed like this")]
    Join,
    /// It claims to be ours, and we made no such commit. If the hub is right, this device's state is
    /// older than what it has sent: compare, and rejoin.
    #[error("it claims to be of this device, which does not know it")]
    NotOurs,
}

/// A staged commit with all that its validity depends on.
pub(super) struct Case<'a> {
    pub(super) group: &'a MlsGroup,
    pub(super) staged: &'a StagedCommit,
    pub(super) sender: &'a Sender,
    /// Its authenticated data.
    pub(super) aad: &'a [u8],
    /// What it must be: the hash of the entry (CCP-1 section 5.2).
    pub(super) hash: [u8; 32],
    /// What the entry tells the hub.
    pub(super) change: &'a Change,
    /// Who the entry says made it.
    pub(super) author: &'a Handle,
}

impl Case<'_> {
    /// Checks everything that MLS itself leaves open.
    pub(super) fn check(&self) -> Result<(), Invalid> {
        let leaves = device::leaves(self.group).map_err(|_| Invalid::Leaf)?;
        let old = Context::of(self.group.public_group().group_context()).ok_or(Invalid::Context)?;
        let new = Context::of(self.staged.group_context()).ok_or(Invalid::Context)?;
        let aad = AuthenticatedData::parse(self.aad).ok_or(Invalid::Terms)?;
        if aad.hash != self.hash {
            return Err(Invalid::Terms);
        }
        match self.sender {
            Sender::Member(index) => {
                let author = leaves
                    .iter()
                    .find(|leaf| leaf.index == *index)
                    .ok_or(Invalid::Author)?;
                if aad.join_signature.is_some() {
                    return Err(Invalid::Terms);
                }
                self.member(author, &leaves, (&old, &new))
            }
            Sender::NewMemberCommit => self.external(&leaves, (&old, &new), aad.join_signature),
            Sender::External(_) | Sender::NewMemberProposal => Err(Invalid::Framing),
        }
    }

    fn member(
        &self,
        author: &Leaf,
        leaves: &[Leaf],
        (old, new): (&Context, &Context),
    ) -> Result<(), Invalid> {
        if author.handle != *self.author {
            return Err(Invalid::Author);
        }
        self.only(|proposal| {
            matches!(
                proposal,
                Proposal::Add(_) | Proposal::Remove(_) | Proposal::GroupContextExtensions(_)
            )
        })?;
        if let Some(path) = self.staged.update_path_leaf_node() {
            self.same(path, author)?;
        }
        let added = self.added(leaves)?;
        let removed = self.removed(leaves)?;
        self.context((old, new), !removed.is_empty())?;

        let before = pairs(leaves);
        let after: Vec<_> = before
            .iter()
            .filter(|(handle, _)| !removed.iter().any(|leaf| leaf.handle == *handle))
            .chain(&added)
            .copied()
            .collect();
        let was = Standing::new(&old.roles, before.iter().map(|(_, account)| account));
        let becomes = Standing::new(&new.roles, after.iter().map(|(_, account)| account));
        Step {
            old,
            new,
            removed: &removed,
            author: &author.device,
            close: self.change.close,
        }
        .allowed(&was, &becomes)?;
        self.flags((&was, &before), (&becomes, &after), &added)
    }

    fn only(&self, allowed: impl Fn(&Proposal) -> bool) -> Result<(), Invalid> {
        let all = self
            .staged
            .queued_proposals()
            .all(|queued| allowed(queued.proposal()));
        if all { Ok(()) } else { Err(Invalid::Proposals) }
    }

    /// That a member's new leaf is still that member's.
    fn same(&self, new: &LeafNode, old: &Leaf) -> Result<(), Invalid> {
        let (handle, device) = device::checked(new).ok_or(Invalid::Leaf)?;
        if handle == old.handle && device == old.device {
            Ok(())
        } else {
            Err(Invalid::Leaf)
        }
    }

    /// The added handles with their accounts; they are the entry's, in the same order.
    fn added(&self, leaves: &[Leaf]) -> Result<Vec<(Handle, AccountKey)>, Invalid> {
        let entries = &self.change.add;
        let mut added = Vec::new();
        for proposal in self.staged.add_proposals() {
            let package = proposal.add_proposal().key_package();
            if !profile::fits(package) {
                return Err(Invalid::Leaf);
            }
            let (handle, device) = device::checked(package.leaf_node()).ok_or(Invalid::Leaf)?;
            if entries.get(added.len()).map(|entry| entry.handle) != Some(handle) {
                return Err(Invalid::Add);
            }
            let known = leaves.iter().map(|leaf| leaf.handle);
            if known
                .chain(added.iter().map(|(other, _)| *other))
                .any(|other| other == handle)
            {
                return Err(Invalid::Add);
            }
            added.push((handle, device.account));
        }
        if added.len() == entries.len() {
            Ok(added)
        } else {
            Err(Invalid::Add)
        }
    }

    /// The removed leaves; they are the entry's, in any order.
    fn removed<'b>(&self, leaves: &'b [Leaf]) -> Result<Vec<&'b Leaf>, Invalid> {
        let listed = &self.change.remove;
        let removed: Vec<&Leaf> = self
            .staged
            .remove_proposals()
            .map(|proposal| proposal.remove_proposal().removed())
            .map(|index| leaves.iter().find(|leaf| leaf.index == index))
            .collect::<Option<_>>()
            .ok_or(Invalid::Remove)?;
        let listed_set: BTreeSet<_> = listed.iter().collect();
        let removed_set: BTreeSet<_> = removed.iter().map(|leaf| &leaf.handle).collect();
        let distinct = listed_set.len() == listed.len() && removed_set.len() == removed.len();
        if distinct && listed_set == removed_set {
            Ok(removed)
        } else {
            Err(Invalid::Remove)
        }
    }

    /// That the new context fits what the commit does and what the hub is told.
    fn context(&self, (old, new): (&Context, &Context), removes: bool) -> Result<(), Invalid> {
        let (before, after) = (
            self.group.public_group().group_context(),
            self.staged.group_context(),
        );
        let others = profile::others(before).eq(profile::others(after));
        let fresh_key = !removes || old.group_key != new.group_key;
        let join_key = match &self.change.join_key {
            Some(JoinKeyChange::Set(key)) => new.join_key == Some(*key.as_bytes()),
            Some(JoinKeyChange::Remove) => new.join_key.is_none(),
            None => old.join_key == new.join_key,
        };
        if others && fresh_key && join_key {
            Ok(())
        } else {
            Err(Invalid::Context)
        }
    }

    /// That the hub's flags are what the roles say, for those added and those whose flag changes.
    fn flags(
        &self,
        was: (&Standing<'_>, &[(Handle, AccountKey)]),
        becomes: (&Standing<'_>, &[(Handle, AccountKey)]),
        added: &[(Handle, AccountKey)],
    ) -> Result<(), Invalid> {
        let entries = &self.change.add;
        let good = entries
            .iter()
            .zip(added)
            .all(|(entry, (_, account))| entry.admin == becomes.0.flag(account));
        let told = &self.change.admins;
        let complete = flag_changes(was, becomes)
            .into_iter()
            .all(|(handle, admin)| told.contains(&AdminChange { handle, admin }));
        let (standing, after) = becomes;
        let true_ones = told.iter().all(|told| {
            after.iter().any(|(handle, account)| {
                *handle == told.handle && standing.flag(account) == told.admin
            })
        });
        if good && complete && true_ones {
            Ok(())
        } else {
            Err(Invalid::Flags)
        }
    }

    fn external(
        &self,
        leaves: &[Leaf],
        (old, new): (&Context, &Context),
        join_signature: Option<[u8; 64]>,
    ) -> Result<(), Invalid> {
        self.only(|proposal| matches!(proposal, Proposal::ExternalInit(_) | Proposal::Remove(_)))?;
        let path = self.staged.update_path_leaf_node().ok_or(Invalid::Leaf)?;
        let (handle, device) = device::checked(path).ok_or(Invalid::Leaf)?;
        if handle != *self.author {
            return Err(Invalid::Author);
        }
        let quiet = *self.change
            == Change {
                add: self.change.add.clone(),
                ..Change::default()
            };
        if old != new || !quiet {
            return Err(Invalid::Context);
        }
        let mut removed = self.staged.remove_proposals();
        match (
            removed
                .next()
                .map(|proposal| proposal.remove_proposal().removed()),
            removed.next(),
        ) {
            (Some(index), None) => {
                let leaf = leaves
                    .iter()
                    .find(|leaf| leaf.index == index)
                    .ok_or(Invalid::Remove)?;
                let own = leaf.handle == handle && leaf.device == device;
                let bare = join_signature.is_none() && self.change.add.is_empty();
                if own && bare {
                    Ok(())
                } else {
                    Err(Invalid::Remove)
                }
            }
            (None, _) => {
                let signature = join_signature.ok_or(Invalid::Join)?;
                self.by_link((&handle, &device), leaves, old, &signature)
            }
            (Some(_), Some(_)) => Err(Invalid::Remove),
        }
    }

    fn by_link(
        &self,
        (handle, device): (&Handle, &Device),
        leaves: &[Leaf],
        old: &Context,
        signature: &[u8; 64],
    ) -> Result<(), Invalid> {
        let [entry] = self.change.add.as_slice() else {
            return Err(Invalid::Add);
        };
        if entry.handle != *handle || leaves.iter().any(|leaf| leaf.handle == *handle) {
            return Err(Invalid::Add);
        }
        if entry.admin || old.roles.listed(&device.account) != Role::Member {
            return Err(Invalid::Flags);
        }
        let signed = old
            .join_key
            .is_some_and(|key| keys::verify_join_entry(&key, &self.hash, signature));
        if signed && old.roles.join_allowed {
            Ok(())
        } else {
            Err(Invalid::Join)
        }
    }
}

fn pairs(leaves: &[Leaf]) -> Vec<(Handle, AccountKey)> {
    leaves
        .iter()
        .map(|leaf| (leaf.handle, leaf.device.account))
        .collect()
}

/// What a member's commit changes, for the question whether it may.
struct Step<'a> {
    old: &'a Context,
    new: &'a Context,
    removed: &'a [&'a Leaf],
    author: &'a Device,
    close: bool,
}

impl Step<'_> {
    fn allowed(&self, was: &Standing<'_>, becomes: &Standing<'_>) -> Result<(), Invalid> {
        let role = was.role(&self.author.account);
        let names = self.old.roles.owners != self.new.roles.owners
            || self.old.roles.admins != self.new.roles.admins;
        let joining = self.old.roles.join_allowed != self.new.roles.join_allowed
            || self.old.join_key != self.new.join_key;
        let key = self.removed.is_empty() && self.old.group_key != self.new.group_key;
        let needed = if names || self.close {
            Role::Owner
        } else if joining || key {
            Role::Admin
        } else {
            Role::Member
        };
        if role >= needed && self.may_remove(role, was, becomes) {
            Ok(())
        } else {
            Err(Invalid::Roles)
        }
    }

    /// Owners remove anybody, admins all but owners. A member removes only when no admin is left
    /// afterwards: their hub entries are gone, or the hub would have refused (CCP-1 section 5.2).
    fn may_remove(&self, role: Role, was: &Standing<'_>, becomes: &Standing<'_>) -> bool {
        let targets = || {
            self.removed
                .iter()
                .map(|leaf| was.role(&leaf.device.account))
        };
        match role {
            Role::Owner => true,
            Role::Admin => targets().all(|target| target != Role::Owner),
            Role::Member => {
                self.removed.is_empty()
                    || (targets().all(|target| target >= Role::Admin)
                        && becomes.role(&self.author.account) == Role::Owner)
            }
        }
    }
}
