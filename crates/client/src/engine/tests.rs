//! The engine against a server in memory: no network, no time but the test's.

mod again;
mod apart;
mod forged;
mod order;
mod world;

use commucat_proto::error::Title;

use self::world::World;
use crate::chat::Content;
use crate::client::{Command, Decision};
use crate::event::{Event, Tick};

/// Alice and Bob, who know each other.
fn two() -> World {
    let mut world = World::new();
    world.register("alice");
    world.register("bob");
    let link = world.contact_link("bob");
    world.add_contact("alice", &link, "bob");
    world.settle();
    world
}

/// Alice's group with Bob and Carol, who know each other through her.
fn tea() -> World {
    let mut world = two();
    world.talk("alice", "bob");
    world.register("carol");
    let link = world.contact_link("carol");
    world.add_contact("alice", &link, "carol");
    let link = world.contact_link("alice");
    world.add_contact("carol", &link, "alice");
    world.create_group("alice", "tea", &["bob", "carol"]);
    world.settle();
    world
}

#[test]
fn a_text_to_a_new_contact_arrives_as_a_request_and_then_as_a_message() {
    let mut world = two();

    world.send("alice", "bob", "hi");
    world.settle();
    let before = world.texts("bob");
    let request = world.ask("bob", Command::Requests).pop().unwrap();
    let decision = Decision::Accept {
        petname: "alice".to_owned(),
    };
    let request = request.from.as_str().to_owned();
    world.ask("bob", |reply| Command::Decide {
        request,
        decision,
        reply,
    });
    world.settle();

    assert!(before.is_empty());
    assert_eq!(world.texts("bob"), ["hi"]);
    assert_eq!(world.tick_of("alice", "bob", "hi"), Tick::Delivered);
}

#[test]
fn a_stranger_is_a_request_on_each_device_until_one_of_them_accepts() {
    let mut world = two();
    world.link("bob", "laptop");
    world.settle();

    world.send("alice", "bob", "hi");
    world.settle();
    let undecided = [world.texts("bob"), world.texts("laptop")];
    let requests = ["bob", "laptop"].map(|who| world.ask(who, Command::Requests).len());
    let request = world.ask("bob", Command::Requests).pop().unwrap();
    let request = request.from.as_str().to_owned();
    let decision = Decision::Accept {
        petname: "alice".to_owned(),
    };
    world.ask("bob", |reply| Command::Decide {
        request,
        decision,
        reply,
    });
    world.settle();

    assert_eq!(undecided, [Vec::<String>::new(), Vec::new()]);
    assert_eq!(requests, [1, 1]);
    assert_eq!(world.texts("bob"), ["hi"]);
    assert_eq!(world.texts("laptop"), ["hi"]);
    assert!(world.ask("laptop", Command::Requests).is_empty());
}

#[test]
fn both_sides_write_in_one_conversation() {
    let mut world = two();
    world.talk("alice", "bob");

    world.send("bob", "alice", "hello");
    world.send("alice", "bob", "how are you");
    world.settle();

    assert_eq!(world.texts("alice"), ["hello"]);
    assert_eq!(world.texts("bob"), ["first", "how are you"]);
    assert_eq!(world.groups(), 1);
}

#[test]
fn what_was_not_acknowledged_is_sent_again_byte_for_byte_and_shown_once() {
    let mut world = two();
    world.talk("alice", "bob");

    world.lose_answers("alice", true);
    world.send("alice", "bob", "one");
    world.send("alice", "bob", "two");
    world.settle();
    let first = world.sent_by("alice").split_off(2);
    world.disconnect("alice");
    world.lose_answers("alice", false);
    world.connect("alice");
    world.settle();
    let again = world.sent_by("alice");

    assert_eq!(first, again);
    assert_eq!(world.texts("bob"), ["first", "one", "two"]);
    assert_eq!(world.outbox("alice"), 0);
}

#[test]
fn an_entry_is_acknowledged_only_with_its_step_and_redelivered_entries_show_once() {
    let mut world = two();
    world.talk("alice", "bob");

    world.ignore_acks("bob", true);
    world.send("alice", "bob", "again");
    world.settle();
    world.disconnect("bob");
    world.ignore_acks("bob", false);
    world.connect("bob");
    world.settle();

    assert_eq!(world.texts("bob"), ["first", "again"]);
    assert_eq!(world.queued("bob"), 0);
}

#[test]
fn the_engine_restarts_from_its_vault_with_everything_it_knew() {
    let mut world = two();
    world.talk("alice", "bob");

    world.disconnect("alice");
    world.send("alice", "bob", "written offline");
    world.restart("alice");
    world.connect("alice");
    world.settle();

    assert_eq!(world.texts("bob"), ["first", "written offline"]);
}

#[test]
fn an_offline_recipient_gets_everything_in_order_later() {
    let mut world = two();
    world.talk("alice", "bob");
    world.disconnect("bob");

    let texts: Vec<String> = (0..40).map(|number| format!("message {number}")).collect();
    for text in &texts {
        world.send("alice", "bob", text);
    }
    world.settle();
    world.restart("bob");
    world.connect("bob");
    world.settle();

    assert_eq!(world.texts("bob")[1..], texts);
}

#[test]
fn answers_that_do_not_decode_stop_nothing() {
    let mut world = two();
    world.talk("alice", "bob");
    world.disconnect("bob");
    world.garble_answers("bob", true);
    world.connect("bob");
    world.create_group("bob", "tea", &["alice"]);
    world.settle();

    world.garble_answers("bob", false);
    world.settle_for(10_000);
    world.send("alice", "bob", "still there");
    world.send("bob", "tea", "hello");
    world.settle();

    assert_eq!(world.texts("bob"), ["first", "still there"]);
    assert_eq!(world.texts("alice"), ["hello"]);
}

#[test]
fn the_log_of_one_group_changes_no_other() {
    let mut world = tea();
    let all = ["alice", "bob", "carol"];
    let head = world.head(&all);

    world.mislead("bob", &all);
    world.settle();

    assert_eq!(world.position("bob", &all), head);
}

#[test]
fn the_list_of_a_stranger_is_asked_for_only_when_it_was_accepted() {
    let mut world = two();
    world.send("alice", "bob", "first");
    world.settle();
    world.disconnect("bob");
    world.connect("bob");
    world.settle();
    let before = world.lists_asked("bob");

    world.accept("bob", "alice");
    world.disconnect("bob");
    world.connect("bob");
    world.settle();

    assert_eq!((before, world.lists_asked("bob")), (0, 1));
}

#[test]
fn a_hub_cannot_put_a_message_off_for_ever() {
    let mut world = two();
    world.talk("alice", "bob");

    world.put_off_next_message("alice", u64::MAX >> 1);
    world.send("alice", "bob", "at last");
    world.settle();
    let before = world.texts("bob").len();
    world.pass(3_601_000);
    world.settle();

    assert_eq!(before, 1);
    assert_eq!(world.texts("bob"), ["first", "at last"]);
}

#[test]
fn a_message_refused_as_too_old_is_sealed_again_and_arrives_once() {
    let mut world = two();
    world.talk("alice", "bob");

    world.refuse_next_message("alice", Title::EpochOld);
    world.send("alice", "bob", "old");
    world.send("alice", "bob", "behind it");
    world.settle();

    assert_eq!(world.texts("bob"), ["first", "old", "behind it"]);
    assert_eq!(world.outbox("alice"), 0);
}

#[test]
fn a_refused_message_and_those_behind_it_are_sent_again_in_order() {
    let mut world = two();
    world.talk("alice", "bob");

    world.refuse_next_message("alice", Title::StorageFailure);
    for text in ["one", "two", "three"] {
        world.send("alice", "bob", text);
    }
    world.settle();

    assert_eq!(world.texts("bob"), ["first", "one", "two", "three"]);
}

#[test]
fn a_conversation_goes_on_when_an_older_message_is_acknowledged_after_a_newer_one_failed() {
    let mut world = two();
    world.talk("alice", "bob");
    world.hold_custody("alice");
    world.send("alice", "bob", "one");
    world.settle();

    world.refuse_next_message("alice", Title::StorageFailure);
    world.send("alice", "bob", "two");
    world.settle();
    world.tell_custody("alice");
    world.settle();

    assert_eq!(world.texts("bob"), ["first", "one", "two"]);
    assert_eq!(world.outbox("alice"), 0);
}

#[test]
fn a_linked_device_joins_the_conversations_and_gets_what_follows() {
    let mut world = two();
    world.talk("alice", "bob");

    world.link("bob", "laptop");
    world.settle();
    world.send("alice", "bob", "to both");
    let alice = world
        .ask("laptop", Command::Contacts)
        .pop()
        .unwrap()
        .petname;
    world.send("laptop", &alice, "from the laptop");
    world.settle();

    assert_eq!(world.texts("bob"), ["first", "to both"]);
    assert_eq!(world.texts("laptop"), ["to both"]);
    assert_eq!(world.texts("alice"), ["from the laptop"]);
    assert_eq!(world.own_texts("bob"), ["from the laptop"]);
}

#[test]
fn a_revoked_device_gets_nothing_any_more() {
    let mut world = two();
    world.talk("alice", "bob");
    world.link("bob", "laptop");
    world.settle();

    let device = world.device_id("laptop");
    world.ask_later("bob", |reply| Command::RevokeDevice { device, reply });
    world.settle();
    world.send("alice", "bob", "private");
    world.settle();

    assert_eq!(world.texts("laptop"), Vec::<String>::new());
    assert_eq!(world.texts("bob"), ["first", "private"]);
}

#[test]
fn two_commits_at_once_end_in_one_epoch_and_both_take_effect() {
    let mut world = two();
    world.talk("alice", "bob");
    world.hold_commits(true);

    world.link("alice", "tablet");
    world.link("bob", "laptop");
    world.settle();
    world.hold_commits(false);
    world.settle();
    world.send("alice", "bob", "all four");
    world.settle();

    for name in ["bob", "laptop"] {
        assert_eq!(world.texts(name).last().unwrap(), "all four");
    }
    assert_eq!(world.own_texts("tablet"), ["all four"]);
}

#[test]
fn a_group_has_a_name_members_and_messages() {
    let mut world = two();
    world.talk("alice", "bob");
    world.register("carol");
    let link = world.contact_link("carol");
    world.add_contact("alice", &link, "carol");
    world.settle();

    world.create_group("alice", "tea", &["bob", "carol"]);
    world.send("alice", "tea", "welcome");
    world.settle();
    world.send("bob", "tea", "thanks");
    world.settle();

    assert_eq!(world.texts("bob").last().unwrap(), "welcome");
    assert_eq!(world.texts("alice"), ["thanks"]);
    // Carol does not know Alice: for her it is a request.
    assert_eq!(world.ask("carol", Command::Requests).len(), 1);
}

#[test]
fn a_blocked_stranger_is_not_heard_again() {
    let mut world = two();
    world.send("alice", "bob", "buy this");
    world.settle();

    let request = world
        .ask("bob", Command::Requests)
        .pop()
        .unwrap()
        .from
        .as_str()
        .to_owned();
    world.ask("bob", |reply| Command::Decide {
        request,
        decision: Decision::Block,
        reply,
    });
    world.settle();
    world.send("alice", "bob", "buy that");
    world.settle();

    assert!(world.texts("bob").is_empty());
    assert!(world.ask("bob", Command::Requests).is_empty());
}

/// Alice's group with Bob and Carol; Bob has blocked Carol.
fn tea_with_a_blocked_one() -> World {
    let mut world = tea();
    let link = world.contact_link("bob");
    world.add_contact("carol", &link, "bob");
    world.send("carol", "bob", "buy this");
    world.settle();
    world.decide("bob", Decision::Block);
    world.settle();
    world
}

#[test]
fn whoever_is_put_into_a_known_group_by_somebody_blocked_leaves_it() {
    let mut world = tea_with_a_blocked_one();
    world.disconnect("bob");
    world.remove("alice", "tea", "bob");
    world.settle();
    world.invite("carol", "tea", "bob");
    world.settle();
    let listed = world.listed("bob");

    world.overflow_but_last("bob");
    world.connect("bob");
    world.settle_for(10_000);
    world.send("alice", "bob", "still there");
    world.settle();

    assert_eq!(world.listed("bob"), listed - 1);
    assert_eq!(world.ask("bob", Command::Conversations).len(), 1);
    assert_eq!(world.texts("bob"), ["first", "still there"]);
}

#[test]
fn a_group_of_somebody_blocked_is_left_until_the_server_has_heard() {
    let mut world = tea_with_a_blocked_one();
    let leaves = world.leaves("bob");
    world.lose_answers("bob", true);
    world.create_group("carol", "cake", &["bob"]);
    world.settle();

    for _ in 0..3 {
        world.disconnect("bob");
        world.lose_answers("bob", false);
        world.connect("bob");
        world.settle();
    }

    assert_eq!(world.leaves("bob"), leaves + 2);
}

#[test]
fn adding_somebody_who_asked_before_accepts() {
    let mut world = two();
    world.send("alice", "bob", "hi");
    world.settle();

    let link = world.contact_link("alice");
    world.add_contact("bob", &link, "alice");
    world.settle();

    assert_eq!(world.texts("bob"), ["hi"]);
    assert!(world.ask("bob", Command::Requests).is_empty());
}

#[test]
fn two_who_start_at_the_same_time_end_up_in_one_conversation() {
    let mut world = two();
    let link = world.contact_link("alice");
    world.add_contact("bob", &link, "alice");
    world.settle();

    world.send("alice", "bob", "a1");
    world.send("bob", "alice", "b1");
    world.settle();
    world.send("alice", "bob", "a2");
    world.send("bob", "alice", "b2");
    world.settle();

    assert_eq!(world.texts("alice"), ["b1", "b2"]);
    assert_eq!(world.texts("bob"), ["a1", "a2"]);
    let one = world
        .ask("alice", Command::Contacts)
        .pop()
        .unwrap()
        .conversation;
    let other = world
        .ask("bob", Command::Contacts)
        .pop()
        .unwrap()
        .conversation;
    assert_eq!(one, other);
}

#[test]
fn a_removed_member_is_out_and_the_others_go_on() {
    let mut world = two();
    world.talk("alice", "bob");
    world.create_group("alice", "tea", &["bob"]);
    world.settle();
    world.send("alice", "tea", "one");
    world.settle();

    world.remove("alice", "tea", "bob");
    world.settle();
    world.send("alice", "tea", "two");
    world.settle();

    assert_eq!(world.texts("bob"), ["first", "one"]);
    assert_eq!(world.outbox("alice"), 0);
}

#[test]
fn what_is_written_after_a_removal_is_not_for_the_removed() {
    let mut world = tea();
    world.hold_commits(true);
    world.remove("alice", "tea", "carol");
    world.send("alice", "tea", "between us");
    world.settle();
    let (outbox, is_busy) = (
        world.outbox("alice"),
        world.ask("alice", Command::Status).busy,
    );
    world.hold_commits(false);
    world.settle();

    assert_eq!((outbox, is_busy), (1, true));
    assert_eq!(world.texts("bob"), ["first", "between us"]);
    assert!(world.texts("carol").is_empty());
}

#[test]
fn what_can_not_be_sent_any_more_is_told_to_its_author() {
    let mut world = tea();
    world.disconnect("bob");
    world.send("bob", "tea", "too late");
    world.remove("alice", "tea", "bob");
    world.settle();

    world.connect("bob");
    world.settle_for(20_000);

    let is_told = |event: &&Event| matches!(event, Event::Undelivered { .. });
    assert_eq!(world.events("bob").iter().filter(is_told).count(), 1);
    assert_eq!(world.outbox("bob"), 0);
}

#[test]
fn a_hub_that_repeats_who_is_gone_makes_no_more_work() {
    let mut world = tea();
    world.hold_commits(true);
    let told = world.tell_gone("alice", &["bob", "carol"]);
    world.settle();
    let before = world.intents("alice");
    world.take_off(&told);
    world.settle_for(10_000);
    for _ in 0..2 {
        world.repeat_event("alice", &told);
        world.settle();
    }
    let intents = world.intents("alice");
    world.hold_commits(false);
    world.settle();

    assert_eq!((before, intents), (0, 1));
    assert_eq!((world.listed("carol"), world.intents("alice")), (0, 0));
}

#[test]
fn whoever_is_said_to_be_gone_before_it_is_known_that_they_were_added_is_removed() {
    let mut world = two();
    world.talk("alice", "bob");
    world.hold_queue("alice", true);
    world.repeat_entry("alice", "bob");
    world.link("bob", "laptop");
    world.settle();
    let told = world.tell_gone("alice", &["laptop"]);
    world.take_off(&told);

    world.hold_queue("alice", false);
    world.settle_for(60_000);

    assert_eq!(world.members("alice", &["alice", "bob"]), 2);
}

#[test]
fn whoever_is_said_to_be_gone_from_the_group_of_a_stranger_is_removed_when_it_is_accepted() {
    let mut world = two();
    world.link("bob", "laptop");
    world.send("alice", "bob", "first");
    world.settle();
    world.disconnect("alice");
    let told = world.tell_gone("alice", &["laptop"]);
    world.repeat_event("bob", &told);
    world.take_off(&told);
    let before = world.commits("bob");
    world.settle_for(60_000);
    let undecided = world.commits("bob");

    world.accept("bob", "alice");
    world.settle_for(60_000);

    assert_eq!(undecided, before);
    assert_eq!(world.members("bob", &["alice", "bob"]), 2);
}

/// Alice and Bob know each other; she makes a group with him that needs a GroupInfo, which he does not get.
fn large_tea(lacks: impl FnOnce(&mut World)) -> World {
    let mut world = two();
    world.talk("alice", "bob");
    world.make_groups_large("alice");
    lacks(&mut world);
    world.create_group("alice", "tea", &["bob"]);
    world.send("alice", "tea", "welcome");
    world.settle();
    world
}

#[test]
fn a_group_info_that_did_not_come_is_asked_for_again() {
    let mut hidden = large_tea(|world| world.hide_infos(true));
    let mut garbled = large_tea(|world| world.garble_answers("bob", true));
    let waits = [hidden.invitations("bob"), garbled.invitations("bob")];

    hidden.hide_infos(false);
    garbled.garble_answers("bob", false);
    hidden.settle_for(10_000);
    garbled.settle_for(10_000);

    assert_eq!(waits, [1, 1]);
    for world in [hidden, garbled] {
        assert_eq!(world.texts("bob"), ["first", "welcome"]);
        assert_eq!(world.invitations("bob"), 0);
    }
}

#[test]
fn an_invitation_of_which_the_hub_knows_nothing_is_given_up() {
    let mut world = large_tea(|world| world.hide_infos(true));

    world.settle_for(20_000);

    assert_eq!(world.invitations("bob"), 0);
    assert_eq!(world.held("bob"), (0, 0));
}

#[test]
fn the_channel_of_a_group_that_is_over_serves_another_one() {
    let mut world = two();
    world.talk("alice", "bob");
    for name in ["tea", "coffee"] {
        world.create_group("alice", name, &["bob"]);
        world.settle();
        world.send("bob", name, name);
        world.settle();
        world.remove("alice", name, "bob");
        world.settle();
    }

    assert_eq!(world.texts("alice"), ["tea", "coffee"]);
}

#[test]
fn a_contact_whose_list_cannot_be_read_yet_is_asked_for_it_again() {
    let mut world = World::new();
    world.register("alice");
    world.register("bob");
    world.hide_lists(true);
    let link = world.contact_link("bob");
    world.add_contact("alice", &link, "bob");
    world.send("alice", "bob", "hi");
    world.settle_for(3_000);

    world.hide_lists(false);
    world.settle_for(60_000);

    assert_eq!(world.ask("bob", Command::Requests).len(), 1);
}

#[test]
fn a_contact_without_packages_yet_is_claimed_anew() {
    let mut world = two();
    world.hide_packages(true);
    world.send("alice", "bob", "hi");
    world.settle_for(3_000);

    world.hide_packages(false);
    world.settle_for(60_000);

    assert_eq!(world.ask("bob", Command::Requests).len(), 1);
}

#[test]
fn a_recovered_account_is_added_again_and_its_lost_devices_are_removed() {
    let mut world = two();
    world.talk("alice", "bob");

    world.recover("bob", "found");
    world.settle();
    world.disconnect("alice");
    world.connect("alice");
    world.settle();
    world.send("alice", "bob", "you are back");
    world.settle();
    let request = world
        .ask("found", Command::Requests)
        .pop()
        .unwrap()
        .from
        .as_str()
        .to_owned();
    let decision = Decision::Accept {
        petname: "alice".to_owned(),
    };
    world.ask("found", |reply| Command::Decide {
        request,
        decision,
        reply,
    });
    world.settle();

    assert_eq!(world.texts("found"), ["you are back"]);
    assert_eq!(world.texts("bob"), ["first"]);
}

#[test]
fn a_content_survives_its_encoding() {
    let content = Content {
        body: crate::chat::Body::Text("x".to_owned()),
        sent: commucat_proto::time::Timestamp::from_millis(1),
        reply_to: None,
        counter: 0,
        settled: None,
    };

    assert_eq!(Content::decode(&content.encode()).unwrap(), content);
}
