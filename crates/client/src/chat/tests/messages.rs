//! Application messages: late, early, tampered with, repeated.

use commucat_proto::frame::msg::Msg;

use super::*;

#[test]
fn a_message_tells_who_wrote_it_and_what_it_answers() {
    let mut world = World::new(Suite::Hybrid, 2);
    let group = world.group;
    let chat = &mut world.devices[0].chat;
    let answered = MessageId::new([5; 16]);
    let content = chat
        .compose(&group, Body::Text("hello".to_owned()), NOW, Some(answered))
        .unwrap();
    let id = MessageId::new([7; 16]);
    let sealed = chat.seal(&group, &id, &content).unwrap();

    let Received::Opened(opened) = world.devices[1].open(&group, &sealed) else {
        panic!("does not open")
    };

    assert_eq!(opened.account, world.devices[0].account);
    assert_eq!(opened.device, world.devices[0].id);
    assert_eq!(opened.role, Role::Owner);
    assert_eq!((opened.message_id, opened.position), (id, 1));
    assert_eq!(opened.content, content);
}

#[test]
fn counters_rise_by_one_and_stay_when_sealed_again() {
    let mut world = World::new(Suite::Classical, 2);
    let group = world.group;

    let chat = &mut world.devices[0].chat;
    let contents: Vec<_> = (0..3)
        .map(|_| {
            chat.compose(&group, Body::Text("x".to_owned()), NOW, None)
                .unwrap()
        })
        .collect();
    assert_eq!(
        contents
            .iter()
            .map(|content| content.counter)
            .collect::<Vec<_>>(),
        [1, 2, 3]
    );

    let id = MessageId::new([1; 16]);
    let first = chat.seal(&group, &id, &contents[2]).unwrap();
    world.change(1, Intent::Update);
    let again = world.devices[0]
        .chat
        .seal(&group, &id, &contents[2])
        .unwrap();
    assert_ne!(first.msg, again.msg);
    assert_eq!(again.msg.position(), first.msg.position() + 1);
    let Received::Opened(opened) = world.devices[1].open(&group, &again) else {
        panic!("does not open")
    };
    assert_eq!((opened.message_id, opened.content.counter), (id, 3));
}

#[test]
fn messages_of_the_past_epochs_that_are_kept_open_and_older_ones_do_not() {
    let mut world = World::new(Suite::Classical, 3);
    let group = world.group;
    let mut sealed = Vec::new();
    for _ in 0..5 {
        sealed.push(world.devices[0].text(&group, "late").1);
        world.change(2, Intent::Update);
    }

    let device = &mut world.devices[1];
    device.chat.keep_epochs(&group, 3).unwrap();
    let received: Vec<_> = sealed
        .iter()
        .map(|sealed| device.reads(&group, sealed).is_some())
        .collect();

    assert_eq!(received, [false, false, true, true, true]);
    assert_eq!(device.open(&group, &sealed[0]), Received::TooOld);
}

#[test]
fn a_message_of_a_later_epoch_waits_unopened() {
    let mut world = World::new(Suite::Classical, 3);
    let group = world.group;
    world.devices[0].want(&group, Intent::Update);
    world.submit(0).unwrap();
    let (_, sealed) = world.devices[0].text(&group, "ahead");

    assert_eq!(world.devices[1].open(&group, &sealed), Received::Later);
    world.settle();

    assert_eq!(
        world.devices[1].reads(&group, &sealed).as_deref(),
        Some("ahead")
    );
}

#[test]
fn a_tampered_copy_does_not_burn_the_genuine_one() {
    let mut world = World::new(Suite::Hybrid, 2);
    let group = world.group;
    let (_, sealed) = world.devices[0].text(&group, "genuine");

    for at in 0..sealed.msg.payload().len() {
        let mut bytes = sealed.msg.payload().to_vec();
        bytes[at] ^= 0x40;
        let Ok(msg) = Msg::decode(&bytes.into()) else {
            continue;
        };
        let received = world.devices[1].chat.open(&group, &msg).unwrap();
        assert!(
            !matches!(received, Received::Opened(_)),
            "byte {at} is not authenticated"
        );
    }

    assert_eq!(
        world.devices[1].reads(&group, &sealed).as_deref(),
        Some("genuine")
    );
    assert_eq!(world.devices[1].open(&group, &sealed), Received::Spent);
}

#[test]
fn messages_may_overtake_each_other_and_be_lost() {
    let mut world = World::new(Suite::Classical, 2);
    let group = world.group;
    let sealed: Vec<_> = (0..300)
        .map(|number| world.devices[0].text(&group, &number.to_string()).1)
        .collect();

    for index in [299, 150, 44] {
        let text = world.devices[1].reads(&group, &sealed[index]);
        assert_eq!(text, Some(index.to_string()));
    }
    assert_eq!(world.devices[1].open(&group, &sealed[42]), Received::Spent);
}

#[test]
fn rubbish_is_invalid_and_own_messages_are_own() {
    let mut world = World::new(Suite::Classical, 2);
    let group = world.group;
    let (_, sealed) = world.devices[0].text(&group, "mine");

    assert_eq!(world.devices[0].open(&group, &sealed), Received::Own);
    let ciphertext = sealed.msg.ciphertext();
    for end in 0..ciphertext.len() {
        let cut = Msg::new(1, MessageId::new([7; 16]), &ciphertext[..end]);
        let received = world.devices[1].chat.open(&group, &cut).unwrap();
        assert!(
            matches!(received, Received::Invalid(_)),
            "cut at {end}: {received:?}"
        );
    }
    let elsewhere = GroupId::new([9; 32]);
    assert!(matches!(
        world.devices[1].chat.open(&elsewhere, &sealed.msg).unwrap(),
        Received::Invalid(_)
    ));
}

#[test]
fn a_commit_in_a_message_is_no_message() {
    let mut world = World::new(Suite::Classical, 3);
    let group = world.group;
    world.devices[0].want(&group, Intent::Update);
    world.submit(0).unwrap();
    let commit = world.hub.log.last().unwrap().commit.clone();
    let msg = Msg::new(1, MessageId::new([7; 16]), &commit[1..]);

    let received = world.devices[1].chat.open(&group, &msg).unwrap();

    assert!(matches!(received, Received::Invalid(_)), "{received:?}");
    world.settle();
    world.assert_agreement();
}

#[test]
fn keys_of_past_epochs_are_forgotten_by_their_age() {
    let mut world = World::new(Suite::Classical, 2);
    let group = world.group;
    let (_, first) = world.devices[0].text(&group, "one");
    let (_, second) = world.devices[0].text(&group, "two");
    world.change(0, Intent::Update);
    // OpenMLS stamps epochs with the machine's clock.
    let long_ago = Timestamp::from_millis(1_000_000_000_000);
    let far_ahead = Timestamp::from_millis(9_000_000_000_000);

    world.devices[1]
        .chat
        .forget_epochs(&group, long_ago)
        .unwrap();
    assert_eq!(
        world.devices[1].reads(&group, &first).as_deref(),
        Some("one")
    );
    world.devices[1]
        .chat
        .forget_epochs(&group, far_ahead)
        .unwrap();
    world.devices[1].commit();
    world.devices[1].reload();

    assert_eq!(world.devices[1].reads(&group, &second), None);
    world.assert_reachable(0);
}
