//! CBOR from outside: what is refused, what is tolerated (CCP-1 section 2).

use bytes::{Bytes, BytesMut};
use commucat_proto::decoder::Decoder;
use commucat_proto::encoder;
use commucat_proto::error::Title;
use commucat_proto::frame::ack::{AckDown, AckUp};
use commucat_proto::frame::error::Problem;
use commucat_proto::frame::fetch::Fetch;
use commucat_proto::frame::group_create::GroupCreate;
use commucat_proto::frame::join::Join;
use commucat_proto::frame::key_package::KeyPackage;
use commucat_proto::frame::leave::Leave;
use commucat_proto::frame::msg::MsgDown;
use commucat_proto::frame::payload::{FromClient, FromServer};
use commucat_proto::frame::presence::Presence;
use commucat_proto::frame::{Direction, Frame, FrameType, Header};
use commucat_proto::limits::SEALED_GROUP_INFO_MAX;
use commucat_proto::wire::Cbor;
use commucat_proto::wire::reader::CborError;

use crate::{samples, vectors};

/// The entries of a LEAVE, key 0 being the group.
fn leave(entries: u8, more: &[u8]) -> Vec<u8> {
    let group = [&[0x00, 0x58, 0x20], &samples::group().as_bytes()[..]].concat();
    [&[0xa0 | entries], &group[..], more].concat()
}

fn refused(raw: &[u8]) -> CborError {
    Leave::decode(raw).unwrap_err()
}

#[test]
fn every_payload_cut_at_any_byte_is_refused() {
    for (file, name, channel, sequence, value) in samples::from_client() {
        let mut raw = BytesMut::new();
        value.encode(channel, sequence, &mut raw);
        let frame = vectors::decode(Decoder::tunnel(Direction::Up), &raw);
        if matches!(
            value,
            FromClient::Typing(_) | FromClient::Padding | FromClient::Msg(_)
        ) {
            continue;
        }
        for end in 0..frame.payload.len() {
            let cut = Frame {
                header: frame.header,
                payload: frame.payload.slice(..end),
            };
            assert!(
                FromClient::decode(&cut).is_err(),
                "{file}/{name} cut at {end}"
            );
        }
    }
    for (file, name, channel, sequence, value) in samples::from_server() {
        let mut raw = BytesMut::new();
        value.encode(channel, sequence, &mut raw);
        let frame = vectors::decode(Decoder::tunnel(Direction::Down), &raw);
        if matches!(
            value,
            FromServer::Typing(_) | FromServer::Padding | FromServer::Msg(_)
        ) {
            continue;
        }
        for end in 0..frame.payload.len() {
            let cut = Frame {
                header: frame.header,
                payload: frame.payload.slice(..end),
            };
            assert!(
                FromServer::decode(&cut).is_err(),
                "{file}/{name} cut at {end}"
            );
        }
    }
}

#[test]
fn a_message_cut_before_its_ciphertext_is_refused() {
    let whole = vectors::vector("msg", "down_unbound");
    let frame = vectors::decode(Decoder::tunnel(Direction::Down), &whole);
    let head = frame.payload.len() - b"opaque".len();

    for end in 0..=frame.payload.len() {
        let cut = MsgDown::decode(0, &frame.payload.slice(..end));
        assert_eq!(cut.is_ok(), end >= head, "cut at {end}");
    }
}

#[test]
fn every_byte_of_a_payload_may_be_anything_without_a_panic() {
    for (_, _, channel, sequence, value) in samples::from_server() {
        let mut raw = BytesMut::new();
        value.encode(channel, sequence, &mut raw);
        let frame = vectors::decode(Decoder::tunnel(Direction::Down), &raw);
        for at in 0..frame.payload.len() {
            for byte in 0..=255 {
                let mut payload = frame.payload.to_vec();
                payload[at] = byte;
                let damaged = Frame {
                    header: frame.header,
                    payload: Bytes::from(payload),
                };
                drop(FromServer::decode(&damaged));
            }
        }
    }
}

#[test]
fn a_key_twice_is_refused_known_or_not() {
    assert_eq!(
        refused(&leave(3, &[0x01, 0xf5, 0x01, 0xf5])),
        CborError::DuplicateKey
    );
    assert_eq!(
        refused(&leave(3, &[0x18, 0x63, 0x00, 0x18, 0x63, 0x00])),
        CborError::DuplicateKey
    );
    // The same key in a longer form.
    assert_eq!(
        refused(&leave(3, &[0x01, 0xf5, 0x18, 0x01, 0xf5])),
        CborError::DuplicateKey
    );
    // In a map under an unknown key: integers in two forms, texts.
    let numbers = [0x09, 0xa2, 0x01, 0x00, 0x18, 0x01, 0x00];
    assert_eq!(refused(&leave(2, &numbers)), CborError::DuplicateKey);
    let texts = [0x09, 0xa2, 0x61, 0x61, 0x00, 0x61, 0x61, 0x00];
    assert_eq!(refused(&leave(2, &texts)), CborError::DuplicateKey);
}

#[test]
fn indefinite_lengths_are_refused() {
    let whole = leave(1, &[]);
    let map = [&[0xbf], &whole[1..], &[0xff]].concat();
    assert!(matches!(refused(&map), CborError::Type(_)));

    for more in [
        &[0x09, 0x9f, 0xff][..],
        &[0x09, 0xbf, 0xff],
        &[0x09, 0x5f, 0x41, 0x00, 0xff],
        &[0x09, 0x7f, 0x61, 0x61, 0xff],
        &[0x09, 0xff],
    ] {
        assert!(
            matches!(refused(&leave(2, more)), CborError::Type(_)),
            "{more:?}"
        );
    }
}

#[test]
fn tags_and_floats_are_refused_wherever_they_stand() {
    let tagged = [&[0xc1], &leave(1, &[])[..]].concat();
    assert!(matches!(refused(&tagged), CborError::Type(_)));

    for more in [
        &[0x09, 0xc1, 0x00][..],
        &[0x09, 0xf9, 0x3c, 0x00],
        &[0x09, 0xfa, 0x3f, 0x80, 0x00, 0x00],
        &[0x09, 0xfb, 0x3f, 0xf0, 0, 0, 0, 0, 0, 0],
        &[0x09, 0x81, 0xd8, 0x20, 0x00],
    ] {
        assert!(
            matches!(refused(&leave(2, more)), CborError::Type(_)),
            "{more:?}"
        );
    }
}

#[test]
fn items_that_are_not_well_formed_are_refused() {
    for more in [
        &[0x09, 0x1c][..],
        &[0x09, 0xfc],
        &[0x09, 0xf8, 0x00],
        &[0x09, 0x62, 0xff, 0xfe],
        &[0x09, 0x58, 0x05, 0x00],
        &[0x09, 0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        &[0x09, 0xbb, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        &[0x09, 0x5b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
    ] {
        assert!(Leave::decode(&leave(2, more)).is_err(), "{more:?}");
    }
}

#[test]
fn nesting_over_8_is_refused() {
    let nested = |levels: usize| [&[0x09][..], &vec![0x81; levels], &[0x00]].concat();

    assert!(Leave::decode(&leave(2, &nested(7))).is_ok());
    assert_eq!(refused(&leave(2, &nested(8))), CborError::Nesting);
    assert_eq!(refused(&leave(2, &nested(100_000))), CborError::Nesting);
}

#[test]
fn bytes_behind_the_payload_are_refused() {
    let raw = [&leave(1, &[])[..], &[0xa0]].concat();

    assert_eq!(refused(&raw), CborError::Trailing(1));
}

#[test]
fn a_key_that_must_be_there_is_missed() {
    assert_eq!(refused(&[0xa0]), CborError::MissingKey(0));
    assert_eq!(Join::decode(&leave(1, &[])), Err(CborError::MissingKey(1)));
    assert_eq!(Presence::decode(&[0xa0]), Err(CborError::MissingKey(0)));
    assert_eq!(
        AckDown::decode(&[0xa1, 0x01, 0x05]),
        Err(CborError::MissingKey(2))
    );
}

#[test]
fn another_type_null_or_a_text_for_a_key_is_refused() {
    for raw in [
        &[0xa1, 0x00, 0xf6][..],
        &[0xa1, 0x00, 0x60],
        &[0xa1, 0x00, 0x00],
        &[0xa1, 0x61, 0x61, 0x00],
        &[0xa1, 0x20, 0x00],
        &[0x80],
        &[0x00],
        &[0xf6],
        &[],
    ] {
        assert!(Leave::decode(raw).is_err(), "{raw:?}");
    }
    assert!(matches!(
        refused(&leave(2, &[0x01, 0x01])),
        CborError::Type(_)
    ));
    assert!(matches!(
        refused(&leave(2, &[0x01, 0xf6])),
        CborError::Type(_)
    ));
}

#[test]
fn an_identifier_of_another_length_is_refused() {
    let short = [&[0xa1, 0x00, 0x58, 0x1f][..], &[0; 31]].concat();
    let long = [&[0xa1, 0x00, 0x58, 0x21][..], &[0; 33]].concat();

    assert!(matches!(refused(&short), CborError::Id(_)));
    assert!(matches!(refused(&long), CborError::Id(_)));
}

#[test]
fn order_and_longer_forms_are_not_checked() {
    let group = &leave(1, &[])[1..];
    let backwards = [&[0xa2, 0x01, 0xf5], group].concat();
    let longer = [&[0xb8, 0x01, 0x18, 0x00, 0x59, 0x00, 0x20], &group[3..]].concat();

    let expected = Leave {
        group: samples::group(),
        for_good: true,
    };
    assert_eq!(Leave::decode(&backwards), Ok(expected.clone()));
    assert_eq!(
        Leave::decode(&longer),
        Ok(Leave {
            for_good: false,
            ..expected
        })
    );
}

#[test]
fn unknown_keys_are_ignored_whatever_they_hold() {
    for value in [
        &[0x00][..],
        &[0x20],
        &[0x3b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        &[0x1b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        &[0x43, 1, 2, 3],
        &[0x63, b'a', b'b', b'c'],
        &[0x82, 0x00, 0x80],
        &[0xa2, 0x61, b'a', 0xf6, 0x20, 0xf4],
        &[0xf5],
        &[0xf6],
        &[0xf7],
        &[0xe0],
        &[0xf8, 0xff],
    ] {
        let raw = leave(2, &[&[0x18, 0x2a], value].concat());
        assert!(Leave::decode(&raw).is_ok(), "{value:?}");
    }
    let raw = leave(
        2,
        &[0x1b, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x00],
    );
    assert!(Leave::decode(&raw).is_ok());
}

#[test]
fn a_number_of_2_to_the_63_is_refused() {
    let ack = |number: u64| [&[0xa2, 0x00, 0x01, 0x02, 0x1b][..], &number.to_be_bytes()].concat();
    let position = |number: u64| {
        let key = [&[0x1b][..], &number.to_be_bytes()].concat();
        [&[0xa1][..], &key, &[0x00]].concat()
    };

    assert!(
        AckUp::decode(&ack(u64::MAX)).is_ok(),
        "an unknown key may hold it"
    );
    assert!(matches!(
        AckUp::decode(&position(1 << 63)),
        Err(CborError::Range(_))
    ));
    assert!(AckUp::decode(&position((1 << 63) - 1)).is_ok());
    let through = [&[0xa1, 0x00, 0x1b][..], &(1_u64 << 32).to_be_bytes()].concat();
    assert!(matches!(AckUp::decode(&through), Err(CborError::Range(_))));
}

#[test]
fn combinations_that_mean_nothing_are_refused() {
    let fetch = vectors::vector("fetch", "up_member");
    let frame = vectors::decode(Decoder::tunnel(Direction::Up), &fetch);
    let mut both = frame.payload.to_vec();
    both[0] = 0xa7;
    both.push(0x06);
    both.extend(samples::signed(b"read").encode());

    assert!(matches!(Fetch::decode(&both), Err(CborError::Range(_))));
    assert!(matches!(
        KeyPackage::decode(&[0xa1, 0x00, 0x06]),
        Err(CborError::Range(_))
    ));
    let empty_run = [0xa1, 0x00, 0x81, 0x83, 0x01, 0x00, 0x01];
    assert!(matches!(
        AckDown::decode(&empty_run),
        Err(CborError::Range(_))
    ));
    let status = [0xa1, 0x00, 0x81, 0x83, 0x01, 0x01, 0x05];
    assert!(matches!(AckDown::decode(&status), Err(CborError::Range(_))));
    assert!(matches!(
        Presence::decode(&[0xa1, 0x00, 0x02]),
        Err(CborError::Range(_))
    ));
}

#[test]
fn a_sealed_group_info_has_a_limit_of_its_own() {
    let create = |len| GroupCreate {
        group: samples::group(),
        fanout: vec![samples::fanout_alice()],
        sealed_group_info: Some(Bytes::from(vec![0; len])),
        join_key: None,
    };

    assert!(GroupCreate::decode(&create(SEALED_GROUP_INFO_MAX).encode()).is_ok());
    let error = GroupCreate::decode(&create(SEALED_GROUP_INFO_MAX + 1).encode()).unwrap_err();
    assert_eq!(Title::from(error), Title::ControlPayloadTooLarge);
}

#[test]
fn many_unknown_keys_cost_no_more_than_reading_them() {
    let mut raw = vec![0xba];
    raw.extend(30_000_u32.to_be_bytes());
    for key in (0..30_000_u32).rev() {
        raw.push(0x1a);
        raw.extend((key + 64).to_be_bytes());
        raw.push(0x00);
    }

    assert_eq!(refused(&raw), CborError::MissingKey(0));
}

#[test]
fn byte_strings_share_the_memory_of_their_frame() {
    let mut raw = BytesMut::new();
    let invite = vectors::vector("group_invite", "down");
    raw.extend_from_slice(&invite);
    let frame = vectors::decode(Decoder::tunnel(Direction::Down), &raw);

    let Ok(FromServer::GroupInvite(invite)) = FromServer::decode(&frame) else {
        panic!("an invite");
    };
    let start = frame.payload.as_ptr() as usize;
    let end = start + frame.payload.len();
    assert!((start..end).contains(&(invite.welcome.as_ptr() as usize)));
}

#[test]
fn a_problem_of_an_unknown_type_is_refused() {
    let mut out = BytesMut::new();
    let problem = Problem::new(Title::NotFound, "");
    encoder::cbor(Header::bare(FrameType::Error), &problem, &mut out);
    let frame = vectors::decode(Decoder::tunnel(Direction::Down), &out);
    let mut payload = frame.payload.to_vec();
    let at = payload
        .windows(9)
        .position(|window| window == b"not-found")
        .unwrap();
    payload[at] = b'x';

    assert!(matches!(
        Problem::decode(&payload),
        Err(CborError::Range(_))
    ));
}
