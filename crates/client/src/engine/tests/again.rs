//! Devices that are removed and added again, and others who pretend it.

use super::world::World;
use super::{large_tea, tea, two};
use crate::client::Command;
use crate::event::{Change, Event};

const TEA: [&str; 3] = ["bob", "alice", "carol"];

/// Conversations that began or ended for a device.
fn changes(world: &World, name: &str) -> Vec<Change> {
    let change = |event: &Event| {
        let Event::Conversation { change, .. } = event else {
            return None;
        };
        (*change != Change::Members).then_some(*change)
    };
    world.events(name).iter().filter_map(change).collect()
}

fn remove(world: &mut World, who: &str) {
    world.remove("alice", "tea", who);
    world.settle();
}

fn invite(world: &mut World, who: &str) {
    world.invite("alice", "tea", who);
    world.settle();
}

#[test]
fn a_device_that_was_not_told_of_its_removal_takes_the_way_back_when_the_hub_says_so() {
    let mut world = tea();
    let before = changes(&world, "bob").len();
    world.disconnect("bob");
    remove(&mut world, "bob");
    invite(&mut world, "bob");

    world.overflow("bob");
    world.connect("bob");
    world.settle();
    world.link("alice", "tablet");
    world.send("alice", "tea", "welcome back");
    world.settle_for(10_000);
    world.send("bob", "tea", "thanks");
    world.settle();

    let told = changes(&world, "bob").split_off(before);
    assert_eq!(told, [Change::Left, Change::Ready]);
    assert_eq!(world.position("bob", &TEA), world.head(&TEA));
    assert_eq!(world.texts("bob"), ["first", "welcome back"]);
    assert_eq!(world.texts("alice"), ["thanks"]);
}

/// Alice's group, and somebody whom Bob knows outside of it.
fn tea_and_mallory() -> World {
    let mut world = tea();
    world.register("mallory");
    let link = world.contact_link("mallory");
    world.add_contact("bob", &link, "mallory");
    world.settle();
    world
}

#[test]
fn an_invitation_leads_nobody_away_who_is_in_the_group() {
    for hub in ["localhost", "elsewhere.example"] {
        let mut world = tea_and_mallory();
        let before = changes(&world, "bob").len();

        world.lure("mallory", &TEA, hub);
        world.settle();
        world.send("alice", "tea", "among us");
        world.settle();
        let told = changes(&world, "bob").split_off(before);
        remove(&mut world, "bob");

        assert_eq!(told, [], "{hub}");
        assert_eq!(world.texts("bob"), ["first", "among us"], "{hub}");
        // Nor later.
        let told = changes(&world, "bob").split_off(before);
        assert_eq!(told, [Change::Left], "{hub}");
    }
}

#[test]
fn an_invitation_from_before_a_rejoin_leads_nobody_away_after_it() {
    let mut world = tea_and_mallory();
    let before = changes(&world, "bob").len();
    world.disconnect("bob");
    world.link("alice", "tablet");
    world.settle();
    world.forget_logs("bob");
    world.lure_ahead("mallory", &TEA, "localhost", 100);
    let made = world.commits("bob");

    world.connect("bob");
    world.settle_for(10_000);
    let (commits, waiting) = (world.commits("bob") - made, world.invitations("bob"));
    remove(&mut world, "bob");

    assert!(commits > 0, "it had to rejoin");
    assert_eq!(waiting, 0);
    let told = changes(&world, "bob").split_off(before);
    assert_eq!(told, [Change::Left]);
}

#[test]
fn an_invitation_to_an_entry_that_members_skip_leads_nobody_away() {
    let mut world = tea_and_mallory();
    let before = changes(&world, "bob").len();

    world.hold_queue("bob", true);
    world.lure("mallory", &TEA, "localhost");
    world.repeat_entry("alice", "carol");
    world.hold_queue("bob", false);
    world.settle();
    world.send("alice", "tea", "among us");
    world.settle();

    assert_eq!(changes(&world, "bob").len(), before);
    assert_eq!(world.texts("bob"), ["first", "among us"]);
}

#[test]
fn a_refusal_of_the_old_membership_does_not_end_the_new_one() {
    let mut world = tea();
    world.send("bob", "tea", "hello");
    world.settle();
    let before = changes(&world, "bob").len();
    world.hold_queue("bob", true);
    world.hold_refusals("bob", true);
    remove(&mut world, "bob");
    invite(&mut world, "bob");

    world.send("bob", "tea", "too late");
    for _ in 0..3 {
        world.settle_for(5_000);
        world.pass_refusal("bob");
    }
    world.settle_for(5_000);
    let is_in = changes(&world, "bob").len() == before;
    world.hold_queue("bob", false);
    world.settle();
    let held = world.refusals("bob");
    world.hold_refusals("bob", false);
    world.settle();
    world.send("alice", "tea", "welcome back");
    world.settle();

    assert!(is_in && held > 0);
    let told = changes(&world, "bob").split_off(before);
    assert_eq!(told, [Change::Left, Change::Ready]);
    assert_eq!(world.texts("bob"), ["first", "welcome back"]);
}

#[test]
fn a_message_refused_in_the_old_membership_does_not_stop_those_of_the_new_one() {
    let mut world = tea();
    world.send("bob", "tea", "hello");
    world.settle();
    world.hold_queue("bob", true);
    world.hold_refusals("bob", true);
    remove(&mut world, "bob");
    invite(&mut world, "bob");
    world.send("bob", "tea", "too late");
    world.settle();

    world.show_queue("bob");
    // It binds the group again while the server has not answered that the old channel is free.
    world.send("bob", "tea", "here again");
    world.settle();
    let held = world.refusals("bob");
    world.hold_refusals("bob", false);
    world.settle();
    world.send("bob", "tea", "and here");
    world.settle();

    assert_eq!(held, 1);
    assert_eq!(world.texts("alice"), ["hello", "here again", "and here"]);
    assert_eq!(world.outbox("bob"), 0);
}

#[test]
fn what_waited_for_its_turn_is_shown_when_its_reader_is_added_again() {
    let mut world = tea();
    world.move_away("alice");
    world.drop_next_message("alice");
    world.send("alice", "tea", "stuck");
    world.settle();
    world.send("alice", "tea", "after it");
    world.settle();
    let before = world.texts("bob");

    remove(&mut world, "bob");
    invite(&mut world, "bob");
    world.send("alice", "tea", "welcome back");
    world.settle();

    assert_eq!(before, ["first"]);
    assert_eq!(world.texts("bob"), ["first", "after it", "welcome back"]);
}

#[test]
fn whoever_leaves_is_not_brought_back_before_the_hub_knows() {
    let mut world = tea();
    let before = changes(&world, "bob").len();
    world.disconnect("bob");
    let group = "tea".to_owned();
    world.ask("bob", |reply| Command::Leave { group, reply });
    remove(&mut world, "bob");
    invite(&mut world, "bob");

    world.lose_answers("bob", true);
    world.connect("bob");
    world.settle();
    let told = changes(&world, "bob").split_off(before);
    world.disconnect("bob");
    world.lose_answers("bob", false);
    world.connect("bob");
    world.settle();
    remove(&mut world, "bob");
    invite(&mut world, "bob");

    assert_eq!(told, [Change::Left]);
    let told = changes(&world, "bob").split_off(before);
    assert_eq!(told, [Change::Left, Change::Ready], "asked again, it comes");
}

#[test]
fn a_device_whose_leave_the_server_could_not_take_says_it_again_and_can_come_back() {
    let mut world = tea();
    let before = changes(&world, "bob").len();
    let (leaves, listed) = (world.leaves("bob"), world.listed("bob"));
    world.refuse_next_leave("bob");

    let group = "tea".to_owned();
    world.ask("bob", |reply| Command::Leave { group, reply });
    world.settle_for(5_000);
    let left = (world.leaves("bob") - leaves, listed - world.listed("bob"));
    remove(&mut world, "bob");
    invite(&mut world, "bob");

    assert_eq!(left, (1, 1));
    let told = changes(&world, "bob").split_off(before);
    assert_eq!(told, [Change::Left, Change::Ready]);
}

#[test]
fn a_device_added_behind_a_full_queue_reads_what_the_queue_had_no_room_for() {
    let mut world = two();
    world.talk("alice", "bob");
    world.register("carol");
    let link = world.contact_link("carol");
    world.add_contact("alice", &link, "carol");
    world.disconnect("bob");
    world.create_group("alice", "tea", &["bob", "carol"]);
    world.settle();

    world.overflow("bob");
    world.connect("bob");
    world.settle();

    assert_eq!(world.position("bob", &TEA), world.head(&TEA));
}

#[test]
fn a_device_that_waited_for_a_group_info_reads_what_came_meanwhile() {
    let mut world = large_tea(|world| world.lose_answers("bob", true));
    world.link("alice", "tablet");
    world.settle();

    world.disconnect("bob");
    world.lose_answers("bob", false);
    world.connect("bob");
    world.settle();

    let all = ["bob", "alice", "tablet"];
    let tea = world.ask("bob", Command::Conversations);
    let tea = tea.iter().find(|one| one.name == "tea").unwrap();
    assert_eq!(tea.devices, all.len());
    assert_eq!(world.texts("bob"), ["first", "welcome"]);
}

#[test]
fn an_answer_for_an_earlier_invitation_does_not_end_the_next_one() {
    let mut world = large_tea(|world| world.hold_answers("bob", true));
    remove(&mut world, "bob");
    invite(&mut world, "bob");
    let waits = world.invitations("bob");

    world.hold_answers("bob", false);
    world.settle_for(5_000);
    world.send("alice", "tea", "welcome back");
    world.settle();

    assert_eq!(waits, 1);
    assert_eq!(world.texts("bob").last().unwrap(), "welcome back");
}
