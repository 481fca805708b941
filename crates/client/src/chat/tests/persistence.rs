//! Disks: what is not committed never was.

use super::*;

#[test]
fn everything_works_when_each_device_restarts_between_all_steps() {
    let mut world = World::new(Suite::Hybrid, 3);
    let group = world.group;
    let restart = |world: &mut World| world.devices.iter_mut().for_each(Device::reload);

    restart(&mut world);
    world.devices[1].want(&group, Intent::Update);
    restart(&mut world);
    let submission = world.devices[1].submission(&group);
    restart(&mut world);
    let position = world.hub.submit(&submission).unwrap();
    world.devices[1].chat.accepted(&group, position).unwrap();
    world.devices[1].commit();
    restart(&mut world);
    world.settle();
    restart(&mut world);
    let (_, sealed) = world.devices[1].text(&group, "after all this");
    restart(&mut world);

    for index in [0, 2] {
        assert_eq!(
            world.devices[index].reads(&group, &sealed).as_deref(),
            Some("after all this")
        );
    }
    world.assert_agreement();
    let account = world.devices[2].account;
    world.change(0, Intent::RemoveAccount(account));
    restart(&mut world);
    assert_eq!(world.view(2).membership, Membership::Removed);
    world.assert_agreement();
}

#[test]
fn a_rollback_undoes_sealing_opening_and_merging() {
    let mut world = World::new(Suite::Classical, 2);
    let group = world.group;
    let (_, sealed) = world.devices[0].text(&group, "first");
    world.devices[0].want(&group, Intent::Update);
    world.submit(0).unwrap();
    let entry = world.hub.log.last().unwrap().clone();
    let chat = &mut world.devices[1].chat;

    for _ in 0..3 {
        let content = chat
            .compose(&group, Body::Text("lost".to_owned()), NOW, None)
            .unwrap();
        assert_eq!(content.counter, 1);
        chat.seal(&group, &MessageId::new([1; 16]), &content)
            .unwrap();
        assert!(matches!(
            chat.open(&group, &sealed.msg).unwrap(),
            Received::Opened(_)
        ));
        assert!(matches!(chat.apply(&entry).unwrap(), Applied::Advanced(_)));
        chat.rollback();
        assert_eq!(chat.changes(), []);
    }

    world.settle();
    world.assert_agreement();
    assert_eq!(
        world.devices[1].reads(&group, &sealed).as_deref(),
        Some("first")
    );
    world.assert_reachable(1);
}

#[test]
fn a_failed_operation_leaves_no_change() {
    let mut world = World::new(Suite::Classical, 3);
    let group = world.group;
    let account = world.devices[2].account;
    let chat = &mut world.devices[1].chat;
    chat.intend(&group, Intent::RemoveAccount(account), NOW)
        .unwrap();

    assert!(matches!(
        chat.propose(&group).unwrap(),
        Proposal::Dropped(..)
    ));

    assert_eq!(chat.changes(), [], "the intent came and went");
}

#[test]
fn sealing_in_a_large_group_rewrites_few_rows() {
    let mut world = World::new(Suite::Hybrid, 30);
    let group = world.group;
    for index in 1..4 {
        world.change(index, Intent::Update);
    }
    let chat = &mut world.devices[0].chat;
    let content = chat
        .compose(&group, Body::Text("hi".to_owned()), NOW, None)
        .unwrap();
    chat.seal(&group, &MessageId::new([1; 16]), &content)
        .unwrap();

    let bytes: usize = chat
        .changes()
        .iter()
        .filter_map(|change| change.value.as_ref())
        .map(|v| v.len())
        .sum();

    assert!(bytes < 24 * 1024, "{bytes} bytes for one message");
}

#[test]
fn missing_rows_are_noticed() {
    let world = World::new(Suite::Hybrid, 2);
    let device = &world.devices[0];
    let mut rows: Vec<_> = device.disk.clone().into_iter().collect();
    let first_of_many = rows
        .iter()
        .position(|(key, _)| {
            key.ends_with(&[0, 0, 0, 0]) && {
                let mut second = key.clone();
                *second.last_mut().unwrap() = 1;
                device.disk.contains_key(&second)
            }
        })
        .unwrap();
    rows.remove(first_of_many);

    assert_eq!(
        Chat::load(device.identity(), rows).err(),
        Some(StoreError::Incomplete)
    );
}

#[test]
fn a_last_resort_package_serves_more_than_one_group() {
    let mut guest = Device::new(9, 1);
    let package = guest
        .chat
        .key_packages(Suite::Classical, Use::LastResort, 1, NOW)
        .unwrap()
        .remove(0);
    guest.commit();
    let claimed = Claimed {
        account: guest.account,
        device: guest.id.clone(),
        domain: domain(),
        package: package.bytes,
        sealed_ref: reference(&guest.id),
    };
    let mut worlds = [
        World::new(Suite::Classical, 1),
        World::new(Suite::Classical, 1),
    ];
    for world in &mut worlds {
        world.change(0, Intent::Add(vec![claimed.clone()]));
        world.devices.push(guest);
        world.settle();
        world.assert_agreement();
        world.assert_reachable(1);
        guest = world.devices.pop().unwrap();
    }

    assert_eq!(guest.chat.groups().unwrap().len(), 2);
    assert_eq!(
        guest
            .chat
            .forget_packages(NOW.saturating_add(std::time::Duration::from_secs(1)))
            .unwrap(),
        1
    );
}

#[test]
fn a_forgotten_group_leaves_no_rows() {
    let mut world = World::new(Suite::Hybrid, 2);
    let group = world.group;
    let device = &mut world.devices[0];

    device.chat.forget(&group).unwrap();
    device.commit();

    assert!(device.disk.is_empty(), "{} rows", device.disk.len());
}

#[test]
fn a_renewed_certificate_reaches_the_group_with_the_next_update() {
    let mut world = World::new(Suite::Classical, 2);
    let stranger = Device::new(9, 1);
    let refused = world.devices[0].chat.renew(stranger.identity());
    assert!(matches!(refused, Err(ChatError::Identity(_))));

    let renewed = (world.devices[0].certify)(Timestamp::from_millis(1_900_000_000_000));
    world.devices[0].chat.renew(renewed).unwrap();
    world.change(0, Intent::Update);

    world.assert_agreement();
    world.assert_reachable(0);
}
