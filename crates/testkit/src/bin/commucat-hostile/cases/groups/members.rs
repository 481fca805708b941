//! Members: removed, without rights, gone for good.

use anyhow::Result;
use bytes::Bytes;
use commucat_crypto::secret::random_bytes;
use commucat_crypto::signing::{Purpose, SigningKey};
use commucat_proto::frame::FrameType;
use commucat_proto::frame::bundle::{Bundle, Welcome};
use commucat_proto::frame::fanout::{AdminChange, FanoutEntry, JoinKeyChange};
use commucat_proto::frame::leave::Leave;
use commucat_proto::frame::msg::Msg;
use commucat_proto::id::{Handle, JoinKey, MessageId};
use commucat_proto::signed::Signed;
use commucat_proto::wire::Cbor;

use super::{FORBIDDEN, INVALID, NOT_FOUND, own_group};
use crate::cases::identity::forged;
use crate::client::Got;
use crate::suite::Suite;
use crate::wire;
use crate::world::{bundle, fetch, join, place_of, signed_update, update};

/// Who was removed has its handle, its reference, and the key; they are of no use.
pub(super) async fn removed(suite: &mut Suite) -> Result<()> {
    let club = suite.world.club;
    let (handle, sealed_ref) = (
        suite.world.removed_place.handle(),
        suite.world.removed_place.sealed_ref,
    );
    let bind = join(&suite.world.removed.keys, club, handle, sealed_ref);
    let ask = fetch(&suite.world.removed.keys, club, handle, sealed_ref).encode();
    let of_alice = {
        let alice = &suite.world.alice.club;
        fetch(
            &suite.world.removed.keys,
            club,
            alice.handle(),
            alice.sealed_ref,
        )
        .encode()
    };
    for position in 0..4 {
        let session = suite.world.removed.live().await?;
        session.request(FrameType::Join, 1, &bind).await?;
        let payload = Msg::new(position, MessageId::new(random_bytes()), b"still here")
            .payload()
            .clone();
        let got = suite.world.removed.say(FrameType::Msg, 1, &payload).await;
        suite
            .judge(
                &format!("MSG of a removed member at {position}"),
                &NOT_FOUND,
                got,
            )
            .await?;
    }
    for (name, payload) in [("its own", ask), ("Alice's", of_alice)] {
        let got = suite.world.removed.say(FrameType::Fetch, 0, &payload).await;
        suite
            .judge(
                &format!("FETCH of a removed member by {name} place"),
                &NOT_FOUND,
                got,
            )
            .await?;
    }
    suite
        .world
        .removed
        .live()
        .await?
        .request(FrameType::Join, 1, &bind)
        .await?;
    let hint = wire::frame(FrameType::Typing.code(), 1, 0, b"still typing");
    let got = suite
        .world
        .removed
        .live()
        .await?
        .provoke(&hint, false)
        .await;
    suite
        .judge("TYPING of a removed member", &[Got::Quiet], Ok(got))
        .await?;
    let world = &suite.world;
    let mut back = bundle(club, 2, handle);
    back.change.add = vec![world.removed_place.entry(&world.removed.keys, false)];
    for (name, bundle) in [
        ("that changes nothing", bundle(club, 2, handle)),
        ("that adds it again", back),
    ] {
        let world = &suite.world;
        let payload = signed_update(&world.removed.keys, &world.removed_place, &bundle);
        let got = suite
            .world
            .removed
            .say(FrameType::KeyUpdate, 0, &payload)
            .await;
        suite
            .judge(
                &format!("commit of a removed member {name}"),
                &NOT_FOUND,
                got,
            )
            .await?;
    }
    Ok(())
}

/// What only admins may do.
pub(super) async fn plain_members(suite: &mut Suite) -> Result<()> {
    let club = suite.world.club;
    let world = &suite.world;
    let (mole, bob) = (world.mole_place.handle(), world.bob.club.handle());
    let base = || bundle(club, 2, mole);
    let with = |edit: &dyn Fn(&mut Bundle)| {
        let mut bundle = base();
        edit(&mut bundle);
        bundle
    };
    let second = SigningKey::generate().public();
    let entry = world.mole_place.entry(&world.mole.keys, true);
    let table = [
        ("removes Bob", with(&|b| b.change.remove = vec![bob])),
        ("removes itself", with(&|b| b.change.remove = vec![mole])),
        (
            "makes itself admin",
            with(&|b| {
                b.change.admins = vec![AdminChange {
                    handle: mole,
                    admin: true,
                }];
            }),
        ),
        (
            "takes Alice's flag",
            with(&|b| {
                let handle = world.alice.club.handle();
                b.change.admins = vec![AdminChange {
                    handle,
                    admin: false,
                }];
            }),
        ),
        (
            "sets a join key",
            with(&|b| {
                b.change.join_key = Some(JoinKeyChange::Set(JoinKey::new(second)));
            }),
        ),
        (
            "removes the join key",
            with(&|b| b.change.join_key = Some(JoinKeyChange::Remove)),
        ),
        ("closes the group", with(&|b| b.change.close = true)),
        (
            "adds an admin",
            with(&|b| {
                b.change.add = vec![FanoutEntry {
                    handle: Handle::new(second),
                    ..entry.clone()
                }];
            }),
        ),
    ];
    let payloads = table.map(|(name, bundle)| {
        (
            name,
            signed_update(&world.mole.keys, &world.mole_place, &bundle),
        )
    });
    for (name, payload) in payloads {
        let got = suite
            .world
            .mole
            .say(FrameType::KeyUpdate, 0, &payload)
            .await;
        suite
            .judge(
                &format!("a plain member's commit that {name}"),
                &FORBIDDEN,
                got,
            )
            .await?;
    }
    forgeries(suite).await
}

/// Bundles of the club whose signature is not the author's.
async fn forgeries(suite: &mut Suite) -> Result<()> {
    let club = suite.world.club;
    let world = &suite.world;
    let (keys, place) = (&world.mole.keys, &world.mole_place);
    let body = bundle(club, 2, place.handle()).encode();
    let good = place.signing.sign(Purpose::Commit, body.clone());
    let mut cases = vec![
        (
            "by another key",
            SigningKey::generate().sign(Purpose::Commit, body.clone()),
        ),
        (
            "for another purpose",
            place.signing.sign(Purpose::JoinCommit, body.clone()),
        ),
        (
            "for a list",
            place.signing.sign(Purpose::DeviceList, body.clone()),
        ),
        (
            "of the identity",
            Signed {
                body: body.clone().into(),
                signature: forged(),
            },
        ),
        (
            "of zeros",
            Signed {
                body: body.into(),
                signature: [0; 64],
            },
        ),
    ];
    for at in [0, 31, 32, 63] {
        let mut bent = good.clone();
        if let Some(byte) = bent.signature.get_mut(at) {
            *byte ^= 0x10;
        }
        cases.push(("with a bit wrong", bent));
    }
    let payloads: Vec<_> = cases
        .into_iter()
        .map(|(name, signed)| (name, update(keys, signed, place.sealed_ref)))
        .collect();
    for (name, payload) in payloads {
        let got = suite
            .world
            .mole
            .say(FrameType::KeyUpdate, 0, &payload)
            .await;
        suite
            .judge(&format!("a commit signed {name}"), &FORBIDDEN, got)
            .await?;
    }
    // As Alice, whose place the mole knows from the list.
    let world = &suite.world;
    let of_alice = bundle(club, 2, world.alice.club.handle());
    let signed = world
        .mole_place
        .signing
        .sign(Purpose::Commit, of_alice.encode());
    let genuine = world
        .alice
        .club
        .signing
        .sign(Purpose::Commit, of_alice.encode());
    for (name, signed) in [("forged", signed), ("genuine", genuine)] {
        let reference = suite.world.alice.club.sealed_ref;
        let payload = update(&suite.world.mole.keys, signed, reference);
        let got = suite
            .world
            .mole
            .say(FrameType::KeyUpdate, 0, &payload)
            .await;
        suite
            .judge(&format!("a {name} commit in Alice's name"), &NOT_FOUND, got)
            .await?;
    }
    Ok(())
}

/// Leaving for good blocks the group, whoever adds the device again by what it knows.
pub(super) async fn blocks(suite: &mut Suite) -> Result<()> {
    let (group, place) = own_group(&mut suite.world.stranger).await?;
    let target = place_of(&mut suite.world.removed, group).await?;
    let leave = Leave {
        group,
        for_good: true,
    }
    .encode();
    let got = suite.world.removed.say(FrameType::Leave, 0, &leave).await;
    suite
        .judge("LEAVE for good before being added", &[Got::Done], got)
        .await?;
    let world = &suite.world;
    let mut add = bundle(group, 0, place.handle());
    add.change.add = vec![target.entry(&world.removed.keys, false)];
    add.welcomes = vec![Welcome {
        handles: vec![target.handle()],
        welcome: Bytes::from_static(b"pest"),
    }];
    let payload = signed_update(&world.stranger.keys, &place, &add);
    let got = suite
        .world
        .stranger
        .say(FrameType::KeyUpdate, 0, &payload)
        .await;
    suite
        .judge(
            "a commit that adds who has left",
            &[Got::Done, INVALID[0].clone()],
            got,
        )
        .await?;
    let session = suite.world.removed.fresh().await?;
    session.provoke(&[], false).await;
    let got = if session
        .others
        .iter()
        .any(|frame| frame.header.kind == FrameType::GroupInvite)
    {
        Got::Strange("a Welcome".to_owned())
    } else {
        Got::Quiet
    };
    suite
        .judge("who has left is not welcomed again", &[Got::Quiet], Ok(got))
        .await
}
