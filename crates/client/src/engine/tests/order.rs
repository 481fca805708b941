//! Contents that come back, overtake each other, or never come.

use commucat_proto::frame::group_event::Reason;

use super::two;
use super::world::World;
use crate::client::Command;
use crate::event::{Event, Tick};

fn gaps(world: &World, name: &str) -> usize {
    let is_gap = |event: &&Event| matches!(event, Event::Gap { .. });
    world.events(name).iter().filter(is_gap).count()
}

#[test]
fn a_message_that_the_hub_dropped_is_told_when_its_author_has_settled_it() {
    let mut world = two();
    world.talk("alice", "bob");

    world.drop_next_message("alice");
    world.send("alice", "bob", "lost on the way");
    world.send("alice", "bob", "after it");
    world.settle();
    let at_once = (world.texts("bob"), gaps(&world, "bob"));
    world.send("alice", "bob", "all is said");
    world.settle();

    assert_eq!(at_once, (vec!["first".to_owned()], 0));
    assert_eq!(world.texts("bob"), ["first", "after it", "all is said"]);
    assert_eq!(gaps(&world, "bob"), 1);
}

#[test]
fn the_last_message_is_missed_too_when_its_author_tells_of_anything_else() {
    let mut world = two();
    world.talk("alice", "bob");

    world.drop_next_message("alice");
    world.send("alice", "bob", "lost on the way");
    world.settle();
    world.send("bob", "alice", "are you there?");
    world.settle();

    assert_eq!(gaps(&world, "bob"), 1, "her receipt says so");
}

#[test]
fn what_waits_for_another_message_is_shown_after_a_while_and_nothing_is_called_missing() {
    let mut world = two();
    world.talk("alice", "bob");
    world.move_away("alice");
    world.drop_next_message("alice");
    world.send("alice", "bob", "stuck");
    world.settle();
    let stuck = world.last_of("alice");
    world.send("alice", "bob", "after it");
    world.settle();

    let at_once = world.texts("bob");
    world.pass(301_000);
    let later = (world.texts("bob"), gaps(&world, "bob"));
    world.return_to("alice", stuck, Reason::Epoch);
    world.settle();
    world.send("alice", "bob", "all is said");
    world.settle();

    assert_eq!(at_once, ["first"]);
    assert_eq!(later, (vec!["first".to_owned(), "after it".to_owned()], 0));
    let all = ["first", "after it", "stuck", "all is said"];
    assert_eq!(world.texts("bob"), all);
    assert_eq!(gaps(&world, "bob"), 0);
}

#[test]
fn what_comes_back_from_another_domain_takes_its_place_before_what_was_faster() {
    let mut world = two();
    world.talk("alice", "bob");
    world.move_away("alice");

    world.drop_next_message("alice");
    world.send("alice", "bob", "one");
    world.settle();
    let one = world.last_of("alice");
    world.send("alice", "bob", "two");
    world.settle();
    world.restart("alice");
    world.move_away("alice");
    world.connect("alice");
    world.settle();
    world.pass(60_000);
    world.send("alice", "bob", "three");
    world.settle();
    let before = world.texts("bob");
    world.return_to("alice", one, Reason::Epoch);
    world.settle();

    assert_eq!(before, ["first"], "of the first nothing is settled");
    assert_eq!(world.texts("bob"), ["first", "one", "two", "three"]);
    assert_eq!(gaps(&world, "bob"), 0);
    assert_eq!(world.tick_of("alice", "bob", "one"), Tick::Delivered);
}

#[test]
fn what_people_have_to_hear_of_is_kept_until_they_have() {
    let mut world = two();
    world.talk("alice", "bob");
    for _ in 0..2 {
        world.drop_next_message("alice");
        for text in ["lost on the way", "after it", "all is said"] {
            world.send("alice", "bob", text);
            world.settle();
        }
    }
    let told = gaps(&world, "bob");

    world.restart("bob");
    let kept = world.ask("bob", Command::Notices);
    let numbers = kept.iter().map(|notice| notice.number).collect();
    world.ask("bob", |reply| Command::NoticesShown { numbers, reply });
    world.restart("bob");

    assert_eq!((told, kept.len()), (2, 1));
    assert!(matches!(
        kept[0].event,
        Event::Gap {
            conversation: Some(_)
        }
    ));
    assert!(world.ask("bob", Command::Notices).is_empty());
}

#[test]
fn what_comes_back_for_good_is_told_to_those_who_wait_for_it() {
    let mut world = two();
    world.talk("alice", "bob");
    world.move_away("alice");

    world.drop_next_message("alice");
    world.send("alice", "bob", "too late");
    world.settle();
    let late = world.last_of("alice");
    world.return_to("alice", late, Reason::Expired);
    world.settle();
    world.send("alice", "bob", "in time");
    world.settle();

    assert_eq!(world.texts("bob"), ["first", "in time"]);
    assert_eq!(gaps(&world, "bob"), 1);
    let is_told = |event: &Event| matches!(event, Event::Undelivered { .. });
    assert!(world.events("alice").iter().any(is_told));
}

#[test]
fn a_name_that_comes_back_is_sent_again() {
    let mut world = two();
    world.talk("alice", "bob");
    world.drop_next_message("alice");
    world.create_group("alice", "tea", &["bob"]);
    world.move_away("alice");
    world.settle();
    let name = world.last_of("alice");
    let is_named = |world: &mut World| {
        let all = world.ask("bob", Command::Conversations);
        all.iter().any(|one| one.name == "tea")
    };
    let before = is_named(&mut world);

    world.return_to("alice", name, Reason::Epoch);
    world.settle();

    assert!(!before && is_named(&mut world));
}

#[test]
fn a_receipt_that_is_lost_makes_nobody_wait() {
    let mut world = two();
    world.talk("alice", "bob");

    world.drop_next_message("bob");
    world.send("alice", "bob", "hi");
    world.settle();
    world.send("bob", "alice", "hello");
    world.settle();

    assert_eq!(world.texts("alice"), ["hello"]);
    assert_eq!(gaps(&world, "alice"), 0);
}

#[test]
fn a_device_that_knows_the_log_before_its_queue_opens_what_is_in_there() {
    let mut world = two();
    world.talk("alice", "bob");
    world.hold_queue("bob", true);
    world.send("alice", "bob", "on the way");
    for number in 0..6 {
        world.link("alice", &format!("tablet{number}"));
        world.settle();
    }

    // Its commit conflicts with six others, which it learns so.
    world.link("bob", "laptop");
    world.settle();
    world.hold_queue("bob", false);
    world.settle();

    assert_eq!(world.texts("bob"), ["first", "on the way"]);
    assert_eq!(gaps(&world, "bob"), 0);
}

#[test]
fn a_device_that_comes_back_reads_its_queue_before_it_changes_anything() {
    let mut world = two();
    world.talk("alice", "bob");
    world.disconnect("bob");
    world.send("alice", "bob", "long ago");
    world.settle();

    world.hold_queue("bob", true);
    world.connect("bob");
    let before = world.commits("bob");
    world.link("bob", "laptop");
    world.settle();
    let meanwhile = world.commits("bob");
    world.hold_queue("bob", false);
    world.settle();
    world.send("alice", "bob", "to both");
    world.settle();

    assert_eq!(meanwhile, before);
    assert_eq!(world.texts("bob"), ["first", "long ago", "to both"]);
    assert_eq!(world.texts("laptop"), ["to both"]);
}

#[test]
fn whoever_joins_misses_nothing_that_was_said_before() {
    let mut world = two();
    world.talk("alice", "bob");
    for number in 0..3 {
        world.send("alice", "bob", &format!("before {number}"));
    }
    world.settle();

    world.link("bob", "laptop");
    world.settle();
    world.send("alice", "bob", "to both");
    world.settle();

    assert_eq!(world.texts("laptop"), ["to both"]);
    assert_eq!(gaps(&world, "laptop"), 0);
}
