//! Groups of many devices around a hub, all in memory.

mod commits;
mod external;
mod forks;
mod hostile;
mod hub;
mod intruders;
mod messages;
mod persistence;
mod random;
mod sizes;

use std::collections::BTreeMap;

use bytes::Bytes;
use commucat_crypto::certificate::{AccountSecret, DeviceKeys, Validity};
use commucat_crypto::secret::Secret;
use commucat_proto::id::{AccountKey, DeviceId, Domain, GroupId, MessageId, NoiseKey, SealedRef};
use commucat_proto::time::Timestamp;
use commucat_proto::wire::Cbor as _;

use self::hub::Hub;
use super::*;

const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);
const TOMORROW: Timestamp = Timestamp::from_millis(1_800_086_400_000);

fn domain() -> Domain {
    Domain::parse("example.org").unwrap()
}

/// A device with its disk.
struct Device {
    account: AccountKey,
    id: DeviceId,
    chat: Chat,
    disk: BTreeMap<Vec<u8>, Secret32>,
    /// The device's identity until a certain time.
    certify: Box<dyn Fn(Timestamp) -> Identity>,
}

type Secret32 = store::Secret;

impl Device {
    /// Device `number` of the account that grows out of `account`.
    fn new(account: u8, number: u8) -> Self {
        let seed = [[account; 16], [number; 16]].concat();
        let owner = AccountSecret::from_seed(&Secret::new([account; 32]));
        let noise_key = NoiseKey::new(*blake3::hash(&seed).as_bytes());
        let mls_seed = Secret::<32>::from_slice(&seed).unwrap();
        let keys = DeviceKeys {
            device: DeviceId::of_key(&noise_key),
            noise_key,
            mls_key: Bytes::copy_from_slice(&keys::public(&mls_seed)),
        };
        let (account, id) = (owner.key(), keys.device.clone());
        let certify = move |not_after| {
            let validity = Validity {
                not_before: Timestamp::ZERO,
                not_after,
            };
            let certificate = owner.certify(&keys, validity).encode();
            Identity::new(certificate.into(), &mls_seed).unwrap()
        };
        let chat = Chat::load(certify(TOMORROW), []).unwrap();
        Self {
            account,
            id,
            chat,
            disk: BTreeMap::new(),
            certify: Box::new(certify),
        }
    }

    fn identity(&self) -> Identity {
        (self.certify)(TOMORROW)
    }

    /// Writes what changed.
    fn commit(&mut self) {
        for change in self.chat.changes() {
            match change.value {
                Some(value) => self.disk.insert(change.key, value),
                None => self.disk.remove(&change.key),
            };
        }
        self.chat.committed();
        assert_eq!(self.chat.changes(), []);
    }

    /// Starts again from the disk, as after a crash.
    fn reload(&mut self) {
        let rows: Vec<_> = self.disk.clone().into_iter().collect();
        self.chat = Chat::load(self.identity(), rows).unwrap();
    }

    fn claimed(&mut self, suite: Suite) -> Claimed {
        let package = self
            .chat
            .key_packages(suite, Use::Single, 1, NOW)
            .unwrap()
            .remove(0);
        self.commit();
        Claimed {
            account: self.account,
            device: self.id.clone(),
            domain: domain(),
            package: package.bytes,
            sealed_ref: reference(&self.id),
        }
    }

    fn want(&mut self, group: &GroupId, intent: Intent) {
        self.chat.intend(group, intent, NOW).unwrap();
        self.commit();
    }

    fn submission(&mut self, group: &GroupId) -> Submission {
        let proposal = self.chat.propose(group).unwrap();
        self.commit();
        let Proposal::Send(submission) = proposal else {
            panic!("nothing to send: {proposal:?}")
        };
        submission
    }

    fn text(&mut self, group: &GroupId, text: &str) -> (MessageId, Sealed) {
        let id = MessageId::new(commucat_crypto::secret::random_bytes());
        let content = self
            .chat
            .compose(group, Body::Text(text.to_owned()), NOW, None)
            .unwrap();
        let sealed = self.chat.seal(group, &id, &content).unwrap();
        self.commit();
        (id, sealed)
    }

    fn open(&mut self, group: &GroupId, sealed: &Sealed) -> Received {
        let received = self.chat.open(group, &sealed.msg).unwrap();
        self.commit();
        received
    }

    fn reads(&mut self, group: &GroupId, sealed: &Sealed) -> Option<String> {
        let Received::Opened(opened) = self.open(group, sealed) else {
            return None;
        };
        let Body::Text(text) = opened.content.body else {
            return None;
        };
        Some(text)
    }
}

fn reference(device: &DeviceId) -> SealedRef {
    let mut bytes = [0; 65];
    let hash = blake3::hash(device.as_str().as_bytes());
    bytes[..32].copy_from_slice(hash.as_bytes());
    SealedRef::new(bytes)
}

/// A group: its hub and its devices, the first of which made it.
struct World {
    group: GroupId,
    hub: Hub,
    devices: Vec<Device>,
}

impl World {
    /// `accounts` accounts with one device each; all but the first are plain members.
    fn new(suite: Suite, accounts: u8) -> Self {
        let devices: Vec<_> = (1..=accounts)
            .map(|account| Device::new(account, 1))
            .collect();
        let owners = [devices[0].account].into();
        Self::with(
            suite,
            devices,
            Roles {
                owners,
                ..Roles::default()
            },
        )
    }

    fn with(suite: Suite, devices: Vec<Device>, roles: Roles) -> Self {
        let group = GroupId::new(commucat_crypto::secret::random_bytes());
        let mut world = Self {
            group,
            hub: Hub::default(),
            devices,
        };
        let sealed_ref = reference(&world.devices[0].id);
        let new = NewGroup {
            group,
            hub: domain(),
            sealed_ref,
            suite,
            roles,
        };
        let created = world.devices[0].chat.create(new).unwrap();
        world.devices[0].commit();
        world.hub.create(created);
        let others: Vec<usize> = (1..world.devices.len()).collect();
        for chunk in others.chunks(50) {
            world.add(0, chunk);
        }
        world
    }

    /// `by` adds devices, and everybody handles it.
    fn add(&mut self, by: usize, added: &[usize]) {
        let suite = self.devices[by].chat.suite(&self.group).unwrap();
        let claimed = added
            .iter()
            .map(|index| self.devices[*index].claimed(suite))
            .collect();
        self.change(by, Intent::Add(claimed));
    }

    /// `by` changes the group without rivals, and everybody handles it.
    fn change(&mut self, by: usize, intent: Intent) {
        self.devices[by].want(&self.group, intent);
        self.submit(by).expect("no rival");
        self.settle();
    }

    /// Sends what `by` has pending. `Err` is a lost race.
    fn submit(&mut self, by: usize) -> Result<u64, hub::Refused> {
        let submission = self.devices[by].submission(&self.group);
        let position = self.hub.submit(&submission)?;
        let applied = self.devices[by]
            .chat
            .accepted(&self.group, position)
            .unwrap();
        self.devices[by].commit();
        assert!(matches!(applied, Applied::Advanced(_)), "{applied:?}");
        Ok(position)
    }

    /// Everybody handles everything that the hub has for them.
    fn settle(&mut self) {
        for index in 0..self.devices.len() {
            self.catch_up(index);
        }
    }

    fn catch_up(&mut self, index: usize) -> Vec<Applied> {
        let device = &mut self.devices[index];
        for invite in self.hub.invites_for(&reference(&device.id)) {
            let mut joined = device.chat.join(&invite, &[]).unwrap();
            if joined == Joined::NeedsGroupInfo {
                joined = device.chat.join(&invite, &self.hub.infos).unwrap();
            }
            assert_ne!(joined, Joined::NeedsGroupInfo);
            device.commit();
        }
        let Ok(view) = device.chat.group(&self.group) else {
            return Vec::new();
        };
        if view.membership != Membership::Member {
            return Vec::new();
        }
        let entries = self.hub.entries_from(view.position + 1);
        let applied = entries
            .iter()
            .map(|entry| device.chat.apply(entry).unwrap())
            .collect();
        device.commit();
        applied
    }

    fn view(&mut self, index: usize) -> Group {
        self.devices[index].chat.group(&self.group).unwrap()
    }

    /// All members agree on everything that they can compare.
    fn assert_agreement(&mut self) {
        let mut first: Option<(Group, [u8; 16])> = None;
        for device in &mut self.devices {
            let Ok(view) = device.chat.group(&self.group) else {
                continue;
            };
            if view.membership != Membership::Member {
                continue;
            }
            let tag = device.chat.fork_tag(&self.group).unwrap();
            let (one, expected) = first.get_or_insert_with(|| (view.clone(), tag));
            assert_eq!(view.position, one.position);
            assert_eq!(view.epoch, one.epoch);
            assert_eq!(view.members, one.members);
            assert_eq!(view.roles, one.roles);
            assert_eq!(tag, *expected, "divergent epochs");
        }
        if let Some((view, _)) = first {
            self.hub.assert_list(&view);
        }
    }

    /// Everybody in the group reads what `by` writes.
    fn assert_reachable(&mut self, by: usize) {
        let (_, sealed) = self.devices[by].text(&self.group, "everybody?");
        for index in 0..self.devices.len() {
            let member = self.devices[index]
                .chat
                .group(&self.group)
                .is_ok_and(|view| view.membership == Membership::Member);
            let read = self.devices[index].reads(&self.group, &sealed);
            let expected = (member && index != by).then(|| "everybody?".to_owned());
            assert_eq!(read, expected, "device {index}");
        }
    }
}
