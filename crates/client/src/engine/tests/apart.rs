//! Devices that fell behind, were struck off a list, or see another history than the others.

use commucat_proto::frame::msg::Msg;

use super::world::World;
use super::{tea, two};
use crate::client::Command;
use crate::event::{Change, Event};

fn changes(world: &World, name: &str, wanted: Change) -> usize {
    let is_it =
        |event: &&Event| matches!(event, Event::Conversation { change, .. } if *change == wanted);
    world.events(name).iter().filter(is_it).count()
}

fn gaps(world: &World, name: &str) -> usize {
    let is_gap = |event: &&Event| matches!(event, Event::Gap { .. });
    world.events(name).iter().filter(is_gap).count()
}

fn forks(world: &World, name: &str) -> usize {
    let is_fork = |event: &&Event| matches!(event, Event::Fork { .. });
    world.events(name).iter().filter(is_fork).count()
}

#[test]
fn a_device_that_was_away_longer_than_the_log_is_kept_rejoins() {
    let mut world = two();
    world.talk("alice", "bob");
    world.disconnect("bob");
    world.link("alice", "tablet");
    world.settle();
    world.send("alice", "bob", "nobody will ever read this");
    world.settle();

    world.forget_logs("bob");
    world.connect("bob");
    world.settle();
    world.send("alice", "bob", "welcome back");
    world.send("bob", "alice", "here again");
    // The message that was lost with the log is waited for, for a while.
    world.settle_for(3_000);

    assert_eq!(world.texts("bob"), ["first", "welcome back"]);
    assert_eq!(world.texts("alice"), ["here again"]);
    assert_eq!(world.texts("tablet"), ["here again"]);
}

#[test]
fn a_rejoin_that_loses_the_race_is_made_again() {
    let mut world = two();
    world.talk("alice", "bob");
    world.disconnect("bob");
    world.link("alice", "tablet");
    world.settle();
    world.forget_logs("bob");

    world.hold_commits(true);
    world.connect("bob");
    world.settle();
    world.repeat_entry("alice", "bob");
    world.settle();
    world.hold_commits(false);
    world.settle();
    world.send("bob", "alice", "here again");
    world.settle();

    for name in ["alice", "tablet"] {
        assert_eq!(world.texts(name), ["here again"], "{name}");
    }
}

#[test]
fn a_device_that_missed_a_removal_leaves_instead_of_following_what_was_before_it() {
    let mut world = tea();
    world.disconnect("bob");
    world.remove("alice", "tea", "carol");
    world.settle();

    world.forget_logs("bob");
    let before = world.listed("bob");
    world.connect("bob");
    world.settle();

    assert_eq!(changes(&world, "bob", Change::Lost), 1);
    assert_eq!(world.listed("bob"), before - 1, "it left for good");
    world.send("alice", "bob", "still there");
    world.settle();
    assert_eq!(world.texts("bob").last().unwrap(), "still there");
}

#[test]
fn what_was_under_way_at_a_rejoin_is_sealed_in_the_history_of_the_others() {
    let mut world = two();
    world.talk("alice", "bob");
    world.drop_next_message("bob");
    world.hold_custody("bob");
    world.send("bob", "alice", "nobody can open it");
    world.settle();
    let sealed = world.sent_by("bob").pop().unwrap();

    world.lose_track("bob");
    world.settle();
    // The answer to the old ciphertext comes when the new one is sent already.
    world.tell_custody("bob");
    world.settle();

    let id = Msg::decode(&sealed).unwrap().message();
    let of_it = |payload: &bytes::Bytes| Msg::decode(payload).unwrap().message() == id;
    assert_eq!(world.sent_by("bob").into_iter().filter(of_it).count(), 2);
    assert_eq!(world.texts("alice"), ["nobody can open it"]);
    assert_eq!(world.outbox("bob"), 0);
}

#[test]
fn what_was_sent_while_the_others_may_have_gone_on_is_sealed_again_at_a_rejoin() {
    let mut world = two();
    world.talk("alice", "bob");
    world.repeat_entry("alice", "bob");
    world.settle();
    world.drop_next_message("bob");
    world.send("bob", "alice", "nobody can open it");
    world.settle();
    let (before, outbox) = (world.texts("alice"), world.outbox("bob"));

    world.lose_track("bob");
    world.settle();
    world.send("bob", "alice", "after it");
    world.settle();

    assert_eq!((before, outbox), (Vec::new(), 0));
    assert_eq!(world.texts("alice"), ["nobody can open it", "after it"]);
}

#[test]
fn a_device_that_only_reads_reports_fork_tags() {
    let mut world = two();
    world.talk("alice", "bob");
    world.disconnect("bob");
    world.connect("bob");
    world.settle();
    let before = world.tags("bob").len();

    world.link("alice", "tablet");
    world.settle();

    assert!(world.sent_by("bob").is_empty());
    let reported = world.tags("bob")[before..].to_vec();
    assert!(!reported.is_empty());
    for tag in reported {
        assert!(world.tags("alice").contains(&tag), "{tag:?}");
    }
}

#[test]
fn whoever_has_not_decided_about_a_stranger_reports_no_tags() {
    let mut world = two();
    world.send("alice", "bob", "hi");
    world.settle();

    world.link("alice", "tablet");
    world.settle();

    assert!(world.tags("bob").is_empty());
    assert!(!world.tags("alice").is_empty());
}

#[test]
fn a_device_that_an_unreadable_entry_struck_off_the_list_finds_out() {
    let mut world = two();
    world.talk("alice", "bob");
    let commits = world.commits("alice");

    world.strike("alice", "bob");
    world.settle_for(10_000);

    assert_eq!(changes(&world, "bob", Change::Left), 1);
    assert_eq!(world.commits("alice"), commits + 1, "the leaf goes too");
    assert_eq!(changes(&world, "alice", Change::Left), 0);
}

#[test]
fn a_hub_that_answers_nonsense_and_then_does_not_know_a_device_for_a_moment_loses_no_member() {
    let mut world = two();
    world.talk("alice", "bob");
    world.garble_answers("bob", true);
    world.forge_end("bob", &["alice", "bob"]);
    world.settle();
    world.garble_answers("bob", false);
    world.forget_members(true);
    world.pass(2_000);
    world.settle();

    world.forget_members(false);
    world.settle_for(10_000);
    world.send("bob", "alice", "still here");
    world.send("alice", "bob", "and I");
    world.settle();

    assert_eq!(changes(&world, "bob", Change::Left), 0);
    assert_eq!(world.texts("alice"), ["still here"]);
    assert_eq!(world.texts("bob"), ["first", "and I"]);
}

#[test]
fn a_hub_that_lost_an_entry_is_asked_for_the_next_one_in_pauses_that_grow() {
    let mut world = tea();
    let before = world.commits("alice");
    world.lose_last_entry(&["alice", "bob", "carol"]);

    world.remove("alice", "tea", "carol");
    world.settle_for(60_000);

    let tried = world.commits("alice") - before;
    assert!((2..10).contains(&tried), "{tried}");
}

#[test]
fn an_admin_cannot_make_an_owners_device_remove_an_owner() {
    let mut world = two();
    world.talk("alice", "bob");
    world.link("alice", "tablet");
    world.settle();
    let commits = world.commits("alice");

    // Alice's account made the group; Bob's is an admin.
    world.strike("bob", "tablet");
    world.settle_for(10_000);

    assert_eq!(changes(&world, "tablet", Change::Left), 1);
    assert_eq!(world.commits("alice"), commits);
}

#[test]
fn a_device_that_was_struck_off_finds_out_also_while_it_has_something_to_say() {
    let mut world = two();
    world.talk("alice", "bob");
    world.disconnect("bob");
    world.send("bob", "alice", "too late");

    world.strike("alice", "bob");
    world.connect("bob");
    world.settle_for(20_000);

    assert_eq!(changes(&world, "bob", Change::Left), 1);
    assert!(world.sent_by("bob").len() < 10, "it asks in pauses");
}

#[test]
fn a_device_that_rejoins_sends_nothing_before_it_is_back() {
    let mut world = two();
    world.talk("alice", "bob");
    world.hold_commits(true);
    world.lose_track("bob");
    world.settle();

    world.send("bob", "alice", "patience");
    world.settle();
    let before = world.sent_by("bob").len();
    world.hold_commits(false);
    world.settle();

    assert_eq!(world.sent_by("bob").len(), before + 1);
    assert_eq!(world.texts("alice"), ["patience"]);
}

#[test]
fn a_message_of_an_epoch_that_never_comes_is_told_as_a_split_and_not_kept() {
    let mut world = two();
    world.talk("alice", "bob");

    world.advance_next_message("alice");
    world.send("alice", "bob", "of another history");
    world.settle();

    assert_eq!(forks(&world, "bob"), 1);
    assert_eq!(world.held("bob"), (0, 0));
}

#[test]
fn what_waits_for_a_later_epoch_has_a_bound_and_the_rest_is_told_as_missing() {
    let mut world = two();
    world.talk("alice", "bob");
    world.hold_queue("bob", true);
    world.link("alice", "tablet");
    world.settle();
    world.lose_entries("bob");
    world.garble_answers("bob", true);
    world.hold_queue("bob", false);
    world.send("alice", "bob", "fits");
    world.settle();
    world.fill_held("bob");
    let (before, _) = world.held("bob");
    world.send("alice", "bob", &"x".repeat(64 * 1024));
    world.settle();
    let (after, told) = (world.held("bob").0, gaps(&world, "bob"));

    world.garble_answers("bob", false);
    world.settle_for(10_000);

    assert_eq!((after, told), (before, 1));
    assert_eq!(world.held("bob"), (0, 0));
    assert_eq!(world.texts("bob"), ["first", "fits"]);
}

#[test]
fn a_device_that_can_keep_nothing_more_still_asks_for_the_log() {
    let mut world = two();
    world.talk("alice", "bob");
    world.hold_queue("bob", true);
    world.link("alice", "tablet");
    world.settle();
    world.lose_entries("bob");
    world.fill_held("bob");
    world.fill_held("bob");
    world.send("alice", "bob", "early");
    world.settle();

    world.hold_queue("bob", false);
    world.settle_for(10_000);
    world.send("alice", "bob", "in time");
    world.settle();

    assert_eq!(world.held("bob"), (0, 0));
    assert!(gaps(&world, "bob") > 0);
    assert_eq!(world.texts("bob"), ["first", "in time"]);
}

#[test]
fn what_waits_for_a_later_epoch_goes_with_the_group() {
    let mut world = tea();
    world.hold_queue("bob", true);
    world.remove("alice", "tea", "carol");
    world.settle();
    world.lose_entries("bob");
    world.garble_answers("bob", true);
    world.hold_queue("bob", false);
    world.send("alice", "tea", "for a later epoch");
    world.settle();
    let (held, _) = world.held("bob");

    let group = "tea".to_owned();
    world.ask("bob", |reply| Command::Leave { group, reply });

    assert_eq!((held, world.held("bob")), (1, (0, 0)));
}

#[test]
fn a_message_that_does_not_open_is_told_once_as_a_split() {
    let mut world = two();
    world.talk("alice", "bob");

    for text in ["one", "two"] {
        world.damage_next_message("alice");
        world.send("alice", "bob", text);
        world.settle();
    }

    assert_eq!(forks(&world, "bob"), 1);
    assert_eq!(world.texts("bob"), ["first"]);
}
