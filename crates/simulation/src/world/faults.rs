//! What goes wrong.

use super::World;
use crate::outside::{Event, Index};

impl World {
    /// Something goes wrong.
    pub(super) fn fault(&mut self) {
        if self.out.calm {
            return;
        }
        self.out.judge.count_fault();
        let client = self.out.random.index(self.clients.len());
        let domain = self.out.random.index(self.domains.len());
        match self.out.random.below(100) {
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
        let groups = model.disk.groups.iter().filter(|(_, one)| !one.out);
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
