//! Devices that went another way than the others, and members who only say so.

use commucat_proto::frame::key_update::LogEntry;

use super::*;

fn compare(world: &mut World, index: usize) -> Agreement {
    let group = world.group;
    let infos = world.hub.infos.clone();
    world.devices[index].chat.compare(&group, &infos).unwrap()
}

fn rejoin(world: &mut World, index: usize) {
    let group = world.group;
    let (head, infos) = (world.hub.head(), world.hub.infos.clone());
    let submission = world.devices[index]
        .chat
        .rejoin(&group, head, &infos, &world.hub.log)
        .unwrap();
    let position = world.hub.submit(&submission).unwrap();
    world.devices[index]
        .chat
        .accepted(&group, position)
        .unwrap();
    world.devices[index].commit();
    world.settle();
}

/// Device 3 is shown another commit than everybody else.
fn split(world: &mut World) {
    let group = world.group;
    for index in [1, 2] {
        world.devices[index].want(&group, Intent::Update);
    }
    let decoy = world.devices[2].submission(&group);
    let (log, infos) = (world.hub.log.clone(), world.hub.infos.clone());
    world.hub.submit(&decoy).unwrap();
    world.catch_up(3);
    (world.hub.log, world.hub.infos) = (log, infos);
    world.submit(1).unwrap();
    for index in 0..3 {
        world.catch_up(index);
    }
    world.devices[2].chat.withdraw(&group).unwrap();
    world.devices[2].commit();
}

#[test]
fn a_device_in_step_agrees_also_after_rubbish() {
    let mut world = World::new(Suite::Classical, 3);
    assert_eq!(compare(&mut world, 1), Agreement::Same);

    let position = world.hub.head() + 1;
    let last = world.hub.log.last().unwrap().clone();
    let author = world.view(2).handle;
    world.hub.log.push(LogEntry {
        position,
        author,
        ..last
    });
    world
        .hub
        .infos
        .push((position, Bytes::from_static(b"rubbish")));
    world.catch_up(1);

    assert_eq!(compare(&mut world, 1), Agreement::Same);
}

#[test]
fn a_device_that_is_behind_catches_up_first() {
    let mut world = World::new(Suite::Classical, 3);
    let group = world.group;
    world.devices[0].want(&group, Intent::Update);
    world.submit(0).unwrap();

    assert_eq!(compare(&mut world, 1), Agreement::Unknown);
    assert_eq!(
        world.devices[1].chat.compare(&group, &[]).unwrap(),
        Agreement::Unknown
    );
    world.catch_up(1);
    assert_eq!(compare(&mut world, 1), Agreement::Same);
}

#[test]
fn a_device_restored_from_a_copy_finds_its_own_commit_and_rejoins() {
    let mut world = World::new(Suite::Classical, 4);
    let copy = world.devices[3].disk.clone();
    world.change(3, Intent::Update);
    world.change(1, Intent::Update);
    world.devices[3].disk = copy;
    world.devices[3].reload();

    let applied = world.catch_up(3);

    assert_eq!(applied[0], Applied::Skipped(Invalid::NotOurs));
    assert_eq!(compare(&mut world, 3), Agreement::Different);
    rejoin(&mut world, 3);
    world.assert_agreement();
    world.assert_reachable(3);
}

#[test]
fn a_device_on_another_branch_follows_two_accounts_but_not_one() {
    let mut world = World::new(Suite::Classical, 4);
    split(&mut world);

    world.change(1, Intent::Update);
    assert_eq!(compare(&mut world, 3), Agreement::Unknown);
    world.change(1, Intent::Update);
    assert_eq!(compare(&mut world, 3), Agreement::Unknown);
    world.change(0, Intent::Update);
    assert_eq!(compare(&mut world, 3), Agreement::Different);

    rejoin(&mut world, 3);
    world.assert_agreement();
    world.assert_reachable(3);
    assert_eq!(compare(&mut world, 3), Agreement::Same);
}

#[test]
fn one_member_cannot_pull_others_into_its_own_group() {
    let mut world = World::new(Suite::Classical, 4);
    split(&mut world);
    let group = world.group;
    // Device 3, alone on its branch, commits there and publishes its GroupInfo, again and again.
    for _ in 0..3 {
        world.devices[3].chat.rollback();
        world.devices[3].want(&group, Intent::Update);
        let submission = world.devices[3].submission(&group);
        let position = world.hub.submit(&submission).unwrap();
        world.devices[3].chat.accepted(&group, position).unwrap();
        world.devices[3].commit();
        for index in 0..3 {
            let applied = world.catch_up(index);
            assert!(matches!(applied[..], [Applied::Skipped(_)]), "{applied:?}");
            assert_ne!(compare(&mut world, index), Agreement::Different);
        }
    }

    // Who rejoins all the same comes back to the others.
    rejoin(&mut world, 2);
    let tags: Vec<_> = (0..3)
        .map(|index| world.devices[index].chat.fork_tag(&group).unwrap())
        .collect();
    assert_eq!(tags[0], tags[1]);
    assert_eq!(tags[0], tags[2]);
}
