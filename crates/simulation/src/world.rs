//! Everything together: domains, clients, and what happens between them until it is quiet.

mod acts;
mod conclusion;
mod faults;

use commucat_crypto::secret::Secret;
use commucat_crypto::server_keys::DomainSecret;
use commucat_crypto::signing::SigningKey;
use commucat_proto::id::{DeviceId, Domain as DomainId, GroupId, QueueId};
use commucat_routing::hub::Entry;
use commucat_routing::hub::Group;

use crate::client::Model;
use crate::client::commit::group_info;
use crate::client::group::{Epoch, Member};
use crate::domain::Domain;
use crate::judge::Counts;
use crate::outside::{Event, Index, Outside};
use crate::plant::Plant;
use crate::random::Random;
use crate::scenario::Scenario;
use crate::store::{Device, Kept, Place};

/// When the faults have ended, everything has to come to rest within this.
const REST_MS: u64 = 20 * 60 * 1000;

/// Makes another chance of a seed.
const BOUNDS: u64 = 0x626f_756e_6473;

/// An empty fork tag counts after a minute.
const ALARM_MS: u64 = 65 * 1000;

/// A run with more events than this does not come to rest.
const STEPS_MAX: u64 = 5_000_000;

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) out: Outside,
    pub(crate) domains: Vec<Domain>,
    pub(crate) clients: Vec<Model>,
    pub(crate) groups: Vec<Founded>,
    /// Domains that do not hear of each other for long.
    apart: Vec<Index>,
}

/// A group and how it began.
#[derive(Clone, Debug)]
pub(crate) struct Founded {
    pub(crate) group: GroupId,
    pub(crate) hub: Index,
    pub(crate) first: Epoch,
    /// Its link's seed.
    pub(crate) seed: SigningKey,
}

/// What a seed came to.
#[derive(Clone, Debug)]
pub struct Report {
    /// The first thing that must not have happened.
    pub complaint: Option<String>,
    /// How much happened.
    pub counts: Counts,
    /// What all that happened comes to: equal for equal runs.
    pub digest: [u8; 32],
    /// Events.
    pub steps: u64,
    /// Virtual milliseconds.
    pub time_ms: u64,
}

impl World {
    /// The world of a seed.
    pub(crate) fn new(seed: u64, plant: Option<Plant>, printing: bool) -> Option<Self> {
        let mut random = Random::new(seed);
        let scenario = Scenario::of(&mut random, &mut Random::new(seed ^ BOUNDS));
        let out = Outside::new(random.next(), scenario, plant, printing);
        let mut world = Self {
            out,
            domains: Vec::new(),
            clients: Vec::new(),
            groups: Vec::new(),
            apart: Vec::new(),
        };
        let scenario = world.out.scenario.clone();
        world.out.note(|| format!("{scenario:?}"));
        world.populate(&scenario)?;
        world.schedule(&scenario);
        Some(world)
    }

    fn populate(&mut self, scenario: &Scenario) -> Option<()> {
        let name = |index| DomainId::parse(&format!("d{index}.example")).ok();
        let names: Vec<_> = (0..scenario.domains).map(name).collect::<Option<_>>()?;
        let secrets: Vec<_> = (0..scenario.domains)
            .map(|_| DomainSecret::from_seed(&Secret::new(self.out.random.bytes())))
            .collect();
        let keys: Vec<_> = secrets.iter().map(DomainSecret::key).collect();
        for (index, secret) in secrets.into_iter().enumerate() {
            let mut domain = Domain::new(index, names.clone(), (secret, keys.clone()));
            domain.store.queue_entries = scenario.queue_entries;
            domain.skew_ms = self.out.random.below(4 * 60 * 1000);
            self.domains.push(domain);
        }
        for index in 0..scenario.clients {
            let home = index % scenario.domains;
            let device = DeviceId::parse(&format!("c{index}")).ok()?;
            let stored = Device {
                queue: QueueId::new(self.out.random.bytes()),
                packages: Vec::new(),
                last_resort: None,
            };
            self.domains.get_mut(home)?.register(&device, stored);
            if scenario.liar == Some(home) {
                self.out.judge.is_lied_to(index);
            }
            let name = names.get(home)?.clone();
            self.clients.push(Model::new(index, (home, name), device));
        }
        for number in 0..scenario.groups {
            self.found(number % scenario.domains)?;
        }
        Some(())
    }

    /// A group with the first client of a domain; everyone else is added as time passes.
    fn found(&mut self, hub: Index) -> Option<()> {
        let group = GroupId::new(self.out.random.bytes());
        let creator = self.clients.iter_mut().find(|client| client.home == hub)?;
        let handle = creator.package(&mut self.out);
        let domain = self.domains.get_mut(hub)?;
        let queue = domain.store.devices.get(&creator.device)?.queue;
        let reference = domain.mint(&mut self.out, queue, group, hub);
        let name = domain.name()?.clone();
        let entry = Entry {
            handle,
            domain: name.clone(),
            sealed_ref: reference,
            admin: true,
        };
        let first = Epoch::of_creator(&group, handle, creator.index);
        let seed = SigningKey::from_seed(&Secret::new(self.out.random.bytes()));
        let kept = Kept {
            group: Group::create(&[entry], &name, Some(seed.public())).ok()?,
            revision: 0,
            created_by: bytes::Bytes::new(),
            log: Vec::new(),
            first_kept: 1,
            infos: vec![(0, group_info(&first, 0))],
        };
        domain.store.groups.insert(group, kept);
        let key = creator.take_package(&handle)?;
        let member = Member::new(name, key, reference, (first.clone(), 0));
        creator.disk.groups.insert(group, member);
        let creator = creator.index;
        self.groups.push(Founded {
            group,
            hub,
            first,
            seed,
        });
        for other in 0..self.clients.len() {
            let wait = self.out.random.below(200);
            if other != creator && (wait < 160 || self.clients.len() < 4) {
                self.add(creator, group, other);
            }
        }
        Some(())
    }

    fn schedule(&mut self, scenario: &Scenario) {
        for client in 0..scenario.clients {
            let at = self.out.random.below(300);
            self.out.after(at, Event::Connect(client));
        }
        for _ in 0..scenario.acts {
            let client = self.out.random.index(scenario.clients);
            let at = self.out.random.below(scenario.active_ms);
            self.out.after(at, Event::Act(client));
        }
        for _ in 0..scenario.faults {
            let at = self.out.random.below(scenario.active_ms);
            self.out.after(at, Event::Fault);
        }
        if scenario.long_cut {
            self.cut_for_long();
        }
    }

    /// Lets everything happen; what it came to.
    pub(crate) fn run(mut self) -> Report {
        let active = self.out.scenario.active_ms;
        self.until(active);
        self.calm_down();
        self.rest();
        self.compare();
        self.last_word();
        let end = self.out.now + ALARM_MS;
        self.until(end);
        self.out.now = self.out.now.max(end);
        self.rest();
        self.conclude();
        Report {
            complaint: self.out.judge.complaint().map(str::to_owned),
            counts: self.out.judge.counts(),
            digest: self.out.digest(),
            steps: self.out.steps,
            time_ms: self.out.now,
        }
    }

    /// Lets everything happen until nothing waits any more.
    fn rest(&mut self) {
        let end = self.out.now + REST_MS;
        let mut quiet = false;
        while !quiet && self.out.now < end && self.goes_on() {
            let next = self.out.now + 1_000;
            self.until(next);
            self.out.now = self.out.now.max(next);
            quiet = self.is_quiet();
        }
        if !quiet {
            let what = self.unrest();
            self.out.judge.complain(|| format!("no rest: {what}"));
        }
    }

    fn goes_on(&self) -> bool {
        self.out.judge.complaint().is_none() && self.out.steps < STEPS_MAX
    }

    fn until(&mut self, limit: u64) {
        while self.goes_on()
            && let Some(event) = self.out.next(limit)
        {
            self.happen(event);
            self.watch();
        }
    }

    fn happen(&mut self, event: Event) {
        let out = &mut self.out;
        match event {
            Event::Up(connection, frame) => {
                if let Some(domain) = self.serving(connection) {
                    self.domains
                        .get_mut(domain)
                        .into_iter()
                        .for_each(|domain| domain.take(&mut self.out, connection, &frame));
                }
            }
            Event::Down(connection, frames) => {
                let client = out.links.get(&connection).map(|link| link.client);
                let client = client.and_then(|client| self.clients.get_mut(client));
                if let Some(client) = client
                    && client.is_on(connection)
                {
                    client.take(out, frames);
                }
            }
            Event::UpEnds(connection) => {
                if let Some(domain) = self.serving(connection)
                    && let Some(domain) = self.domains.get_mut(domain)
                {
                    domain.disconnect(&mut self.out, connection);
                }
            }
            Event::DownEnds(connection) => {
                let client = out.links.get(&connection).map(|link| link.client);
                let client = client.and_then(|client| self.clients.get_mut(client));
                if let Some(client) = client
                    && client.is_on(connection)
                {
                    client.disconnected(out);
                }
            }
            Event::Connect(client) => self.connect(client),
            Event::Wake(client) => {
                if let Some(client) = self.clients.get_mut(client) {
                    client.wake(out);
                }
            }
            Event::Act(client) => self.act(client),
            Event::Inside(domain, incarnation, what) => {
                let domain = self.domains.get_mut(domain);
                if let Some(domain) = domain.filter(|one| one.incarnation == incarnation) {
                    domain.inside(out, what);
                }
            }
            Event::Batch(batch) => {
                if let Some(domain) = self.domains.get_mut(batch.to).filter(|one| one.up) {
                    domain.take_batch(out, &batch);
                }
            }
            Event::Answer(answer) => {
                if let Some(domain) = self.domains.get_mut(answer.to).filter(|one| one.up) {
                    domain.take_answer(out, answer);
                }
            }
            Event::Fault => self.fault(),
            Event::Again(client) => self.connect_again(client),
            Event::Back(client) => self.come_back(client),
            Event::Crash(domain) => self.crash_domain(domain),
            Event::Start(domain) => {
                if let Some(domain) = self.domains.get_mut(domain).filter(|one| !one.up) {
                    domain.start(out);
                }
            }
            Event::Heal(from, to) => out.cut.retain(|pair| *pair != (from, to)),
        }
    }

    /// The domain that serves a connection, if it is the same process.
    fn serving(&self, connection: u64) -> Option<Index> {
        let link = self.out.links.get(&connection)?;
        let domain = self.domains.get(link.domain)?;
        (domain.incarnation == link.incarnation && domain.up).then_some(link.domain)
    }

    fn connect(&mut self, client: Index) {
        let Some(model) = self.clients.get_mut(client) else {
            return;
        };
        let Some(domain) = self.domains.get_mut(model.home) else {
            return;
        };
        if model.away || !domain.up {
            return self.out.after(500, Event::Connect(client));
        }
        if model.online.is_some() {
            return;
        }
        let home = model.home;
        let connection = self.out.connect(client, home, domain.incarnation);
        domain.connect(&mut self.out, connection, &model.device);
        model.connected(&mut self.out, connection);
    }

    /// Whether nothing waits anywhere.
    fn is_quiet(&self) -> bool {
        self.domains.iter().all(Domain::is_quiet)
            && self.clients.iter().all(Model::is_quiet)
            && self.clients.iter().all(|client| self.waiting(client) == 0)
    }

    fn waiting(&self, client: &Model) -> usize {
        let domain = self.domains.get(client.home);
        let queue = domain.and_then(|domain| {
            let device = domain.store.devices.get(&client.device)?;
            Some(domain.store.waiting(Place::Device(device.queue)))
        });
        queue.unwrap_or(0)
    }
}
