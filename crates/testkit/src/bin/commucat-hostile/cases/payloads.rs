//! Control payloads that are not what they must be: each type, each key, each byte.

use anyhow::{Context as _, Result};
use bytes::Bytes;
use commucat_crypto::secret::random_bytes;
use commucat_crypto::signing::{Purpose, SigningKey};
use commucat_proto::error::Title;
use commucat_proto::frame::FrameType;
use commucat_proto::frame::ack::{AckUp, ForkTag};
use commucat_proto::frame::bundle::Welcome;
use commucat_proto::frame::directory::Directory;
use commucat_proto::frame::fanout::{AdminChange, JoinKeyChange};
use commucat_proto::frame::fetch::FetchAccess;
use commucat_proto::frame::group_create::GroupCreate;
use commucat_proto::frame::key_package::{Claim, KeyPackage, PublishedPackage};
use commucat_proto::frame::leave::Leave;
use commucat_proto::id::{ClaimId, GroupId, Handle, JoinKey, Token, TokenHash};
use commucat_proto::identity::JoinRead;
use commucat_proto::wire::Cbor;

use crate::cbor::Value;
use crate::client::{Got, Keys};
use crate::clock;
use crate::suite::Suite;
use crate::wire;
use crate::world::{Place, bundle, fetch, join, place_of, update};

const INVALID: Got = Got::Refused(Title::InvalidControlPayload);

/// A good payload, and which keys it cannot do without.
struct Sample {
    name: &'static str,
    kind: FrameType,
    channel: u64,
    payload: Vec<u8>,
    required: &'static [u64],
}

pub(super) async fn run(suite: &mut Suite) -> Result<()> {
    let group = GroupId::new(random_bytes());
    let place = place_of(&mut suite.world.stranger, group).await?;
    for sample in samples(&suite.world.stranger.keys, group, &place) {
        of_sample(suite, &sample).await?;
    }
    bundles(suite, group, &place).await?;
    unnumbered(suite).await?;
    messages(suite).await
}

fn samples(keys: &Keys, group: GroupId, place: &Place) -> Vec<Sample> {
    let mut all = group_samples(keys, group, place);
    all.extend(account_samples(keys, group));
    all
}

fn group_samples(keys: &Keys, group: GroupId, place: &Place) -> Vec<Sample> {
    let (handle, sealed_ref) = (place.handle(), place.sealed_ref);
    let leave = |for_good| Leave { group, for_good }.encode();
    let create = GroupCreate {
        group,
        fanout: vec![place.entry(keys, true)],
        sealed_group_info: Some(Bytes::from_static(b"sealed")),
        join_key: Some(JoinKey::new(SigningKey::generate().public())),
    };
    let read = JoinRead {
        group,
        hub: keys.target.domain.clone(),
        created: clock::now(),
    };
    let mut by_link = fetch(keys, group, handle, sealed_ref);
    by_link.access = FetchAccess::Joiner(place.signing.sign(Purpose::JoinRead, read.encode()));
    let commit = place
        .signing
        .sign(Purpose::Commit, bundle(group, 0, handle).encode());
    let sample = |name, kind, payload, required| Sample {
        name,
        kind,
        channel: u64::from(kind == FrameType::Join),
        payload,
        required,
    };
    let fetch = fetch(keys, group, handle, sealed_ref).encode();
    vec![
        sample(
            "JOIN",
            FrameType::Join,
            join(keys, group, handle, sealed_ref),
            &[0, 1, 2, 3],
        ),
        sample("LEAVE", FrameType::Leave, leave(false), &[0]),
        sample("LEAVE for good", FrameType::Leave, leave(true), &[0]),
        sample(
            "GROUP_CREATE",
            FrameType::GroupCreate,
            create.encode(),
            &[0, 1],
        ),
        sample("FETCH", FrameType::Fetch, fetch, &[0, 1, 2, 3, 4, 5]),
        sample(
            "FETCH by link",
            FrameType::Fetch,
            by_link.encode(),
            &[0, 1, 4, 5, 6],
        ),
        sample(
            "KEY_UPDATE",
            FrameType::KeyUpdate,
            update(keys, commit, sealed_ref),
            &[0, 1, 2],
        ),
    ]
}

fn account_samples(keys: &Keys, group: GroupId) -> Vec<Sample> {
    let (account, domain) = (keys.account.id(), keys.target.domain.clone());
    let hub = domain.clone();
    let claim = KeyPackage::Claim(Claim {
        account: account.clone(),
        domain: domain.clone(),
        capability: Some(Token::new(random_bytes())),
        group,
        hub: hub.clone(),
        id: ClaimId::new(random_bytes()),
    });
    let publish = KeyPackage::Publish {
        packages: vec![PublishedPackage {
            not_after: clock::now(),
            last_resort: false,
            package: Bytes::from_static(b"package"),
        }],
    };
    let capabilities = KeyPackage::Capabilities {
        add: vec![TokenHash::new(random_bytes())],
        remove: vec![TokenHash::new(random_bytes())],
    };
    let get = Directory::Get {
        account,
        domain,
        capability: Some(Token::new(random_bytes())),
    };
    let put = Directory::Put { list: keys.list(1) };
    let own = KeyPackage::OwnReference { group, hub };
    let sample = |name, kind, payload, required| Sample {
        name,
        kind,
        channel: 0,
        payload,
        required,
    };
    let packages = FrameType::KeyPackage;
    vec![
        sample("publish", packages, publish.encode(), &[0, 1]),
        sample("count", packages, KeyPackage::Count.encode(), &[0]),
        sample("claim", packages, claim.encode(), &[0, 2, 3, 5, 6, 7]),
        sample("capabilities", packages, capabilities.encode(), &[0]),
        sample("own reference", packages, own.encode(), &[0, 5, 6]),
        sample("put", FrameType::Directory, put.encode(), &[0, 1]),
        sample("get", FrameType::Directory, get.encode(), &[0, 2, 3]),
    ]
}

async fn of_sample(suite: &mut Suite, sample: &Sample) -> Result<()> {
    let &Sample {
        name,
        kind,
        channel,
        ref payload,
        required,
    } = sample;
    let value = Value::parse(payload).context("our own payload")?;
    anyhow::ensure!(value.encode() == *payload, "{name}: our own CBOR");
    for (what, bent) in value.bent(required) {
        let got = suite.world.stranger.say(kind, channel, &bent).await;
        suite
            .judge(&format!("{name} {what}"), &[INVALID], got)
            .await?;
    }
    for len in 0..payload.len() {
        let cut = payload.get(..len).unwrap_or_default();
        let got = suite.world.stranger.say(kind, channel, cut).await;
        suite
            .judge(&format!("{name} cut at {len}"), &[INVALID], got)
            .await?;
    }
    // Nothing but the bending was wrong with it.
    let got = suite.world.stranger.say(kind, channel, payload).await;
    let fine = [
        Got::Done,
        Got::Refused(Title::NotFound),
        Got::Refused(Title::Conflict),
        Got::Refused(Title::Forbidden),
    ];
    suite
        .judge(&format!("{name} as it should be"), &fine, got)
        .await
}

/// Signed bundles whose body is bent.
async fn bundles(suite: &mut Suite, group: GroupId, place: &Place) -> Result<()> {
    let other = SigningKey::generate();
    let handle = Handle::new(other.public());
    let mut good = bundle(group, 5, place.handle());
    let mut entry = place.entry(&suite.world.stranger.keys, true);
    entry.handle = handle;
    good.change.add = vec![entry];
    good.change.remove = vec![Handle::new(SigningKey::generate().public())];
    good.change.admins = vec![AdminChange {
        handle: place.handle(),
        admin: true,
    }];
    good.change.join_key = Some(JoinKeyChange::Set(JoinKey::new(other.public())));
    good.change.close = true;
    good.welcomes = vec![Welcome {
        handles: vec![handle],
        welcome: Bytes::from_static(b"welcome"),
    }];
    let value = Value::parse(&good.encode()).context("our own bundle")?;
    for (what, body) in value.bent(&[0, 1, 2, 6, 7]) {
        let signed = place.signing.sign(Purpose::Commit, body);
        let payload = update(&suite.world.stranger.keys, signed, place.sealed_ref);
        let got = suite
            .world
            .stranger
            .say(FrameType::KeyUpdate, 0, &payload)
            .await;
        suite
            .judge(&format!("bundle {what}"), &[INVALID], got)
            .await?;
    }
    let body = good.encode();
    for len in 0..body.len() {
        let cut = body.get(..len).unwrap_or_default().to_vec();
        let signed = place.signing.sign(Purpose::Commit, cut);
        let payload = update(&suite.world.stranger.keys, signed, place.sealed_ref);
        let got = suite
            .world
            .stranger
            .say(FrameType::KeyUpdate, 0, &payload)
            .await;
        suite
            .judge(&format!("bundle cut at {len}"), &[INVALID], got)
            .await?;
    }
    Ok(())
}

/// Frames without a number: no ERROR could name them, so each ends its connection.
async fn unnumbered(suite: &mut Suite) -> Result<()> {
    let tags = AckUp {
        through: Some(0),
        tags: vec![ForkTag {
            group: GroupId::new(random_bytes()),
            position: 1,
            tag: Some(random_bytes()),
        }],
    };
    let samples = [
        ("ACK", FrameType::Ack, tags.encode(), &[][..]),
        ("PRESENCE", FrameType::Presence, vec![0xa1, 0, 1], &[0][..]),
    ];
    let fatal = Got::Fatal(Title::InvalidControlPayload);
    for (name, kind, payload, required) in samples {
        let value = Value::parse(&payload).context("our own payload")?;
        let cuts = (0..payload.len()).map(|len| {
            let cut = payload.get(..len).unwrap_or_default();
            (format!("cut at {len}"), cut.to_vec())
        });
        for (what, bent) in value.bent(required).into_iter().chain(cuts) {
            let session = suite.world.stranger.live().await?;
            let got = session
                .provoke(&wire::frame(kind.code(), 0, 0, &bent), false)
                .await;
            suite
                .judge(
                    &format!("{name} {what}"),
                    std::slice::from_ref(&fatal),
                    Ok(got),
                )
                .await?;
        }
        let session = suite.world.stranger.live().await?;
        let got = session
            .provoke(&wire::frame(kind.code(), 0, 0, &payload), false)
            .await;
        suite
            .judge(&format!("{name} as it should be"), &[Got::Quiet], Ok(got))
            .await?;
    }
    for state in [2_u8, 23] {
        let session = suite.world.stranger.live().await?;
        let frame = wire::frame(FrameType::Presence.code(), 0, 0, &[0xa1, 0, state]);
        let got = session.provoke(&frame, false).await;
        suite
            .judge(
                "PRESENCE of another state",
                std::slice::from_ref(&fatal),
                Ok(got),
            )
            .await?;
    }
    Ok(())
}

/// MSG too short for its parts, on a channel that is bound.
async fn messages(suite: &mut Suite) -> Result<()> {
    let group = GroupId::new(random_bytes());
    let place = place_of(&mut suite.world.stranger, group).await?;
    let rogue = &mut suite.world.stranger;
    let create = GroupCreate {
        group,
        fanout: vec![place.entry(&rogue.keys, true)],
        sealed_group_info: None,
        join_key: None,
    };
    let payload = create.encode();
    rogue
        .live()
        .await?
        .request(FrameType::GroupCreate, 0, &payload)
        .await?;
    let bind = join(&rogue.keys, group, place.handle(), place.sealed_ref);
    let eleven = [vec![0xff; 10], vec![1], vec![0; 20]].concat();
    let beyond = [vec![0xff; 9], vec![1], vec![0; 20]].concat();
    let cuts = (0..17).map(|len| (format!("of {len} bytes"), vec![0; len]));
    let wrong = cuts.chain([
        ("with a position of 11 bytes".to_owned(), eleven),
        ("with position 2^64 - 1".to_owned(), beyond),
        ("with an endless position".to_owned(), vec![0x80; 40]),
    ]);
    for (what, payload) in wrong {
        let session = suite.world.stranger.live().await?;
        session.request(FrameType::Join, 7, &bind).await?;
        let got = suite.world.stranger.say(FrameType::Msg, 7, &payload).await;
        suite.judge(&format!("MSG {what}"), &[INVALID], got).await?;
        // The ERROR has unbound the channel.
        let got = suite.world.stranger.say(FrameType::Msg, 7, &[0; 30]).await;
        let not_joined = Got::Refused(Title::NotJoined);
        suite
            .judge(&format!("MSG behind a MSG {what}"), &[not_joined], got)
            .await?;
    }
    Ok(())
}
