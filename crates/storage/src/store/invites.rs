//! Invites: who may open an account. Only the hash of a token is kept.

use commucat_proto::id::TokenHash;
use commucat_proto::time::Timestamp;

use super::{Store, on_backend};
use crate::StoreError;

/// An invite to be made.
#[derive(Clone, Debug)]
pub struct NewInvite {
    /// BLAKE3 of its token.
    pub hash: TokenHash,
    /// Accounts that it may open.
    pub uses: u32,
    /// When it ends.
    pub expires: Timestamp,
}

/// An invite as stored.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Invite {
    /// BLAKE3 of its token; its first bytes serve as a name in listings.
    pub hash: TokenHash,
    /// Accounts that it was made for.
    pub uses: u32,
    /// Accounts that it may still open.
    pub uses_left: u32,
    /// When it was made.
    pub created: Timestamp,
    /// When it ends.
    pub expires: Timestamp,
}

impl Store {
    /// Makes an invite; `false` if one with that hash exists, which is left as it is.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; nothing was made, or see [`StoreError::Unavailable`].
    pub async fn create_invite(
        &self,
        invite: NewInvite,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        on_backend!(self, backend => backend.create_invite(invite, now).await)
    }

    /// All invites, oldest first: also used up and expired ones until they are swept.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store cannot be read.
    pub async fn invites(&self) -> Result<Vec<Invite>, StoreError> {
        on_backend!(self, backend => backend.invites().await)
    }

    /// Removes an invite; `false` if there is none. Accounts that it opened stay.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; nothing was removed, or see [`StoreError::Unavailable`].
    pub async fn revoke_invite(&self, hash: &TokenHash) -> Result<bool, StoreError> {
        on_backend!(self, backend => backend.revoke_invite(hash).await)
    }

    /// Whether `hash` names an invite that could open an account at `now`. A hint only:
    /// [`Store::register`] decides.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store cannot be read.
    pub async fn invite_is_live(
        &self,
        hash: &TokenHash,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        on_backend!(self, backend => backend.invite_is_live(hash, now).await)
    }
}
