//! The handshake: frames in clear, their JSON, the messages of Noise.

use anyhow::{Context as _, Result, bail};
use commucat_crypto::noise::{IkInitiator, StaticKey, XkInitiator};
use commucat_proto::error::Title;
use commucat_proto::frame::handshake::{AuthUp, Pattern};
use commucat_proto::wire::Cbor;
use data_encoding::HEXLOWER;

use crate::carrier::{Carrier, Link};
use crate::cbor::Value;
use crate::client::{ClearAnswer, Got, Keys, Session, clear_answer, ends, hello, ik, xk};
use crate::suite::Suite;
use crate::wire;

/// What a stream comes to on which these bytes are written.
async fn written(link: &Link, bytes: &[u8], end: End) -> Result<Got> {
    let mut carrier = link.open().await?;
    carrier.write(bytes).await;
    if end == End::Half {
        carrier.end();
    }
    Ok(match clear_answer(&mut carrier).await {
        ClearAnswer::Auth(..) => {
            carrier.reset();
            Got::Auth
        }
        ClearAnswer::Other(got) => got,
    })
}

/// Whether our direction is ended behind what is written.
#[derive(Clone, Copy, Eq, PartialEq)]
enum End {
    Half,
    Open,
}

fn first_message(keys: &Keys) -> Result<Vec<u8>> {
    let target = &keys.target;
    Ok(XkInitiator::start(&target.domain, &keys.noise, &target.key)?.1)
}

pub(super) async fn run(suite: &mut Suite) -> Result<()> {
    let link = Link::connect(&suite.world.server).await?;
    let keys = Keys::new(&suite.world.target);
    let good = hello(&keys.target, Pattern::Xk, first_message(&keys)?);
    let got = written(&link, &good, End::Open).await;
    suite
        .judge("HELLO as it should be", &[Got::Auth], got)
        .await?;
    headers(suite, &link, &good).await?;
    hello_json(suite, &link, &keys).await?;
    cuts(suite, &link, &good).await?;
    flips(suite, &link).await?;
    auth_json(suite, &link).await?;
    auth_noise(suite, &link).await?;
    replay(suite, &link).await
}

async fn headers(suite: &mut Suite, link: &Link, good: &[u8]) -> Result<()> {
    let json = {
        // The payload behind `len`, type, channel, sequence and its own length.
        let start = good.iter().position(|byte| *byte == b'{').context("JSON")?;
        good.get(start..).unwrap_or_default().to_vec()
    };
    let len = json.len() as u64;
    let title = Got::Clear;
    for code in (0..=255).filter(|code| *code != 1) {
        let got = written(link, &wire::frame(code, 0, 1, &json), End::Open).await;
        // AUTH is a frame of handshakes, in the wrong place.
        suite
            .judge(
                &format!("type {code:#x} in clear"),
                &[title(Title::InvalidFrameType)],
                got,
            )
            .await?;
    }
    let spaces = [&json[..], &vec![b' '; 32 * 1024 - json.len()]].concat();
    let more = [&spaces[..], b" "].concat();
    let table = [
        (
            "channel 1",
            wire::frame(1, 1, 1, &json),
            title(Title::IdentifierOutOfRange),
        ),
        (
            "channel 2^32",
            wire::frame(1, 1 << 32, 1, &json),
            title(Title::IdentifierOutOfRange),
        ),
        (
            "sequence 0",
            wire::frame(1, 0, 0, &json),
            title(Title::SequenceOutOfOrder),
        ),
        (
            "sequence 2",
            wire::frame(1, 0, 2, &json),
            title(Title::SequenceOutOfOrder),
        ),
        (
            "sequence 2^32",
            wire::frame(1, 0, 1 << 32, &json),
            title(Title::IdentifierOutOfRange),
        ),
        ("32 KiB", wire::frame(1, 0, 1, &spaces), Got::Auth),
        (
            "32 KiB and 1",
            wire::frame(1, 0, 1, &more),
            title(Title::FrameTooLarge),
        ),
        (
            "16 MiB and 1",
            wire::number((16 << 20) + 1),
            title(Title::FrameTooLarge),
        ),
        (
            "2^63 bytes",
            wire::number(1 << 63),
            title(Title::FrameTooLarge),
        ),
        (
            "a length of 11 bytes",
            vec![0xff; 11],
            title(Title::VarintOverflow),
        ),
        (
            "a length above 64 bits",
            [vec![0xff; 9], vec![2]].concat(),
            title(Title::VarintOverflow),
        ),
        ("length 0", vec![0], title(Title::TruncatedFrame)),
        ("length 1", vec![1, 1], title(Title::TruncatedFrame)),
        (
            "a payload longer than its frame",
            wire::framed(&wire::body(1, 0, 1, len + 1, &json)),
            title(Title::TruncatedFrame),
        ),
        (
            "a payload shorter than its frame",
            wire::framed(&wire::body(1, 0, 1, len - 1, &json)),
            title(Title::TruncatedFrame),
        ),
        (
            "a channel of 11 bytes",
            wire::framed(&[&[1][..], &[0xff; 11], &[1, 0]].concat()),
            title(Title::VarintOverflow),
        ),
    ];
    for (name, bytes, wanted) in table {
        let got = written(link, &bytes, End::Open).await;
        suite
            .judge(&format!("HELLO with {name}"), &[wanted], got)
            .await?;
    }
    Ok(())
}

async fn hello_json(suite: &mut Suite, link: &Link, keys: &Keys) -> Result<()> {
    let hex = HEXLOWER.encode(&first_message(keys)?);
    let key = HEXLOWER.encode(keys.target.key.as_bytes().get(..8).unwrap_or_default());
    let of = |version: &str, versions: &str, pattern: &str, key: &str, handshake: &str| {
        format!(
            "{{\"version\":{version},\"supported_versions\":{versions},\"pattern\":{pattern},\
             \"key\":{key},\"handshake\":{handshake}}}"
        )
        .into_bytes()
    };
    let (key, hex) = (format!("\"{key}\""), format!("\"{hex}\""));
    let (invalid, rejected, mismatch) = (
        Got::Clear(Title::InvalidControlPayload),
        Got::Clear(Title::HandshakeRejected),
        Got::Clear(Title::ProtocolVersionMismatch),
    );
    let wrong = [
        "null",
        "{}",
        "[]",
        "true",
        "-1",
        "1.5",
        "\"\\ud800\"",
        "1e999",
        "18446744073709551616",
    ];
    let mut table = Vec::new();
    for bad in wrong {
        table.push((
            format!("version {bad}"),
            of(bad, "[2]", "\"XK\"", &key, &hex),
            &invalid,
        ));
        if bad != "[]" {
            table.push((
                format!("versions {bad}"),
                of("2", bad, "\"XK\"", &key, &hex),
                &invalid,
            ));
        }
        table.push((
            format!("pattern {bad}"),
            of("2", "[2]", bad, &key, &hex),
            &invalid,
        ));
        table.push((
            format!("key {bad}"),
            of("2", "[2]", "\"XK\"", bad, &hex),
            &invalid,
        ));
        table.push((
            format!("handshake {bad}"),
            of("2", "[2]", "\"XK\"", &key, bad),
            &invalid,
        ));
    }
    let upper = hex.to_uppercase();
    let odd = hex.replacen(|_: char| true, "\"", 1);
    let odd = format!("\"{}", odd.get(2..).unwrap_or_default());
    let other_key = "\"0011223344556677\"";
    let short_key = "\"0011\"";
    let long = format!("\"{}\"", "00".repeat(15_000));
    let of_point = |point: &str| format!("\"{point}{}\"", "00".repeat(16));
    for (name, json, wanted) in [
        ("version 1", of("1", "[1]", "\"XK\"", &key, &hex), &mismatch),
        (
            "version 3",
            of("3", "[3,4]", "\"XK\"", &key, &hex),
            &mismatch,
        ),
        ("pattern NN", of("2", "[2]", "\"NN\"", &key, &hex), &invalid),
        ("pattern xk", of("2", "[2]", "\"xk\"", &key, &hex), &invalid),
        (
            "upper-case hex",
            of("2", "[2]", "\"XK\"", &key, &upper),
            &invalid,
        ),
        ("odd hex", of("2", "[2]", "\"XK\"", &key, &odd), &invalid),
        (
            "a short key",
            of("2", "[2]", "\"XK\"", short_key, &hex),
            &invalid,
        ),
        (
            "another server's key",
            of("2", "[2]", "\"XK\"", other_key, &hex),
            &rejected,
        ),
        (
            "no message",
            of("2", "[2]", "\"XK\"", &key, "\"\""),
            &rejected,
        ),
        (
            "a message of 15,000 bytes",
            of("2", "[2]", "\"XK\"", &key, &long),
            &rejected,
        ),
        (
            "an ephemeral key of zeros",
            of("2", "[2]", "\"XK\"", &key, &of_point(&"00".repeat(32))),
            &rejected,
        ),
        (
            "XK said to be IK",
            of("2", "[2]", "\"IK\"", &key, &hex),
            &rejected,
        ),
        ("nothing", Vec::new(), &invalid),
        ("an array", b"[2]".to_vec(), &invalid),
        ("an empty map", b"{}".to_vec(), &invalid),
        ("bytes that are not UTF-8", vec![0xff; 40], &invalid),
        ("10,000 brackets", vec![b'['; 10_000], &invalid),
        ("10,000 maps", b"{\"version\":".repeat(2_000), &invalid),
    ] {
        table.push((name.to_owned(), json, wanted));
    }
    let doubled = of("2", "[2],\"version\":2", "\"XK\"", &key, &hex);
    table.push(("a member twice".to_owned(), doubled, &invalid));
    for (name, json, wanted) in table {
        let got = written(link, &wire::frame(1, 0, 1, &json), End::Open).await;
        suite
            .judge(
                &format!("HELLO with {name}"),
                std::slice::from_ref(wanted),
                got,
            )
            .await?;
    }
    let good = of("2", "[2]", "\"XK\"", &key, &hex);
    for len in 0..good.len() {
        let cut = good.get(..len).unwrap_or_default();
        let got = written(link, &wire::frame(1, 0, 1, cut), End::Open).await;
        suite
            .judge(
                &format!("HELLO's JSON cut at {len}"),
                std::slice::from_ref(&invalid),
                got,
            )
            .await?;
    }
    Ok(())
}

/// Streams that end in the middle of a frame.
async fn cuts(suite: &mut Suite, link: &Link, good: &[u8]) -> Result<()> {
    for len in 0..good.len() {
        let cut = good.get(..len).unwrap_or_default();
        let got = written(link, cut, End::Half).await;
        suite
            .judge(
                &format!("the stream ends after {len} bytes of HELLO"),
                &[Got::Closed],
                got,
            )
            .await?;
    }
    let auth = {
        let keys = &suite.world.stranger.keys;
        let (_, auth) = authenticate(link, keys, &keys.identification(None).encode()).await?;
        auth
    };
    for len in 0..auth.len() {
        let keys = &suite.world.stranger.keys;
        let (mut carrier, auth) =
            authenticate(link, keys, &keys.identification(None).encode()).await?;
        carrier.write(auth.get(..len).unwrap_or_default()).await;
        carrier.end();
        let got = closed(&mut carrier).await;
        suite
            .judge(
                &format!("the stream ends after {len} bytes of AUTH"),
                &[Got::Closed],
                Ok(got),
            )
            .await?;
    }
    Ok(())
}

async fn closed(carrier: &mut Carrier) -> Got {
    match clear_answer(carrier).await {
        ClearAnswer::Auth(..) => Got::Auth,
        ClearAnswer::Other(got) => got,
    }
}

/// Goes up to the client's AUTH, which is not sent.
async fn authenticate(
    link: &Link,
    keys: &Keys,
    identification: &[u8],
) -> Result<(Carrier, Vec<u8>)> {
    let target = &keys.target;
    let mut carrier = link.open().await?;
    let (noise, first) = XkInitiator::start(&target.domain, &keys.noise, &target.key)?;
    carrier.write(&hello(target, Pattern::Xk, first)).await;
    let ClearAnswer::Auth(answer, _) = clear_answer(&mut carrier).await else {
        bail!("no AUTH");
    };
    let (_, last) = noise.finish(&answer, identification)?;
    let auth = AuthUp { handshake: last }.encode();
    Ok((carrier, wire::frame(2, 0, 2, &auth)))
}

/// Messages of Noise with one bit wrong.
async fn flips(suite: &mut Suite, link: &Link) -> Result<()> {
    let target = suite.world.target.clone();
    let rejected = [Got::Clear(Title::HandshakeRejected)];
    let keys = &suite.world.stranger.keys;
    let identification = keys.identification(None).encode();
    let of_ik = IkInitiator::start(&target.domain, &keys.noise, &target.key, &identification)?.1;
    let of_xk = first_message(keys)?;
    for (pattern, message) in [(Pattern::Xk, of_xk), (Pattern::Ik, of_ik)] {
        for at in 0..message.len() {
            let mut bent = message.clone();
            if let Some(byte) = bent.get_mut(at) {
                // The top bit of an X25519 key counts for nothing: the lowest does.
                *byte ^= 1;
            }
            let got = written(link, &hello(&target, pattern, bent), End::Open).await;
            suite
                .judge(
                    &format!("{pattern:?} message 1, bit of byte {at} wrong"),
                    &rejected,
                    got,
                )
                .await?;
        }
    }
    let unknown = Keys::new(&target);
    let mut right_id = unknown.identification(None);
    right_id.device = suite.world.alice.keys.device.clone();
    let of_unknown = unknown.identification(None);
    for (name, who) in [
        ("an unknown device", of_unknown),
        ("Alice's id, another key", right_id),
    ] {
        let start =
            |key: &StaticKey| IkInitiator::start(&target.domain, key, &target.key, &who.encode());
        let message = start(&unknown.noise)?.1;
        let got = written(link, &hello(&target, Pattern::Ik, message), End::Open).await;
        suite
            .judge(&format!("IK of {name}"), &rejected, got)
            .await?;
        let session = xk(link, &target, &unknown.noise, &who.encode()).await?;
        let got = session.verdict().await;
        let sealed = [Got::Fatal(Title::HandshakeRejected)];
        suite
            .judge(&format!("XK of {name}"), &sealed, Ok(got))
            .await?;
    }
    Ok(())
}

/// AUTH c->s that is none.
async fn auth_json(suite: &mut Suite, link: &Link) -> Result<()> {
    let invalid = Got::Clear(Title::InvalidControlPayload);
    let table: Vec<(&str, Vec<u8>, Got)> = vec![
        ("nothing", wire::frame(2, 0, 2, b""), invalid.clone()),
        ("an empty map", wire::frame(2, 0, 2, b"{}"), invalid.clone()),
        (
            "a number",
            wire::frame(2, 0, 2, b"{\"handshake\":1}"),
            invalid.clone(),
        ),
        (
            "no hex",
            wire::frame(2, 0, 2, b"{\"handshake\":\"zz\"}"),
            invalid.clone(),
        ),
        (
            "an empty message",
            wire::frame(2, 0, 2, b"{\"handshake\":\"\"}"),
            Got::Closed,
        ),
        (
            "sequence 1",
            wire::frame(2, 0, 1, b"{}"),
            Got::Clear(Title::SequenceOutOfOrder),
        ),
        (
            "sequence 3",
            wire::frame(2, 0, 3, b"{}"),
            Got::Clear(Title::SequenceOutOfOrder),
        ),
        (
            "channel 1",
            wire::frame(2, 1, 2, b"{}"),
            Got::Clear(Title::IdentifierOutOfRange),
        ),
        (
            "HELLO again",
            wire::frame(1, 0, 2, b"{}"),
            Got::Clear(Title::InvalidFrameType),
        ),
        (
            "MSG in clear",
            wire::frame(5, 1, 2, b"{}"),
            Got::Clear(Title::InvalidFrameType),
        ),
        (
            "ERROR c->s",
            wire::frame(13, 0, 0, b"{}"),
            Got::Clear(Title::InvalidFrameType),
        ),
        (
            "33 KiB",
            wire::frame(2, 0, 2, &[b' '; 33 << 10]),
            Got::Clear(Title::FrameTooLarge),
        ),
    ];
    for (name, bytes, wanted) in table {
        let keys = &suite.world.stranger.keys;
        let (mut carrier, _) = authenticate(link, keys, &[]).await?;
        carrier.write(&bytes).await;
        let got = closed(&mut carrier).await;
        suite
            .judge(&format!("AUTH with {name}"), &[wanted], Ok(got))
            .await?;
    }
    Ok(())
}

/// XK message 3 with a bit wrong, and identifications that are not what they must be.
async fn auth_noise(suite: &mut Suite, link: &Link) -> Result<()> {
    let identification = suite.world.stranger.keys.identification(None).encode();
    let len = {
        let keys = &suite.world.stranger.keys;
        authenticate(link, keys, &identification).await?.1.len()
    };
    // Behind `{"handshake":"`, each hex digit; the last two bytes are `"}`.
    let start = len - 2 - (identification.len() + 64) * 2;
    for at in (start..len - 2).step_by(2) {
        let keys = &suite.world.stranger.keys;
        let (mut carrier, mut auth) = authenticate(link, keys, &identification).await?;
        if let Some(digit) = auth.get_mut(at) {
            *digit = if *digit == b'0' { b'1' } else { b'0' };
        }
        carrier.write(&auth).await;
        let got = if ends(&mut carrier).await {
            Got::Closed
        } else {
            Got::Strange("bytes".to_owned())
        };
        suite
            .judge(
                &format!("XK message 3, digit {at} wrong"),
                &[Got::Closed],
                Ok(got),
            )
            .await?;
    }
    let value = Value::parse(&identification).context("our own identification")?;
    let sealed = [Got::Fatal(Title::InvalidControlPayload)];
    let in_clear = [Got::Clear(Title::InvalidControlPayload)];
    let cuts = (0..identification.len()).map(|len| {
        let cut = identification.get(..len).unwrap_or_default();
        (format!("cut at {len}"), cut.to_vec())
    });
    // Handshakes in clear are bounded: 32 KiB of JSON.
    let fits = |bent: &(String, Vec<u8>)| bent.1.len() < 12_000;
    for (what, bent) in value.bent(&[0, 2, 3]).into_iter().chain(cuts).filter(fits) {
        let target = suite.world.target.clone();
        let keys = &suite.world.stranger.keys;
        let session = xk(link, &target, &keys.noise, &bent).await?;
        let got = session.verdict().await;
        suite
            .judge(&format!("identification in XK {what}"), &sealed, Ok(got))
            .await?;
        let keys = &suite.world.stranger.keys;
        let message = IkInitiator::start(&target.domain, &keys.noise, &target.key, &bent)?.1;
        let got = written(link, &hello(&target, Pattern::Ik, message), End::Open).await;
        suite
            .judge(&format!("identification in IK {what}"), &in_clear, got)
            .await?;
    }
    Ok(())
}

/// The first message of IK said again by somebody who heard it.
async fn replay(suite: &mut Suite, link: &Link) -> Result<()> {
    let (session, heard) = ik(link, &suite.world.alice.keys).await?;
    // Alice herself came again: it is this connection that counts from here on.
    let mut alice: Session = session;
    suite.world.rejoin_alice(&mut alice).await?;
    suite.world.alice.session = alice;
    suite.record("IK by Alice herself", Ok(())).await?;
    let garbage = [vec![0, 21], vec![7; 21]].concat();
    let tails: [(&str, &[u8], End); 5] = [
        ("and nothing behind it", &[], End::Open),
        ("and the end behind it", &[], End::Half),
        ("and a false record behind it", &garbage, End::Open),
        ("and half a record behind it", &[1, 0, 7, 7], End::Half),
        (
            "and frames in clear behind it",
            &[4, 0x43, 0, 0, 0],
            End::Half,
        ),
    ];
    for (name, tail, end) in tails {
        for round in 0..8 {
            let mut carrier = link.open().await?;
            carrier.write(&heard).await;
            carrier.write(tail).await;
            let got = closed(&mut carrier).await;
            let name = format!("IK message replayed {name}, {round}");
            suite.judge(&name, &[Got::Auth], Ok(got)).await?;
            if end == End::Half {
                carrier.end();
            }
            if tail.is_empty() && end == End::Open {
                carrier.reset();
            } else {
                let got = if ends(&mut carrier).await {
                    Got::Closed
                } else {
                    Got::Quiet
                };
                suite
                    .judge(&format!("{name}: its end"), &[Got::Closed], Ok(got))
                    .await?;
            }
        }
    }
    Ok(())
}
