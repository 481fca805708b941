//! External commits that must not let anybody in, or take anybody's place.

use commucat_proto::frame::bundle::{AuthenticatedData, authenticated_hash};
use commucat_proto::frame::fanout::{Change, FanoutEntry};
use commucat_proto::frame::key_update::LogEntry;
use commucat_proto::id::Handle;

use super::*;
use crate::chat::record::{Doubts, State};

/// A group of an owner and two members that lets people in by link, and somebody outside who
/// knows the group key.
fn open_group() -> World {
    let devices = vec![Device::new(1, 1), Device::new(2, 1), Device::new(3, 1)];
    let owners = [devices[0].account].into();
    let roles = Roles {
        owners,
        join_allowed: true,
        ..Roles::default()
    };
    let mut world = World::with(Suite::Classical, devices, roles);
    world.devices.push(Device::new(9, 1));
    world
}

struct Forgery {
    by: usize,
    handle: Secret<32>,
    change: Change,
    signer: Option<Secret<32>>,
}

impl Forgery {
    /// What somebody outside would send, signed by `signer`.
    fn join(signer: Option<Secret<32>>) -> Self {
        let handle = Secret::random();
        let entry = FanoutEntry {
            handle: Handle::new(keys::public(&handle)),
            domain: domain(),
            sealed_ref: SealedRef::new([9; 65]),
            admin: false,
        };
        Self {
            by: 3,
            handle,
            change: Change {
                add: vec![entry],
                ..Change::default()
            },
            signer,
        }
    }

    /// The hub appends it; all members skip it for `reason` and go on.
    fn fails(self, world: &mut World, reason: Invalid) {
        self.append(world);
        for index in 0..3 {
            let applied = world.catch_up(index);
            assert_eq!(applied, [Applied::Skipped(reason)], "device {index}");
        }
        world.change(1, Intent::Update);
        world.assert_agreement();
        world.assert_reachable(2);
    }

    fn append(self, world: &mut World) {
        let key = world.view(0).group_key.unwrap();
        let (position, sealed) = world.hub.infos.last().unwrap();
        let info = keys::open_group_info(&key, &world.group, *position, sealed).unwrap();
        let author = Handle::new(keys::public(&self.handle));
        let head = world.hub.head();
        let hash = authenticated_hash(&world.group, head, &self.change, &author);
        let join_signature = self
            .signer
            .as_ref()
            .map(|seed| keys::sign_join_entry(seed, &hash));
        let aad = AuthenticatedData {
            hash,
            join_signature,
        }
        .to_bytes();
        let record = record(world.group, self.handle);
        let chat = &world.devices[self.by].chat;
        let (mls, made) = chat
            .commit_external(&Provider::default(), &record, info, aad)
            .unwrap();
        assert!(mls.is_active());
        let commit = keys::seal_external(&key, &world.group, &made.commit);
        world.hub.log.push(LogEntry {
            group: world.group,
            position: head + 1,
            commit: [vec![1], commit].concat().into(),
            change: self.change,
            author,
            message: MessageId::new([0; 16]),
        });
        world.hub.infos.push((
            head + 1,
            keys::seal_group_info(&key, &world.group, head + 1, &made.info),
        ));
    }
}

fn record(group: GroupId, handle: Secret<32>) -> Record {
    Record {
        group,
        hub: domain(),
        handle,
        sealed_ref: SealedRef::new([9; 65]),
        position: 0,
        settled: 0,
        doubts: Doubts::default(),
        counter: 0,
        oldest: 0,
        state: State::Joining,
        join_seed: None,
        intents: Vec::new(),
        pending: None,
    }
}

#[test]
fn the_join_key_opens_the_door() {
    let mut world = open_group();
    let seed = world.view(0).join_seed;

    Forgery::join(seed).append(&mut world);

    for index in 0..3 {
        assert!(matches!(world.catch_up(index)[..], [Applied::Advanced(_)]));
    }
}

#[test]
fn nobody_comes_in_without_the_join_keys_signature() {
    let mut world = open_group();

    Forgery::join(None).fails(&mut world, Invalid::Join);
    Forgery::join(Some(Secret::random())).fails(&mut world, Invalid::Join);
}

#[test]
fn nobody_comes_in_while_joining_is_off_or_by_an_old_key() {
    let mut world = open_group();
    let old = world.view(0).join_seed;
    world.change(0, Intent::AllowJoin);
    Forgery::join(old).fails(&mut world, Invalid::Join);

    let current = world.view(0).join_seed;
    world.change(0, Intent::ForbidJoin);
    Forgery::join(current).fails(&mut world, Invalid::Join);
}

#[test]
fn whoever_comes_in_by_link_brings_one_plain_entry_and_nothing_else() {
    let mut world = open_group();
    let seed = world.view(0).join_seed;
    let other = world.view(2).handle;

    let mut forgery = Forgery::join(seed.clone());
    forgery.change.add[0].admin = true;
    forgery.fails(&mut world, Invalid::Flags);
    let mut forgery = Forgery::join(seed.clone());
    forgery.change.add[0].handle = Handle::new([4; 32]);
    forgery.fails(&mut world, Invalid::Add);
    let mut forgery = Forgery::join(seed.clone());
    forgery.change.remove = vec![other];
    forgery.fails(&mut world, Invalid::Context);
    let mut forgery = Forgery::join(seed);
    forgery.change.close = true;
    forgery.fails(&mut world, Invalid::Context);
}

#[test]
fn a_rejoining_device_keeps_its_handle() {
    let mut world = open_group();
    let forgery = Forgery {
        by: 2,
        handle: Secret::random(),
        change: Change::default(),
        signer: None,
    };

    forgery.fails(&mut world, Invalid::Remove);
}

#[test]
fn a_member_that_joins_again_by_link_is_skipped() {
    let mut world = open_group();
    let seed = world.view(0).join_seed;

    Forgery {
        by: 2,
        ..Forgery::join(seed)
    }
    .fails(&mut world, Invalid::Remove);
}

#[test]
fn an_external_commit_under_another_key_is_skipped() {
    let mut world = open_group();
    let seed = world.view(0).join_seed;
    Forgery::join(seed).append(&mut world);
    let entry = world.hub.log.last_mut().unwrap();
    let mut commit = entry.commit.to_vec();
    *commit.last_mut().unwrap() ^= 1;
    entry.commit = commit.into();

    assert_eq!(world.catch_up(0), [Applied::Skipped(Invalid::Sealed)]);
}
