//! What goes wrong.

use std::collections::BTreeSet;

use commucat_proto::wire::Cbor as _;

use super::{Founded, World};
use crate::client::Model;
use crate::client::group::Member;
use crate::client::model::Intent;
use crate::domain::liar::Known;
use crate::outside::{Event, Index};

/// So many commits later the hub takes a text no more, and its author does not seal it again by itself.
const COMMITS_TOO_OLD: usize = 3;

impl World {
    /// Something goes wrong.
    pub(super) fn fault(&mut self) {
        if self.out.calm {
            return;
        }
        self.out.judge.count_fault();
        let client = self.out.random.index(self.clients.len());
        let domain = self.out.random.index(self.domains.len());
        if let Some(liar) = self.out.scenario.liar {
            self.forge(liar);
        }
        if self.out.scenario.prunes > 0 && self.out.random.chance(self.out.scenario.prunes) {
            return self.prune();
        }
        if self.out.scenario.ttl_ms < u64::MAX
            && let Some(domain) = self.domains.get_mut(domain).filter(|one| one.up)
        {
            domain.expire(&mut self.out);
        }
        match self.out.random.below(132) {
            126.. => self.miss_something(client),
            108..126 => self.fall_behind(client),
            100..108 => self.lose_place(client),
            0..22 => self.break_link(client),
            22..32 => self.connect_again(client),
            32..45 => self.storm(client),
            45..57 => self.crash_client(client),
            57..67 => self.go_away(client),
            67..80 => self.crash_domain(domain),
            80..90 => self.cut(domain),
            _ => {
                if let Some(domain) = self.domains.get_mut(domain).filter(|one| one.up) {
                    domain.spool_all(&mut self.out);
                }
            }
        }
    }

    /// A client writes, connects anew and sends again; then its domain dies, before anything that
    /// is only in memory can have been written.
    fn storm(&mut self, client: Index) {
        let Some(model) = self.clients.get_mut(client) else {
            return;
        };
        let home = model.home;
        let groups = model.disk.groups.iter().filter(|(_, one)| one.is_in());
        let groups: Vec<_> = groups.map(|(group, _)| *group).collect();
        for _ in 0..self.out.random.between(1, 4) {
            if let Some(group) = self.out.random.one_of(&groups).copied() {
                model.write(&mut self.out, group);
            }
        }
        let again = self.out.random.between(5, 60);
        self.out.after(again, Event::Again(client));
        let wait = self.out.random.between(20, 160);
        self.out.after(again + wait, Event::Crash(home));
    }

    /// A client writes and is gone before it hears anything; the group goes on by as many commits as
    /// make its text too old for the hub; and when it sends that again, it does not hear the refusal.
    fn fall_behind(&mut self, client: Index) {
        let Some(model) = self.clients.get_mut(client) else {
            return;
        };
        let groups = model.disk.groups.iter().filter(|(_, one)| one.is_in());
        let groups: Vec<_> = groups.map(|(group, _)| *group).collect();
        let Some(group) = self.out.random.one_of(&groups).copied() else {
            return;
        };
        if let Some(connection) = model.connection() {
            self.out.lose_up(connection);
        }
        model.write(&mut self.out, group);
        model.away = true;
        self.break_link(client);
        let in_it = |one: &Model| one.disk.groups.get(&group).is_some_and(Member::is_in);
        let others = self.clients.iter().filter(|one| one.index != client);
        let others: Vec<_> = others
            .filter(|one| in_it(one))
            .map(|one| one.index)
            .collect();
        for other in others.into_iter().take(COMMITS_TOO_OLD) {
            self.intend(other, group, Intent::Update);
        }
        let wait = self.out.random.between(2_000, 6_000);
        self.out.after(wait, Event::Back(client));
    }

    /// A device's queue could not take everything: it is told so, and reads the log while that goes on.
    fn miss_something(&mut self, client: Index) {
        let Some(model) = self.clients.get(client) else {
            return;
        };
        let groups = model.disk.groups.iter().filter(|(_, one)| one.is_in());
        let groups: Vec<_> = groups.map(|(group, _)| *group).collect();
        let (home, device) = (model.home, model.device.clone());
        if let Some(domain) = self.domains.get_mut(home).filter(|one| one.up) {
            domain.tell_gap(&mut self.out, &device);
        }
        let other = self.out.random.index(self.clients.len());
        for group in groups {
            self.intend(other, group, Intent::Update);
        }
    }

    pub(super) fn come_back(&mut self, client: Index) {
        if let Some(model) = self.clients.get_mut(client) {
            model.away = false;
        }
        self.connect(client);
        let wait = self.out.random.between(30, 110);
        self.out.after(wait, Event::Again(client));
    }

    /// Members lose their place in a group, as after the log was cut: one, or two at once.
    fn lose_place(&mut self, client: Index) {
        let Some(model) = self.clients.get(client) else {
            return;
        };
        let groups = model.disk.groups.iter().filter(|(_, one)| one.is_in());
        let groups: Vec<_> = groups.map(|(group, _)| *group).collect();
        let Some(group) = self.out.random.one_of(&groups).copied() else {
            return;
        };
        let other = self.out.random.index(self.clients.len());
        for client in [client, other] {
            let Some(model) = self.clients.get_mut(client) else {
                continue;
            };
            let member = model.disk.groups.get_mut(&group);
            if let Some(member) = member.filter(|one| one.is_in()) {
                self.out.note(|| format!("client {client} loses its place"));
                member.rejoins = true;
                model.pump(&mut self.out);
            }
        }
    }

    /// All hubs forget most of their logs, but no commit whose author has not heard of it: nobody waits
    /// for an answer for as long as a log is kept.
    fn prune(&mut self) {
        let asked: BTreeSet<_> = self.clients.iter().filter_map(Model::awaited).collect();
        for domain in self.domains.iter_mut().filter(|one| one.up) {
            domain.prune(&mut self.out, &asked);
        }
    }

    /// A domain does something in the name of others: its devices know a group's list and state.
    fn forge(&mut self, liar: Index) {
        let others = self.groups.iter().filter(|one| one.hub != liar);
        let others: Vec<Founded> = others.cloned().collect();
        let Some(founded) = self.out.random.one_of(&others).cloned() else {
            return;
        };
        let mut own = self.clients.iter().filter(|client| client.home == liar);
        let group = founded.group;
        let member = own.find_map(|client| {
            let member = client.disk.groups.get(&group)?;
            member.is_in().then_some(member)
        });
        let list = self.domains.get(founded.hub).and_then(|hub| {
            let kept = hub.store.groups.get(&group)?;
            Some((kept.group.list.clone(), kept.group.head))
        });
        let (Some(member), Some((list, head))) = (member, list) else {
            return;
        };
        let nonce = self.out.random.next();
        let entry = member.unseen_entry(group, nonce).encode().into();
        let Some(liar) = self.domains.get_mut(liar).filter(|one| one.up) else {
            return;
        };
        let own = liar.name().cloned();
        let victims: Vec<_> = list
            .iter()
            .filter(|one| Some(&one.domain) != own.as_ref())
            .collect();
        if let Some(victim) = self.out.random.one_of(&victims) {
            let known = Known {
                group,
                hub: founded.hub,
                victim,
                entry,
                head,
            };
            liar.forge(&mut self.out, &known);
        }
    }

    fn break_link(&mut self, client: Index) {
        let connection = self.clients.get(client).and_then(|one| one.connection());
        if let Some(connection) = connection {
            self.out.cut_link(connection);
        }
    }

    /// A client connects anew while the server still has its old connection.
    pub(super) fn connect_again(&mut self, client: Index) {
        if self.out.calm {
            return;
        }
        self.break_link(client);
        if let Some(model) = self.clients.get_mut(client) {
            model.online = None;
        }
        self.connect(client);
    }

    fn crash_client(&mut self, client: Index) {
        self.break_link(client);
        if let Some(model) = self.clients.get_mut(client) {
            self.out.note(|| format!("client {client} crashes"));
            model.crash();
            let wait = self.out.random.between(10, 4_000);
            self.out.after(wait, Event::Connect(client));
        }
    }

    /// A client is offline for a while.
    fn go_away(&mut self, client: Index) {
        self.break_link(client);
        if let Some(model) = self.clients.get_mut(client) {
            model.away = !model.away;
            let away = model.away;
            self.out.note(|| format!("client {client} away: {away}"));
        }
    }

    pub(super) fn crash_domain(&mut self, domain: Index) {
        let calm = self.out.calm;
        // What a domain sends again after a crash is new to its memory: a date that is kept too long
        // shows where nothing crashes.
        if self.apart.contains(&domain) {
            return;
        }
        if let Some(crashing) = self.domains.get_mut(domain).filter(|one| one.up && !calm) {
            crashing.crash(&mut self.out);
            let wait = self.out.random.between(50, 4_000);
            self.out.after(wait, Event::Start(domain));
        }
    }

    /// Nothing gets from one domain to another, or neither way, for a while.
    fn cut(&mut self, from: Index) {
        let to = self.out.random.index(self.domains.len());
        if from == to {
            return;
        }
        let wait = self.out.random.between(500, 40_000);
        self.out
            .note(|| format!("domain {from} does not reach {to}"));
        self.out.cut.push((from, to));
        self.out.after(wait, Event::Heal(from, to));
        if self.out.random.chance(600) {
            self.out.cut.push((to, from));
            self.out.after(wait, Event::Heal(to, from));
        }
    }

    /// Two domains do not hear of each other for longer than a batch's date holds.
    pub(super) fn cut_for_long(&mut self) {
        let from = self.out.random.index(self.domains.len());
        let to = (from + 1) % self.domains.len().max(1);
        self.apart = vec![from, to];
        for pair in [(from, to), (to, from)] {
            self.out.cut.push(pair);
            self.out.after(1_020_000, Event::Heal(pair.0, pair.1));
        }
    }

    /// Nothing goes wrong any more, and everybody is there.
    pub(super) fn calm_down(&mut self) {
        self.out.note(|| "calm".to_owned());
        self.out.calm = true;
        self.out.cut.clear();
        for domain in self.domains.iter_mut().filter(|one| !one.up) {
            domain.start(&mut self.out);
        }
        for client in &mut self.clients {
            client.away = false;
        }
        for client in 0..self.clients.len() {
            self.connect(client);
        }
    }
}
