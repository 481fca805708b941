//! The judgement at the end: one history for everyone, and nothing lost.

use std::collections::BTreeSet;

use commucat_proto::id::Handle;

use super::{Founded, World};
use crate::client::group::Epoch;
use crate::judge::Roster;

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

    /// Judges every group.
    pub(super) fn conclude(&mut self) {
        for founded in self.groups.clone() {
            self.conclude_group(&founded);
        }
    }

    fn conclude_group(&mut self, founded: &Founded) {
        let hub = self.domains.get(founded.hub);
        let Some(kept) = hub.and_then(|hub| hub.store.groups.get(&founded.group)) else {
            return;
        };
        let mut epoch = founded.first.clone();
        let mut history = vec![roster(&epoch)];
        for entry in &kept.log {
            epoch.apply(entry);
            history.push(roster(&epoch));
        }
        let entries = u64::try_from(kept.log.len()).unwrap_or(0);
        let list: BTreeSet<Handle> = kept.group.list.iter().map(|entry| entry.handle).collect();
        let tree: BTreeSet<Handle> = epoch.roster.keys().copied().collect();
        self.out.judge.count_commits(entries);
        if list != tree {
            let (list, tree) = (list.len(), tree.len());
            self.out
                .judge
                .complain(|| format!("{list} are in the list and {tree} in the tree"));
        }
        for client in &self.clients {
            let index = client.index;
            let member = client.disk.groups.get(&founded.group);
            let member = member.filter(|member| !member.out);
            let expected = epoch.roster.values().any(|(other, _)| *other == index);
            match member {
                Some(member) if expected => {
                    let same = member.epoch.state() == epoch.state()
                        && member.epoch.position == epoch.position
                        && member.epoch.roster == epoch.roster;
                    if !same {
                        let (at, head) = (member.epoch.position, epoch.position);
                        self.out
                            .judge
                            .complain(|| format!("client {index} is elsewhere: at {at} of {head}"));
                    }
                }
                Some(_) => self
                    .out
                    .judge
                    .complain(|| format!("client {index} does not know that it is out")),
                None if expected => self
                    .out
                    .judge
                    .complain(|| format!("client {index} is in a group and does not know")),
                None => {}
            }
        }
        self.out.judge.conclude(&founded.group, &history);
    }
}

fn roster(epoch: &Epoch) -> Roster {
    let people = epoch.roster.iter();
    Roster {
        position: epoch.position,
        members: people
            .map(|(handle, (client, _))| (*handle, *client))
            .collect(),
    }
}
