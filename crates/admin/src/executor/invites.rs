//! Invites: made, listed, removed.

use std::time::Duration;

use commucat_crypto::keyring::Keyring;
use commucat_proto::id::{Token, TokenHash};
use commucat_proto::link::InviteLink;
use commucat_proto::time::Timestamp;
use data_encoding::HEXLOWER;

use super::{ExecuteError, Executor, Live, PAGE};
use crate::request::{INVITE_LASTS_MAX, INVITE_USES_MAX};
use crate::response::{Hidden, Invite, Invites, NewInvite, millis};

/// Digits of an invite's name.
const ID_LEN: usize = 16;

/// Fewer digits are too easily those of another invite.
const PREFIX_LEN_MIN: usize = 4;

impl<L: Live> Executor<L> {
    pub(super) async fn create_invite(
        &self,
        uses: u32,
        lasts_seconds: u64,
        now: Timestamp,
    ) -> Result<NewInvite, ExecuteError> {
        if !(1..=INVITE_USES_MAX).contains(&uses) {
            return Err(ExecuteError::Invalid("an invite opens 1 to 10000 accounts"));
        }
        let lasts = Duration::from_secs(lasts_seconds);
        if lasts.is_zero() || lasts > INVITE_LASTS_MAX {
            return Err(ExecuteError::Invalid(
                "an invite lasts from a second to 365 days",
            ));
        }
        let keyring = Keyring::open(&self.site.keys, &self.site.domain)?;
        let mut token = [0; Token::LEN];
        getrandom::fill(&mut token).map_err(ExecuteError::Random)?;
        let token = Token::new(token);
        let expires = now.saturating_add(lasts);
        let new = commucat_storage::NewInvite {
            hash: token.hash(),
            uses,
            expires,
        };
        // 16 random bytes that exist already: there is no second time to try.
        if !self.site.store.create_invite(new, now).await? {
            return Err(ExecuteError::Invalid("an invite with this token exists"));
        }
        let link = InviteLink {
            host: self.site.endpoint.clone(),
            token,
            domain: self.site.domain.clone(),
            domain_key: *keyring.domain_key(),
        };
        Ok(NewInvite {
            link: Hidden::new(link.to_link()),
            invite: Invite {
                id: id_of(&token.hash()),
                uses,
                uses_left: uses,
                created_ms: millis(now),
                expires_ms: millis(expires),
            },
        })
    }

    pub(super) async fn list_invites(&self, skip: u64) -> Result<Invites, ExecuteError> {
        let all = self.site.store.invites().await?;
        let skip = usize::try_from(skip).unwrap_or(usize::MAX);
        let invites: Vec<_> = all.iter().skip(skip).take(PAGE).map(shown).collect();
        let more = all.len() > skip.saturating_add(invites.len());
        Ok(Invites { invites, more })
    }

    pub(super) async fn revoke_invite(&self, prefix: &str) -> Result<Invite, ExecuteError> {
        if prefix.len() < PREFIX_LEN_MIN {
            return Err(ExecuteError::Invalid(
                "name at least 4 digits of the invite",
            ));
        }
        let all = self.site.store.invites().await?;
        let mut named = all
            .iter()
            .filter(|invite| id_of(&invite.hash).starts_with(prefix));
        let invite = match (named.next(), named.next()) {
            (None, _) => return Err(ExecuteError::NoInvite),
            (Some(_), Some(_)) => return Err(ExecuteError::ManyInvites),
            (Some(invite), None) => invite,
        };
        if self.site.store.revoke_invite(&invite.hash).await? {
            Ok(shown(invite))
        } else {
            Err(ExecuteError::NoInvite)
        }
    }
}

fn shown(invite: &commucat_storage::Invite) -> Invite {
    Invite {
        id: id_of(&invite.hash),
        uses: invite.uses,
        uses_left: invite.uses_left,
        created_ms: millis(invite.created),
        expires_ms: millis(invite.expires),
    }
}

fn id_of(hash: &TokenHash) -> String {
    let mut id = HEXLOWER.encode(hash.as_bytes());
    id.truncate(ID_LEN);
    id
}
