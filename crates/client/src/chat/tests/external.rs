//! External commits: rejoining, joining by link, split groups.

use commucat_proto::frame::fanout::Change;
use commucat_proto::frame::key_update::LogEntry;
use commucat_proto::id::{GroupKey, JoinKey, JoinSeed};
use commucat_proto::link::JoinLink;

use super::*;

fn link(world: &mut World) -> JoinLink {
    let view = world.view(0);
    let seed = view.join_seed.expect("the owner made the join key");
    JoinLink {
        group: world.group,
        hub: domain(),
        seed: JoinSeed::new(*seed.expose()),
        group_key: GroupKey::new(*view.group_key.unwrap().expose()),
    }
}

fn own(device: &Device) -> (Domain, SealedRef) {
    (domain(), reference(&device.id))
}

fn open_world(accounts: u8) -> World {
    let devices: Vec<_> = (1..=accounts)
        .map(|account| Device::new(account, 1))
        .collect();
    let owners = [devices[0].account].into();
    let roles = Roles {
        owners,
        join_allowed: true,
        ..Roles::default()
    };
    World::with(Suite::Hybrid, devices, roles)
}

#[test]
fn a_device_rejoins_after_it_lost_track() {
    let mut world = World::new(Suite::Hybrid, 4);
    let group = world.group;
    for _ in 0..6 {
        world.devices[0].want(&group, Intent::Update);
        world.submit(0).unwrap();
    }
    let counter = world.devices[3].text(&group, "before").1;
    let (head, infos) = (world.hub.head(), world.hub.infos.clone());

    let submission = world.devices[3]
        .chat
        .rejoin(&group, head, &infos, &[])
        .unwrap();
    world.devices[3].commit();
    world.devices[3].reload();
    let position = world.hub.submit(&submission).unwrap();
    world.devices[3].chat.accepted(&group, position).unwrap();
    world.devices[3].commit();
    world.settle();

    world.assert_agreement();
    world.assert_reachable(3);
    assert_eq!(world.view(0).members.len(), 4);
    let content = world.devices[3]
        .chat
        .compose(&group, Body::Text("x".to_owned()), NOW, None)
        .unwrap();
    assert_eq!(content.counter, 3, "counters go on");
    assert_ne!(world.devices[1].open(&group, &counter), Received::Later);
}

#[test]
fn a_rejoin_that_lost_the_race_is_built_again() {
    let mut world = World::new(Suite::Classical, 3);
    let group = world.group;
    let (head, infos) = (world.hub.head(), world.hub.infos.clone());
    let late = world.devices[2]
        .chat
        .rejoin(&group, head, &infos, &[])
        .unwrap();
    world.devices[2].commit();
    world.devices[0].want(&group, Intent::Update);
    world.submit(0).unwrap();

    assert_eq!(world.hub.submit(&late), Err(hub::Refused::Conflict));
    world.settle();
    assert_eq!(world.view(2).pending, None);
    world.assert_agreement();
    let (head, infos) = (world.hub.head(), world.hub.infos.clone());
    let again = world.devices[2]
        .chat
        .rejoin(&group, head, &infos, &[])
        .unwrap();
    let position = world.hub.submit(&again).unwrap();
    world.devices[2].chat.accepted(&group, position).unwrap();
    world.devices[2].commit();
    world.settle();

    world.assert_agreement();
    world.assert_reachable(2);
}

#[test]
fn somebody_joins_by_link() {
    let mut world = open_world(3);
    let mut newcomer = Device::new(9, 1);
    let link = link(&mut world);
    let group = world.group;
    let (head, infos) = (world.hub.head(), world.hub.infos.clone());

    let submission = newcomer
        .chat
        .join_by_link(&link, own(&newcomer), head, &infos)
        .unwrap();
    newcomer.commit();
    newcomer.reload();
    assert_eq!(
        newcomer.chat.group(&group).unwrap().membership,
        Membership::Joining
    );
    let position = world.hub.submit(&submission).unwrap();
    newcomer.chat.accepted(&group, position).unwrap();
    newcomer.commit();
    world.devices.push(newcomer);
    world.settle();

    world.assert_agreement();
    world.assert_reachable(3);
    world.assert_reachable(0);
    world.change(3, Intent::Update);
    world.assert_agreement();
}

#[test]
fn a_link_dies_with_a_removal_and_with_the_join_key() {
    let mut world = open_world(3);
    let group = world.group;
    let mut newcomer = Device::new(9, 1);
    let before_removal = link(&mut world);
    let account = world.devices[2].account;
    world.change(0, Intent::RemoveAccount(account));
    let (head, infos) = (
        world.hub.head(),
        vec![world.hub.infos.last().unwrap().clone()],
    );
    let dead = newcomer
        .chat
        .join_by_link(&before_removal, own(&newcomer), head, &infos);
    assert!(matches!(dead, Err(ChatError::NoGroupInfo)), "{dead:?}");

    let before_change = link(&mut world);
    world.change(0, Intent::AllowJoin);
    let (head, infos) = (world.hub.head(), world.hub.infos.clone());
    let dead = newcomer
        .chat
        .join_by_link(&before_change, own(&newcomer), head, &infos);
    assert!(matches!(dead, Err(ChatError::Forbidden)), "{dead:?}");

    let before_end = link(&mut world);
    world.change(0, Intent::ForbidJoin);
    let (head, infos) = (world.hub.head(), world.hub.infos.clone());
    let dead = newcomer
        .chat
        .join_by_link(&before_end, own(&newcomer), head, &infos);
    assert!(matches!(dead, Err(ChatError::Forbidden)), "{dead:?}");
    assert!(newcomer.chat.group(&group).is_err(), "nothing stays");
    world.assert_agreement();
}

#[test]
fn whoever_is_removed_cannot_use_the_join_key_any_more() {
    let mut world = open_world(3);
    let known = link(&mut world).seed;
    let known = JoinKey::new(keys::public(&Secret::new(*known.as_bytes())));
    assert_eq!(world.hub.join_key, Some(known));

    let account = world.devices[2].account;
    world.change(0, Intent::RemoveAccount(account));

    let fresh = world.hub.join_key.expect("there is one still");
    assert_ne!(fresh, known);
    assert_eq!(
        world.view(0).join_seed.map(|seed| keys::public(&seed)),
        Some(*fresh.as_bytes())
    );
    world.assert_agreement();
    let mut newcomer = Device::new(9, 1);
    let link = link(&mut world);
    let (head, infos) = (world.hub.head(), world.hub.infos.clone());
    newcomer
        .chat
        .join_by_link(&link, own(&newcomer), head, &infos)
        .unwrap();
}

#[test]
fn a_member_that_removes_the_last_admin_replaces_the_join_key_with_its_next_commit() {
    let mut world = open_world(3);
    let known = world.hub.join_key;
    let admin = world.view(0).handle;
    world.hub.gone(&admin);

    world.devices[1].want(&world.group, Intent::Remove(vec![admin]));
    world.submit(1).unwrap();
    let between = world.hub.join_key;
    world.submit(1).unwrap();
    world.settle();

    assert_eq!(between, known);
    assert_ne!(world.hub.join_key, known);
    assert!(world.hub.join_key.is_some());
    world.assert_agreement();
}

#[test]
fn a_device_that_missed_a_removal_does_not_follow_a_group_info_from_before_it() {
    let mut world = World::new(Suite::Classical, 4);
    let group = world.group;
    let account = world.devices[3].account;
    world.devices[0].want(&group, Intent::RemoveAccount(account));
    let removal = world.submit(0).unwrap();
    world.devices[0].want(&group, Intent::Update);
    world.submit(0).unwrap();
    let (head, infos) = (world.hub.head(), world.hub.infos.clone());
    let log = world.hub.log.clone();

    let at = world.devices[2].chat.rejoin_at(&group, &infos).unwrap();
    assert_eq!(at, removal - 1, "the newest that opens");
    for later in [&log[..], &log[log.len() - 1..], &[]] {
        let refused = world.devices[2].chat.rejoin(&group, head, &infos, later);
        assert!(
            matches!(refused, Err(ChatError::NoGroupInfo)),
            "{refused:?}"
        );
    }
}

#[test]
fn a_device_passes_over_rubbish_in_the_place_of_a_group_info() {
    let mut world = World::new(Suite::Classical, 3);
    let group = world.group;
    let position = world.hub.head() + 1;
    let last = world.hub.log.last().unwrap().clone();
    let author = world.view(2).handle;
    world.hub.log.push(LogEntry {
        position,
        author,
        change: Change::default(),
        commit: Bytes::from_static(b"rubbish"),
        ..last
    });
    let rubbish = (position, Bytes::from_static(b"rubbish"));
    world.hub.infos.push(rubbish);
    let (head, infos) = (world.hub.head(), world.hub.infos.clone());

    let log = world.hub.log.clone();
    let submission = world.devices[1]
        .chat
        .rejoin(&group, head, &infos, &log)
        .unwrap();
    let position = world.hub.submit(&submission).unwrap();
    world.devices[1].chat.accepted(&group, position).unwrap();
    world.devices[1].commit();
    world.settle();

    world.assert_agreement();
    world.assert_reachable(1);
}

#[test]
fn members_skip_a_join_that_the_join_key_did_not_sign() {
    let mut world = open_world(2);
    let mut newcomer = Device::new(9, 1);
    let good = link(&mut world);
    let (head, infos) = (world.hub.head(), world.hub.infos.clone());
    let submission = newcomer
        .chat
        .join_by_link(&good, own(&newcomer), head, &infos)
        .unwrap();
    world.hub.submit(&submission).unwrap();
    let entry = world.hub.log.last().unwrap().clone();
    let mine = world.view(1).handle;

    let renamed = LogEntry {
        author: mine,
        ..entry.clone()
    };
    assert_eq!(
        world.devices[0].chat.apply(&renamed).unwrap(),
        Applied::Skipped(Invalid::Terms)
    );
    world.devices[0].chat.rollback();
    let mut promoted = entry.clone();
    promoted.change.add[0].admin = true;
    assert_eq!(
        world.devices[0].chat.apply(&promoted).unwrap(),
        Applied::Skipped(Invalid::Terms)
    );
    world.devices[0].chat.rollback();
    assert!(matches!(
        world.devices[0].chat.apply(&entry).unwrap(),
        Applied::Advanced(_)
    ));
}

#[test]
fn an_admins_other_device_cannot_come_in_by_link() {
    let mut world = open_world(2);
    let mut second = Device::new(1, 2);
    let link = link(&mut world);
    let (head, infos) = (world.hub.head(), world.hub.infos.clone());
    let submission = second
        .chat
        .join_by_link(&link, own(&second), head, &infos)
        .unwrap();
    world.hub.submit(&submission).unwrap();

    let applied = world.catch_up(1);

    assert_eq!(applied, [Applied::Skipped(Invalid::Flags)]);
}
