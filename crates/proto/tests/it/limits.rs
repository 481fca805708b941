//! One byte over each limit, and what happens then (CCP-1 section 2).

use bytes::BytesMut;
use commucat_proto::decoder::{DecodeError, Decoder, Incoming, SkipReason, Skipped};
use commucat_proto::encoder;
use commucat_proto::error::Title;
use commucat_proto::frame::msg::Msg;
use commucat_proto::frame::payload::FromServer;
use commucat_proto::frame::{Direction, FrameType, Number};
use commucat_proto::limits::{
    ANSWER_PAYLOAD_MAX, CLEAR_PAYLOAD_MAX, COMMIT_PAYLOAD_MAX, CONTROL_PAYLOAD_MAX, FRAME_LEN_MAX,
    TYPING_PAYLOAD_MAX,
};
use commucat_proto::wire::varint;

use crate::decoder::{down, first, frame, skipped, up};
use crate::samples;

#[test]
fn a_payload_at_its_limit_passes_and_one_byte_more_does_not() {
    let limits = [
        (Direction::Up, FrameType::KeyUpdate, COMMIT_PAYLOAD_MAX),
        (Direction::Up, FrameType::GroupCreate, COMMIT_PAYLOAD_MAX),
        (Direction::Down, FrameType::KeyUpdate, ANSWER_PAYLOAD_MAX),
        (Direction::Down, FrameType::GroupInvite, ANSWER_PAYLOAD_MAX),
        (Direction::Down, FrameType::Ack, ANSWER_PAYLOAD_MAX),
        (Direction::Down, FrameType::Error, ANSWER_PAYLOAD_MAX),
        (Direction::Down, FrameType::GroupEvent, CONTROL_PAYLOAD_MAX),
        (Direction::Up, FrameType::Ack, CONTROL_PAYLOAD_MAX),
        (Direction::Up, FrameType::Leave, CONTROL_PAYLOAD_MAX),
        (Direction::Up, FrameType::Presence, CONTROL_PAYLOAD_MAX),
        (Direction::Up, FrameType::KeyPackage, CONTROL_PAYLOAD_MAX),
        (Direction::Up, FrameType::Directory, CONTROL_PAYLOAD_MAX),
        (Direction::Up, FrameType::Fetch, CONTROL_PAYLOAD_MAX),
        (Direction::Up, FrameType::Padding, CONTROL_PAYLOAD_MAX),
    ];
    for (direction, kind, max) in limits {
        let sequence = u32::from(kind.number() == Number::Takes);
        let good = frame(kind, 0, sequence, &vec![0; max]);
        let bad = frame(kind, 0, sequence, &vec![0; max + 1]);

        let decoded = first(Decoder::tunnel(direction), &good);
        assert!(
            matches!(decoded, Ok(Some(Incoming::Frame(_)))),
            "{}",
            kind.name()
        );
        // The header says it: no byte of the payload is needed.
        let error = first(Decoder::tunnel(direction), &bad[..16]).unwrap_err();
        assert_eq!(
            error,
            DecodeError::ControlTooLarge {
                len: max as u64 + 1,
                max
            }
        );
        assert_eq!(Title::from(error), Title::ControlPayloadTooLarge);
    }
}

#[test]
fn the_type_alone_is_enough_to_refuse_a_frame_that_is_much_too_large() {
    let mut raw = BytesMut::new();
    varint::write(1 << 23, &mut raw);
    raw.extend_from_slice(&[FrameType::Join.code()]);

    let error = first(up(), &raw).unwrap_err();

    assert_eq!(Title::from(error), Title::ControlPayloadTooLarge);
}

#[test]
fn typing_over_its_limit_ends_the_connection() {
    let good = frame(FrameType::Typing, 1, 0, &[0; TYPING_PAYLOAD_MAX]);
    let bad = frame(FrameType::Typing, 1, 0, &[0; TYPING_PAYLOAD_MAX + 1]);

    assert!(matches!(first(up(), &good), Ok(Some(Incoming::Frame(_)))));
    assert_eq!(
        first(up(), &bad).map_err(Title::from),
        Err(Title::PayloadTooLarge)
    );
}

#[test]
fn a_message_over_its_limit_is_skipped_and_the_next_one_comes_out() {
    for (position, excess) in [(0, 1), (u64::from(u32::MAX), 1), (0, 5_000_000)] {
        let mut decoder = up();
        decoder.set_ciphertext_max(1_000);
        let mut raw = BytesMut::new();
        let good = Msg::new(position, samples::message(), &[7; 1_000]);
        let bad = Msg::new(position, samples::message(), &vec![7; 1_000 + excess]);
        encoder::msg(5, 1, &bad, &mut raw);
        encoder::msg(5, 2, &good, &mut raw);
        let mut seen = Vec::new();

        for piece in raw.chunks(60_000) {
            decoder.push(piece);
            while let Some(incoming) = decoder.next_frame().unwrap() {
                seen.push(incoming);
            }
            assert!(
                decoder.buffer_mut().len() < 70_000,
                "a skipped frame is not kept"
            );
        }

        let skip = Skipped {
            channel: 5,
            sequence: 1,
            reason: SkipReason::MessageTooLarge,
        };
        assert_eq!(seen[0], Incoming::Skipped(skip));
        assert!(matches!(&seen[1], Incoming::Frame(frame) if frame.header.sequence == 2));
    }
}

#[test]
fn the_limit_of_a_message_from_a_server_leaves_room_for_the_group() {
    let msg = Msg::new(u64::from(u32::MAX), samples::message(), &[7; 1_000]);
    let mut raw = BytesMut::new();
    encoder::msg_unbound(1, &samples::group(), &msg, &mut raw);
    let mut decoder = down();
    decoder.set_ciphertext_max(1_000);
    decoder.push(&raw);

    let Ok(Some(Incoming::Frame(frame))) = decoder.next_frame() else {
        panic!("the ciphertext is within the limit");
    };
    assert!(matches!(FromServer::decode(&frame), Ok(FromServer::Msg(_))));

    let mut tighter = down();
    tighter.set_ciphertext_max(999);
    assert_eq!(
        first(tighter, &raw),
        skipped(0, 1, SkipReason::MessageTooLarge)
    );
}

#[test]
fn a_clear_frame_holds_32_kib_at_most() {
    let good = frame(FrameType::Hello, 0, 1, &vec![b' '; CLEAR_PAYLOAD_MAX]);
    let bad = frame(FrameType::Hello, 0, 1, &vec![b' '; CLEAR_PAYLOAD_MAX + 1]);
    let clear_up = || Decoder::clear(Direction::Up);

    assert!(matches!(
        first(clear_up(), &good),
        Ok(Some(Incoming::Frame(_)))
    ));
    assert_eq!(
        first(clear_up(), &bad[..12]).map_err(Title::from),
        Err(Title::FrameTooLarge)
    );
}

#[test]
fn a_length_over_16_mib_is_refused_before_anything_else_is_there() {
    let mut raw = BytesMut::new();
    varint::write(FRAME_LEN_MAX as u64 + 1, &mut raw);
    assert_eq!(
        first(up(), &raw).map_err(Title::from),
        Err(Title::FrameTooLarge)
    );

    raw.clear();
    varint::write(FRAME_LEN_MAX as u64, &mut raw);
    assert_eq!(first(up(), &raw), Ok(None));
}
