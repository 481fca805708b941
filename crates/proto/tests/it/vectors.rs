//! Each vector is what we write, and reads as what we meant.

use std::collections::BTreeMap;
use std::path::Path;

use bytes::BytesMut;
use commucat_proto::decoder::{Decoder, Incoming};
use commucat_proto::error::Title;
use commucat_proto::frame::error::{Problem, ProblemExtra};
use commucat_proto::frame::handshake::{AuthDown, AuthUp, Hello, OfferedVersions, Pattern};
use commucat_proto::frame::payload::{FromClient, FromServer};
use commucat_proto::frame::{Direction, Frame, FrameType, Header};
use commucat_proto::{encoder, frame};
use data_encoding::HEXLOWER;

use crate::samples;

/// The rows of a file: name and bytes.
pub(crate) fn rows(file: &str) -> BTreeMap<String, Vec<u8>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/vectors/{file}.hex"));
    let text = std::fs::read_to_string(path).unwrap();
    text.lines()
        .map(|line| {
            let (name, hex) = line.split_once(' ').unwrap();
            (name.to_owned(), HEXLOWER.decode(hex.as_bytes()).unwrap())
        })
        .collect()
}

pub(crate) fn vector(file: &str, name: &str) -> Vec<u8> {
    rows(file)
        .remove(name)
        .unwrap_or_else(|| panic!("no vector {file}/{name}"))
}

/// The one frame that `raw` is.
pub(crate) fn decode(mut decoder: Decoder, raw: &[u8]) -> Frame {
    decoder.push(raw);
    let frame = decoder.next_frame().unwrap();
    assert_eq!(decoder.next_frame(), Ok(None));
    match frame {
        Some(Incoming::Frame(frame)) => frame,
        other => panic!("{other:?}"),
    }
}

#[test]
fn frames_of_a_client_are_those_of_the_vectors() {
    for (file, name, channel, sequence, value) in samples::from_client() {
        let raw = vector(file, name);

        let mut written = BytesMut::new();
        value.encode(channel, sequence, &mut written);
        assert_eq!(
            HEXLOWER.encode(&written),
            HEXLOWER.encode(&raw),
            "{file}/{name}"
        );

        let frame = decode(Decoder::tunnel(Direction::Up), &raw);
        assert_eq!(
            frame.header,
            Header {
                kind: value.kind(),
                channel,
                sequence
            }
        );
        assert_eq!(FromClient::decode(&frame), Ok(value), "{file}/{name}");
    }
}

#[test]
fn frames_of_a_server_are_those_of_the_vectors() {
    for (file, name, channel, sequence, value) in samples::from_server() {
        let raw = vector(file, name);

        let mut written = BytesMut::new();
        value.encode(channel, sequence, &mut written);
        assert_eq!(
            HEXLOWER.encode(&written),
            HEXLOWER.encode(&raw),
            "{file}/{name}"
        );

        let frame = decode(Decoder::tunnel(Direction::Down), &raw);
        assert_eq!(
            frame.header,
            Header {
                kind: value.kind(),
                channel,
                sequence
            }
        );
        assert_eq!(FromServer::decode(&frame), Ok(value), "{file}/{name}");
    }
}

#[test]
fn every_vector_of_a_frame_is_used() {
    let clear = ["hello", "auth"];
    let elsewhere = [
        "ack/first",
        "error/clear",
        "error/clear_plain",
        "padding/both_filled",
    ];
    let used: Vec<_> = samples::from_client()
        .iter()
        .map(|sample| (sample.0, sample.1))
        .chain(
            samples::from_server()
                .iter()
                .map(|sample| (sample.0, sample.1)),
        )
        .map(|(file, name)| format!("{file}/{name}"))
        .collect();

    for kind in FrameType::ALL
        .iter()
        .filter(|kind| **kind != FrameType::Grant)
    {
        let file = kind.name().to_lowercase();
        if clear.contains(&file.as_str()) {
            continue;
        }
        for name in rows(&file).keys().map(|name| format!("{file}/{name}")) {
            assert!(
                used.contains(&name) || elsewhere.contains(&name.as_str()),
                "{name}"
            );
        }
    }
}

#[test]
fn padding_is_filled_with_any_number_of_bytes() {
    let mut written = BytesMut::new();
    encoder::padding(5, &mut written);

    assert_eq!(written, vector("padding", "both_filled"));
    let frame = decode(Decoder::tunnel(Direction::Up), &written);
    assert_eq!(FromClient::decode(&frame), Ok(FromClient::Padding));
}

fn clear_frame(kind: FrameType, sequence: u32, payload: &[u8]) -> BytesMut {
    let mut out = BytesMut::new();
    encoder::raw(Header::new(kind, sequence), payload, &mut out);
    out
}

#[test]
fn hello_is_that_of_the_vectors() {
    let key = [0xa4, 0xe0, 0x92, 0x92, 0xb6, 0x51, 0xc2, 0x78];
    let xk = Hello {
        version: 2,
        supported_versions: vec![2],
        pattern: Pattern::Xk,
        key,
        handshake: vec![0x00, 0xff, 0x10],
    };
    let ik = Hello {
        supported_versions: vec![2, 3],
        pattern: Pattern::Ik,
        handshake: vec![],
        ..xk
    };
    for (name, hello) in [("xk", xk), ("ik", ik)] {
        let raw = vector("hello", name);

        let frame = decode(Decoder::clear(Direction::Up), &raw);

        assert_eq!(clear_frame(FrameType::Hello, 1, &hello.encode()), raw);
        assert_eq!(Hello::decode(&frame.payload).unwrap(), hello);
        let offered = OfferedVersions::decode(&frame.payload).unwrap();
        assert_eq!(offered.supported_versions, hello.supported_versions);
    }
}

#[test]
fn auth_is_that_of_the_vectors() {
    let handshake = vec![0x00, 0xff, 0x10];
    let down = AuthDown {
        protocol_version: 2,
        supported_versions: vec![2],
        handshake: handshake.clone(),
    };
    let up = AuthUp { handshake };

    let raw_down = vector("auth", "down");
    let frame = decode(Decoder::clear(Direction::Down), &raw_down);
    assert_eq!(clear_frame(FrameType::Auth, 1, &down.encode()), raw_down);
    assert_eq!(AuthDown::decode(&frame.payload).unwrap(), down);

    let raw_up = vector("auth", "up");
    let mut decoder = Decoder::clear(Direction::Up);
    decoder.push(&vector("hello", "xk"));
    decoder.push(&raw_up);
    assert!(matches!(decoder.next_frame(), Ok(Some(Incoming::Frame(_)))));
    let Ok(Some(Incoming::Frame(frame))) = decoder.next_frame() else {
        panic!("AUTH is the second frame of a client");
    };
    assert_eq!(clear_frame(FrameType::Auth, 2, &up.encode()), raw_up);
    assert_eq!(AuthUp::decode(&frame.payload).unwrap(), up);
}

#[test]
fn an_error_in_clear_is_that_of_the_vectors() {
    let mismatch = Problem {
        extra: Box::new(ProblemExtra {
            versions: vec![2],
            ..ProblemExtra::default()
        }),
        ..Problem::new(Title::ProtocolVersionMismatch, "version 2 only")
    };
    let rejected = Problem::new(Title::HandshakeRejected, "");
    for (name, problem) in [("clear", mismatch), ("clear_plain", rejected)] {
        let raw = vector("error", name);

        let frame = decode(Decoder::clear(Direction::Down), &raw);

        assert_eq!(clear_frame(FrameType::Error, 0, &problem.to_json()), raw);
        assert_eq!(Problem::of_json(&frame.payload).unwrap(), problem);
    }
}

#[test]
fn a_hello_of_another_version_still_says_its_versions() {
    let offered =
        OfferedVersions::decode(br#"{"version":1,"pattern":7,"capabilities":[]}"#).unwrap();

    assert_eq!(
        offered,
        OfferedVersions {
            version: 1,
            supported_versions: vec![]
        }
    );
}

#[test]
fn json_with_upper_case_hex_or_a_member_twice_is_refused() {
    assert!(AuthUp::decode(br#"{"handshake":"00FF"}"#).is_err());
    assert!(AuthUp::decode(br#"{"handshake":"00","handshake":"00"}"#).is_err());
    assert!(AuthUp::decode(br#"{"handshake":"00","later":[1]}"#).is_ok());
}

#[test]
fn a_message_keeps_the_bytes_that_its_author_wrote() {
    let raw = [&[0x81, 0x00][..], &[7; 16], b"sealed"].concat();
    let payload = bytes::Bytes::from(raw.clone());

    let msg = frame::msg::Msg::decode(&payload).unwrap();

    assert_eq!(msg.position(), 1);
    assert_eq!(msg.payload(), &payload);
    assert_eq!(msg.authenticated(), &raw[..18]);
    assert_eq!(msg.ciphertext().as_ptr(), payload[18..].as_ptr());
}
