//! Groups, queues and accounts of others.

use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use commucat_crypto::secret::random_bytes;
use commucat_crypto::signing::{Purpose, SigningKey};
use commucat_proto::error::Title;
use commucat_proto::frame::FrameType;
use commucat_proto::frame::ack::{AckUp, ForkTag};
use commucat_proto::frame::bundle::{Bundle, Welcome};
use commucat_proto::frame::directory::Directory;
use commucat_proto::frame::fanout::{AdminChange, FanoutEntry, JoinKeyChange};
use commucat_proto::frame::fetch::{FetchAccess, Want};
use commucat_proto::frame::group_create::GroupCreate;
use commucat_proto::frame::key_package::{Claim, KeyPackage};
use commucat_proto::frame::leave::Leave;
use commucat_proto::frame::msg::Msg;
use commucat_proto::id::{
    AccountId, ClaimId, Domain, GroupId, Handle, JoinKey, MessageId, SealedRef, Token,
};
use commucat_proto::identity::JoinRead;
use commucat_proto::signed::Signed;
use commucat_proto::wire::Cbor;

use super::identity::{WEAK, forged};
use crate::client::{Got, Keys};
use crate::clock;
use crate::suite::Suite;
use crate::wire;
use crate::world::{Place, Rogue, bundle, create, fetch, join, place_of, signed_update, update};

const NOT_FOUND: [Got; 1] = [Got::Refused(Title::NotFound)];
const FORBIDDEN: [Got; 1] = [Got::Refused(Title::Forbidden)];
const INVALID: [Got; 1] = [Got::Refused(Title::InvalidControlPayload)];
const CONFLICT: [Got; 1] = [Got::Refused(Title::Conflict)];
const ELSEWHERE: [Got; 1] = [Got::Refused(Title::FederationFailure)];

pub(super) async fn run(suite: &mut Suite) -> Result<()> {
    let pair = suite.world.pair;
    let own = place_of(&mut suite.world.stranger, pair).await?;
    strangers(suite, &own).await?;
    strangers_commits(suite, &own).await?;
    links(suite).await?;
    creations(suite, &own).await?;
    accounts(suite).await?;
    removed(suite).await?;
    plain_members(suite).await?;
    impossible(suite).await?;
    weak_handles(suite).await?;
    positions(suite).await?;
    bindings(suite).await?;
    blocks(suite).await
}

fn elsewhere() -> Result<Domain> {
    Ok(Domain::parse("elsewhere.example")?)
}

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

async fn strangers(suite: &mut Suite, own: &Place) -> Result<()> {
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

async fn strangers_commits(suite: &mut Suite, own: &Place) -> Result<()> {
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
        .judge("FETCH from another domain", &ELSEWHERE, got)
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
async fn links(suite: &mut Suite) -> Result<()> {
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

async fn creations(suite: &mut Suite, own: &Place) -> Result<()> {
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
async fn accounts(suite: &mut Suite) -> Result<()> {
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

/// Who was removed has its handle, its reference, and the key; they are of no use.
async fn removed(suite: &mut Suite) -> Result<()> {
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
async fn plain_members(suite: &mut Suite) -> Result<()> {
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

/// An own group, to break rules in.
async fn own_group(rogue: &mut Rogue) -> Result<(GroupId, Place)> {
    let group = GroupId::new(random_bytes());
    let place = place_of(rogue, group).await?;
    let keys = Keys {
        account: commucat_crypto::certificate::AccountSecret::from_seed(&rogue.keys.account.seed()),
        noise: rogue.keys.noise.clone(),
        device: rogue.keys.device.clone(),
        target: rogue.keys.target.clone(),
    };
    create(rogue.live().await?, &keys, group, &place).await?;
    Ok((group, place))
}

/// Commits of an admin that make no sense, and that reach for what is not in the group.
async fn impossible(suite: &mut Suite) -> Result<()> {
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
async fn weak_handles(suite: &mut Suite) -> Result<()> {
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

async fn positions(suite: &mut Suite) -> Result<()> {
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

async fn bindings(suite: &mut Suite) -> Result<()> {
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

/// Leaving for good blocks the group, whoever adds the device again by what it knows.
async fn blocks(suite: &mut Suite) -> Result<()> {
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
