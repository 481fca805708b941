//! Devices that are gone for good (CCP-1 section 5.7): the hub has taken them off its list, and members
//! remove their leaves.
//!
//! The notice does not say which domain it is from, so it is a hint: a member is removed when the list,
//! for which the hub is asked, is without it (decision 0604).

use std::time::Duration;

use commucat_proto::frame::fetch::{FetchResult, Want};
use commucat_proto::id::{GroupId, Handle};
use commucat_proto::time::Timestamp;

use super::core::{Core, unless_refused};
use super::online::Purpose;
use crate::chat::Intent;
use crate::error::ClientError;

/// How often a list is looked at for one who is said to be gone, and what doubles between two looks.
const LOOKS_MAX: u32 = 6;
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// Handles of a group that are kept while it is not known whether they are members.
const NAMED_MAX: usize = 256;

/// Looking for whoever is said to be gone.
pub(super) struct Look {
    /// When to look again; none if that is now.
    pub(super) at: Option<Timestamp>,
    count: u32,
}

impl Core {
    /// Devices are said to be gone, any number of times: those that are members still are looked for.
    pub(super) fn on_gone(
        &mut self,
        group: &GroupId,
        handles: &[Handle],
    ) -> Result<(), ClientError> {
        let named = if self.cannot_look(group) {
            handles.to_vec()
        } else {
            self.members_to_remove(group, |one| handles.contains(one))?
        };
        self.change(group, |one| {
            let known = std::mem::take(&mut one.gone).into_iter();
            let others = known.filter(|handle| !named.contains(handle));
            let all = others.chain(named.iter().copied());
            one.gone = all.take(NAMED_MAX).collect();
        });
        self.looks.remove(group);
        self.awake.insert(*group);
        Ok(())
    }

    /// Whether it has to wait what is said of who is gone. The entry that adds one of them may be missing
    /// here; and strangers whom nobody has decided about are not shown that this device reads along.
    fn cannot_look(&self, group: &GroupId) -> bool {
        let one = self.conversations.get(group);
        one.is_some_and(|one| one.behind || one.rejoin || one.request.is_some())
    }

    /// Asks for the list if somebody is said to be gone; true if the answer is waited for.
    pub(super) fn look_for_gone(&mut self, group: &GroupId) -> Result<bool, ClientError> {
        let has_to_wait = self.looks.get(group).is_some_and(|look| look.at.is_some());
        let one = self.conversations.get(group);
        let Some(one) = one.filter(|one| !has_to_wait && !one.gone.is_empty()) else {
            return Ok(false);
        };
        if self.cannot_look(group) {
            return Ok(false);
        }
        let said = one.gone.clone();
        let named = self.members_to_remove(group, |one| said.contains(one))?;
        if named.len() < said.len() {
            self.change(group, |one| one.gone.clone_from(&named));
        }
        if named.is_empty() {
            return Ok(false);
        }
        let want = Want {
            list: true,
            ..Want::default()
        };
        self.fetch(group, 0, want, Purpose::Gone(*group))?;
        Ok(true)
    }

    /// The hub's list came.
    pub(super) fn on_list_of_group(
        &mut self,
        group: &GroupId,
        fetched: &FetchResult,
    ) -> Result<(), ClientError> {
        let Some(one) = self.conversations.get(group) else {
            return Ok(());
        };
        if self.cannot_look(group) {
            // It is asked for again when the log is read.
            return Ok(());
        }
        // One from before a member was added says nothing of that one.
        let is_new = fetched.head >= one.position;
        let named = one.gone.clone();
        let list = fetched.fanout.as_deref().unwrap_or_default();
        let is_off = |handle: &Handle| is_new && !list.iter().any(|one| one.handle == *handle);
        let gone = self.members_to_remove(group, |one| named.contains(one) && is_off(one))?;
        if !gone.is_empty() {
            self.intend(group, Intent::Remove(gone));
        }
        let mut rest = self.members_to_remove(group, |one| named.contains(one))?;
        self.look_again(group, &mut rest);
        self.change(group, |one| one.gone = rest);
        Ok(())
    }

    /// The hub tells of it before it does it. Whoever is in the list for long is not gone; a hub that
    /// could not finish says it again.
    fn look_again(&mut self, group: &GroupId, rest: &mut Vec<Handle>) {
        let count = self.looks.get(group).map_or(0, |look| look.count) + 1;
        if rest.is_empty() || count >= LOOKS_MAX {
            rest.clear();
            self.looks.remove(group);
            return;
        }
        let wait = LOOK_AGAIN.saturating_mul(1 << count);
        let at = Some(self.now.saturating_add(wait));
        self.looks.insert(*group, Look { at, count });
    }

    /// Groups whose list may be looked at again now.
    pub(super) fn looks_due(&mut self) {
        let now = self.now;
        for (group, look) in &mut self.looks {
            if look.at.is_some_and(|at| at <= now) {
                look.at = None;
                self.awake.insert(*group);
            }
        }
    }

    /// Handles of other members that nobody has asked to remove yet.
    fn members_to_remove(
        &mut self,
        group: &GroupId,
        mut is_one: impl FnMut(&Handle) -> bool,
    ) -> Result<Vec<Handle>, ClientError> {
        let Some(view) = unless_refused(self.chat.group(group))? else {
            return Ok(Vec::new());
        };
        let intents = unless_refused(self.chat.intents(group))?.unwrap_or_default();
        let is_wanted = |handle: &Handle| {
            let mut intents = intents.iter();
            intents.any(|one| matches!(one, Intent::Remove(all) if all.contains(handle)))
        };
        let members = view.members.iter().map(|member| member.handle);
        let others = members.filter(|one| *one != view.handle && !is_wanted(one));
        Ok(others.filter(|one| is_one(one)).collect())
    }
}
