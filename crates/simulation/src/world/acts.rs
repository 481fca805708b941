//! What clients do.

use commucat_proto::frame::fanout::FanoutEntry;
use commucat_proto::id::GroupId;

use super::World;
use crate::client::model::Intent;
use crate::outside::Index;

/// Intents that a client has at once.
const INTENTS_MAX: usize = 2;

impl World {
    /// A client does something.
    pub(super) fn act(&mut self, client: Index) {
        let Some(model) = self.clients.get(client) else {
            return;
        };
        let groups = model.disk.groups.iter().filter(|(_, one)| !one.out);
        let groups: Vec<GroupId> = groups.map(|(group, _)| *group).collect();
        let Some(group) = self.out.random.one_of(&groups).copied() else {
            return;
        };
        match self.out.random.below(100) {
            0..70 => {
                for _ in 0..self.out.random.between(1, 5) {
                    if let Some(model) = self.clients.get_mut(client) {
                        model.write(&mut self.out, group);
                    }
                }
            }
            70..82 => self.intend(client, group, Intent::Update),
            82..92 => {
                let other = self.out.random.index(self.clients.len());
                self.add(client, group, other);
            }
            92..97 => self.remove(client, group),
            _ => self.intend(client, group, Intent::Rubbish),
        }
    }

    fn intend(&mut self, client: Index, group: GroupId, intent: Intent) {
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
        let hub = self.groups.iter().find(|one| one.group == group);
        let (Some(hub), Some(target)) = (hub.map(|one| one.hub), self.clients.get_mut(other))
        else {
            return;
        };
        let handle = target.package(&mut self.out);
        let Some(domain) = self.domains.get_mut(target.home) else {
            return;
        };
        let queue = domain
            .store
            .devices
            .get(&target.device)
            .map(|one| one.queue);
        let (Some(queue), Some(name)) = (queue, domain.name().cloned()) else {
            return;
        };
        let entry = FanoutEntry {
            handle,
            domain: name,
            sealed_ref: domain.mint(&mut self.out, queue, group, hub),
            admin: false,
        };
        if let Some(model) = self.clients.get_mut(client) {
            model
                .disk
                .intents
                .push_back((group, Intent::Add(entry, other)));
            model.pump(&mut self.out);
        }
    }

    fn remove(&mut self, client: Index, group: GroupId) {
        let Some(model) = self.clients.get(client) else {
            return;
        };
        let Some(member) = model.disk.groups.get(&group) else {
            return;
        };
        let own = member.handle();
        let others = member.epoch.roster.keys().filter(|handle| **handle != own);
        let others: Vec<_> = others.copied().collect();
        if let Some(handle) = self.out.random.one_of(&others).copied()
            && others.len() > 2
        {
            self.intend(client, group, Intent::Remove(handle));
        }
    }
}
