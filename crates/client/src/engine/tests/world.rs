//! A server in memory, small enough to be seen to be right: queues, groups, packages, lists.

mod look;
mod meddle;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use bytes::Bytes;
use commucat_crypto::certificate::List;
use commucat_crypto::secret::random_bytes;
use commucat_proto::decoder::{Decoder, Incoming};
use commucat_proto::error::Title;
use commucat_proto::frame::ack::{
    AckDown, CustodyRun, CustodyStatus, FirstAck, ForkTag, SessionLimits,
};
use commucat_proto::frame::bundle::Bundle;
use commucat_proto::frame::directory::{Directory, DirectoryResult};
use commucat_proto::frame::error::Problem;
use commucat_proto::frame::fanout::FanoutEntry;
use commucat_proto::frame::fetch::{Fetch, FetchAccess, FetchResult, KeptGroupInfo};
use commucat_proto::frame::group_invite::GroupInvite;
use commucat_proto::frame::join::Join;
use commucat_proto::frame::key_package::{ClaimResult, ClaimedPackage, KeyPackage, PackageCount};
use commucat_proto::frame::key_update::{KeyUpdateResult, LogEntry};
use commucat_proto::frame::leave::Leave;
use commucat_proto::frame::msg::Msg;
use commucat_proto::frame::payload::FromClient;
use commucat_proto::frame::{Direction, Frame, FrameType, Header};
use commucat_proto::id::{
    AccountId, ClaimId, Domain, DomainKey, GroupId, Handle, NoiseKey, SealedRef,
};
use commucat_proto::signed::Signed;
use commucat_proto::time::Timestamp;
use commucat_proto::wire::Cbor;

use crate::account::{Phrase, new_device};
use crate::connect::login::Welcome;
use crate::engine::core::{Core, Effect};
use crate::engine::model::{Account, Server};
use crate::engine::tables;
use crate::error::ClientError;
use crate::event::Event;
use crate::record;
use crate::settings::Suite;
use crate::vault::Vault;

struct Device {
    core: Core,
    vault: Vault,
    connected: bool,
    /// It was told that its queue is empty.
    caught_up: bool,
    /// Nothing of its queue gets to it.
    holds_queue: bool,
    decoder: Decoder,
    /// What waits or is not acknowledged: type and payload.
    queue: VecDeque<(FrameType, Bytes)>,
    /// How many of the queue were sent on this connection, and the sequence of the last.
    sent: usize,
    sequence: u32,
    acknowledged: u32,
    channels: HashMap<u32, (GroupId, Handle)>,
    packages: Vec<Bytes>,
    last_resort: Option<Bytes>,
    events: Vec<Event>,
    /// MSG payloads of this connection.
    messages: Vec<Bytes>,
    /// The last of them that was taken, with its group.
    last: Option<(GroupId, Bytes)>,
    /// How many commits it has sent.
    commits: usize,
    lose_answers: bool,
    /// Its requests are answered by what is no answer.
    garbles_answers: bool,
    /// Answers that are on their way for long.
    answers: Option<VecDeque<AckDown>>,
    /// Refusals that are on their way for long.
    refusals: Option<VecDeque<Frame>>,
    ignore_acks: bool,
    refuse: Option<Problem>,
    drop_next: bool,
    /// Its next message is damaged on the way.
    damage_next: bool,
    /// Its next message claims to be of an epoch that is yet to come.
    advance_next: bool,
    /// Fork tags that it reported.
    tags: Vec<ForkTag>,
    /// Accounts whose device lists it asked for.
    lists: Vec<AccountId>,
    /// How often it left a group for good.
    leaves: usize,
    /// Its next LEAVE for good is refused.
    refuses_leave: bool,
    /// Whether custody of the next MSG is told later, and of which one it is to be told.
    holds_custody: bool,
    untold: Option<u32>,
}

#[derive(Default)]
struct Group {
    head: u64,
    list: Vec<FanoutEntry>,
    log: Vec<LogEntry>,
    /// Handles that were in the list.
    gone: Vec<Handle>,
    /// Entries before this position are gone.
    first_kept: u64,
    infos: Vec<(u64, Bytes)>,
}

#[derive(Default)]
pub(super) struct World {
    now: u64,
    devices: BTreeMap<String, Device>,
    groups: HashMap<GroupId, Group>,
    lists: HashMap<AccountId, Signed>,
    refs: HashMap<SealedRef, String>,
    claims: HashMap<ClaimId, ClaimResult>,
    held: Option<VecDeque<(String, u32, Signed)>>,
    hide_lists: bool,
    hide_packages: bool,
    hide_infos: bool,
    /// Hubs know no member of any group.
    knows_nobody: bool,
    /// Hubs of other groups than this entry's say that it is in their logs.
    misleads: Option<LogEntry>,
}

fn domain() -> Domain {
    Domain::parse("localhost").unwrap()
}

impl World {
    pub(super) fn new() -> Self {
        Self {
            now: 1_800_000_000_000,
            ..Self::default()
        }
    }

    fn time(&self) -> Timestamp {
        Timestamp::from_millis(self.now)
    }

    pub(super) fn pass(&mut self, millis: u64) {
        self.now += millis;
        let names: Vec<_> = self.devices.keys().cloned().collect();
        for name in names {
            self.step(&name, Core::on_time);
        }
    }

    /// A new account with one device, connected.
    pub(super) fn register(&mut self, name: &str) {
        let mut account = new_device();
        account.found(&Phrase::generate(), &domain(), self.time());
        self.start(name, account);
        self.settle();
    }

    fn start(&mut self, name: &str, mut account: Account) {
        account.server = Some(Server {
            endpoint: "localhost:1".to_owned(),
            domain: domain(),
            domain_key: DomainKey::new([1; 32]),
            serial: 0,
            noise: None,
            warned: false,
            certificate_failed: false,
        });
        let list = account.signed_list().unwrap();
        self.lists
            .insert(List::verify(&list).unwrap().account_id(), list);
        let vault = Vault::in_memory().unwrap();
        record::put(&vault, tables::ACCOUNT, (b"", b""), &account).unwrap();
        let core = Core::load(vault.clone(), Suite::Classical, self.time()).unwrap();
        let device = Device {
            core,
            vault,
            connected: false,
            caught_up: false,
            holds_queue: false,
            decoder: Decoder::tunnel(Direction::Up),
            queue: VecDeque::new(),
            sent: 0,
            sequence: 0,
            acknowledged: 0,
            channels: HashMap::new(),
            packages: Vec::new(),
            last_resort: None,
            events: Vec::new(),
            messages: Vec::new(),
            last: None,
            commits: 0,
            lose_answers: false,
            garbles_answers: false,
            answers: None,
            refusals: None,
            ignore_acks: false,
            refuse: None,
            drop_next: false,
            damage_next: false,
            advance_next: false,
            tags: Vec::new(),
            lists: Vec::new(),
            leaves: 0,
            refuses_leave: false,
            holds_custody: false,
            untold: None,
        };
        self.devices.insert(name.to_owned(), device);
        self.connect(name);
    }

    pub(super) fn connect(&mut self, name: &str) {
        let device = self.devices.get_mut(name).unwrap();
        (device.connected, device.caught_up) = (true, false);
        device.decoder = Decoder::tunnel(Direction::Up);
        (device.sent, device.sequence, device.acknowledged) = (0, 0, 0);
        device.channels.clear();
        device.messages.clear();
        let first = FirstAck {
            waiting: 0,
            capabilities: Vec::new(),
            server_keys: Signed {
                body: Bytes::new(),
                signature: [0; 64],
            },
            versions: vec![2],
            server_time: Timestamp::ZERO,
            limits: SessionLimits::default(),
        };
        let noise = NoiseKey::new([1; 32]);
        let welcome = Welcome {
            first,
            statement: None,
            noise,
            certificate_failed: false,
        };
        self.step(name, |core| core.on_online(&welcome));
    }

    pub(super) fn disconnect(&mut self, name: &str) {
        self.devices.get_mut(name).unwrap().connected = false;
        self.step(name, |core| {
            core.on_offline("test".to_owned());
            Ok(())
        });
    }

    /// The process died; only the vault is left.
    pub(super) fn restart(&mut self, name: &str) {
        let now = self.time();
        let device = self.devices.get_mut(name).unwrap();
        device.connected = false;
        device.core = Core::load(device.vault.clone(), Suite::Classical, now).unwrap();
    }

    fn step(&mut self, name: &str, work: impl FnOnce(&mut Core) -> Result<(), ClientError>) {
        let now = self.time();
        let device = self.devices.get_mut(name).unwrap();
        let effects = device.core.step(now, work).unwrap();
        for effect in effects {
            match effect {
                Effect::Send(bytes) if device.connected => device.decoder.push(&bytes),
                Effect::Send(_) | Effect::State(_) => {}
                Effect::Tell(event) => device.events.push(event),
                Effect::Answer(answer) => answer(),
                Effect::Close(reason) => panic!("{name} closes: {reason}"),
            }
        }
    }

    /// Runs until nothing moves any more.
    pub(super) fn settle(&mut self) {
        for _ in 0..200 {
            let names: Vec<_> = self.devices.keys().cloned().collect();
            let mut moved = false;
            for name in &names {
                moved |= self.read(name);
                moved |= self.deliver(name);
            }
            if !moved {
                // Receipts and retries wait a moment.
                let waits = self.devices.values().any(|device| {
                    let at = device.core.wake_at().map(Timestamp::as_millis);
                    device.connected && at.is_some_and(|at| at <= self.now + 1_500)
                });
                if !waits {
                    return;
                }
                self.pass(100);
            }
        }
        panic!("the world does not settle");
    }

    /// Settles, lets time pass, and settles again, in steps.
    pub(super) fn settle_for(&mut self, millis: u64) {
        let end = self.now + millis;
        self.settle();
        while self.now < end {
            self.pass(1_000);
            self.settle();
        }
    }

    /// Handles what a device sent.
    fn read(&mut self, name: &str) -> bool {
        let mut moved = false;
        for _ in 0..10_000 {
            let device = self.devices.get_mut(name).unwrap();
            if !device.connected {
                return moved;
            }
            let Some(Incoming::Frame(frame)) = device.decoder.next_frame().unwrap() else {
                return moved;
            };
            moved = true;
            self.handle(name, &frame);
        }
        panic!("{name} asks without end");
    }

    /// Sends a device what waits for it.
    fn deliver(&mut self, name: &str) -> bool {
        let device = self.devices.get_mut(name).unwrap();
        if !device.connected || device.holds_queue {
            return false;
        }
        if device.sent >= device.queue.len() {
            if std::mem::replace(&mut device.caught_up, true) {
                return false;
            }
            let ack = AckDown {
                queue_empty: true,
                ..AckDown::default()
            };
            self.tell(name, &ack);
            return true;
        }
        let mut frames = Vec::new();
        for (kind, payload) in device.queue.iter().skip(device.sent) {
            device.sequence += 1;
            let header = Header::new(*kind, device.sequence);
            frames.push(Frame {
                header,
                payload: payload.clone(),
            });
        }
        device.sent = device.queue.len();
        self.step(name, |core| core.on_frames(frames));
        true
    }

    fn answer(&mut self, name: &str, ack: &AckDown) {
        let device = self.devices.get_mut(name).unwrap();
        if device.lose_answers {
            return;
        }
        if let Some(held) = &mut device.answers {
            return held.push_back(ack.clone());
        }
        let mut ack = ack.clone();
        if device.garbles_answers
            && let Some(answer) = &mut ack.answer
        {
            answer.result = Bytes::from_static(&[0xa0]);
        }
        self.tell(name, &ack);
    }

    fn tell(&mut self, name: &str, ack: &AckDown) {
        let header = Header::bare(FrameType::Ack);
        let frame = Frame {
            header,
            payload: ack.encode().into(),
        };
        self.step(name, |core| core.on_frames(vec![frame]));
    }

    fn refuse(&mut self, name: &str, sequence: u32, mut problem: Problem) {
        problem.sequence = Some(sequence);
        let header = Header::bare(FrameType::Error);
        let frame = Frame {
            header,
            payload: problem.encode().into(),
        };
        if let Some(held) = &mut self.devices.get_mut(name).unwrap().refusals {
            return held.push_back(frame);
        }
        self.step(name, |core| core.on_frames(vec![frame]));
    }

    fn handle(&mut self, name: &str, frame: &Frame) {
        let (channel, sequence) = (frame.header.channel, frame.header.sequence);
        match FromClient::decode(frame).unwrap() {
            FromClient::Join(join) => self.join(name, (channel, sequence), &join),
            FromClient::Msg(msg) => self.message(name, (channel, sequence), &msg),
            FromClient::Ack(ack) => {
                let device = self.devices.get_mut(name).unwrap();
                let bound: HashSet<_> = device.channels.values().map(|(group, _)| group).collect();
                let tags = ack.tags.iter().filter(|tag| bound.contains(&tag.group));
                device.tags.extend(tags);
                self.acknowledge(name, ack.through.unwrap_or(0));
            }
            FromClient::KeyUpdate(update) => {
                self.devices.get_mut(name).unwrap().commits += 1;
                if let Some(held) = &mut self.held {
                    held.push_back((name.to_owned(), sequence, update.bundle));
                } else {
                    self.commit(name, sequence, &update.bundle);
                }
            }
            FromClient::GroupCreate(create) => {
                let infos = create
                    .sealed_group_info
                    .map(|info| (0, info))
                    .into_iter()
                    .collect();
                let group = Group {
                    list: create.fanout,
                    infos,
                    ..Group::default()
                };
                self.groups.entry(create.group).or_insert(group);
                self.answer(name, &AckDown::done(sequence));
            }
            FromClient::KeyPackage(operation) => self.packages(name, sequence, operation),
            FromClient::Directory(operation) => self.directory(name, sequence, operation),
            FromClient::Fetch(fetch) => self.fetch(name, sequence, &fetch),
            FromClient::Leave(leave) => self.leave(name, sequence, &leave),
            FromClient::Typing(_) | FromClient::Presence(_) | FromClient::Padding => {}
        }
    }

    fn join(&mut self, name: &str, (channel, sequence): (u32, u32), join: &Join) {
        let channels = &mut self.devices.get_mut(name).unwrap().channels;
        let wanted = (join.group, join.handle);
        let is_other = |at: &u32, bound: &(GroupId, Handle)| {
            let is_near = *at == channel || bound.0 == join.group;
            is_near && (*at != channel || *bound != wanted)
        };
        if channels.iter().any(|(at, bound)| is_other(at, bound)) {
            return self.refuse(name, sequence, Problem::new(Title::Conflict, ""));
        }
        channels.insert(channel, wanted);
        self.answer(name, &AckDown::done(sequence));
    }

    fn leave(&mut self, name: &str, sequence: u32, leave: &Leave) {
        let device = self.devices.get_mut(name).unwrap();
        if leave.for_good && std::mem::take(&mut device.refuses_leave) {
            return self.refuse(name, sequence, Problem::new(Title::StorageFailure, ""));
        }
        device
            .channels
            .retain(|_, (group, _)| *group != leave.group);
        device.leaves += usize::from(leave.for_good);
        if leave.for_good
            && let Some(group) = self.groups.get_mut(&leave.group)
        {
            let is_own = |entry: &&FanoutEntry| self.refs[&entry.sealed_ref] == name;
            let gone: Vec<_> = group
                .list
                .iter()
                .filter(is_own)
                .map(|one| one.handle)
                .collect();
            group.list.retain(|entry| !gone.contains(&entry.handle));
            group.gone.extend(gone);
        }
        self.answer(name, &AckDown::done(sequence));
    }

    fn acknowledge(&mut self, name: &str, through: u32) {
        let device = self.devices.get_mut(name).unwrap();
        assert!(
            through <= device.sequence,
            "{name} acknowledges what it never got"
        );
        if device.ignore_acks {
            return;
        }
        while device.acknowledged < through {
            device.queue.pop_front().unwrap();
            device.sent -= 1;
            device.acknowledged += 1;
        }
    }

    fn message(&mut self, name: &str, (channel, sequence): (u32, u32), msg: &Msg) {
        let device = self.devices.get_mut(name).unwrap();
        device.messages.push(msg.payload().clone());
        let Some((group, handle)) = device.channels.get(&channel).copied() else {
            return self.refuse(name, sequence, Problem::new(Title::NotJoined, ""));
        };
        let mut list = self.groups[&group].list.iter();
        if !list.any(|one| one.handle == handle) {
            device.channels.remove(&channel);
            return self.refuse(name, sequence, Problem::new(Title::NotFound, ""));
        }
        if let Some(problem) = device.refuse.take() {
            device.channels.remove(&channel);
            return self.refuse(name, sequence, problem);
        }
        let dropped = std::mem::take(&mut device.drop_next);
        let damaged = std::mem::take(&mut device.damage_next);
        let is_ahead = std::mem::take(&mut device.advance_next);
        let hub = &self.groups[&group];
        if hub.head > msg.position() + 2 {
            self.devices
                .get_mut(name)
                .unwrap()
                .channels
                .remove(&channel);
            return self.refuse(name, sequence, Problem::new(Title::EpochOld, ""));
        }
        let mut payload = [group.as_bytes().as_slice(), msg.payload()].concat();
        if damaged {
            *payload.last_mut().unwrap() ^= 1;
        }
        if is_ahead {
            // MLS has the group's id, and then the epoch, in eight bytes.
            let mut ids = payload.windows(32).enumerate().skip(32);
            let (at, _) = ids.find(|(_, bytes)| bytes == group.as_bytes()).unwrap();
            payload[at + 32 + 6] ^= 1;
        }
        let payload = Bytes::from(payload);
        if !dropped {
            self.fan_out(&group, Some(name), FrameType::Msg, &payload);
        }
        let device = self.devices.get_mut(name).unwrap();
        device.last = Some((group, msg.payload().clone()));
        if std::mem::take(&mut device.holds_custody) {
            device.untold = Some(sequence);
            return;
        }
        self.custody(name, sequence);
    }

    fn custody(&mut self, name: &str, sequence: u32) {
        let run = CustodyRun {
            first: sequence,
            count: 1,
            status: CustodyStatus::Stored,
        };
        self.answer(
            name,
            &AckDown {
                custody: vec![run],
                ..AckDown::default()
            },
        );
    }

    fn fan_out(&mut self, group: &GroupId, but: Option<&str>, kind: FrameType, payload: &Bytes) {
        let names: Vec<_> = self.groups[group]
            .list
            .iter()
            .map(|entry| self.refs[&entry.sealed_ref].clone())
            .collect();
        for name in names {
            if Some(name.as_str()) != but
                && let Some(device) = self.devices.get_mut(&name)
            {
                let entry = (kind, payload.clone());
                // A repeat joins the entry that is held.
                if !device.queue.contains(&entry) {
                    device.queue.push_back(entry);
                }
            }
        }
    }

    fn welcome(&mut self, bundle: &Bundle, entry: &LogEntry) {
        for welcome in &bundle.welcomes {
            for handle in &welcome.handles {
                let place = bundle
                    .change
                    .add
                    .iter()
                    .find(|one| one.handle == *handle)
                    .unwrap();
                let invite = GroupInvite {
                    group: bundle.group,
                    hub: domain(),
                    position: entry.position,
                    handle: *handle,
                    sealed_ref: place.sealed_ref,
                    welcome: welcome.welcome.clone(),
                    message: entry.message,
                };
                let to = self.refs[&place.sealed_ref].clone();
                if let Some(device) = self.devices.get_mut(&to) {
                    device
                        .queue
                        .push_back((FrameType::GroupInvite, invite.encode().into()));
                }
            }
        }
    }

    fn commit(&mut self, name: &str, sequence: u32, signed: &Signed) {
        let bundle = Bundle::decode(&signed.body).unwrap();
        let entry = bundle.entry(&signed.body).unwrap();
        let group = self.groups.get_mut(&bundle.group).unwrap();
        let at = usize::try_from(bundle.expect).unwrap();
        if group.log.get(at) == Some(&entry) {
            let result = KeyUpdateResult {
                position: entry.position,
                refused: Vec::new(),
            };
            return self.answer(name, &AckDown::with_result(sequence, &result));
        }
        if group.head != bundle.expect {
            let mut problem = Problem::new(Title::Conflict, "");
            problem.extra.head = Some(group.head);
            let kept = usize::try_from(group.first_kept.max(1)).unwrap() - 1;
            let missing = group.log.get(at.max(kept)..);
            problem.extra.missing = missing.unwrap_or_default().to_vec();
            problem.extra.more = kept > at;
            return self.refuse(name, sequence, problem);
        }
        let author = group
            .list
            .iter()
            .find(|one| one.handle == bundle.author)
            .unwrap();
        assert!(
            author.admin || !bundle.change.needs_admin(),
            "{name} may not do that"
        );
        let is_known = |handle: &Handle| {
            group.gone.contains(handle) || group.list.iter().any(|one| one.handle == *handle)
        };
        assert!(
            bundle.change.remove.iter().all(is_known),
            "{name} removes who was never there"
        );
        group.gone.extend(&bundle.change.remove);
        group.head += 1;
        group.log.push(entry.clone());
        group
            .infos
            .push((entry.position, bundle.sealed_group_info.clone()));
        group.list.extend(bundle.change.add.clone());
        self.welcome(&bundle, &entry);
        let payload = Bytes::from(entry.encode());
        self.fan_out(&bundle.group, Some(name), FrameType::KeyUpdate, &payload);
        let group = self.groups.get_mut(&bundle.group).unwrap();
        group
            .list
            .retain(|one| !bundle.change.remove.contains(&one.handle));
        for change in &bundle.change.admins {
            for one in group
                .list
                .iter_mut()
                .filter(|one| one.handle == change.handle)
            {
                one.admin = change.admin;
            }
        }
        let result = KeyUpdateResult {
            position: entry.position,
            refused: Vec::new(),
        };
        self.answer(name, &AckDown::with_result(sequence, &result));
    }

    fn reference(&mut self, name: &str) -> SealedRef {
        let sealed_ref = SealedRef::new(random_bytes());
        self.refs.insert(sealed_ref, name.to_owned());
        sealed_ref
    }

    fn packages(&mut self, name: &str, sequence: u32, operation: KeyPackage) {
        let device = self.devices.get_mut(name).unwrap();
        let answer = match operation {
            KeyPackage::Publish { packages } => {
                for one in packages {
                    if one.last_resort {
                        device.last_resort = Some(one.package);
                    } else {
                        device.packages.push(one.package);
                    }
                }
                AckDown::done(sequence)
            }
            KeyPackage::Count => {
                let single_use = device.packages.len() as u64;
                let last_resort = u64::from(device.last_resort.is_some());
                AckDown::with_result(
                    sequence,
                    &PackageCount {
                        single_use,
                        last_resort,
                    },
                )
            }
            KeyPackage::Claim(claim) => {
                let known = self.claims.get(&claim.id).cloned();
                let hidden = || self.hide_packages.then(|| ClaimResult(Vec::new()));
                let result = known
                    .or_else(hidden)
                    .unwrap_or_else(|| self.claim(name, &claim.account));
                self.claims.insert(claim.id, result.clone());
                AckDown::with_result(sequence, &result)
            }
            KeyPackage::Capabilities { .. } => AckDown::done(sequence),
            KeyPackage::OwnReference { .. } => {
                AckDown::with_result(sequence, &self.reference(name))
            }
        };
        self.answer(name, &answer);
    }

    fn claim(&mut self, claimer: &str, account: &AccountId) -> ClaimResult {
        let list = List::verify(&self.lists[account]).unwrap();
        let mut out = Vec::new();
        for certificate in list.certificates() {
            let found = self
                .devices
                .iter()
                .find(|(_, device)| device.core.account.device == *certificate.device());
            let Some(name) = found
                .map(|(name, _)| name.clone())
                .filter(|name| name != claimer)
            else {
                continue;
            };
            let device = self.devices.get_mut(&name).unwrap();
            let package = device.packages.pop().or_else(|| device.last_resort.clone());
            let Some(package) = package else { continue };
            let sealed_ref = self.reference(&name);
            let device = certificate.device().clone();
            out.push(ClaimedPackage {
                device,
                package,
                sealed_ref,
                last_resort: false,
            });
        }
        ClaimResult(out)
    }

    fn directory(&mut self, name: &str, sequence: u32, operation: Directory) {
        if let Directory::Get { account, .. } = &operation {
            let device = self.devices.get_mut(name).unwrap();
            device.lists.push(account.clone());
        }
        match operation {
            Directory::Put { list } => {
                let verified = List::verify(&list).unwrap();
                let gone: Vec<_> = self
                    .devices
                    .iter()
                    .filter(|(_, device)| device.core.account.key == Some(*verified.account()))
                    .filter(|(_, one)| verified.certificate(&one.core.account.device).is_none())
                    .map(|(name, _)| name.clone())
                    .collect();
                self.lists.insert(verified.account_id(), list);
                for name in gone {
                    self.disconnect(&name);
                    self.devices.get_mut(&name).unwrap().queue.clear();
                }
                self.answer(name, &AckDown::done(sequence));
            }
            Directory::Get { account, .. } if self.hide_lists => {
                drop(account);
                self.refuse(name, sequence, Problem::new(Title::NotFound, ""));
            }
            Directory::Get { account, .. } => {
                let list = self.lists[&account].clone();
                let result = DirectoryResult {
                    list,
                    ledger_proof: None,
                };
                self.answer(name, &AckDown::with_result(sequence, &result));
            }
        }
    }

    fn fetch(&mut self, name: &str, sequence: u32, fetch: &Fetch) {
        let group = &self.groups[&fetch.group];
        let FetchAccess::Member { handle, .. } = &fetch.access else {
            panic!("{name} is no joiner");
        };
        let is_known = group.list.iter().any(|entry| entry.handle == *handle);
        if !is_known || self.knows_nobody {
            return self.refuse(name, sequence, Problem::new(Title::NotFound, ""));
        }
        let mut result = FetchResult {
            head: group.head,
            first_kept: group.first_kept.max(1),
            ..FetchResult::default()
        };
        if fetch.want.entries {
            let from = fetch.from.max(group.first_kept).max(1);
            let from = usize::try_from(from).unwrap() - 1;
            result.entries = group.log.get(from..).unwrap_or_default().to_vec();
        }
        if fetch.want.list {
            result.fanout = Some(group.list.clone());
        }
        let other = self.misleads.iter().filter(|one| one.group != fetch.group);
        result.entries.extend(other.cloned());
        if fetch.want.group_info && !self.hide_infos {
            let infos = group.infos.iter().rev().take(16);
            let kept = infos.map(|(position, sealed)| KeptGroupInfo {
                position: *position,
                sealed: sealed.clone(),
            });
            result.group_infos = kept.collect();
        }
        self.answer(name, &AckDown::with_result(sequence, &result));
    }
}
