//! Frames of a group that another domain than its hub sends.

use super::tea;
use crate::event::{Change, Event};

const TEA: [&str; 3] = ["bob", "alice", "carol"];

#[test]
fn another_domain_that_says_that_the_group_is_closed_is_not_believed() {
    let mut world = tea();

    world.forge_end("bob", &TEA);
    world.settle_for(10_000);
    world.send("alice", "tea", "still open");
    world.settle();

    let ends = [Change::Left, Change::Closed, Change::Lost];
    let is_end = |event: &Event| matches!(event, Event::Conversation { change, .. } if ends.contains(change));
    assert!(!world.events("bob").iter().any(is_end));
    assert_eq!(world.texts("bob"), ["first", "still open"]);
}

#[test]
fn an_entry_of_another_domain_takes_no_position_of_the_log() {
    let mut world = tea();

    world.forge_entry("bob", &TEA);
    world.settle();
    world.link("alice", "tablet");
    world.settle();
    world.send("alice", "tea", "to all");
    world.settle();

    assert_eq!(world.position("bob", &TEA), world.head(&TEA));
    assert_eq!(world.texts("bob"), ["first", "to all"]);
    assert_eq!(world.commits("bob"), 0, "it did not have to rejoin");
}

#[test]
fn an_altered_copy_of_an_entry_does_not_spoil_the_genuine_one() {
    let mut world = tea();
    world.hold_queue("bob", true);
    world.link("alice", "tablet");
    world.settle();

    world.forge_before_entries("bob");
    world.hold_queue("bob", false);
    world.settle();
    world.send("alice", "tea", "to all");
    world.settle();

    assert_eq!(world.texts("bob"), ["first", "to all"]);
    assert_eq!(world.commits("bob"), 0, "it did not have to rejoin");
}

#[test]
fn what_claims_a_position_that_the_log_does_not_have_is_not_kept() {
    let mut world = tea();

    world.forge_held("bob", &TEA);
    let (held, _) = world.held("bob");
    world.settle_for(10_000);

    assert_eq!(held, 1);
    assert_eq!(world.held("bob"), (0, 0));
}

#[test]
fn nobody_is_removed_because_another_domain_says_that_they_are_gone() {
    let mut world = tea();
    let before = world.commits("alice");

    world.tell_gone("alice", &["bob", "carol"]);
    world.settle_for(60_000);
    world.send("bob", "tea", "still here");
    world.settle();

    assert_eq!(world.commits("alice"), before);
    assert_eq!(world.texts("alice"), ["still here"]);
    assert_eq!(world.listed("carol"), 1);
}
