//! Too much of everything: the sender is slowed down or cut off, the others notice nothing.

use std::time::Duration;

use anyhow::{Context as _, Result};
use commucat_crypto::noise::XkInitiator;
use commucat_crypto::secret::random_bytes;
use commucat_proto::error::Title;
use commucat_proto::frame::ack::AckDown;
use commucat_proto::frame::error::Problem;
use commucat_proto::frame::handshake::Pattern;
use commucat_proto::frame::leave::Leave;
use commucat_proto::frame::msg::Msg;
use commucat_proto::frame::{Frame, FrameType};
use commucat_proto::id::{GroupId, MessageId};
use commucat_proto::wire::Cbor;
use tokio::time::timeout;

use crate::carrier::Link;
use crate::client::{ClearAnswer, Event, Got, Keys, clear_answer, hello};
use crate::suite::Suite;
use crate::wire;
use crate::world::{
    CLUB_CHANNEL, Place, bundle, create, fetch, join, place, place_of, signed_update,
};

/// `limits.request_burst` of the server, with what its rate adds meanwhile.
const REQUESTS: u64 = 30_000;
const REFILL: u64 = 600;
/// What its device may have asked for before.
const SPENT: u64 = 1_000;
/// Handshakes left half open.
const HALF_OPEN: usize = 1_000;
const STREAMS: usize = 8;
/// Growth of the server's memory that a client may cause that does not read its answers.
const UNREAD_KIB: u64 = 24 * 1_024;
/// A client that the server does not read from any more.
const STUCK: Duration = Duration::from_secs(2);

pub(super) async fn run(suite: &mut Suite) -> Result<()> {
    unanswered(suite).await?;
    typing(suite).await?;
    unread(suite).await?;
    half_open(suite).await?;
    requests(suite).await
}

/// Requests beyond the rate are refused one by one; nothing else happens.
async fn requests(suite: &mut Suite) -> Result<()> {
    let session = suite.world.removed.fresh().await?;
    let leave = Leave {
        group: GroupId::new(random_bytes()),
        for_good: false,
    }
    .encode();
    let total = REQUESTS + REFILL + 500;
    let frames: Vec<u8> = (1..=total)
        .flat_map(|number| wire::frame(FrameType::Leave.code(), 0, number, &leave))
        .collect();
    session.send(&frames).await;
    let (mut done, mut limited) = (0, 0);
    while done + limited < total {
        let Event::Frame(frame) = session.event().await else {
            break;
        };
        match outcome(&frame) {
            Some(Ok(())) => done += 1,
            Some(Err((Title::RateLimited, true))) => limited += 1,
            _ => {}
        }
    }
    let fair = done + limited == total && (REQUESTS - SPENT..=REQUESTS + REFILL).contains(&done);
    let outcome = fair
        .then_some(())
        .ok_or(format!("{done} done, {limited} refused of {total}"));
    suite.record("requests beyond the rate", outcome).await
}

/// What a frame says of a request: done, or the title and whether it says how long to wait.
fn outcome(frame: &Frame) -> Option<Result<(), (Title, bool)>> {
    match frame.header.kind {
        FrameType::Ack => {
            let ack = AckDown::decode_shared(&frame.payload).ok()?;
            ack.answer.map(|_| Ok(()))
        }
        FrameType::Error => {
            let problem = Problem::decode_shared(&frame.payload).ok()?;
            problem.sequence?;
            Some(Err((problem.title, problem.extra.retry_after.is_some())))
        }
        _ => None,
    }
}

/// More messages than may be unanswered, to a device that is there and acknowledges nothing.
async fn unanswered(suite: &mut Suite) -> Result<()> {
    let group = GroupId::new(random_bytes());
    let (mole, stranger) = (&mut suite.world.mole, &mut suite.world.stranger);
    let deaf = place_of(mole, group).await?;
    let mut session = stranger.keys.connect(&stranger.link).await?;
    let own = place(&mut session, &stranger.keys, group).await?;
    create(&mut session, &stranger.keys, group, &own).await?;
    let mut add = bundle(group, 0, own.handle());
    add.change.add = vec![deaf.entry(&mole.keys, false)];
    let payload = signed_update(&stranger.keys, &own, &add);
    session.request(FrameType::KeyUpdate, 0, &payload).await?;
    let bind = join(&stranger.keys, group, own.handle(), own.sealed_ref);
    let fatal = Got::Fatal(Title::RateLimited);
    for (count, size) in [(1_500, 16), (40, 200_000)] {
        let session = suite.world.stranger.fresh().await?;
        session.request(FrameType::Join, 1, &bind).await?;
        let first = session.number();
        let frames: Vec<u8> = (first..first + count)
            .flat_map(|number| {
                let id = MessageId::new(random_bytes());
                let msg = Msg::new(1, id, &vec![7; size]);
                wire::frame(FrameType::Msg.code(), 1, number, msg.payload())
            })
            .collect();
        session.send(&frames).await;
        // Either too many wait at once, or the server was quick enough to answer them all.
        let got = session.answer(first + count - 1).await.0;
        let wanted = [fatal.clone(), Got::Done];
        suite
            .judge(
                &format!("{count} messages of {size} bytes at once"),
                &wanted,
                Ok(got),
            )
            .await?;
    }
    Ok(())
}

async fn typing(suite: &mut Suite) -> Result<()> {
    let club = suite.world.club;
    let world = &mut suite.world;
    let (handle, sealed_ref) = (world.mole_place.handle(), world.mole_place.sealed_ref);
    let bind = join(&world.mole.keys, club, handle, sealed_ref);
    let session = world.mole.fresh().await?;
    session
        .request(FrameType::Join, CLUB_CHANNEL, &bind)
        .await?;
    let frames = wire::frame(FrameType::Typing.code(), CLUB_CHANNEL, 0, &[7; 1_000]).repeat(1_000);
    for round in 0..20 {
        world_typing(suite, &frames, round).await?;
    }
    let got = suite.world.mole.live().await?.provoke(&[], false).await;
    suite
        .judge("after 20,000 TYPING", &[Got::Quiet], Ok(got))
        .await
}

async fn world_typing(suite: &mut Suite, frames: &[u8], round: u32) -> Result<()> {
    suite.world.mole.live().await?.send(frames).await;
    suite
        .record(&format!("1,000 TYPING, {round}"), Ok(()))
        .await
}

/// Frames whose answers the client never reads.
async fn unread(suite: &mut Suite) -> Result<()> {
    let msg = Msg::new(0, MessageId::new([7; 16]), b"x").payload().clone();
    let large = large_group(suite).await?;
    let keys = &suite.world.stranger.keys;
    let mut ask = fetch(keys, large.0, large.1.handle(), large.1.sealed_ref);
    ask.want.group_info = true;
    let table = [
        (
            "MSG on a channel that is not bound",
            FrameType::Msg.code(),
            msg.to_vec(),
            400_000,
        ),
        ("extensions", 0x99, Vec::new(), 1_000_000),
        (
            "requests that are none",
            FrameType::Leave.code(),
            vec![0xff],
            1_000_000,
        ),
        (
            "FETCH of 512 KiB",
            FrameType::Fetch.code(),
            ask.encode(),
            1_000,
        ),
    ];
    for (name, code, payload, count) in table {
        let session = suite.world.stranger.fresh().await?;
        let mut number = session.number();
        let last = number + count;
        let before = suite.memory_kib()?;
        let mut most = before;
        while number < last {
            let batch: Vec<u8> = (number..(number + 2_000).min(last))
                .flat_map(|number| wire::frame(code, 0, number, &payload))
                .collect();
            number += 2_000;
            let session = suite.world.stranger.live().await;
            let Ok(session) = session else { break };
            let stuck = timeout(STUCK, session.send(&batch)).await.is_err();
            most = most.max(suite.memory_kib()?);
            if stuck {
                break;
            }
        }
        most = most.max(suite.memory_kib()?);
        let grown = most.saturating_sub(before);
        let outcome = (grown < UNREAD_KIB)
            .then_some(())
            .ok_or(format!("memory grew by {grown} KiB"));
        suite.world.stranger.fresh().await?;
        suite
            .record(&format!("unread answers to {name}"), outcome)
            .await?;
    }
    Ok(())
}

/// A group whose GroupInfo is as large as it may be.
async fn large_group(suite: &mut Suite) -> Result<(GroupId, Place)> {
    let group = GroupId::new(random_bytes());
    let own = place_of(&mut suite.world.stranger, group).await?;
    let keys = &suite.world.stranger.keys;
    let mut session = keys.connect(&suite.world.stranger.link).await?;
    create(&mut session, keys, group, &own).await?;
    let mut large = bundle(group, 0, own.handle());
    large.sealed_group_info = vec![7; 512 * 1_024].into();
    let payload = signed_update(keys, &own, &large);
    session.request(FrameType::KeyUpdate, 0, &payload).await?;
    suite.world.stranger.forget();
    Ok((group, own))
}

/// A thousand handshakes that do not go on.
async fn half_open(suite: &mut Suite) -> Result<()> {
    let mut held = Vec::new();
    for _ in 0..HALF_OPEN / STREAMS {
        let link = Link::connect(&suite.world.server).await?;
        for _ in 0..STREAMS {
            let keys = Keys::new(&suite.world.target);
            let target = &keys.target;
            let first = XkInitiator::start(&target.domain, &keys.noise, &target.key)?.1;
            let mut carrier = link.open().await?;
            carrier.write(&hello(target, Pattern::Xk, first)).await;
            held.push(carrier);
        }
        suite
            .world
            .probe()
            .await
            .context("with half-open handshakes")?;
    }
    suite
        .record("1,000 handshakes that do not go on", Ok(()))
        .await?;
    for (at, mut carrier) in held.into_iter().enumerate() {
        let got = match clear_answer(&mut carrier).await {
            // Its AUTH was unread until now.
            ClearAnswer::Auth(_, rest) if rest.is_empty() => match clear_answer(&mut carrier).await
            {
                ClearAnswer::Other(got) => got,
                ClearAnswer::Auth(..) => Got::Auth,
            },
            ClearAnswer::Auth(_, rest) => after_auth(&rest),
            ClearAnswer::Other(got) => got,
        };
        let wanted = [Got::Clear(Title::HandshakeTimeout)];
        suite
            .judge(&format!("half-open handshake {at}"), &wanted, Ok(got))
            .await?;
    }
    Ok(())
}

/// What stands behind AUTH in the same bytes.
fn after_auth(rest: &[u8]) -> Got {
    let json = rest.iter().position(|byte| *byte == b'{');
    let problem = json.and_then(|at| Problem::of_json(rest.get(at..)?).ok());
    problem.map_or(Got::Strange("bytes".to_owned()), |problem| {
        Got::Clear(problem.title)
    })
}
