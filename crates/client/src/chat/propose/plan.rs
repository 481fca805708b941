//! What a commit for an intent will do to the group as it is now.

use commucat_crypto::secret::Secret;
use commucat_proto::frame::fanout::{AdminChange, Change, FanoutEntry, JoinKeyChange};
use commucat_proto::id::{AccountKey, Handle, JoinKey};
use openmls::prelude::{KeyPackage, LeafNodeIndex};

use crate::chat::device::{self, Leaf};
use crate::chat::intent::{Claimed, Intent};
use crate::chat::profile::{self, Context, Suite};
use crate::chat::roles::{Role, Standing, flag_changes};
use crate::chat::{ChatError, keys, package};

/// The group as it is.
pub(super) struct Now<'a> {
    pub(super) leaves: &'a [Leaf],
    pub(super) context: &'a Context,
    pub(super) own: Handle,
}

impl Now<'_> {
    fn own_role(&self) -> Role {
        let accounts = self.leaves.iter().map(|leaf| &leaf.device.account);
        let standing = Standing::new(&self.context.roles, accounts);
        let own = self.leaves.iter().find(|leaf| leaf.handle == self.own);
        own.map_or(Role::Member, |own| standing.role(&own.device.account))
    }
}

/// What a commit will do.
pub(super) struct Plan {
    pub(super) add: Vec<(KeyPackage, FanoutEntry)>,
    pub(super) remove: Vec<(LeafNodeIndex, Handle)>,
    pub(super) context: Option<Context>,
    /// The new private join key, if the join key changes.
    pub(super) join_seed: Option<Option<Secret<32>>>,
    pub(super) update: bool,
    pub(super) close: bool,
}

impl Plan {
    /// `None` if the group is already as the intent wants it.
    pub(super) fn of(
        intent: &Intent,
        now: &Now<'_>,
        suite: Suite,
    ) -> Result<Option<Self>, ChatError> {
        let mut plan = Self {
            add: Vec::new(),
            remove: Vec::new(),
            context: None,
            join_seed: None,
            update: false,
            close: false,
        };
        match intent {
            Intent::Add(claimed) => plan.adding(claimed, now, suite)?,
            Intent::Remove(handles) => {
                plan.removing(now, |leaf| handles.contains(&leaf.handle));
            }
            Intent::RemoveAccount(account) => {
                plan.removing(now, |leaf| leaf.device.account == *account);
            }
            Intent::SetRole(account, role) => plan.naming(now, account, *role),
            Intent::AllowJoin => plan.joining(now, Some(Secret::random())),
            Intent::ForbidJoin => plan.joining(now, None),
            Intent::Update => plan.update = true,
            Intent::Close => plan.close = true,
        }
        let idle = plan.add.is_empty() && plan.remove.is_empty() && plan.context.is_none();
        Ok((!idle || plan.update || plan.close).then_some(plan))
    }

    fn adding(
        &mut self,
        claimed: &[Claimed],
        now: &Now<'_>,
        suite: Suite,
    ) -> Result<(), ChatError> {
        let fresh: Vec<&Claimed> = claimed
            .iter()
            .filter(|one| {
                !now.leaves
                    .iter()
                    .any(|leaf| leaf.device.account == one.account && leaf.device.id == one.device)
            })
            .collect();
        let accounts = now.leaves.iter().map(|leaf| &leaf.device.account);
        let all = accounts.chain(fresh.iter().map(|one| &one.account));
        let standing = Standing::new(&now.context.roles, all);
        for one in fresh {
            let package = package::verify(one, suite, None)?;
            let handle = profile::handle(package.leaf_node())
                .ok_or(ChatError::Package("it has no handle"))?;
            let entry = FanoutEntry {
                handle,
                domain: one.domain.clone(),
                sealed_ref: one.sealed_ref,
                admin: standing.flag(&one.account),
            };
            self.add.push((package, entry));
        }
        Ok(())
    }

    /// Never the own leaf: MLS does not let a member remove itself.
    fn removing(&mut self, now: &Now<'_>, wanted: impl Fn(&Leaf) -> bool) {
        let others = now.leaves.iter().filter(|leaf| leaf.handle != now.own);
        self.remove = others
            .filter(|leaf| wanted(leaf))
            .map(|leaf| (leaf.index, leaf.handle))
            .collect();
        if self.remove.is_empty() {
            return;
        }
        let mut context = Context {
            group_key: Secret::random(),
            ..now.context.clone()
        };
        // Whoever is removed knows the join key: with it, entries could be put into the log still.
        if context.join_key.is_some() && now.own_role() >= Role::Admin {
            let seed = Secret::random();
            context.join_key = Some(keys::public(&seed));
            self.join_seed = Some(Some(seed));
        }
        self.context = Some(context);
    }

    fn naming(&mut self, now: &Now<'_>, account: &AccountKey, role: Role) {
        if now.context.roles.listed(account) != role {
            let mut context = now.context.clone();
            context.roles.set(*account, role);
            self.context = Some(context);
        }
    }

    fn joining(&mut self, now: &Now<'_>, seed: Option<Secret<32>>) {
        let join_key = seed.as_ref().map(keys::public);
        let mut context = now.context.clone();
        context.roles.join_allowed = seed.is_some();
        context.join_key = join_key;
        if context != *now.context {
            self.context = Some(context);
            self.join_seed = Some(seed);
        }
    }

    pub(super) fn change(&self, now: &Now<'_>) -> Change {
        let new = self.context.as_ref().unwrap_or(now.context);
        let join_key = match new.join_key {
            key if key == now.context.join_key => None,
            Some(key) => Some(JoinKeyChange::Set(JoinKey::new(key))),
            None => Some(JoinKeyChange::Remove),
        };
        let admins = self.admins(now, new).into_iter();
        Change {
            add: self.add.iter().map(|(_, entry)| entry.clone()).collect(),
            remove: self.remove.iter().map(|(_, handle)| *handle).collect(),
            join_key,
            close: self.close,
            admins: admins
                .map(|(handle, admin)| AdminChange { handle, admin })
                .collect(),
        }
    }

    fn admins(&self, now: &Now<'_>, new: &Context) -> Vec<(Handle, bool)> {
        let before: Vec<_> = now
            .leaves
            .iter()
            .map(|leaf| (leaf.handle, leaf.device.account))
            .collect();
        let stays = |handle: &Handle| !self.remove.iter().any(|(_, gone)| gone == handle);
        let added = self.add.iter().filter_map(|(package, entry)| {
            Some((
                entry.handle,
                device::named(package.leaf_node().credential())?.account,
            ))
        });
        let after: Vec<_> = before
            .iter()
            .copied()
            .filter(|(handle, _)| stays(handle))
            .chain(added)
            .collect();
        let accounts = |all: &[(Handle, _)]| all.iter().map(|(_, account)| *account).collect();
        let (old_accounts, new_accounts): (Vec<_>, Vec<_>) = (accounts(&before), accounts(&after));
        flag_changes(
            (&Standing::new(&now.context.roles, &old_accounts), &before),
            (&Standing::new(&new.roles, &new_accounts), &after),
        )
    }
}
