//! What clients do.

use commucat_proto::frame::fanout::FanoutEntry;
use commucat_proto::id::{GroupId, Handle};

use super::{Founded, World};
use crate::client::Model;
use crate::client::external::Joining;
use crate::client::group::Member;
use crate::client::model::Intent;
use crate::domain::Domain;
use crate::outside::Index;

/// Intents that a client has at once.
const INTENTS_MAX: usize = 2;

impl World {
    /// A client does something.
    pub(super) fn act(&mut self, client: Index) {
        let Some(model) = self.clients.get(client) else {
            return;
        };
        let groups = model.disk.groups.iter().filter(|(_, one)| one.is_in());
        let groups: Vec<GroupId> = groups.map(|(group, _)| *group).collect();
        let act = self.out.random.below(100);
        let Some(group) = self.out.random.one_of(&groups).copied() else {
            return self.act_outside(client);
        };
        if self.out.scenario.rogue == Some(client) && self.out.random.chance(300) {
            return self.harm(client, group);
        }
        match act {
            0..66 => {
                for _ in 0..self.out.random.between(1, 5) {
                    if let Some(model) = self.clients.get_mut(client) {
                        model.write(&mut self.out, group);
                    }
                }
            }
            66..78 => self.intend(client, group, Intent::Update),
            78..88 => {
                let other = self.out.random.index(self.clients.len());
                self.add(client, group, other);
            }
            88..92 => self.remove(client, group),
            92..94 => self.intend(client, group, Intent::Rubbish),
            94..96 => self.leave(client, group),
            _ => self.act_outside(client),
        }
    }

    /// A client does something about a group that it is not in: it joins by link, or it was in it once
    /// and behaves as if it still were.
    fn act_outside(&mut self, client: Index) {
        let Some(model) = self.clients.get(client) else {
            return;
        };
        let is_in = |group: &GroupId| model.disk.groups.get(group).is_some_and(Member::is_in);
        let outside = self.groups.iter().filter(|one| !is_in(&one.group));
        let outside: Vec<Founded> = outside.cloned().collect();
        let Some(founded) = self.out.random.one_of(&outside).cloned() else {
            return;
        };
        if self.out.random.chance(500) {
            self.join_by_link(client, &founded);
        } else if let Some(model) = self.clients.get_mut(client) {
            model.intrude(&mut self.out, founded.group);
        }
    }

    fn join_by_link(&mut self, client: Index, founded: &Founded) {
        let hub_name = self
            .domains
            .get(founded.hub)
            .and_then(Domain::name)
            .cloned();
        let (Some(hub), Some(model)) = (hub_name, self.clients.get_mut(client)) else {
            return;
        };
        let handle = model.package(&mut self.out);
        let Some(home) = self.domains.get_mut(model.home) else {
            return;
        };
        let queue = home.store.devices.get(&model.device).map(|one| one.queue);
        let (Some(queue), Some(domain), Some(handle)) =
            (queue, home.name().cloned(), model.take_package(&handle))
        else {
            return;
        };
        let joining = Joining {
            reference: home.mint(&mut self.out, queue, founded.group, founded.hub),
            hub,
            seed: founded.seed.clone(),
            group_key: founded.first.key,
            handle,
            domain,
        };
        model.join_by_link(&mut self.out, founded.group, joining);
    }

    /// A member leaves for good. Whoever founded a group stays: nobody else could remove members.
    fn leave(&mut self, client: Index, group: GroupId) {
        if let Some(model) = self.clients.get_mut(client)
            && !model.disk.groups.get(&group).is_none_or(Member::is_admin)
        {
            model.leave_for_good(&mut self.out, group);
        }
    }

    /// A member does harm, or tries to.
    fn harm(&mut self, client: Index, group: GroupId) {
        let Some(handle) = self.other_member(client, group) else {
            return;
        };
        let choice = self
            .out
            .random
            .below(if self.out.scenario.splits { 8 } else { 3 });
        let is_admin = |model: &Model| model.disk.groups.get(&group).is_some_and(Member::is_admin);
        let is_admin = self.clients.get(client).is_some_and(is_admin);
        match choice {
            0 => self.intend(client, group, Intent::Mutiny(handle)),
            1 | 2 => self.intend(client, group, Intent::Lure),
            3 => self.intend(client, group, Intent::BadInfo),
            4 if is_admin => self.intend(client, group, Intent::Unlist(handle)),
            4 | 5 => {
                let other = self.out.random.index(self.clients.len());
                if let Some(entry) = self.entry_for(group, other) {
                    self.intend(client, group, Intent::Ghost(entry, other));
                }
            }
            _ => self.intend(client, group, Intent::Spoiled),
        }
    }

    pub(super) fn intend(&mut self, client: Index, group: GroupId, intent: Intent) {
        let Some(model) = self.clients.get_mut(client) else {
            return;
        };
        if model.disk.intents.len() < INTENTS_MAX {
            model.disk.intents.push_back((group, intent));
            model.pump(&mut self.out);
        }
    }

    /// One client wants another in a group, and has what it takes.
    pub(super) fn add(&mut self, client: Index, group: GroupId, other: Index) {
        let Some(entry) = self.entry_for(group, other) else {
            return;
        };
        if let Some(model) = self.clients.get_mut(client) {
            model
                .disk
                .intents
                .push_back((group, Intent::Add(entry, other)));
            model.pump(&mut self.out);
        }
    }

    /// A fresh handle of a client with a reference to its queue.
    fn entry_for(&mut self, group: GroupId, client: Index) -> Option<FanoutEntry> {
        let hub = self.groups.iter().find(|one| one.group == group)?.hub;
        let target = self.clients.get_mut(client)?;
        let handle = target.package(&mut self.out);
        let domain = self.domains.get_mut(target.home)?;
        let queue = domain.store.devices.get(&target.device)?.queue;
        Some(FanoutEntry {
            handle,
            domain: domain.name()?.clone(),
            sealed_ref: domain.mint(&mut self.out, queue, group, hub),
            admin: false,
        })
    }

    fn remove(&mut self, client: Index, group: GroupId) {
        let members = self.clients.get(client).and_then(|model| {
            let member = model.disk.groups.get(&group)?;
            Some(member.epoch.roster.len())
        });
        if let Some(handle) = self.other_member(client, group)
            && members.is_some_and(|members| members > 3)
        {
            self.intend(client, group, Intent::Remove(handle));
        }
    }

    fn other_member(&mut self, client: Index, group: GroupId) -> Option<Handle> {
        let member = self.clients.get(client)?.disk.groups.get(&group)?;
        let own = member.handle();
        let others = member.epoch.roster.keys().filter(|handle| **handle != own);
        let others: Vec<_> = others.copied().collect();
        self.out.random.one_of(&others).copied()
    }
}
