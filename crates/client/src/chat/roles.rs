//! Who may do what in a group: the signed state of context extension 0xf0c4 (CCP-1 section 5.5).

use std::collections::BTreeSet;

use commucat_proto::id::{AccountKey, Handle};
use commucat_proto::wire::Cbor;
use commucat_proto::wire::reader::{CborError, Reader, required};
use commucat_proto::wire::writer::Writer;
use serde::{Deserialize, Serialize};

/// What an account is in a group.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
pub enum Role {
    /// Reads, writes, adds others without rights.
    Member,
    /// Also removes members, sets the join key and the rule for joining, adds other admins' devices.
    Admin,
    /// Also names owners and admins, removes owners, closes the group.
    Owner,
}

/// The roles of a group, as its members agreed on them.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Roles {
    /// Accounts that may do everything.
    pub owners: BTreeSet<AccountKey>,
    /// Accounts that may remove members.
    pub admins: BTreeSet<AccountKey>,
    /// Whether whoever holds the join link may join.
    pub join_allowed: bool,
}

impl Roles {
    /// The role that the lists give `account`, whoever else is there.
    #[must_use]
    pub fn listed(&self, account: &AccountKey) -> Role {
        if self.owners.contains(account) {
            Role::Owner
        } else if self.admins.contains(account) {
            Role::Admin
        } else {
            Role::Member
        }
    }

    /// Gives `account` a role and takes any other from it.
    pub fn set(&mut self, account: AccountKey, role: Role) {
        self.owners.remove(&account);
        self.admins.remove(&account);
        match role {
            Role::Owner => drop(self.owners.insert(account)),
            Role::Admin => drop(self.admins.insert(account)),
            Role::Member => {}
        }
    }

    /// Reads the extension. `None` also for an account that is named twice: then what it may do
    /// would depend on who reads.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let roles = Self::decode(bytes).ok()?;
        roles.owners.is_disjoint(&roles.admins).then_some(roles)
    }
}

impl Cbor for Roles {
    fn write(&self, to: &mut Writer<'_>) {
        to.map(|map| {
            for (key, accounts) in [(0, &self.owners), (1, &self.admins)] {
                map.key(key)
                    .list(&accounts.iter().copied().collect::<Vec<_>>());
            }
            map.key(2).flag(self.join_allowed);
        });
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, CborError> {
        let (mut owners, mut admins, mut join_allowed) = (None, None, None);
        from.map(|key, from| {
            match key {
                0 => owners = Some(accounts(from)?),
                1 => admins = Some(accounts(from)?),
                2 => join_allowed = Some(from.flag()?),
                _ => from.skip()?,
            }
            Ok(())
        })?;
        Ok(Self {
            owners: required(owners, 0)?,
            admins: required(admins, 1)?,
            join_allowed: required(join_allowed, 2)?,
        })
    }
}

fn accounts(from: &mut Reader<'_>) -> Result<BTreeSet<AccountKey>, CborError> {
    let listed = from.list(AccountKey::read)?;
    let distinct: BTreeSet<_> = listed.iter().copied().collect();
    if distinct.len() == listed.len() {
        Ok(distinct)
    } else {
        Err(CborError::DuplicateKey)
    }
}

/// The roles together with the accounts that have a leaf: who really can do what.
///
/// A group must not become ungovernable when its owners leave. While an owner has a leaf, the lists
/// hold as they are. Without one, admins stand in for owners. Without either, everyone does, which
/// is what the hub does with a list without an admin entry (CCP-1 section 5.2).
#[derive(Debug)]
pub(super) struct Standing<'a> {
    roles: &'a Roles,
    highest: Role,
}

impl<'a> Standing<'a> {
    pub(super) fn new<'b>(
        roles: &'a Roles,
        present: impl IntoIterator<Item = &'b AccountKey>,
    ) -> Self {
        let highest = present
            .into_iter()
            .map(|account| roles.listed(account))
            .max();
        Self {
            roles,
            highest: highest.unwrap_or(Role::Member),
        }
    }

    /// What `account` may do now.
    pub(super) fn role(&self, account: &AccountKey) -> Role {
        match (self.highest, self.roles.listed(account)) {
            (Role::Owner, role) => role,
            (Role::Admin, Role::Member) => Role::Member,
            (Role::Admin, Role::Admin | Role::Owner) | (Role::Member, _) => Role::Owner,
        }
    }

    /// The flag that the hub's entries of `account` carry.
    pub(super) fn flag(&self, account: &AccountKey) -> bool {
        self.role(account) >= Role::Admin
    }
}

/// The handles whose flag a commit changes, with the new value: what its `admins` must list.
///
/// `before` and `after` are the handles of the tree with their accounts.
pub(super) fn flag_changes(
    (old, before): (&Standing<'_>, &[(Handle, AccountKey)]),
    (new, after): (&Standing<'_>, &[(Handle, AccountKey)]),
) -> Vec<(Handle, bool)> {
    let stays = |handle: &Handle| after.iter().any(|(other, _)| other == handle);
    before
        .iter()
        .filter(|(handle, account)| stays(handle) && old.flag(account) != new.flag(account))
        .map(|(handle, account)| (*handle, new.flag(account)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: AccountKey = AccountKey::new([1; 32]);
    const B: AccountKey = AccountKey::new([2; 32]);
    const C: AccountKey = AccountKey::new([3; 32]);

    fn roles() -> Roles {
        Roles {
            owners: [A].into(),
            admins: [B].into(),
            join_allowed: true,
        }
    }

    #[test]
    fn roles_survive_a_round_trip() {
        assert_eq!(Roles::parse(&roles().encode()), Some(roles()));
        assert_eq!(
            Roles::parse(&Roles::default().encode()),
            Some(Roles::default())
        );
    }

    #[test]
    fn an_account_named_twice_is_refused() {
        let twice = Roles {
            owners: [A].into(),
            admins: [A].into(),
            join_allowed: false,
        };

        assert_eq!(Roles::parse(&twice.encode()), None);
    }

    #[test]
    fn roles_cut_or_followed_by_anything_are_refused() {
        let bytes = roles().encode();

        for end in 0..bytes.len() {
            assert_eq!(Roles::parse(&bytes[..end]), None);
        }
        assert_eq!(Roles::parse(&[bytes, vec![0]].concat()), None);
    }

    #[test]
    fn admins_stand_in_for_owners_without_a_leaf() {
        let roles = roles();

        let standing = Standing::new(&roles, [&B, &C]);

        assert_eq!(standing.role(&B), Role::Owner);
        assert_eq!(standing.role(&C), Role::Member);
    }

    #[test]
    fn a_group_without_admins_is_everyones() {
        let roles = roles();

        let standing = Standing::new(&roles, [&C]);

        assert_eq!(standing.role(&C), Role::Owner);
        assert!(standing.flag(&C));
    }

    #[test]
    fn only_handles_that_stay_and_change_are_listed() {
        let (before, after) = (
            roles(),
            Roles {
                admins: [C].into(),
                ..roles()
            },
        );
        let leaves = [
            (Handle::new([1; 32]), A),
            (Handle::new([2; 32]), B),
            (Handle::new([3; 32]), C),
            (Handle::new([4; 32]), C),
        ];
        let accounts = || leaves.iter().map(|(_, account)| account);

        let changes = flag_changes(
            (&Standing::new(&before, accounts()), &leaves),
            (&Standing::new(&after, accounts()), &leaves[..3]),
        );

        assert_eq!(
            changes,
            [(Handle::new([2; 32]), false), (Handle::new([3; 32]), true)]
        );
    }
}
