//! Bringing accounts into a conversation: claims of key packages, and when messages may flow.

use commucat_proto::frame::FrameType;
use commucat_proto::frame::key_package::{Claim as ClaimRequest, KeyPackage};
use commucat_proto::id::{AccountId, ClaimId, GroupId};
use commucat_proto::limits::CLAIM_REPEAT;
use commucat_proto::time::Timestamp;

use super::core::{Core, unless_refused};
use super::model::Claim;
use super::online::Purpose;
use crate::error::ClientError;
use crate::event::{Change, Event};

impl Core {
    /// Claims key packages for the next account that shall be in; true if a claim is under way.
    pub(super) fn add_next(&mut self, group: &GroupId) -> Result<bool, ClientError> {
        let Some(one) = self.conversations.get(group).cloned() else {
            return Ok(false);
        };
        let Some(account) = one.wanted.first().cloned() else {
            return Ok(false);
        };
        let own = account == self.own_id();
        if own
            && self
                .account
                .verified_list()
                .is_some_and(|list| list.certificates().len() < 2)
        {
            self.wanted_done(group, &account);
            return self.add_next(group);
        }
        let (domain, capability) = if own {
            (self.own_domain(), None)
        } else {
            match self.contacts.get(&account) {
                Some(contact) if contact.key.is_some() => {
                    (Some(contact.domain.clone()), contact.capability)
                }
                Some(_) => {
                    self.ask_list(&account)?;
                    self.sent_nothing(group);
                    return Ok(true);
                }
                None => (None, None),
            }
        };
        let Some(domain) = domain else {
            self.wanted_done(group, &account);
            return Ok(false);
        };
        let id = self.claim_id(group, &account);
        let claim = ClaimRequest {
            account: account.clone(),
            domain,
            capability,
            group: *group,
            hub: one.hub,
            id,
        };
        let purpose = Purpose::Claim(*group, account);
        self.busy_with(
            group,
            FrameType::KeyPackage,
            &KeyPackage::Claim(claim),
            purpose,
        );
        Ok(true)
    }

    /// The id of the claim: the same for a repeat, so that it gets the same packages.
    fn claim_id(&mut self, group: &GroupId, account: &AccountId) -> ClaimId {
        let now = self.now;
        let young =
            |claim: &Claim| now < Timestamp::from_millis(claim.made).saturating_add(CLAIM_REPEAT);
        let claims = self
            .conversations
            .get(group)
            .map(|one| one.claims.as_slice());
        let known = claims.unwrap_or_default().iter();
        if let Some(claim) = known
            .clone()
            .find(|one| one.account == *account && young(one))
        {
            return claim.id;
        }
        let id = ClaimId::new(commucat_crypto::secret::random_bytes());
        let claim = Claim {
            account: account.clone(),
            id,
            made: now.as_millis(),
        };
        self.change(group, |one| {
            one.claims.retain(|old| old.account != *account);
            one.claims.push(claim);
        });
        id
    }

    /// An account needs nothing more in this conversation.
    pub(super) fn wanted_done(&mut self, group: &GroupId, account: &AccountId) {
        self.change(group, |one| {
            one.wanted.retain(|other| other != account);
            one.claims.retain(|claim| claim.account != *account);
        });
        self.awake.insert(*group);
    }

    /// Messages may flow when those who were wanted at first are in.
    pub(super) fn check_ready(&mut self, group: &GroupId) -> Result<(), ClientError> {
        let Some(one) = self.conversations.get(group) else {
            return Ok(());
        };
        if one.ready || !one.wanted.is_empty() {
            return Ok(());
        }
        let peer = one.peer.clone();
        let Some(view) = unless_refused(self.chat.group(group))? else {
            return Ok(());
        };
        let inside = |account: &AccountId| {
            view.members
                .iter()
                .any(|member| AccountId::of_key(&member.account) == *account)
        };
        if peer.as_ref().is_none_or(inside) {
            self.change(group, |one| one.ready = true);
            self.tell(Event::Conversation {
                conversation: *group,
                change: Change::Ready,
            });
        }
        Ok(())
    }
}
