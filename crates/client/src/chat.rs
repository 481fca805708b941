//! End-to-end encryption of chats: MLS (RFC 9420) behind a small interface, CCP-1 section 5.5.
//!
//! No network, no disk, no clock. Every operation changes the state in memory only; what to do with
//! that is the caller's:
//!
//! 1. call any number of operations of [`Chat`];
//! 2. in **one** database transaction write [`Chat::changes`] together with what the operations
//!    gave (ciphertexts for the outbox, opened messages, acknowledgements);
//! 3. after it committed: [`Chat::committed`]; if it did not: [`Chat::rollback`], and forget what the
//!    operations gave.
//!
//! Nothing may leave the device before step 3: a ciphertext whose state was lost makes the next
//! message reuse its key, and receivers drop that one for good (`docs/decisions/0600`). After a
//! crash [`Chat::load`] starts from the rows that were committed.
//!
//! # Changing a group
//!
//! [`Chat::intend`] stores what the user wants. [`Chat::propose`] builds the bundle for it; a
//! repeat gives the same bytes. The hub's answer goes to [`Chat::accepted`], or the missing
//! entries of a `Conflict`, and every entry from the queue or FETCH, go to [`Chat::apply`], which
//! finds our own. After a lost race `propose` builds the same intents again on the new epoch. If the
//! hub refuses for good: [`Chat::withdraw`].

mod apply;
mod content;
mod create;
mod device;
mod error;
mod external;
mod intent;
mod keys;
mod message;
mod package;
mod profile;
mod propose;
mod provider;
mod record;
mod roles;
mod safety;
mod store;
mod validity;
mod view;
mod welcome;

use std::collections::HashMap;
use std::fmt;

use commucat_proto::id::GroupId;
use openmls::group::MlsGroup;

pub use self::apply::{Advance, Applied};
pub use self::content::{Body, Content, ContentError, Stage};
pub use self::create::NewGroup;
pub use self::device::Identity;
pub use self::error::ChatError;
pub use self::external::Agreement;
pub use self::intent::{Claimed, Intent};
pub use self::message::{Opened, Received, Sealed};
pub use self::package::{OwnPackage, Use};
pub(crate) use self::profile::PAST_EPOCHS_MAX;
pub use self::profile::Suite;
pub use self::propose::{Proposal, Submission};
use self::provider::Provider;
use self::record::Record;
pub use self::roles::{Role, Roles};
pub use self::safety::safety_number;
pub use self::store::{RowChange, Secret, StoreError};
pub use self::validity::Invalid;
pub use self::view::{Group, Member, Membership};
pub use self::welcome::Joined;

/// [`Chat::tree_in_welcome_max`] of the profile.
const TREE_IN_WELCOME_MAX: usize = 50;
/// Groups kept decoded in memory; others are decoded again when they are used.
const CACHE_MAX: usize = 64;

/// All chats of one device.
pub struct Chat {
    identity: Identity,
    provider: Provider,
    groups: HashMap<GroupId, MlsGroup>,
    /// Above this many members the tree travels in the sealed GroupInfo only, not in each Welcome.
    pub(crate) tree_in_welcome_max: usize,
}

impl fmt::Debug for Chat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chat")
            .field("cached", &self.groups.len())
            .finish_non_exhaustive()
    }
}

impl Chat {
    /// Takes up the rows that were written before (none on the first start), in any order.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if rows are missing or damaged.
    pub fn load(
        identity: Identity,
        rows: impl IntoIterator<Item = (Vec<u8>, Secret)>,
    ) -> Result<Self, StoreError> {
        let provider = Provider::load(rows)?;
        Ok(Self {
            identity,
            provider,
            groups: HashMap::new(),
            tree_in_welcome_max: TREE_IN_WELCOME_MAX,
        })
    }

    /// Takes a renewed certificate of this device; a group gets it with [`Intent::Update`].
    ///
    /// # Errors
    ///
    /// [`ChatError::Identity`] if it is of another MLS key: the leaves in the groups have the old one.
    pub fn renew(&mut self, identity: Identity) -> Result<(), ChatError> {
        if identity.public != self.identity.public {
            return Err(ChatError::Identity("it names another MLS key"));
        }
        self.identity = identity;
        Ok(())
    }

    /// The rows to write in the caller's next transaction. Calling it changes nothing.
    #[must_use]
    pub fn changes(&self) -> Vec<RowChange> {
        self.provider.store().changes()
    }

    /// [`Chat::changes`] are on disk.
    pub fn committed(&mut self) {
        self.provider.store().committed();
    }

    /// [`Chat::changes`] are not on disk and never will be: back to the last committed state.
    pub fn rollback(&mut self) {
        self.groups.clear();
        self.provider.store().rollback();
    }

    /// Runs an operation that leaves no trace when it fails.
    fn attempt<T>(
        &mut self,
        group: &GroupId,
        operation: impl FnOnce(&mut Self) -> Result<T, ChatError>,
    ) -> Result<T, ChatError> {
        self.provider.store().begin();
        let result = operation(self);
        match &result {
            Ok(_) => self.provider.store().keep(),
            Err(_) => {
                self.groups.remove(group);
                self.provider.store().abandon();
            }
        }
        result
    }

    fn record(&self, group: &GroupId) -> Result<Record, ChatError> {
        Record::load(self.provider.store(), group)?.ok_or(ChatError::UnknownGroup)
    }

    /// Takes the decoded group out of the cache; whoever is done without an error puts it back.
    fn take(&mut self, group: &GroupId) -> Result<MlsGroup, ChatError> {
        match self.groups.remove(group) {
            Some(mls) => Ok(mls),
            None => self.provider.group(group)?.ok_or(ChatError::NotMember),
        }
    }

    fn put_back(&mut self, group: GroupId, mls: MlsGroup) {
        if self.groups.len() >= CACHE_MAX {
            self.groups.clear();
        }
        self.groups.insert(group, mls);
    }
}

#[cfg(test)]
mod tests;
