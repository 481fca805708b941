//! The judgement at the end: one history for everyone who was not told otherwise, and nothing lost.

use std::collections::{BTreeMap, BTreeSet};

use commucat_proto::frame::FrameType;
use commucat_proto::id::Handle;

use super::{Founded, World};
use crate::client::Model;
use crate::client::group::Epoch;
use crate::client::model::Intent;
use crate::outside::Index;
use crate::store::{Kept, Taken};

impl World {
    /// Why it is not quiet.
    pub(super) fn unrest(&self) -> String {
        let domains = self.domains.iter().filter(|one| !one.is_quiet());
        let domains: Vec<_> = domains.map(|one| one.index).collect();
        let clients = self.clients.iter().filter(|one| !one.is_quiet());
        let clients: Vec<_> = clients.map(|one| one.index).collect();
        let queues = self.clients.iter().filter(|one| self.waiting(one) > 0);
        let queues: Vec<_> = queues.map(|one| one.index).collect();
        format!("domains {domains:?}, clients {clients:?}, queues of {queues:?}")
    }

    /// When everything has come to rest, all are where the log leads, unless somebody led them apart.
    pub(super) fn compare(&mut self) {
        for founded in self.groups.clone() {
            let hub = self.domains.get(founded.hub);
            let kept = hub.and_then(|hub| hub.store.groups.get(&founded.group));
            let Some(kept) = kept.filter(|_| !self.out.judge.is_split(&founded.group)) else {
                continue;
            };
            let found = self.unlike(&founded, kept, &end_of(&founded, kept));
            if let Some(first) = found.into_iter().next() {
                self.out.judge.complain(|| first);
            }
        }
    }

    /// Everybody is there, and whoever founded a group changes and says something once more: no group
    /// is wedged, and who is elsewhere hears of it.
    pub(super) fn last_word(&mut self) {
        for founded in &self.groups {
            let founders = founded.first.roster.values();
            for (founder, _) in founders {
                if let Some(model) = self.clients.get_mut(*founder) {
                    let update = (founded.group, Intent::Update);
                    model.disk.intents.push_back(update);
                    model.write(&mut self.out, founded.group);
                    model.pump(&mut self.out);
                }
            }
        }
    }

    /// Nobody but an admin removes anybody: an entry that leaves a list without one is that of a device
    /// that left, or its own domain says so.
    pub(super) fn watch(&mut self) {
        let mut taken: Vec<(Index, Taken)> = Vec::new();
        for domain in &mut self.domains {
            for lost in domain.store.lost.drain(..) {
                let devices = &domain.store.devices;
                let whose = self.clients.iter().find(|client| {
                    let device = devices.get(&client.device);
                    device.is_some_and(|device| device.queue == lost.queue)
                });
                if let Some(client) = whose {
                    let index = client.index;
                    self.out.judge.drops(index, &lost.envelope, lost.reason);
                    let what = FrameType::of_code(lost.envelope.frame);
                    self.out
                        .note(|| format!("client {index} loses {what:?}: {:?}", lost.reason));
                }
            }
            let all = domain.store.taken.drain(..);
            taken.extend(all.map(|one| (domain.index, one)));
        }
        self.watch_arrivals();
        for (hub, one) in taken {
            let is_right = match one.by_admin {
                Some(by_admin) => by_admin,
                None => {
                    let name = &one.entry.domain;
                    let home = self.domains.iter().find(|home| home.name() == Some(name));
                    home.is_some_and(|home| {
                        let lies = self.out.scenario.liar == Some(home.index);
                        lies && home.index != hub || home.has_left(&one.entry, &one.group)
                    })
                }
            };
            if !is_right {
                let who = self.out.judge.owner(&one.entry.handle);
                self.out
                    .judge
                    .complain(|| format!("client {who:?} is removed by nobody who may"));
            }
        }
    }

    /// Whoever comes into a group is where the log leads, and not in one of somebody's own making.
    fn watch_arrivals(&mut self) {
        for (device, group, (position, state)) in self.out.judge.take_arrivals() {
            let founded = self.groups.iter().find(|one| one.group == group);
            let kept = founded.and_then(|founded| {
                let hub = self.domains.get(founded.hub)?;
                hub.store.groups.get(&group)
            });
            let (Some(founded), Some(kept)) = (founded, kept) else {
                continue;
            };
            let mut epoch = founded.first.clone();
            for entry in kept.log.iter().filter(|entry| entry.position <= position) {
                epoch.apply(entry, None);
            }
            let judge = &mut self.out.judge;
            if !judge.is_split(&group) && epoch.state() != state {
                judge
                    .complain(|| format!("client {device} comes into another group at {position}"));
            }
        }
    }

    /// Judges every group.
    pub(super) fn conclude(&mut self) {
        self.out.judge.conclude_gaps();
        for founded in self.groups.clone() {
            let hub = self.domains.get(founded.hub);
            let kept = hub.and_then(|hub| hub.store.groups.get(&founded.group));
            if let Some(kept) = kept.cloned() {
                self.conclude_group(&founded, &kept);
            }
        }
    }

    /// Whether a client's domain keeps what it says, as far as this group is concerned.
    fn is_served(&self, client: &Model, founded: &Founded) -> bool {
        self.out.scenario.liar != Some(client.home) || founded.hub == client.home
    }

    fn conclude_group(&mut self, founded: &Founded, kept: &Kept) {
        let entries = u64::try_from(kept.log.len()).unwrap_or(0);
        self.out.judge.count_commits(entries);
        let group = founded.group;
        let list: BTreeSet<Handle> = kept.group.list.iter().map(|entry| entry.handle).collect();
        let served: Vec<_> = self
            .clients
            .iter()
            .filter(|client| self.is_served(client, founded))
            .collect();
        let mut complaints: Vec<String> = Vec::new();
        let mut present: BTreeMap<Handle, Index> = BTreeMap::new();
        let mut states: BTreeMap<u64, usize> = BTreeMap::new();
        for client in &served {
            let index = client.index;
            let member = client.disk.groups.get(&group).filter(|one| one.is_in());
            if let Some(member) = member {
                let handle = member.handle();
                if list.contains(&handle) {
                    present.insert(handle, index);
                    *states.entry(member.epoch.state()).or_default() += 1;
                } else {
                    complaints.push(format!("client {index} does not know that it is out"));
                }
            }
        }
        if !self.out.judge.is_split(&group) {
            let epoch = end_of(founded, kept);
            complaints.extend(self.unlike(founded, kept, &epoch));
        } else {
            // The epoch that most are in is the group's.
            let main = states.iter().max_by_key(|(_, members)| **members);
            let main = main.map(|(state, _)| *state);
            let apart = served.iter().filter(|client| {
                let member = client.disk.groups.get(&group).filter(|one| one.is_in());
                member.is_some_and(|one| {
                    let told = one.told_fork || self.out.judge.is_unwarned(client.index, &group);
                    Some(one.epoch.state()) != main && !told
                })
            });
            complaints.extend(apart.map(|client| {
                let index = client.index;
                format!("client {index} is in another epoch and was not told")
            }));
        }
        let trusted: BTreeSet<Index> = served.iter().map(|client| client.index).collect();
        let judge = &mut self.out.judge;
        if let Some(first) = complaints.into_iter().next() {
            judge.complain(|| first);
        }
        judge.conclude(&group, &present, |author| trusted.contains(&author));
    }

    /// Who is not where the log leads, in a group whose members have no reason to be apart.
    fn unlike(&self, founded: &Founded, kept: &Kept, epoch: &Epoch) -> Vec<String> {
        let group = founded.group;
        let mut found = Vec::new();
        for entry in &kept.group.list {
            let home = self
                .domains
                .iter()
                .find(|home| home.name() == Some(&entry.domain));
            let has_left = home.is_some_and(|home| home.has_left(entry, &group));
            let Some(index) = self.out.judge.owner(&entry.handle) else {
                continue;
            };
            let client = self.clients.get(index);
            let Some(client) = client.filter(|client| self.is_served(client, founded)) else {
                continue;
            };
            let member = client.disk.groups.get(&group).filter(|one| one.is_in());
            match member {
                _ if has_left || self.out.judge.is_uninvited(&entry.handle) => {}
                Some(member) if member.handle() == entry.handle => {
                    let same = member.epoch.state() == epoch.state()
                        && member.epoch.position == epoch.position
                        && member.epoch.roster == epoch.roster;
                    if !same {
                        let (at, head) = (member.epoch.position, epoch.position);
                        found.push(format!("client {index} is elsewhere: at {at} of {head}"));
                    }
                }
                Some(_) | None => {
                    found.push(format!("client {index} is in a group and does not know"));
                }
            }
            if !has_left && !epoch.roster.contains_key(&entry.handle) {
                found.push(format!("client {index} is in the list and not in the tree"));
            }
        }
        found
    }
}

/// Where the log leads whoever can read all of it.
fn end_of(founded: &Founded, kept: &Kept) -> Epoch {
    let mut epoch = founded.first.clone();
    for entry in &kept.log {
        epoch.apply(entry, None);
    }
    epoch
}
