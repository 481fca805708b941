//! Capabilities: who may ask for an account's list and key packages. Only hashes are kept.

use commucat_proto::id::{AccountId, TokenHash};

use super::{Store, on_backend};
use crate::StoreError;

/// What became of a change of an account's capabilities.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum CapabilityChange {
    /// Done; repeats change nothing and get the same answer.
    Changed,
    /// More than [`Store::CAPABILITIES_MAX`] would be left. Nothing was changed.
    TooMany,
    /// There is no such account.
    UnknownAccount,
}

impl Store {
    /// Capabilities that an account has at most (CCP-1 section 6).
    pub const CAPABILITIES_MAX: usize = 256;

    /// Removes `remove`, then adds `add`, in one transaction. Adding one that exists and removing
    /// one that does not have no effect.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; nothing was changed, or see [`StoreError::Unavailable`].
    pub async fn change_capabilities(
        &self,
        account: &AccountId,
        add: Vec<TokenHash>,
        remove: Vec<TokenHash>,
    ) -> Result<CapabilityChange, StoreError> {
        on_backend!(self, backend => backend.change_capabilities(account, add, remove).await)
    }

    /// Whether `capability` is live for `account`; `false` also for an unknown account.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store cannot be read.
    pub async fn capability_is_live(
        &self,
        account: &AccountId,
        capability: &TokenHash,
    ) -> Result<bool, StoreError> {
        on_backend!(self, backend => backend.capability_is_live(account, capability).await)
    }
}
