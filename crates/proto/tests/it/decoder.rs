//! The decoder at its edges: pieces, limits, channels, numbers.

use bytes::BytesMut;
use commucat_proto::decoder::{DecodeError, Decoder, Incoming, SkipReason, Skipped};
use commucat_proto::encoder;
use commucat_proto::error::Title;
use commucat_proto::frame::msg::Msg;
use commucat_proto::frame::payload::FromClient;
use commucat_proto::frame::{Direction, FrameType, Header};
use commucat_proto::wire::varint;
use commucat_proto::wire::varint::VarintOverflow;

use crate::samples;

pub(crate) fn up() -> Decoder {
    Decoder::tunnel(Direction::Up)
}

pub(crate) fn down() -> Decoder {
    Decoder::tunnel(Direction::Down)
}

pub(crate) fn frame(kind: FrameType, channel: u32, sequence: u32, payload: &[u8]) -> BytesMut {
    let mut out = BytesMut::new();
    encoder::raw(
        Header {
            kind,
            channel,
            sequence,
        },
        payload,
        &mut out,
    );
    out
}

pub(crate) fn first(mut decoder: Decoder, raw: &[u8]) -> Result<Option<Incoming>, DecodeError> {
    decoder.push(raw);
    decoder.next_frame()
}

/// A body around which the right `len` is put.
pub(crate) fn with_len(body: &[u8]) -> Vec<u8> {
    let mut out = BytesMut::new();
    varint::write(body.len() as u64, &mut out);
    out.extend_from_slice(body);
    out.to_vec()
}

pub(crate) fn skipped(
    channel: u32,
    sequence: u32,
    reason: SkipReason,
) -> Result<Option<Incoming>, DecodeError> {
    Ok(Some(Incoming::Skipped(Skipped {
        channel,
        sequence,
        reason,
    })))
}

#[test]
fn a_frame_comes_out_when_its_last_byte_is_there() {
    for (file, name, channel, sequence, value) in samples::from_client() {
        let mut raw = BytesMut::new();
        value.encode(channel, sequence, &mut raw);
        let mut decoder = up();

        for byte in &raw[..raw.len() - 1] {
            decoder.push(&[*byte]);
            assert_eq!(decoder.next_frame(), Ok(None), "{file}/{name}");
        }
        decoder.push(&raw[raw.len() - 1..]);

        let Ok(Some(Incoming::Frame(frame))) = decoder.next_frame() else {
            panic!("{file}/{name} is whole");
        };
        assert_eq!(FromClient::decode(&frame), Ok(value));
        assert_eq!(decoder.next_frame(), Ok(None));
    }
}

#[test]
fn many_frames_of_one_piece_come_out_in_their_order() {
    let mut raw = BytesMut::new();
    for sequence in 1..=100 {
        let msg = Msg::new(1, samples::message(), &vec![7; 300 * sequence as usize]);
        encoder::msg(1, sequence, &msg, &mut raw);
        encoder::padding(3, &mut raw);
    }
    let mut decoder = up();
    decoder.push(&raw);

    for sequence in 1..=100 {
        let Ok(Some(Incoming::Frame(frame))) = decoder.next_frame() else {
            panic!("frame {sequence}");
        };
        assert_eq!(frame.header.sequence, sequence);
        let msg = Msg::decode(&frame.payload).unwrap();
        assert_eq!(msg.ciphertext().len(), 300 * sequence as usize);
        assert!(matches!(decoder.next_frame(), Ok(Some(Incoming::Frame(_)))));
    }
    assert_eq!(decoder.next_frame(), Ok(None));
    assert_eq!(decoder.last_sequence(), 100);
}

#[test]
fn an_unknown_type_from_0x80_on_is_skipped_with_its_number() {
    let mut raw = with_len(&[0x80, 9, 1, 2, 0xaa, 0xbb]);
    raw.extend_from_slice(&frame(FrameType::Leave, 0, 2, b""));
    let mut decoder = up();
    decoder.push(&raw);

    assert_eq!(
        decoder.next_frame(),
        skipped(9, 1, SkipReason::UnknownType(0x80))
    );
    assert!(matches!(decoder.next_frame(), Ok(Some(Incoming::Frame(_)))));
}

#[test]
fn types_that_cannot_come_here_are_refused() {
    let clear_up = || Decoder::clear(Direction::Up);
    for code in [
        0x00, 0x01, 0x02, 0x0b, 0x0c, 0x0d, 0x0e, 0x3f, 0x44, 0x45, 0x7f,
    ] {
        assert_eq!(first(up(), &[5, code]), Err(DecodeError::FrameType(code)));
    }
    for code in [
        0x01, 0x02, 0x03, 0x04, 0x08, 0x0a, 0x0e, 0x40, 0x41, 0x42, 0x44, 0x7f,
    ] {
        assert_eq!(first(down(), &[5, code]), Err(DecodeError::FrameType(code)));
    }
    for code in [0x03, 0x05, 0x0d, 0x43, 0x80] {
        assert_eq!(
            first(clear_up(), &[5, code]),
            Err(DecodeError::FrameType(code))
        );
    }
    for code in [0x01, 0x06, 0x43, 0xff] {
        let refused = first(Decoder::clear(Direction::Down), &[5, code]);
        assert_eq!(refused, Err(DecodeError::FrameType(code)));
    }
    assert_eq!(
        Title::from(DecodeError::FrameType(1)),
        Title::InvalidFrameType
    );
}

#[test]
fn payload_and_frame_end_at_the_same_place() {
    let code = FrameType::Leave.code();
    for body in [
        &[][..],
        &[code],
        &[code, 0],
        &[code, 0, 1],
        &[code, 0, 1, 0x80],
        &[code, 0, 1, 3, 0xaa, 0xbb],
        &[code, 0, 1, 1, 0xaa, 0xbb],
        &[code, 0, 1, 0, 0xaa],
    ] {
        assert_eq!(
            first(up(), &with_len(body)),
            Err(DecodeError::Truncated),
            "{body:?}"
        );
    }
}

#[test]
fn varints_may_be_longer_than_they_need_but_not_overflow() {
    let long = with_len(&[
        FrameType::Leave.code(),
        0x80,
        0x00,
        0x81,
        0x80,
        0x00,
        0x81,
        0x00,
        0xaa,
    ]);
    let mut over = vec![0xff; 10];
    over.push(0);

    assert!(matches!(first(up(), &long), Ok(Some(Incoming::Frame(_)))));
    assert_eq!(first(up(), &over), Err(DecodeError::Varint(VarintOverflow)));
    assert_eq!(
        Title::from(DecodeError::Varint(VarintOverflow)),
        Title::VarintOverflow
    );
}

#[test]
fn channels_and_numbers_fit_32_bits() {
    let large = [0x80, 0x80, 0x80, 0x80, 0x10];
    let channel = [&[FrameType::Leave.code()], &large[..], &[1, 0]].concat();
    let sequence = [&[FrameType::Leave.code(), 0], &large[..], &[0]].concat();

    for body in [channel, sequence] {
        let error = first(up(), &with_len(&body)).unwrap_err();
        assert_eq!(Title::from(error), Title::IdentifierOutOfRange);
    }
}

#[test]
fn only_join_msg_and_typing_name_channels() {
    for (kind, sequence, channel) in [
        (FrameType::Join, 1, 0),
        (FrameType::Join, 1, 4_097),
        (FrameType::Leave, 1, 1),
        (FrameType::KeyUpdate, 1, 1),
        (FrameType::Ack, 0, 1),
    ] {
        let error = first(up(), &frame(kind, channel, sequence, b"")).unwrap_err();
        assert_eq!(error, DecodeError::Channel { kind });
        assert_eq!(Title::from(error), Title::IdentifierOutOfRange);
    }
    for (kind, sequence, channel) in [
        (FrameType::Join, 1, 4_096),
        (FrameType::Msg, 1, 0),
        (FrameType::Msg, 1, u32::MAX),
    ] {
        let decoded = first(up(), &frame(kind, channel, sequence, b""));
        assert!(matches!(decoded, Ok(Some(Incoming::Frame(_)))));
    }
}

#[test]
fn a_gap_a_repeat_or_a_number_where_none_belongs_is_refused() {
    let leave = |sequence| frame(FrameType::Leave, 0, sequence, b"");
    let ack = frame(FrameType::Ack, 0, 1, b"");
    let error = |expected, found| Err(DecodeError::Sequence { expected, found });

    assert_eq!(first(up(), &leave(0)), error(1, 0));
    assert_eq!(first(up(), &leave(2)), error(1, 2));
    assert_eq!(first(up(), &ack), error(0, 1));

    let mut decoder = up();
    decoder.push(&leave(1));
    decoder.push(&leave(1));
    assert!(matches!(decoder.next_frame(), Ok(Some(Incoming::Frame(_)))));
    assert_eq!(decoder.next_frame(), error(2, 1));
}

#[test]
fn bytes_behind_the_clear_handshake_belong_to_the_tunnel() {
    let mut decoder = Decoder::clear(Direction::Up);
    decoder.push(&frame(FrameType::Hello, 0, 1, b"{}"));
    decoder.push(&[0x00, 0x15, 0x59]);

    assert!(matches!(decoder.next_frame(), Ok(Some(Incoming::Frame(_)))));
    assert_eq!(&decoder.into_rest()[..], [0x00, 0x15, 0x59]);
}

#[test]
fn a_large_payload_shares_the_buffer_and_a_small_one_does_not_hold_it() {
    let mut decoder = up();
    decoder.push(&frame(FrameType::Directory, 0, 1, &vec![7; 100_000]));
    let start = decoder.buffer_mut().as_ptr() as usize;
    let end = start + decoder.buffer_mut().len();
    let Ok(Some(Incoming::Frame(large))) = decoder.next_frame() else {
        panic!("a frame")
    };
    assert!((start..end).contains(&(large.payload.as_ptr() as usize)));

    let mut decoder = up();
    decoder.push(&frame(FrameType::Directory, 0, 1, &[7; 100]));
    let start = decoder.buffer_mut().as_ptr() as usize;
    let end = start + decoder.buffer_mut().len();
    let Ok(Some(Incoming::Frame(small))) = decoder.next_frame() else {
        panic!("a frame")
    };
    assert!(!(start..end).contains(&(small.payload.as_ptr() as usize)));
}

#[test]
fn the_length_of_a_frame_is_known_before_it_is_written() {
    for (_, _, channel, sequence, value) in samples::from_client() {
        let mut raw = BytesMut::new();
        value.encode(channel, sequence, &mut raw);
        let header = Header {
            kind: value.kind(),
            channel,
            sequence,
        };
        let payload = crate::vectors::decode(up(), &raw).payload.len();

        assert_eq!(encoder::frame_len(header, payload), raw.len());
    }
}
