//! Commits and messages that make no sense, and that reach beyond their group.

use anyhow::Result;
use bytes::Bytes;
use commucat_crypto::secret::random_bytes;
use commucat_crypto::signing::SigningKey;
use commucat_proto::frame::FrameType;
use commucat_proto::frame::bundle::{Bundle, Welcome};
use commucat_proto::frame::fanout::{AdminChange, FanoutEntry};
use commucat_proto::frame::msg::Msg;
use commucat_proto::id::{Domain, GroupId, Handle, MessageId};
use commucat_proto::signed::Signed;
use commucat_proto::wire::Cbor;

use super::{CONFLICT, FORBIDDEN, INVALID, NOT_FOUND, elsewhere, own_group};
use crate::cases::identity::{WEAK, forged};
use crate::client::Got;
use crate::suite::Suite;
use crate::world::{Place, bundle, join, signed_update, update};

/// Commits of an admin that make no sense, and that reach for what is not in the group.
pub(super) async fn impossible(suite: &mut Suite) -> Result<()> {
    let (group, place) = own_group(&mut suite.world.stranger).await?;
    let own = place.handle();
    let world = &suite.world;
    let keys = &world.stranger.keys;
    let entry = |handle| FanoutEntry {
        handle,
        ..place.entry(keys, false)
    };
    let (one, two) = (
        Handle::new(SigningKey::generate().public()),
        Handle::new(SigningKey::generate().public()),
    );
    let with = |edit: &dyn Fn(&mut Bundle)| {
        let mut bundle = bundle(group, 0, own);
        edit(&mut bundle);
        bundle
    };
    let welcome = |handles: Vec<Handle>| Welcome {
        handles,
        welcome: Bytes::from_static(b"hi"),
    };
    let first = |position| {
        Some(
            Msg::new(position, MessageId::new([1; 16]), b"x")
                .payload()
                .clone(),
        )
    };
    let domains: Vec<_> = (0..65)
        .filter_map(|at| {
            let domain = Domain::parse(&format!("d{at}.example")).ok()?;
            Some(FanoutEntry {
                domain,
                ..entry(Handle::new(random_bytes()))
            })
        })
        .collect();
    let table = vec![
        (
            "adds who is there",
            with(&|b| b.change.add = vec![entry(own)]),
        ),
        (
            "adds one twice",
            with(&|b| b.change.add = vec![entry(one), entry(one)]),
        ),
        (
            "adds and removes one",
            with(&|b| {
                b.change.add = vec![entry(one)];
                b.change.remove = vec![one];
            }),
        ),
        (
            "removes who is not there",
            with(&|b| b.change.remove = vec![one]),
        ),
        (
            "welcomes Alice",
            with(&|b| b.welcomes = vec![welcome(vec![world.alice.pair.handle()])]),
        ),
        (
            "welcomes itself",
            with(&|b| b.welcomes = vec![welcome(vec![own])]),
        ),
        (
            "welcomes another than it adds",
            with(&|b| {
                b.change.add = vec![entry(one)];
                b.welcomes = vec![welcome(vec![two])];
            }),
        ),
        (
            "welcomes one twice",
            with(&|b| {
                b.change.add = vec![entry(one)];
                b.welcomes = vec![welcome(vec![one]), welcome(vec![one])];
            }),
        ),
        (
            "sets a flag for nobody",
            with(&|b| {
                b.change.admins = vec![AdminChange {
                    handle: one,
                    admin: true,
                }];
            }),
        ),
        (
            "sets a flag twice",
            with(&|b| {
                b.change.admins = [true, false]
                    .map(|admin| AdminChange { handle: own, admin })
                    .to_vec();
            }),
        ),
        (
            "adds 256",
            with(&|b| {
                b.change.add = (0..256)
                    .map(|_| entry(Handle::new(random_bytes())))
                    .collect();
            }),
        ),
        ("adds 65 domains", with(&|b| b.change.add = domains.clone())),
        (
            "carries a message of position 0",
            with(&|b| b.first_message = first(0)),
        ),
        (
            "carries a message of position 2",
            with(&|b| b.first_message = first(2)),
        ),
        (
            "carries a message cut short",
            with(&|b| b.first_message = Some(Bytes::from_static(b"x"))),
        ),
    ];
    let payloads: Vec<_> = table
        .into_iter()
        .map(|(name, bundle)| (name, signed_update(keys, &place, &bundle)))
        .collect();
    for (name, payload) in payloads {
        let got = suite
            .world
            .stranger
            .say(FrameType::KeyUpdate, 0, &payload)
            .await;
        suite
            .judge(&format!("a commit that {name}"), &INVALID, got)
            .await?;
    }
    for expect in [1, 7, (1 << 63) - 1] {
        let payload = signed_update(
            &suite.world.stranger.keys,
            &place,
            &bundle(group, expect, own),
        );
        let got = suite
            .world
            .stranger
            .say(FrameType::KeyUpdate, 0, &payload)
            .await;
        suite
            .judge(&format!("a commit after {expect}"), &CONFLICT, got)
            .await?;
    }
    references(suite, group, &place).await
}

/// Entries with the references of others: opened by the home, they lead nowhere.
async fn references(suite: &mut Suite, group: GroupId, place: &Place) -> Result<()> {
    let world = &suite.world;
    let keys = &world.stranger.keys;
    // Alice's reference was made for the pair's group: in this one it opens for nobody.
    let mut lure = bundle(group, 0, place.handle());
    let stolen = FanoutEntry {
        handle: Handle::new(SigningKey::generate().public()),
        sealed_ref: world.alice.pair.sealed_ref,
        ..place.entry(keys, false)
    };
    lure.welcomes = vec![Welcome {
        handles: vec![stolen.handle],
        welcome: Bytes::from_static(b"lure"),
    }];
    lure.change.add = vec![stolen];
    let payload = signed_update(keys, place, &lure);
    let got = suite
        .world
        .stranger
        .say(FrameType::KeyUpdate, 0, &payload)
        .await;
    let wanted = [Got::Done, INVALID[0].clone(), NOT_FOUND[0].clone()];
    suite
        .judge(
            "a commit that adds Alice by a stolen reference",
            &wanted,
            got,
        )
        .await?;
    let bind = join(
        &suite.world.stranger.keys,
        group,
        place.handle(),
        place.sealed_ref,
    );
    suite
        .world
        .stranger
        .live()
        .await?
        .request(FrameType::Join, 9, &bind)
        .await?;
    let payload = Msg::new(0, MessageId::new(random_bytes()), b"lure")
        .payload()
        .clone();
    let got = suite.world.stranger.say(FrameType::Msg, 9, &payload).await;
    suite
        .judge(
            "a message to Alice by a stolen reference",
            &[Got::Done],
            got,
        )
        .await
}

/// Handles that are points of small order: nobody can have them, anybody could sign for them.
pub(super) async fn weak_handles(suite: &mut Suite) -> Result<()> {
    for (at, weak) in WEAK.into_iter().enumerate() {
        let (group, place) = own_group(&mut suite.world.stranger).await?;
        let keys = &suite.world.stranger.keys;
        let mut add = bundle(group, 0, place.handle());
        add.change.add = vec![FanoutEntry {
            handle: Handle::new(weak),
            ..place.entry(keys, true)
        }];
        let payload = signed_update(keys, &place, &add);
        let got = suite
            .world
            .stranger
            .say(FrameType::KeyUpdate, 0, &payload)
            .await;
        let either = [Got::Done, INVALID[0].clone()];
        suite
            .judge(&format!("weak handle {at} is added"), &either, got)
            .await?;
        for expect in [0, 1] {
            let body = bundle(group, expect, Handle::new(weak)).encode();
            let signed = Signed {
                body: body.into(),
                signature: forged(),
            };
            let payload = update(&suite.world.stranger.keys, signed, place.sealed_ref);
            let got = suite
                .world
                .stranger
                .say(FrameType::KeyUpdate, 0, &payload)
                .await;
            let wanted = [
                FORBIDDEN[0].clone(),
                NOT_FOUND[0].clone(),
                CONFLICT[0].clone(),
            ];
            suite
                .judge(
                    &format!("a commit in the name of weak handle {at}"),
                    &wanted,
                    got,
                )
                .await?;
        }
    }
    Ok(())
}

pub(super) async fn positions(suite: &mut Suite) -> Result<()> {
    let (group, place) = own_group(&mut suite.world.stranger).await?;
    let bind = join(
        &suite.world.stranger.keys,
        group,
        place.handle(),
        place.sealed_ref,
    );
    for position in [1, 2, 1 << 32, (1 << 63) - 1] {
        suite
            .world
            .stranger
            .live()
            .await?
            .request(FrameType::Join, 5, &bind)
            .await?;
        let payload = Msg::new(position, MessageId::new(random_bytes()), b"x")
            .payload()
            .clone();
        let got = suite.world.stranger.say(FrameType::Msg, 5, &payload).await;
        suite
            .judge(&format!("MSG at {position}, above head"), &CONFLICT, got)
            .await?;
    }
    Ok(())
}

pub(super) async fn bindings(suite: &mut Suite) -> Result<()> {
    let (first, place) = own_group(&mut suite.world.stranger).await?;
    let (second, other) = own_group(&mut suite.world.stranger).await?;
    let keys = &suite.world.stranger.keys;
    let one = join(keys, first, place.handle(), place.sealed_ref);
    let two = join(keys, second, other.handle(), other.sealed_ref);
    let odd = join(keys, first, other.handle(), place.sealed_ref);
    let mut far = commucat_proto::frame::join::Join::decode(&one)?;
    far.hub = elsewhere()?;
    let table = [
        ("a group", 1, one.clone(), &[Got::Done]),
        ("it again", 1, one.clone(), &[Got::Done]),
        ("it on another channel", 2, one, &CONFLICT),
        ("another group on its channel", 1, two.clone(), &CONFLICT),
        ("it with another handle", 1, odd, &CONFLICT),
        ("another group", 4_096, two, &[Got::Done]),
        ("it at another hub", 3, far.encode(), &NOT_FOUND),
    ];
    suite.world.stranger.fresh().await?;
    for (name, channel, payload, wanted) in table {
        let got = suite
            .world
            .stranger
            .say(FrameType::Join, channel, &payload)
            .await;
        suite.judge(&format!("JOIN of {name}"), wanted, got).await?;
    }
    Ok(())
}
