//! Events that a domain may not send, in requests that are signed as they should be.

use anyhow::{Context as _, Result};
use bytes::Bytes;
use commucat_crypto::secret::random_bytes;
use commucat_crypto::signing::SigningKey;
use commucat_federation::event::{
    Body, Class, Deliver, Delivered, Request, Requested, Return, Submit, Tag,
};
use commucat_proto::frame::directory::Directory;
use commucat_proto::frame::group_event::{GroupEvent, Reason};
use commucat_proto::frame::key_package::{Claim, KeyPackage};
use commucat_proto::frame::msg::Msg;
use commucat_proto::id::{
    AccountId, ClaimId, DedupeKey, Domain, GroupId, Handle, MessageId, SealedRef, Token,
};
use commucat_proto::signed::Signed;
use commucat_proto::wire::Cbor;

use super::{liar, record};
use crate::cbor::Value;
use crate::peer::{self, Peer, put};
use crate::suite::Suite;
use crate::world::{bundle, fetch, signed_update};

/// Outcomes of CCP-1 section 8.
const CUSTODY: u64 = 1;
const REFUSED: u64 = 3;

pub(super) async fn run(suite: &mut Suite) -> Result<()> {
    let liar = liar(suite).await?;
    members(suite, &liar).await?;
    requests(suite, &liar).await?;
    structure(suite, &liar).await
}

fn msg() -> Bytes {
    let message = MessageId::new(random_bytes());
    Msg::new(1, message, &random_bytes::<32>())
        .payload()
        .clone()
}

fn event(group: GroupId, frame: Delivered, payload: Bytes, refs: Vec<SealedRef>) -> Body {
    Body::Deliver(Deliver {
        group,
        frame,
        payload,
        references: refs,
    })
}

/// Members and references that belong to the server's own domain, whose hub it is.
async fn members(suite: &mut Suite, liar: &Peer) -> Result<()> {
    let world = &suite.world;
    let (group, club) = (world.pair, world.club);
    let (handle, reference) = (world.alice.pair.handle(), world.alice.pair.sealed_ref);
    let forged = SealedRef::new(random_bytes());
    let submit = |group, handle, reference, class| {
        Body::Submit(Submit {
            group,
            handle,
            reference,
            class,
            payload: msg(),
        })
    };
    let returned = |author| {
        Body::Return(Return {
            group,
            message: MessageId::new(random_bytes()),
            returned: DedupeKey::new(random_bytes()),
            handles: vec![handle],
            reason: Reason::Full,
            author,
        })
    };
    let deliver = |frame, payload, reference| event(group, frame, payload, vec![reference]);
    let durable = Class::Durable;
    let unknown = GroupId::new(random_bytes());
    let stranger = Handle::new(SigningKey::generate().public());
    let cases = [
        (
            "submit as a member of the hub's own domain",
            submit(group, handle, reference, durable),
            REFUSED,
        ),
        (
            "submit with a member's handle and a forged reference",
            submit(group, handle, forged, durable),
            REFUSED,
        ),
        (
            "submit by nobody",
            submit(club, stranger, forged, durable),
            REFUSED,
        ),
        (
            "submit to no group",
            submit(unknown, handle, reference, durable),
            REFUSED,
        ),
        (
            "typing as a member of the hub's own domain",
            submit(group, handle, reference, Class::Ephemeral),
            CUSTODY,
        ),
        (
            "deliver to a forged reference",
            deliver(Delivered::Message, msg(), forged),
            CUSTODY,
        ),
        (
            "deliver to a reference of another hub",
            deliver(Delivered::Message, msg(), reference),
            CUSTODY,
        ),
        (
            "typing to a reference of another hub",
            deliver(Delivered::Typing, msg(), reference),
            CUSTODY,
        ),
        (
            "the end of another hub's group",
            deliver(
                Delivered::GroupEvent,
                GroupEvent::closed(group).encode().into(),
                reference,
            ),
            CUSTODY,
        ),
        (
            "return of a message of another hub's group",
            returned(reference),
            REFUSED,
        ),
        ("return to a forged reference", returned(forged), REFUSED),
        (
            "a fork tag of another domain's member",
            Body::Tag(Tag {
                group,
                handle,
                reference,
                position: 1,
                tag: Some([7; 16]),
            }),
            CUSTODY,
        ),
    ];
    for (name, body, wanted) in cases {
        sends(suite, liar, (name, wanted), vec![body]).await?;
    }
    Ok(())
}

/// Requests of devices that the domain does not have.
async fn requests(suite: &mut Suite, liar: &Peer) -> Result<()> {
    let world = &suite.world;
    let (keys, place, club) = (&world.mole.keys, &world.mole_place, world.club);
    let update = signed_update(keys, place, &bundle(club, 2, place.handle()));
    let read = fetch(keys, club, place.handle(), place.sealed_ref).encode();
    let account = AccountId::of_key(&world.alice.keys.account.key());
    let own = Domain::parse(&world.server.domain())?;
    let get = Directory::Get {
        account: account.clone(),
        domain: own.clone(),
        capability: Some(Token::new(random_bytes())),
    };
    let claim = KeyPackage::Claim(Claim {
        account,
        domain: own,
        capability: None,
        group: club,
        hub: liar.domain.clone(),
        id: ClaimId::new(random_bytes()),
    });
    let request = |frame, payload: Vec<u8>| {
        Body::Request(Request {
            frame,
            payload: payload.into(),
        })
    };
    let cases = [
        (
            "a commit of another domain's member",
            request(Requested::KeyUpdate, update),
        ),
        (
            "the log for another domain's member",
            request(Requested::Fetch, read),
        ),
        (
            "a list with a capability that is none",
            request(Requested::Directory, get.encode()),
        ),
        (
            "a claim without a capability",
            request(Requested::KeyPackage, claim.encode()),
        ),
        (
            "a request of rubbish",
            request(Requested::KeyPackage, b"rubbish".to_vec()),
        ),
        (
            "a request without a payload",
            request(Requested::Fetch, Vec::new()),
        ),
    ];
    for (name, body) in cases {
        sends(suite, liar, (name, REFUSED), vec![body]).await?;
    }
    Ok(())
}

/// Events that are none, and payloads that would end the connections of whoever got them.
async fn structure(suite: &mut Suite, liar: &Peer) -> Result<()> {
    let group = suite.world.pair;
    let one = || vec![SealedRef::new(random_bytes())];
    let gap = GroupEvent::gap(MessageId::new(random_bytes())).encode();
    let large = Msg::new(1, MessageId::new(random_bytes()), &vec![7; 300 * 1024]);
    let cases = [
        (
            "a commit of rubbish",
            event(
                group,
                Delivered::KeyUpdate,
                b"rubbish".to_vec().into(),
                one(),
            ),
        ),
        (
            "a Welcome of rubbish",
            event(
                group,
                Delivered::GroupInvite,
                b"rubbish".to_vec().into(),
                one(),
            ),
        ),
        (
            "a message without an id",
            event(group, Delivered::Message, vec![1].into(), one()),
        ),
        (
            "a gap made by a hub",
            event(group, Delivered::GroupEvent, gap.into(), one()),
        ),
        (
            "a message that is too large",
            event(group, Delivered::Message, large.payload().clone(), one()),
        ),
    ];
    for (name, body) in cases {
        sends(suite, liar, (name, REFUSED), vec![body]).await?;
    }
    let map = |kind: u64, map: Vec<(u64, Value)>| {
        Value::List(vec![
            Value::Bytes(random_bytes::<16>().to_vec()),
            Value::Uint(kind),
            Value::Map(map),
        ])
    };
    let id = || Value::Bytes(group.as_bytes().to_vec());
    let refs = |count: u8| {
        let one = |number| Value::Bytes(vec![number; 65]);
        Value::List((0..count).map(one).collect())
    };
    let deliver = |class, frame, refs| {
        map(
            1,
            vec![
                (0, id()),
                (1, Value::Uint(class)),
                (2, Value::Uint(frame)),
                (3, Value::Bytes(msg().to_vec())),
                (4, refs),
            ],
        )
    };
    let same = Value::List(vec![Value::Bytes(vec![1; 65]); 2]);
    let cases = [
        ("an event of kind 0", map(0, Vec::new())),
        ("an event of kind 6", map(6, Vec::new())),
        ("an empty deliver", map(1, Vec::new())),
        ("a deliver of HELLO", deliver(0, 1, refs(1))),
        ("a message that is ephemeral", deliver(1, 5, refs(1))),
        ("a deliver to nobody", deliver(0, 5, refs(0))),
        ("a deliver to one reference twice", deliver(0, 5, same)),
        ("a Welcome for two", deliver(0, 11, refs(2))),
        (
            "a request to JOIN",
            map(5, vec![(0, Value::Uint(3)), (1, Value::Bytes(Vec::new()))]),
        ),
        (
            "a request to create a group",
            map(5, vec![(0, Value::Uint(10)), (1, Value::Bytes(Vec::new()))]),
        ),
    ];
    for (name, raw) in cases {
        let own = Domain::parse(&suite.world.server.domain())?;
        let body = liar.changed(&own, |map| put(map, 4, Value::List(vec![raw])))?;
        answered(suite, (name, REFUSED), &body).await?;
    }
    Ok(())
}

async fn sends(suite: &mut Suite, liar: &Peer, case: (&str, u64), bodies: Vec<Body>) -> Result<()> {
    let own = Domain::parse(&suite.world.server.domain())?;
    answered(suite, case, &liar.batch(&own, bodies)).await
}

/// Posts a batch; every outcome must be `wanted`. Custody of nobody's reference names it as missed.
async fn answered(suite: &mut Suite, (name, wanted): (&str, u64), body: &[u8]) -> Result<()> {
    let outcome = match outcomes(suite, body).await {
        Ok(all) if !all.is_empty() && all.iter().all(|one| *one == wanted) => Ok(()),
        Ok(all) => Err(format!("outcomes {all:?}, not {wanted}")),
        Err(error) => Err(format!("{error:#}")),
    };
    record(suite, name, outcome).await
}

async fn outcomes(suite: &Suite, body: &[u8]) -> Result<Vec<u64>> {
    let (status, raw) = peer::post(&suite.world.server, body).await?;
    anyhow::ensure!(
        status == 200,
        "status {status}: {}",
        String::from_utf8_lossy(&raw)
    );
    let signed = Signed::decode_shared(&Bytes::from(raw))?;
    let Some(Value::Map(map)) = Value::parse(&signed.body) else {
        anyhow::bail!("the answer is no map");
    };
    let settled = map.into_iter().find(|(key, _)| *key == 3);
    let Some((_, Value::List(settled))) = settled else {
        anyhow::bail!("the answer has no outcomes");
    };
    let outcome = |one: Value| match one {
        Value::List(parts) => match parts.get(1) {
            Some(Value::Uint(outcome)) => Some(*outcome),
            _ => None,
        },
        _ => None,
    };
    let all = settled.into_iter().map(outcome);
    all.collect::<Option<_>>().context("not an outcome")
}
