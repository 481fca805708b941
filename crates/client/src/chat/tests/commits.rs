//! Changing groups: races, intents, roles, and commits that all members skip.

use commucat_proto::frame::key_update::LogEntry;
use commucat_proto::id::Handle;

use super::*;

fn handle_of(world: &mut World, index: usize) -> Handle {
    world.view(index).handle
}

#[test]
fn ten_devices_agree_after_adds_updates_and_removals() {
    let mut world = World::new(Suite::Hybrid, 10);
    world.assert_agreement();

    for index in [3, 7, 0] {
        world.change(index, Intent::Update);
    }
    let account = world.devices[4].account;
    world.change(0, Intent::RemoveAccount(account));

    world.assert_agreement();
    assert_eq!(world.view(0).members.len(), 9);
    assert_eq!(world.view(4).membership, Membership::Removed);
    world.assert_reachable(1);
}

#[test]
fn two_suites_work() {
    for suite in [Suite::Hybrid, Suite::Classical] {
        let mut world = World::new(suite, 2);

        world.assert_agreement();
        world.assert_reachable(0);
        world.assert_reachable(1);
        assert_eq!(world.view(1).suite, suite);
    }
}

#[test]
fn the_loser_of_a_race_builds_its_intent_again() {
    let mut world = World::new(Suite::Classical, 3);
    let newcomer = Device::new(9, 1);
    world.devices.push(newcomer);
    let claimed = world.devices[3].claimed(Suite::Classical);
    let group = world.group;
    world.devices[1].want(&group, Intent::Update);
    world.devices[2].want(&group, Intent::Add(vec![claimed]));
    let loser = world.devices[2].submission(&group);

    world.submit(1).unwrap();
    assert_eq!(world.hub.submit(&loser), Err(hub::Refused::Conflict));
    world.catch_up(2);
    let rebuilt = world.devices[2].submission(&group);
    assert_ne!(rebuilt.update, loser.update);
    world.submit(2).unwrap();
    world.settle();

    world.assert_agreement();
    world.assert_reachable(3);
}

#[test]
fn proposing_again_gives_the_same_bytes_until_the_hub_has_answered() {
    let mut world = World::new(Suite::Classical, 2);
    let group = world.group;
    world.devices[1].want(&group, Intent::Update);

    let first = world.devices[1].submission(&group);
    world.devices[1].reload();
    let second = world.devices[1].submission(&group);

    assert_eq!(first, second);
}

#[test]
fn the_own_commit_is_found_among_the_entries() {
    let mut world = World::new(Suite::Classical, 2);
    let group = world.group;
    world.devices[1].want(&group, Intent::Update);
    let submission = world.devices[1].submission(&group);
    world.hub.submit(&submission).unwrap();
    world.devices[1].reload();

    let applied = world.catch_up(1);

    assert!(matches!(&applied[..], [Applied::Advanced(advance)] if advance.own));
    world.settle();
    world.assert_agreement();
    assert_eq!(world.devices[1].chat.intents(&group).unwrap(), []);
}

#[test]
fn an_intent_that_somebody_else_fulfilled_is_done() {
    let mut world = World::new(Suite::Classical, 4);
    let group = world.group;
    let account = world.devices[3].account;
    let admin = world.devices[1].account;
    world.change(0, Intent::SetRole(admin, Role::Admin));
    world.devices[1].want(&group, Intent::RemoveAccount(account));
    world.change(0, Intent::RemoveAccount(account));

    let proposal = world.devices[1].chat.propose(&group).unwrap();

    assert!(matches!(proposal, Proposal::Nothing), "{proposal:?}");
    assert_eq!(world.devices[1].chat.intents(&group).unwrap(), []);
}

#[test]
fn a_plain_member_may_not_remove_others() {
    let mut world = World::new(Suite::Classical, 3);
    let group = world.group;
    let account = world.devices[2].account;
    world.devices[1].want(&group, Intent::RemoveAccount(account));

    let proposal = world.devices[1].chat.propose(&group).unwrap();

    assert!(
        matches!(proposal, Proposal::Dropped(_, ChatError::Forbidden)),
        "{proposal:?}"
    );
    world.assert_agreement();
    world.assert_reachable(1);
}

#[test]
fn admins_remove_members_but_not_owners_and_name_nobody() {
    let mut world = World::new(Suite::Classical, 4);
    let group = world.group;
    let accounts: Vec<_> = world.devices.iter().map(|device| device.account).collect();
    world.change(0, Intent::SetRole(accounts[1], Role::Admin));
    world.assert_agreement();

    for forbidden in [
        Intent::RemoveAccount(accounts[0]),
        Intent::SetRole(accounts[2], Role::Admin),
        Intent::Close,
    ] {
        world.devices[1].want(&group, forbidden);
        let proposal = world.devices[1].chat.propose(&group).unwrap();
        assert!(
            matches!(proposal, Proposal::Dropped(_, ChatError::Forbidden)),
            "{proposal:?}"
        );
    }
    world.change(1, Intent::RemoveAccount(accounts[3]));

    world.assert_agreement();
    assert_eq!(world.view(0).members.len(), 3);
}

#[test]
fn all_devices_of_an_admin_carry_the_flag() {
    let devices = vec![Device::new(1, 1), Device::new(2, 1), Device::new(2, 2)];
    let owners = [devices[0].account].into();
    let mut world = World::with(
        Suite::Classical,
        devices,
        Roles {
            owners,
            ..Roles::default()
        },
    );
    let account = world.devices[1].account;

    world.change(0, Intent::SetRole(account, Role::Admin));
    world.assert_agreement();
    world.devices.push(Device::new(2, 3));
    world.add(2, &[3]);

    world.assert_agreement();
    assert!(world.hub.list.values().all(|entry| entry.admin));
    world.change(0, Intent::SetRole(account, Role::Member));
    world.assert_agreement();
}

#[test]
fn when_the_last_admin_is_gone_everyone_may_do_everything() {
    let mut world = World::new(Suite::Classical, 3);
    let handle = handle_of(&mut world, 0);
    world.hub.gone(&handle);

    world.change(1, Intent::Remove(vec![handle]));

    world.assert_agreement();
    assert!(
        world
            .view(1)
            .members
            .iter()
            .all(|member| member.role == Role::Owner)
    );
    let account = world.devices[2].account;
    world.change(1, Intent::SetRole(account, Role::Owner));
    world.assert_agreement();
}

#[test]
fn a_removal_changes_the_group_key() {
    let mut world = World::new(Suite::Classical, 3);
    let before = world.view(0).group_key;
    let account = world.devices[2].account;

    world.change(0, Intent::RemoveAccount(account));

    assert_ne!(world.view(0).group_key, before);
    assert_eq!(world.view(0).group_key, world.view(1).group_key);
}

#[test]
fn a_removed_device_reads_nothing_more_and_can_be_added_again() {
    let mut world = World::new(Suite::Classical, 3);
    let group = world.group;
    let account = world.devices[2].account;
    world.change(0, Intent::RemoveAccount(account));

    let (_, sealed) = world.devices[0].text(&group, "without you");
    assert!(matches!(
        world.devices[2].open(&group, &sealed),
        Received::Invalid(_)
    ));
    let sealing = world.devices[2]
        .chat
        .compose(&group, Body::Text("x".into()), NOW, None);
    assert!(matches!(sealing, Err(ChatError::NotMember)));

    world.add(0, &[2]);
    world.assert_agreement();
    world.assert_reachable(2);
}

#[test]
fn an_entry_that_was_altered_is_skipped_by_all_and_wedges_nothing() {
    let mut world = World::new(Suite::Classical, 3);
    let group = world.group;
    world.devices[1].want(&group, Intent::Update);
    let submission = world.devices[1].submission(&group);
    world.hub.submit(&submission).unwrap();
    let removed = handle_of(&mut world, 2);
    let entry = world.hub.log.last_mut().unwrap();
    entry.change.remove = vec![removed];
    let entry = entry.clone();

    for index in [0, 2] {
        let applied = world.devices[index].chat.apply(&entry).unwrap();
        assert_eq!(applied, Applied::Skipped(Invalid::Terms));
        world.devices[index].commit();
    }
    assert_eq!(world.view(0).position, entry.position);
    world.assert_reachable(0);
}

#[test]
fn rubbish_in_the_log_is_skipped_by_all_and_the_next_commit_counts() {
    let mut world = World::new(Suite::Classical, 3);
    let group = world.group;
    world.devices[1].want(&group, Intent::Update);
    world.devices[1].submission(&group);
    let genuine = world.hub.log.last().unwrap().clone();
    let author = handle_of(&mut world, 2);
    for commit in [&b""[..], &[0], &[1, 2, 3], &[2], &genuine.commit] {
        let position = world.hub.head() + 1;
        let commit = Bytes::copy_from_slice(commit);
        world.hub.log.push(LogEntry {
            position,
            commit,
            author,
            ..genuine.clone()
        });
    }

    let skipped = world.catch_up(0);
    assert!(
        skipped
            .iter()
            .all(|applied| matches!(applied, Applied::Skipped(_))),
        "{skipped:?}"
    );
    world.settle();
    world.submit(1).unwrap();
    world.settle();

    world.assert_agreement();
    world.assert_reachable(1);
}

#[test]
fn entries_are_applied_in_order_and_once() {
    let mut world = World::new(Suite::Classical, 2);
    let group = world.group;
    for _ in 0..2 {
        world.devices[0].want(&group, Intent::Update);
        world.submit(0).unwrap();
    }
    let entries = world.hub.entries_from(2);

    let chat = &mut world.devices[1].chat;
    assert_eq!(chat.apply(&entries[1]).unwrap(), Applied::Gap(2));
    assert!(matches!(
        chat.apply(&entries[0]).unwrap(),
        Applied::Advanced(_)
    ));
    assert_eq!(chat.apply(&entries[0]).unwrap(), Applied::Known);
    assert!(matches!(
        chat.apply(&entries[1]).unwrap(),
        Applied::Advanced(_)
    ));
    world.assert_agreement();
}

#[test]
fn a_closed_group_takes_nothing_more() {
    let mut world = World::new(Suite::Classical, 2);
    let group = world.group;

    world.change(0, Intent::Close);

    for index in 0..2 {
        assert_eq!(world.view(index).membership, Membership::Closed);
        let sealing = world.devices[index]
            .chat
            .compose(&group, Body::Text("x".into()), NOW, None);
        assert!(matches!(sealing, Err(ChatError::NotMember)));
    }
}

#[test]
fn a_commit_that_the_hub_refuses_for_good_is_withdrawn() {
    let mut world = World::new(Suite::Classical, 2);
    let group = world.group;
    world.devices[1].want(&group, Intent::Update);
    world.devices[1].submission(&group);

    let intent = world.devices[1].chat.withdraw(&group).unwrap();

    assert_eq!(intent, Some(Intent::Update));
    assert!(matches!(
        world.devices[1].chat.propose(&group).unwrap(),
        Proposal::Nothing
    ));
    world.change(0, Intent::Update);
    world.assert_agreement();
    world.assert_reachable(1);
}

#[test]
fn packages_of_others_and_expired_certificates_are_refused() {
    let mut world = World::new(Suite::Classical, 1);
    let group = world.group;
    let mut newcomer = Device::new(9, 1);
    let claimed = newcomer.claimed(Suite::Classical);
    let other = Claimed {
        account: world.devices[0].account,
        ..claimed.clone()
    };
    let hybrid = newcomer.claimed(Suite::Hybrid);
    let late = NOW.saturating_add(std::time::Duration::from_secs(2 * 86_400));

    let chat = &mut world.devices[0].chat;
    for (packages, now) in [
        (vec![other], NOW),
        (vec![hybrid], NOW),
        (vec![claimed.clone()], late),
    ] {
        let refused = chat.intend(&group, Intent::Add(packages), now);
        assert!(matches!(refused, Err(ChatError::Package(_))), "{refused:?}");
    }
    let many = chat.intend(&group, Intent::Add(vec![claimed; 51]), NOW);
    assert!(matches!(many, Err(ChatError::TooMany(51))));
}
