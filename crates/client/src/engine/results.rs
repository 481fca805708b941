//! Answers to control requests.

use bytes::Bytes;
use commucat_proto::error::Title;
use commucat_proto::frame::directory::DirectoryResult;
use commucat_proto::frame::error::Problem;
use commucat_proto::frame::fetch::{FetchResult, Want};
use commucat_proto::frame::key_package::ClaimResult;
use commucat_proto::frame::key_update::{KeyUpdateResult, LogEntry};
use commucat_proto::id::{AccountId, GroupId, SealedRef};
use commucat_proto::wire::Cbor;

use super::core::{Core, chat_error, unless_refused};
use super::model::{Kind, Stage};
use super::online::{Binding, Purpose, Rejoining};
use crate::chat::{Agreement, ChatError, Claimed, Intent};
use crate::error::ClientError;
use crate::event::{Change, Event};

/// Devices in one commit (engine.md D).
const ADD_MAX: usize = 50;
/// A hub keeps the GroupInfos of its last positions (CCP-1 section 5.4): none that opens is older.
const INFOS_KEPT: u64 = 16;
/// How often a hub has to say that it does not know this device.
const LOOKS: u32 = 4;

impl Core {
    /// A request succeeded.
    pub(super) fn on_result(
        &mut self,
        purpose: Purpose,
        result: &Bytes,
    ) -> Result<(), ClientError> {
        self.not_busy(&purpose);
        match purpose.clone() {
            Purpose::Join(group) => {
                self.on_bound(&group);
                Ok(())
            }
            Purpose::Reference(group) => {
                self.read(purpose, result, |core, sealed_ref: SealedRef| {
                    core.on_reference(&group, sealed_ref)
                })
            }
            Purpose::Create(group) => self.on_created(&group),
            Purpose::Claim(group, account) => {
                self.read(purpose, result, |core, claimed: ClaimResult| {
                    core.on_claimed(&group, &account, claimed)
                })
            }
            Purpose::Commit(group) => {
                self.read(purpose, result, |core, committed: KeyUpdateResult| {
                    core.on_committed(&group, &committed)
                })
            }
            Purpose::Log(group) => self.read_fetched(purpose, result, group, Self::on_log),
            Purpose::Rejoin(group) => self.read_fetched(purpose, result, group, Self::on_rejoin),
            Purpose::Since(group) => self.read_fetched(purpose, result, group, Self::on_since),
            Purpose::Compare(group) => self.read_fetched(purpose, result, group, Self::on_compare),
            Purpose::Gone(group) => {
                self.read_fetched(purpose, result, group, Self::on_list_of_group)
            }
            Purpose::Welcome(group) => self.read(purpose, result, |core, fetched: FetchResult| {
                let invite = core.invitation(&group)?;
                let Some(invite) = invite.filter(|_| !core.is_active(&group)) else {
                    return Ok(());
                };
                // What was asked for an earlier invitation says nothing of this one.
                let mut infos = infos(&fetched);
                infos.retain(|(position, _)| *position >= invite.position);
                if infos.is_empty() {
                    return core.on_welcome_error(&group, &Problem::new(Title::NotFound, ""));
                }
                core.take_up(&invite, &infos)
            }),
            Purpose::Leave(group) => {
                self.change(&group, |one| one.leaving = false);
                Ok(())
            }
            Purpose::Unbind(group) => {
                if let Some(online) = &mut self.online {
                    online.left(&group);
                }
                Ok(())
            }
            Purpose::List(account) => self.read(purpose, result, |core, found: DirectoryResult| {
                core.on_list(&account, &found.list)
            }),
            Purpose::PutList => self.on_list_taken(),
            Purpose::Count => self.read(purpose, result, Self::on_count),
            Purpose::Publish => Ok(()),
            Purpose::Capability => {
                self.account.capability_published = true;
                self.save_account()
            }
        }
    }

    /// Reads a result. It may be another domain's, which can say anything: what does not decode is as
    /// good as a refusal, and the request is made again later.
    fn read<T: Cbor>(
        &mut self,
        purpose: Purpose,
        result: &Bytes,
        then: impl FnOnce(&mut Self, T) -> Result<(), ClientError>,
    ) -> Result<(), ClientError> {
        match T::decode_shared(result) {
            Ok(value) => then(self, value),
            Err(error) => {
                tracing::warn!(%error, "a result does not decode");
                self.on_request_error(purpose, &Problem::new(Title::FederationFailure, ""))
            }
        }
    }

    /// Reads what a hub tells a member of a group.
    fn read_fetched(
        &mut self,
        purpose: Purpose,
        result: &Bytes,
        group: GroupId,
        then: impl FnOnce(&mut Self, &GroupId, &FetchResult) -> Result<(), ClientError>,
    ) -> Result<(), ClientError> {
        self.read(purpose, result, |core, fetched| {
            core.unknown.remove(&group);
            then(core, &group, &fetched)
        })
    }

    fn on_bound(&mut self, group: &GroupId) {
        if let Some(online) = &mut self.online
            && let Some((_, binding)) = online.bindings.get_mut(group)
        {
            *binding = Binding::Bound;
        }
        self.awake.insert(*group);
    }

    fn not_busy(&mut self, purpose: &Purpose) {
        let group = match purpose {
            Purpose::Create(group)
            | Purpose::Reference(group)
            | Purpose::Claim(group, _)
            | Purpose::Commit(group)
            | Purpose::Log(group)
            | Purpose::Rejoin(group)
            | Purpose::Since(group)
            | Purpose::Compare(group)
            | Purpose::Gone(group) => group,
            Purpose::Join(_)
            | Purpose::Welcome(_)
            | Purpose::Leave(_)
            | Purpose::Unbind(_)
            | Purpose::List(_)
            | Purpose::PutList
            | Purpose::Count
            | Purpose::Publish
            | Purpose::Capability => return,
        };
        if let Some(online) = &mut self.online {
            online.busy.remove(group);
        }
        self.awake.insert(*group);
    }

    fn on_claimed(
        &mut self,
        group: &GroupId,
        account: &AccountId,
        claimed: ClaimResult,
    ) -> Result<(), ClientError> {
        if !self.is_active(group) {
            return Ok(());
        }
        let own = *account == self.own_id();
        let (key, domain) = if own {
            (self.account.key, self.own_domain())
        } else {
            let contact = self.contacts.get(account);
            (
                contact.and_then(|one| one.key),
                contact.map(|one| one.domain.clone()),
            )
        };
        let (Some(key), Some(domain)) = (key, domain) else {
            return Ok(());
        };
        let Some(view) = unless_refused(self.chat.group(group))? else {
            return Ok(());
        };
        let missing: Vec<_> = claimed
            .0
            .into_iter()
            .filter(|one| {
                !view
                    .members
                    .iter()
                    .any(|member| member.device == one.device)
            })
            .map(|one| Claimed {
                account: key,
                device: one.device,
                domain: domain.clone(),
                package: one.package,
                sealed_ref: one.sealed_ref,
            })
            .collect();
        let inside = view.members.iter().any(|member| member.account == key);
        if missing.is_empty() && !inside {
            // None of its devices has published a package yet. A repeat of the claim would be
            // answered the same.
            self.change(group, |one| {
                one.claims.retain(|claim| claim.account != *account);
            });
            self.sent_nothing(group);
            return Ok(());
        }
        for batch in missing.chunks(ADD_MAX) {
            match self
                .chat
                .intend(group, Intent::Add(batch.to_vec()), self.now)
            {
                Ok(()) => {
                    self.intents.insert(*group);
                }
                Err(error @ ChatError::Store(_)) => return Err(chat_error(error)),
                Err(error) => self.add_one_by_one(group, batch, &error)?,
            }
        }
        self.wanted_done(group, account);
        Ok(())
    }

    /// One bad package must not keep the other devices out.
    fn add_one_by_one(
        &mut self,
        group: &GroupId,
        batch: &[Claimed],
        error: &ChatError,
    ) -> Result<(), ClientError> {
        tracing::warn!(%error, "a claimed key package cannot be used");
        for one in batch {
            match self
                .chat
                .intend(group, Intent::Add(vec![one.clone()]), self.now)
            {
                Ok(()) => {
                    self.intents.insert(*group);
                }
                Err(error @ ChatError::Store(_)) => return Err(chat_error(error)),
                Err(_) => {}
            }
        }
        Ok(())
    }

    fn on_committed(
        &mut self,
        group: &GroupId,
        committed: &KeyUpdateResult,
    ) -> Result<(), ClientError> {
        self.no_failures(group);
        if !committed.refused.is_empty() {
            // In the tree without a Welcome: out again, so that another attempt can be made.
            self.intend(group, Intent::Remove(committed.refused.clone()));
        }
        match self.chat.accepted(group, committed.position) {
            Ok(applied) => self.on_applied(group, committed.position, applied),
            Err(error @ ChatError::Store(_)) => Err(chat_error(error)),
            Err(error) => {
                tracing::warn!(%error, "the hub accepted a commit that is not known here");
                self.change(group, |one| one.behind = true);
                Ok(())
            }
        }
    }

    fn on_log(&mut self, group: &GroupId, fetched: &FetchResult) -> Result<(), ClientError> {
        let Some(before) = self.conversations.get(group).map(|one| one.position) else {
            return Ok(());
        };
        if fetched.first_kept > before.saturating_add(1) {
            // The log does not reach back far enough.
            self.change(group, |one| one.rejoin = true);
            return Ok(());
        }
        // The hub of one group has no say in another.
        for entry in fetched.entries.iter().filter(|one| one.group == *group) {
            self.on_entry(entry)?;
        }
        if !self.is_active(group) {
            return Ok(());
        }
        let after = self.conversations.get(group).map_or(0, |one| one.position);
        let is_told = after >= fetched.head && !self.doubted.contains(group);
        if after > before || is_told {
            self.no_failures(group);
        }
        // What came while the answer was under way may be newer than the answer.
        if (after >= fetched.head || after == before) && !self.overtaken.contains(group) {
            self.change(group, |one| one.behind = false);
            // The hub knows this device by the handle that it has.
            self.uninvite(group)?;
            self.forget_beyond(group, fetched.head)?;
        }
        if after < fetched.head && after == before {
            self.sent_nothing(group);
        }
        Ok(())
    }

    /// GroupInfos came: what happened since the one that opens says whether it leads back.
    fn on_rejoin(&mut self, group: &GroupId, fetched: &FetchResult) -> Result<(), ClientError> {
        if !self.has_to_rejoin(group) {
            return Ok(());
        }
        let infos = infos(fetched);
        let at = match self.chat.rejoin_at(group, &infos) {
            Ok(at) => at,
            Err(error) => return self.cannot_rejoin(group, error),
        };
        let rejoining = Rejoining {
            head: fetched.head,
            infos,
            since: Vec::new(),
        };
        let missing = fetched.head.saturating_sub(at);
        if missing > INFOS_KEPT {
            return self.cannot_rejoin(group, ChatError::NoGroupInfo);
        }
        if missing == 0 {
            return self.rejoin(group, &rejoining);
        }
        if let Some(online) = &mut self.online {
            online.rejoining.insert(*group, rejoining);
        }
        self.fetch_since(group, at.saturating_add(1))
    }

    /// Whether this device still wants to rejoin: an answer may come when it does not any more.
    fn has_to_rejoin(&self, group: &GroupId) -> bool {
        let one = self.conversations.get(group);
        one.is_some_and(|one| one.stage == Stage::Active && one.rejoin)
            && !self.chat.is_rejoining(group)
    }

    fn fetch_since(&mut self, group: &GroupId, from: u64) -> Result<(), ClientError> {
        let want = Want {
            entries: true,
            ..Want::default()
        };
        self.fetch(group, from, want, Purpose::Since(*group))
    }

    fn on_since(&mut self, group: &GroupId, fetched: &FetchResult) -> Result<(), ClientError> {
        let known = self
            .online
            .as_mut()
            .and_then(|online| online.rejoining.remove(group));
        let Some(mut rejoining) = known.filter(|_| self.has_to_rejoin(group)) else {
            return Ok(());
        };
        if rejoining.head != fetched.head {
            // The log has moved on: it all begins again with newer GroupInfos.
            self.sent_nothing(group);
            return Ok(());
        }
        let reached = rejoining.since.last().map(|entry| entry.position);
        let is_next = |entry: &&LogEntry| {
            entry.group == *group && reached.is_none_or(|reached| entry.position > reached)
        };
        rejoining
            .since
            .extend(fetched.entries.iter().filter(is_next).cloned());
        match rejoining.since.last().map(|entry| entry.position) {
            Some(last) if last < rejoining.head && Some(last) != reached => {
                if let Some(online) = &mut self.online {
                    online.rejoining.insert(*group, rejoining);
                }
                self.fetch_since(group, last.saturating_add(1))
            }
            Some(_) | None => self.rejoin(group, &rejoining),
        }
    }

    fn rejoin(&mut self, group: &GroupId, rejoining: &Rejoining) -> Result<(), ClientError> {
        let Rejoining { head, infos, since } = rejoining;
        match self.chat.rejoin(group, *head, infos, since) {
            Ok(_submission) => {
                // The commit leads past whatever is missing.
                self.change(group, |one| one.behind = false);
                self.intents.insert(*group);
                Ok(())
            }
            Err(error) => self.cannot_rejoin(group, error),
        }
    }

    fn cannot_rejoin(&mut self, group: &GroupId, error: ChatError) -> Result<(), ClientError> {
        if matches!(error, ChatError::Store(_)) {
            return Err(chat_error(error));
        }
        tracing::warn!(%error, "this device cannot find back into a group");
        self.leave(group, Change::Lost)
    }

    fn on_compare(&mut self, group: &GroupId, fetched: &FetchResult) -> Result<(), ClientError> {
        match self.chat.compare(group, &infos(fetched)) {
            Ok(Agreement::Different) => {
                self.change(group, |one| one.rejoin = true);
                Ok(())
            }
            Ok(Agreement::Same | Agreement::Unknown) => Ok(()),
            Err(error @ ChatError::Store(_)) => Err(chat_error(error)),
            Err(_) => Ok(()),
        }
    }

    /// A request was refused.
    pub(super) fn on_request_error(
        &mut self,
        purpose: Purpose,
        problem: &Problem,
    ) -> Result<(), ClientError> {
        tracing::debug!(
            code = problem.title.as_str(),
            ?purpose,
            "a request is refused"
        );
        self.not_busy(&purpose);
        match purpose {
            Purpose::Commit(group) => self.on_commit_error(&group, problem),
            Purpose::Join(group) => {
                if let Some(online) = &mut self.online {
                    online.unbind(&group);
                }
                self.doubt(&group, problem);
                Ok(())
            }
            Purpose::Create(group) if problem.title == Title::Conflict => {
                // Somebody has this random id: impossible in good faith.
                self.change(&group, |one| one.stage = Stage::Left);
                self.tell(Event::Conversation {
                    conversation: group,
                    change: Change::Closed,
                });
                Ok(())
            }
            Purpose::Claim(group, account) => {
                self.on_claim_error(&group, &account, problem);
                Ok(())
            }
            Purpose::Create(group)
            | Purpose::Reference(group)
            | Purpose::Log(group)
            | Purpose::Rejoin(group)
            | Purpose::Since(group)
            | Purpose::Compare(group)
            | Purpose::Gone(group) => {
                if let Some(online) = &mut self.online {
                    online.rejoining.remove(&group);
                }
                if problem.title == Title::NotFound && self.is_active(&group) {
                    return self.not_found(&group);
                }
                self.later(&group, problem);
                Ok(())
            }
            Purpose::List(account) => {
                // Perhaps its capability is not published yet: whoever needs the list asks again.
                if let Some(online) = &mut self.online {
                    online.asked.remove(&account);
                }
                Ok(())
            }
            Purpose::PutList => self.on_list_refused(problem),
            Purpose::Welcome(group) => self.on_welcome_error(&group, problem),
            Purpose::Leave(group) => {
                self.later(&group, problem);
                Ok(())
            }
            Purpose::Unbind(_) | Purpose::Count | Purpose::Publish | Purpose::Capability => Ok(()),
        }
    }

    /// The GroupInfo that an invitation needs did not come.
    fn on_welcome_error(&mut self, group: &GroupId, problem: &Problem) -> Result<(), ClientError> {
        if problem.title == Title::NotFound && self.is_unknown(group) {
            tracing::warn!("an invitation is given up");
            self.begin_anew(group);
            return self.decline(group);
        }
        self.later(group, problem);
        Ok(())
    }

    /// Nobody of that account can be added now. A group goes on without them after some attempts.
    fn on_claim_error(&mut self, group: &GroupId, account: &AccountId, problem: &Problem) {
        if problem.title == Title::NotFound {
            self.change(group, |one| {
                one.claims.retain(|old| old.account != *account);
            });
        }
        let kind = self.conversations.get(group).map(|one| one.kind.clone());
        let tried = self.failures.get(group).copied().unwrap_or(0);
        if kind == Some(Kind::Group) && tried >= 3 {
            tracing::warn!("an account cannot be added to a group");
            self.failures.remove(group);
            self.wanted_done(group, account);
            return;
        }
        self.later(group, problem);
    }

    /// The hub does not know this device in that group: it was removed, or the group is gone. It
    /// may also be a hub that was restored, so one look is not enough.
    fn not_found(&mut self, group: &GroupId) -> Result<(), ClientError> {
        if self.is_unknown(group) {
            return self.end(group, Change::Left);
        }
        // What was asked may not be asked again, but the log is.
        self.change(group, |one| one.behind = true);
        self.later(group, &Problem::new(Title::NotFound, ""));
        Ok(())
    }

    /// Counts that a hub does not know this device; whether it is to be believed.
    fn is_unknown(&mut self, group: &GroupId) -> bool {
        let count = self.unknown.entry(*group).or_insert(0);
        *count += 1;
        *count >= LOOKS
    }

    fn on_commit_error(&mut self, group: &GroupId, problem: &Problem) -> Result<(), ClientError> {
        let title = problem.title;
        let busy = [
            Title::RateLimited,
            Title::StorageFailure,
            Title::FederationFailure,
        ];
        if title == Title::Conflict {
            let missing = problem.extra.missing.iter();
            for entry in missing.filter(|one| one.group == *group) {
                self.on_entry(entry)?;
            }
            if self.chat.is_rejoining(group) {
                // Another one was first: its GroupInfo is the one to rejoin by.
                self.withdraw(group)?;
            }
            let position = self.conversations.get(group).map_or(0, |one| one.position);
            let ahead = problem.extra.head.is_some_and(|head| head > position);
            if problem.extra.more || ahead {
                self.change(group, |one| one.behind = true);
            }
            if problem.extra.missing.is_empty() {
                self.doubt(group, problem);
            }
            return Ok(());
        }
        if title == Title::NotFound {
            self.doubt(group, problem);
            if self.chat.is_rejoining(group) {
                // The next GroupInfos that it asks for show whether it is out.
                self.withdraw(group)?;
            }
            return Ok(());
        }
        if busy.contains(&title) {
            self.later(group, problem);
            return Ok(());
        }
        if self.chat.is_rejoining(group) {
            self.later(group, problem);
        }
        self.withdraw(group)
    }

    fn withdraw(&mut self, group: &GroupId) -> Result<(), ClientError> {
        match self.chat.withdraw(group) {
            Err(error @ ChatError::Store(_)) => Err(chat_error(error)),
            Ok(_) | Err(_) => Ok(()),
        }
    }
}

fn infos(fetched: &FetchResult) -> Vec<(u64, Bytes)> {
    fetched
        .group_infos
        .iter()
        .map(|one| (one.position, one.sealed.clone()))
        .collect()
}
