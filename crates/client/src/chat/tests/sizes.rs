//! Large groups: the tree outside the Welcome, and what things weigh.

use super::*;

#[test]
fn fifty_five_devices_join_and_talk() {
    let mut world = World::new(Suite::Hybrid, 55);

    world.assert_agreement();
    world.change(54, Intent::Update);
    let account = world.devices[30].account;
    world.change(0, Intent::RemoveAccount(account));
    world.assert_agreement();
    world.assert_reachable(54);
    assert_eq!(world.view(0).members.len(), 54);
}

#[test]
fn a_message_weighs_little_more_than_its_text() {
    let mut world = World::new(Suite::Hybrid, 2);
    let group = world.group;
    let text = "x".repeat(100);

    let (_, sealed) = world.devices[0].text(&group, &text);

    let overhead = sealed.msg.payload().len() - text.len();
    assert!(overhead <= 260, "{overhead} bytes");
}
