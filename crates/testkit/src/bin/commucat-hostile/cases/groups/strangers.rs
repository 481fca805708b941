//! Groups and accounts of others, for somebody who is in none of them.

use std::time::Duration;

use anyhow::Result;
use commucat_crypto::secret::random_bytes;
use commucat_crypto::signing::{Purpose, SigningKey};
use commucat_proto::error::Title;
use commucat_proto::frame::FrameType;
use commucat_proto::frame::ack::{AckUp, ForkTag};
use commucat_proto::frame::bundle::Bundle;
use commucat_proto::frame::directory::Directory;
use commucat_proto::frame::fanout::FanoutEntry;
use commucat_proto::frame::fetch::{FetchAccess, Want};
use commucat_proto::frame::group_create::GroupCreate;
use commucat_proto::frame::key_package::{Claim, KeyPackage};
use commucat_proto::frame::leave::Leave;
use commucat_proto::frame::msg::Msg;
use commucat_proto::id::{
    AccountId, ClaimId, Domain, GroupId, Handle, MessageId, SealedRef, Token,
};
use commucat_proto::identity::JoinRead;
use commucat_proto::signed::Signed;
use commucat_proto::wire::Cbor;

use super::{CONFLICT, FORBIDDEN, INVALID, NOT_FOUND, elsewhere};
use crate::cases::identity::forged;
use crate::client::{Got, Keys};
use crate::clock;
use crate::suite::Suite;
use crate::wire;
use crate::world::{Place, bundle, fetch, join, place_of, update};

/// Every mix of what the stranger has and what it may have heard of Alice's place.
fn mixes(own: &Place, theirs: &Place, in_club: &Place) -> Vec<(&'static str, Handle, SealedRef)> {
    let random = SealedRef::new(random_bytes());
    let mut bent = *theirs.sealed_ref.as_bytes();
    bent[64] ^= 1;
    vec![
        ("own handle and reference", own.handle(), own.sealed_ref),
        (
            "Alice's handle, own reference",
            theirs.handle(),
            own.sealed_ref,
        ),
        (
            "Alice's handle and reference",
            theirs.handle(),
            theirs.sealed_ref,
        ),
        (
            "own handle, Alice's reference",
            own.handle(),
            theirs.sealed_ref,
        ),
        (
            "Alice's place in another group",
            in_club.handle(),
            in_club.sealed_ref,
        ),
        ("a reference of random bytes", theirs.handle(), random),
        ("a bent reference", theirs.handle(), SealedRef::new(bent)),
        (
            "a reference of zeros",
            theirs.handle(),
            SealedRef::new([0; 65]),
        ),
    ]
}

pub(super) async fn strangers(suite: &mut Suite, own: &Place) -> Result<()> {
    let pair = suite.world.pair;
    let all = mixes(own, &suite.world.alice.pair, &suite.world.alice.club);
    for (name, handle, sealed_ref) in all {
        for bits in 0..8 {
            let mut ask = fetch(&suite.world.stranger.keys, pair, handle, sealed_ref);
            ask.want = Want {
                entries: bits & 1 > 0,
                group_info: bits & 2 > 0,
                list: bits & 4 > 0,
            };
            let got = suite
                .world
                .stranger
                .say(FrameType::Fetch, 0, &ask.encode())
                .await;
            suite
                .judge(
                    &format!("FETCH {bits} of the pair's group by {name}"),
                    &NOT_FOUND,
                    got,
                )
                .await?;
        }
        let bind = join(&suite.world.stranger.keys, pair, handle, sealed_ref);
        let session = suite.world.stranger.fresh().await?;
        let number = session.number();
        let frame = wire::frame(FrameType::Join.code(), 3, number, &bind);
        let got = session.provoke(&frame, true).await;
        // The home does not ask the hub: with the own reference a JOIN may pass.
        let wanted = if sealed_ref == own.sealed_ref {
            &[Got::Done]
        } else {
            &NOT_FOUND
        };
        suite
            .judge(
                &format!("JOIN of the pair's group by {name}"),
                wanted,
                Ok(got),
            )
            .await?;
        let hint = wire::frame(FrameType::Typing.code(), 3, 0, b"typing");
        let got = suite
            .world
            .stranger
            .live()
            .await?
            .provoke(&hint, false)
            .await;
        suite
            .judge(
                &format!("TYPING to the pair by {name}"),
                &[Got::Quiet],
                Ok(got),
            )
            .await?;
        let msg = Msg::new(1, MessageId::new(random_bytes()), b"intruder");
        let payload = msg.payload().clone();
        let got = suite.world.stranger.say(FrameType::Msg, 3, &payload).await;
        let bound = sealed_ref == own.sealed_ref;
        let wanted = if bound {
            Title::NotFound
        } else {
            Title::NotJoined
        };
        suite
            .judge(
                &format!("MSG to the pair by {name}"),
                &[Got::Refused(wanted)],
                got,
            )
            .await?;
    }
    for channel in [0, 3, 4_096, 4_097, 0xffff_ffff] {
        let payload = Msg::new(1, MessageId::new(random_bytes()), b"x")
            .payload()
            .clone();
        let got = suite
            .world
            .stranger
            .say(FrameType::Msg, channel, &payload)
            .await;
        let not_joined = Got::Refused(Title::NotJoined);
        suite
            .judge(
                &format!("MSG on channel {channel}, not bound"),
                &[not_joined],
                got,
            )
            .await?;
    }
    // Tags for a group that is not bound.
    let tags = [None, Some([7; 16])].map(|tag| ForkTag {
        group: pair,
        position: 1,
        tag,
    });
    let ack = AckUp {
        through: None,
        tags: tags.to_vec(),
    }
    .encode();
    let frame = wire::frame(FrameType::Ack.code(), 0, 0, &ack);
    let got = suite
        .world
        .stranger
        .live()
        .await?
        .provoke(&frame, false)
        .await;
    suite
        .judge("fork tags of the pair's group", &[Got::Quiet], Ok(got))
        .await?;
    let bind = join(
        &suite.world.stranger.keys,
        pair,
        own.handle(),
        own.sealed_ref,
    );
    suite
        .world
        .stranger
        .fresh()
        .await?
        .request(FrameType::Join, 3, &bind)
        .await?;
    let got = suite
        .world
        .stranger
        .live()
        .await?
        .provoke(&frame, false)
        .await;
    suite
        .judge(
            "fork tags of the pair's group, bound",
            &[Got::Quiet],
            Ok(got),
        )
        .await
}

pub(super) async fn strangers_commits(suite: &mut Suite, own: &Place) -> Result<()> {
    let pair = suite.world.pair;
    let (alice, keys) = (&suite.world.alice, &suite.world.stranger.keys);
    let (theirs, victim) = (alice.pair.handle(), alice.pair.sealed_ref);
    let by_own = bundle(pair, 1, own.handle());
    let by_alice = bundle(pair, 1, theirs);
    let mut takes_over = bundle(pair, 1, own.handle());
    takes_over.change.add = vec![own.entry(keys, true)];
    let mut joins = bundle(pair, 1, own.handle());
    joins.change.add = vec![own.entry(keys, false)];
    let sign = |bundle: &Bundle, purpose| own.signing.sign(purpose, bundle.encode());
    let commit = Purpose::Commit;
    let genuine = alice.pair.signing.sign(commit, by_alice.encode());
    let table = [
        ("by its own handle", sign(&by_own, commit), own.sealed_ref),
        (
            "by its own handle, Alice's reference",
            sign(&by_own, commit),
            victim,
        ),
        ("said to be Alice's", sign(&by_alice, commit), victim),
        (
            "said to be Alice's, own reference",
            sign(&by_alice, commit),
            own.sealed_ref,
        ),
        ("of Alice's own making", genuine.clone(), victim),
        (
            "of Alice's own making, own reference",
            genuine,
            own.sealed_ref,
        ),
        (
            "that adds it as admin",
            sign(&takes_over, commit),
            own.sealed_ref,
        ),
        (
            "that joins without a key",
            sign(&joins, Purpose::JoinCommit),
            own.sealed_ref,
        ),
    ];
    let payloads = table.map(|(name, signed, sealed_ref)| (name, update(keys, signed, sealed_ref)));
    for (name, payload) in payloads {
        let got = suite
            .world
            .stranger
            .say(FrameType::KeyUpdate, 0, &payload)
            .await;
        suite
            .judge(&format!("commit to the pair {name}"), &NOT_FOUND, got)
            .await?;
    }
    let keys = &suite.world.stranger.keys;
    let mut far = fetch(keys, pair, own.handle(), own.sealed_ref);
    far.hub = elsewhere()?;
    let payload = far.encode();
    let got = suite
        .world
        .stranger
        .say(FrameType::Fetch, 0, &payload)
        .await;
    suite
        .judge(
            "FETCH with a reference made for another hub",
            &NOT_FOUND,
            got,
        )
        .await?;
    for for_good in [false, true] {
        let leave = Leave {
            group: pair,
            for_good,
        }
        .encode();
        let got = suite.world.stranger.say(FrameType::Leave, 0, &leave).await;
        suite
            .judge("LEAVE of a group that is not its own", &[Got::Done], got)
            .await?;
    }
    Ok(())
}

/// FETCH by a join link that there is not.
pub(super) async fn links(suite: &mut Suite) -> Result<()> {
    let (pair, unknown) = (suite.world.pair, GroupId::new(random_bytes()));
    let key = SigningKey::generate();
    let hub = suite.world.target.domain.clone();
    let now = clock::now();
    let read = |group, created| {
        JoinRead {
            group,
            hub: hub.clone(),
            created,
        }
        .encode()
    };
    let cases: Vec<(&str, GroupId, Signed)> = vec![
        (
            "without a join key",
            pair,
            key.sign(Purpose::JoinRead, read(pair, now)),
        ),
        (
            "for no group",
            unknown,
            key.sign(Purpose::JoinRead, read(unknown, now)),
        ),
        (
            "for another group",
            pair,
            key.sign(Purpose::JoinRead, read(unknown, now)),
        ),
        (
            "of yesterday",
            pair,
            key.sign(
                Purpose::JoinRead,
                read(pair, now.saturating_sub(Duration::from_secs(86_400))),
            ),
        ),
        (
            "for another purpose",
            pair,
            key.sign(Purpose::Commit, read(pair, now)),
        ),
        (
            "forged",
            pair,
            Signed {
                body: read(pair, now).into(),
                signature: forged(),
            },
        ),
    ];
    for (name, group, signed) in cases {
        for bits in [1, 2, 4, 7] {
            let keys = &suite.world.stranger.keys;
            let nobody = Handle::new([1; 32]);
            let mut ask = fetch(keys, group, nobody, SealedRef::new([0; 65]));
            ask.access = FetchAccess::Joiner(signed.clone());
            ask.want = Want {
                entries: bits & 1 > 0,
                group_info: bits & 2 > 0,
                list: bits & 4 > 0,
            };
            let got = suite
                .world
                .stranger
                .say(FrameType::Fetch, 0, &ask.encode())
                .await;
            let wanted = [NOT_FOUND[0].clone(), FORBIDDEN[0].clone()];
            let wanted = if bits == 2 { &wanted[..1] } else { &wanted[..] };
            suite
                .judge(&format!("FETCH {bits} by a link {name}"), wanted, got)
                .await?;
        }
    }
    Ok(())
}

pub(super) async fn creations(suite: &mut Suite, own: &Place) -> Result<()> {
    let (pair, fresh) = (suite.world.pair, GroupId::new(random_bytes()));
    let place = place_of(&mut suite.world.stranger, fresh).await?;
    let keys = &suite.world.stranger.keys;
    let make = |group, fanout: Vec<FanoutEntry>| GroupCreate {
        group,
        fanout,
        sealed_group_info: None,
        join_key: None,
    };
    let good = place.entry(keys, true);
    let mut of_alice = good.clone();
    of_alice.sealed_ref = suite.world.alice.pair.sealed_ref;
    let mut far = good.clone();
    far.domain = elsewhere()?;
    let second = own.entry(keys, false);
    let many = (0..300).map(|_| FanoutEntry {
        handle: Handle::new(random_bytes()),
        ..good.clone()
    });
    let table = [
        (
            "the pair's id",
            make(pair, vec![own.entry(keys, true)]),
            &CONFLICT,
        ),
        ("Alice's reference", make(fresh, vec![of_alice]), &NOT_FOUND),
        (
            "another group's reference",
            make(fresh, vec![own.entry(keys, true)]),
            &NOT_FOUND,
        ),
        ("no entry", make(fresh, Vec::new()), &INVALID),
        (
            "two entries",
            make(fresh, vec![good.clone(), second]),
            &INVALID,
        ),
        ("300 entries", make(fresh, many.collect()), &INVALID),
        (
            "no admin",
            make(fresh, vec![place.entry(keys, false)]),
            &INVALID,
        ),
        (
            "an entry of another domain",
            make(fresh, vec![far]),
            &INVALID,
        ),
    ];
    for (name, create, wanted) in table {
        let got = suite
            .world
            .stranger
            .say(FrameType::GroupCreate, 0, &create.encode())
            .await;
        suite
            .judge(&format!("GROUP_CREATE with {name}"), wanted, got)
            .await?;
    }
    Ok(())
}

/// Accounts of others: without a capability they do not exist.
pub(super) async fn accounts(suite: &mut Suite) -> Result<()> {
    let alice = suite.world.alice.keys.account.id();
    let nobody = Keys::new(&suite.world.target).account.id();
    let group = suite.world.pair;
    let hub = suite.world.target.domain.clone();
    let capabilities = [None, Some([0; 16]), Some(random_bytes())];
    for (name, account) in [("Alice", alice), ("nobody", nobody)] {
        for capability in capabilities {
            let token = || capability.map(Token::new);
            let (claim, get) = asks(&account, token, group, &hub);
            let got = suite
                .world
                .stranger
                .say(FrameType::KeyPackage, 0, &claim.encode())
                .await;
            suite
                .judge(&format!("claim from {name}"), &NOT_FOUND, got)
                .await?;
            let got = suite
                .world
                .stranger
                .say(FrameType::Directory, 0, &get.encode())
                .await;
            suite
                .judge(&format!("list of {name}"), &NOT_FOUND, got)
                .await?;
        }
    }
    Ok(())
}

fn asks(
    account: &AccountId,
    token: impl Fn() -> Option<Token>,
    group: GroupId,
    hub: &Domain,
) -> (KeyPackage, Directory) {
    let claim = KeyPackage::Claim(Claim {
        account: account.clone(),
        domain: hub.clone(),
        capability: token(),
        group,
        hub: hub.clone(),
        id: ClaimId::new(random_bytes()),
    });
    let get = Directory::Get {
        account: account.clone(),
        domain: hub.clone(),
        capability: token(),
    };
    (claim, get)
}
