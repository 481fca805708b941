//! Headers of frames: types, channels, numbers, sizes.

use anyhow::Result;
use commucat_crypto::secret::random_bytes;
use commucat_proto::error::Title;
use commucat_proto::frame::ack::AckUp;
use commucat_proto::frame::msg::Msg;
use commucat_proto::frame::{FrameType, Number};
use commucat_proto::id::{GroupId, MessageId};
use commucat_proto::wire::Cbor;

use crate::client::{Event, Got};
use crate::suite::Suite;
use crate::wire;
use crate::world::{bundle, create, join, place_of, signed_update};

const KIB: usize = 1_024;

pub(super) async fn run(suite: &mut Suite) -> Result<()> {
    types(suite).await?;
    channels(suite).await?;
    numbers(suite).await?;
    lengths(suite).await?;
    sizes(suite).await?;
    cuts(suite).await?;
    acks(suite).await
}

/// One frame, unnumbered or with the next number, on a usable session.
async fn one(
    suite: &mut Suite,
    code: u8,
    channel: u64,
    number: Carries,
    payload: &[u8],
) -> Result<Got> {
    let session = suite.world.stranger.live().await?;
    let numbered = number == Carries::Next;
    let sequence = match number {
        Carries::Next => session.number(),
        Carries::This(sequence) => sequence,
    };
    let frame = wire::frame(code, channel, sequence, payload);
    Ok(session.provoke(&frame, numbered).await)
}

/// The number in a header.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Carries {
    Next,
    This(u64),
}

/// The types that a client may send in the tunnel.
const UP: [FrameType; 12] = [
    FrameType::Join,
    FrameType::Leave,
    FrameType::Msg,
    FrameType::Ack,
    FrameType::Typing,
    FrameType::Presence,
    FrameType::KeyUpdate,
    FrameType::GroupCreate,
    FrameType::KeyPackage,
    FrameType::Directory,
    FrameType::Fetch,
    FrameType::Padding,
];

async fn types(suite: &mut Suite) -> Result<()> {
    let fatal = [Got::Fatal(Title::InvalidFrameType)];
    let goes_on = [Got::Refused(Title::InvalidFrameType)];
    let known = |code| UP.iter().any(|kind| kind.code() == code);
    for code in (0..=0x7f_u8).filter(|code| !known(*code)) {
        for number in [Carries::Next, Carries::This(0)] {
            let got = one(suite, code, 0, number, b"").await;
            suite.judge(&format!("type {code:#x}"), &fatal, got).await?;
        }
    }
    for code in 0x80..=0xff {
        for payload in [&b""[..], &[0xff; 300]] {
            let got = one(suite, code, 0, Carries::Next, payload).await;
            suite
                .judge(&format!("type {code:#x}"), &goes_on, got)
                .await?;
        }
    }
    Ok(())
}

async fn channels(suite: &mut Suite) -> Result<()> {
    let range = [Got::Fatal(Title::IdentifierOutOfRange)];
    for kind in UP {
        let number = match kind.number() {
            Number::Takes => Carries::Next,
            Number::Zero => Carries::This(0),
        };
        for channel in [0, 1, 4_096, 4_097, 0xffff_ffff, 0x1_0000_0000, u64::MAX] {
            let allowed = match kind {
                FrameType::Join => (1..=4_096).contains(&channel),
                FrameType::Msg | FrameType::Typing => channel < 0x1_0000_0000,
                _ => channel == 0,
            };
            if allowed {
                continue;
            }
            let got = one(suite, kind.code(), channel, number, b"\xa0").await;
            suite
                .judge(
                    &format!("{} on channel {channel}", kind.name()),
                    &range,
                    got,
                )
                .await?;
        }
    }
    Ok(())
}

async fn numbers(suite: &mut Suite) -> Result<()> {
    let order = [Got::Fatal(Title::SequenceOutOfOrder)];
    let range = [Got::Fatal(Title::IdentifierOutOfRange)];
    for kind in UP {
        let channel = u64::from(kind == FrameType::Join);
        for off in [-2_i64, -1, 1, 1_000] {
            let session = suite.world.stranger.live().await?;
            // So that there are numbers before the next one.
            session.provoke(&[], false).await;
            session.provoke(&[], false).await;
            let next = session.number();
            let sequence = match kind.number() {
                Number::Takes => next.saturating_add_signed(off),
                Number::Zero => off.unsigned_abs(),
            };
            let got = one(
                suite,
                kind.code(),
                channel,
                Carries::This(sequence),
                b"\xa0",
            )
            .await;
            suite
                .judge(&format!("{} with number {off:+}", kind.name()), &order, got)
                .await?;
        }
        for sequence in [1 << 32, u64::MAX] {
            let got = one(
                suite,
                kind.code(),
                channel,
                Carries::This(sequence),
                b"\xa0",
            )
            .await;
            suite
                .judge(
                    &format!("{} with number {sequence}", kind.name()),
                    &range,
                    got,
                )
                .await?;
        }
        if kind.number() == Number::Takes {
            let got = one(suite, kind.code(), channel, Carries::This(0), b"\xa0").await;
            suite
                .judge(&format!("{} without a number", kind.name()), &order, got)
                .await?;
        }
    }
    let got = one(suite, 0x90, 0, Carries::This(0), b"").await;
    suite
        .judge("an extension without a number", &order, got)
        .await
}

/// Lengths that disagree, and varints that are none.
async fn lengths(suite: &mut Suite) -> Result<()> {
    let fatal = Got::Fatal;
    let long = |bytes: &[u8]| [bytes, &[0xff; 11]].concat();
    let above = [vec![0xff; 9], vec![2]].concat();
    let mut table = vec![
        ("length 0".to_owned(), vec![0], fatal(Title::TruncatedFrame)),
        (
            "16 MiB and 1".to_owned(),
            wire::number((16 << 20) + 1),
            fatal(Title::FrameTooLarge),
        ),
        (
            "2^64 - 1 bytes".to_owned(),
            wire::number(u64::MAX),
            fatal(Title::FrameTooLarge),
        ),
        (
            "a length of 11 bytes".to_owned(),
            vec![0xff; 11],
            fatal(Title::VarintOverflow),
        ),
        (
            "a length above 64 bits".to_owned(),
            above.clone(),
            fatal(Title::VarintOverflow),
        ),
        (
            "a channel of 11 bytes".to_owned(),
            wire::framed(&long(&[0x43])),
            fatal(Title::VarintOverflow),
        ),
        (
            "a number of 11 bytes".to_owned(),
            wire::framed(&long(&[0x43, 0])),
            fatal(Title::VarintOverflow),
        ),
        (
            "a payload length of 11 bytes".to_owned(),
            wire::framed(&long(&[0x43, 0, 0])),
            fatal(Title::VarintOverflow),
        ),
        (
            "a channel above 64 bits".to_owned(),
            wire::framed(&[&[0x43][..], &above, &[0, 0]].concat()),
            fatal(Title::VarintOverflow),
        ),
        (
            "longer varints than needed".to_owned(),
            vec![0x87, 0x00, 0x43, 0x80, 0x00, 0x80, 0x00, 0x80, 0x00],
            Got::Quiet,
        ),
    ];
    for (declared, present) in [
        (1, 0),
        (0, 1),
        (5, 4),
        (4, 5),
        (u64::MAX, 3),
        (1 << 40, 0),
        (2, 0),
    ] {
        let payload = vec![0; present];
        let frame = wire::framed(&wire::body(0x43, 0, 0, declared, &payload));
        let name = format!("a payload of {declared} in a frame of {present}");
        table.push((name, frame, fatal(Title::TruncatedFrame)));
    }
    let whole = wire::body(0x43, 0, 0, 3, b"abc");
    for len in 0..whole.len() {
        let frame = wire::framed(whole.get(..len).unwrap_or_default());
        table.push((
            format!("a frame cut to {len}"),
            frame,
            fatal(Title::TruncatedFrame),
        ));
    }
    // A frame of 9 bytes whose varints are longer than needed.
    if let Some((_, frame, _)) = table.iter_mut().find(|row| row.0.starts_with("longer")) {
        *frame = vec![0x87, 0x00, 0x43, 0x80, 0x00, 0x80, 0x00, 0x80, 0x00];
    }
    for (name, frame, wanted) in table {
        let session = suite.world.stranger.live().await?;
        let got = session.provoke(&frame, false).await;
        suite.judge(&name, &[wanted], Ok(got)).await?;
    }
    Ok(())
}

/// Each limit and one above; and declared sizes whose bytes never come.
async fn sizes(suite: &mut Suite) -> Result<()> {
    let control = Got::Fatal(Title::ControlPayloadTooLarge);
    let invalid = Got::Refused(Title::InvalidControlPayload);
    let fatal_invalid = Got::Fatal(Title::InvalidControlPayload);
    let typing = Got::Fatal(Title::PayloadTooLarge);
    let table = [
        (FrameType::Join, 256 * KIB, &invalid, &control),
        (FrameType::Leave, 256 * KIB, &invalid, &control),
        (FrameType::KeyPackage, 256 * KIB, &invalid, &control),
        (FrameType::Directory, 256 * KIB, &invalid, &control),
        (FrameType::Fetch, 256 * KIB, &invalid, &control),
        (FrameType::GroupCreate, 768 * KIB, &invalid, &control),
        (FrameType::KeyUpdate, 768 * KIB, &invalid, &control),
        (FrameType::Ack, 256 * KIB, &fatal_invalid, &control),
        (FrameType::Presence, 256 * KIB, &fatal_invalid, &control),
        (FrameType::Padding, 256 * KIB, &Got::Quiet, &control),
        (FrameType::Typing, KIB, &Got::Quiet, &typing),
    ];
    for (kind, limit, at, above) in table {
        let channel = u64::from(kind == FrameType::Join);
        let number = match kind.number() {
            Number::Takes => Carries::Next,
            Number::Zero => Carries::This(0),
        };
        for (len, wanted) in [(limit, at), (limit + 1, above)] {
            let got = one(suite, kind.code(), channel, number, &vec![0; len]).await;
            let wanted = std::slice::from_ref(wanted);
            suite
                .judge(&format!("{} of {len} bytes", kind.name()), wanted, got)
                .await?;
        }
        // Declared, and never sent: the server reserves nothing, and says so at once if it is too much.
        let session = suite.world.stranger.live().await?;
        let sequence = if number == Carries::Next {
            session.number()
        } else {
            0
        };
        let declared = 16 * KIB as u64 * KIB as u64 - 64;
        let head = wire::body(kind.code(), channel, sequence, declared, &[]);
        let frame = [wire::number(head.len() as u64 + declared), head].concat();
        session.send(&frame).await;
        let got = session.provoke(&[], false).await;
        let wanted = std::slice::from_ref(above);
        suite
            .judge(
                &format!("{} that declares 16 MiB", kind.name()),
                wanted,
                Ok(got),
            )
            .await?;
    }
    messages(suite).await?;
    group_infos(suite).await
}

async fn messages(suite: &mut Suite) -> Result<()> {
    let group = GroupId::new(random_bytes());
    let place = place_of(&mut suite.world.mole, group).await?;
    let rogue = &mut suite.world.mole;
    let bind = join(&rogue.keys, group, place.handle(), place.sealed_ref);
    let session = rogue.keys.connect(&rogue.link).await?;
    let mut session = session;
    create(&mut session, &rogue.keys, group, &place).await?;
    drop(session);
    for (extra, wanted) in [
        (0, Got::Done),
        (1, Got::Refused(Title::PayloadTooLarge)),
        (256 * KIB, Got::Refused(Title::PayloadTooLarge)),
    ] {
        let session = suite.world.mole.fresh().await?;
        session.request(FrameType::Join, 1, &bind).await?;
        let sealed = vec![7; 256 * KIB + extra];
        let payload = Msg::new(0, MessageId::new(random_bytes()), &sealed)
            .payload()
            .clone();
        let got = suite.world.mole.say(FrameType::Msg, 1, &payload).await;
        suite
            .judge(&format!("a MSG of 256 KiB and {extra}"), &[wanted], got)
            .await?;
    }
    // The greatest frame that there is.
    let session = suite.world.mole.fresh().await?;
    session.request(FrameType::Join, 1, &bind).await?;
    let got = suite
        .world
        .mole
        .say(FrameType::Msg, 1, &vec![0; 16 * KIB * KIB - 64])
        .await;
    let wanted = [Got::Refused(Title::PayloadTooLarge)];
    suite.judge("a MSG of 16 MiB", &wanted, got).await
}

async fn group_infos(suite: &mut Suite) -> Result<()> {
    let group = GroupId::new(random_bytes());
    let place = place_of(&mut suite.world.mole, group).await?;
    let mut large = bundle(group, 0, place.handle());
    large.sealed_group_info = vec![7; 512 * KIB + 1].into();
    let payload = signed_update(&suite.world.mole.keys, &place, &large);
    let got = suite
        .world
        .mole
        .say(FrameType::KeyUpdate, 0, &payload)
        .await;
    let title = Title::ControlPayloadTooLarge;
    let wanted = [Got::Fatal(title), Got::Refused(title)];
    suite
        .judge("a GroupInfo of 512 KiB and 1", &wanted, got)
        .await
}

/// Streams that end in the middle of a frame.
async fn cuts(suite: &mut Suite) -> Result<()> {
    let group = GroupId::new(random_bytes());
    let place = place_of(&mut suite.world.stranger, group).await?;
    let keys = &suite.world.stranger.keys;
    let leave = commucat_proto::frame::leave::Leave {
        group,
        for_good: true,
    }
    .encode();
    let samples = [
        wire::frame(
            FrameType::Join.code(),
            1,
            1,
            &join(keys, group, place.handle(), place.sealed_ref),
        ),
        wire::frame(FrameType::Msg.code(), 1, 1, &[0; 40]),
        wire::frame(FrameType::Leave.code(), 0, 1, &leave),
        wire::frame(FrameType::KeyPackage.code(), 0, 1, &[0xa1, 0, 2]),
        wire::frame(FrameType::Ack.code(), 0, 0, &[0xa1, 0, 0]),
        wire::frame(FrameType::Typing.code(), 1, 0, b"typing"),
        wire::frame(FrameType::Presence.code(), 0, 0, &[0xa1, 0, 0]),
        wire::frame(FrameType::Directory.code(), 0, 1, &[0xa0; 20]),
        wire::frame(FrameType::Padding.code(), 0, 0, &[0; 20]),
        wire::frame(FrameType::GroupCreate.code(), 0, 1, &[0xa0; 20]),
        wire::frame(FrameType::KeyUpdate.code(), 0, 1, &[0xa0; 20]),
        wire::frame(FrameType::Fetch.code(), 0, 1, &[0xa0; 20]),
        wire::frame(0x99, 0, 1, &[0xa0; 20]),
    ];
    for frame in samples {
        for len in 0..frame.len() {
            let session = suite.world.stranger.fresh().await?;
            session.send(frame.get(..len).unwrap_or_default()).await;
            session.carrier.end();
            let got = loop {
                match session.event().await {
                    Event::Closed => break Got::Closed,
                    Event::Frame(frame) if frame.header.kind == FrameType::Ack => {}
                    other => break Got::Strange(format!("{other:?}")),
                }
            };
            let code = frame.get(1).copied().unwrap_or_default();
            let name = format!("the stream ends after {len} bytes of a frame of type {code:#x}");
            suite.judge(&name, &[Got::Closed], Ok(got)).await?;
        }
    }
    Ok(())
}

async fn acks(suite: &mut Suite) -> Result<()> {
    for through in [1, 2, 1_000, u32::MAX] {
        let session = suite.world.stranger.fresh().await?;
        let ack = AckUp {
            through: Some(through),
            tags: Vec::new(),
        }
        .encode();
        let got = session
            .provoke(&wire::frame(FrameType::Ack.code(), 0, 0, &ack), false)
            .await;
        let order = [Got::Fatal(Title::SequenceOutOfOrder)];
        suite
            .judge(
                &format!("ACK {through} when nothing was sent"),
                &order,
                Ok(got),
            )
            .await?;
    }
    for payload in [&[0xa0_u8][..], &[0xa1, 0, 0]] {
        let session = suite.world.stranger.fresh().await?;
        let got = session
            .provoke(&wire::frame(FrameType::Ack.code(), 0, 0, payload), false)
            .await;
        suite
            .judge("ACK of nothing", &[Got::Quiet], Ok(got))
            .await?;
    }
    Ok(())
}
