//! Whatever is written comes back, and whatever comes never makes the decoder panic.

use std::fmt::Debug;

use bytes::{Bytes, BytesMut};
use commucat_proto::decoder::{Decoder, Incoming};
use commucat_proto::frame::ack::{AckDown, AckUp, CustodyRun, CustodyStatus, ForkTag};
use commucat_proto::frame::bundle::{Bundle, Welcome};
use commucat_proto::frame::fanout::{AdminChange, Change, FanoutEntry, JoinKeyChange};
use commucat_proto::frame::group_event::{EventKind, GroupEvent, Notice, Reason};
use commucat_proto::frame::key_update::{KeyUpdate, LogEntry};
use commucat_proto::frame::msg::{Msg, MsgDown};
use commucat_proto::frame::payload::{FromClient, FromServer};
use commucat_proto::frame::{Direction, Frame};
use commucat_proto::id::{DedupeKey, Domain, GroupId, Handle, JoinKey, MessageId, SealedRef};
use commucat_proto::link::{InviteLink, Link};
use commucat_proto::signed::Signed;
use commucat_proto::wire::Cbor;
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;

fn group() -> impl Strategy<Value = GroupId> {
    any::<[u8; 32]>().prop_map(GroupId::new)
}

fn handle() -> impl Strategy<Value = Handle> {
    any::<[u8; 32]>().prop_map(Handle::new)
}

fn message() -> impl Strategy<Value = MessageId> {
    any::<[u8; 16]>().prop_map(MessageId::new)
}

fn sealed_ref() -> impl Strategy<Value = SealedRef> {
    vec(any::<u8>(), SealedRef::LEN).prop_map(|raw| SealedRef::parse(&raw).unwrap())
}

fn domain() -> impl Strategy<Value = Domain> {
    "[a-z]{1,20}(\\.[a-z0-9]{1,10}){0,3}(:[1-9][0-9]{0,3})?"
        .prop_map(|text| Domain::parse(&text).unwrap())
}

fn opaque() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..200).prop_map(Bytes::from)
}

fn position() -> impl Strategy<Value = u64> {
    0..=i64::MAX.unsigned_abs()
}

fn signed() -> impl Strategy<Value = Signed> {
    (opaque(), vec(any::<u8>(), 64)).prop_map(|(body, signature)| {
        let signature = signature.try_into().unwrap();
        Signed { body, signature }
    })
}

fn change() -> impl Strategy<Value = Change> {
    let fanout = (handle(), domain(), sealed_ref(), any::<bool>()).prop_map(
        |(handle, domain, sealed_ref, admin)| FanoutEntry {
            handle,
            domain,
            sealed_ref,
            admin,
        },
    );
    let join_key = prop_oneof![
        Just(JoinKeyChange::Remove),
        any::<[u8; 32]>().prop_map(|key| JoinKeyChange::Set(JoinKey::new(key))),
    ];
    let admin = (handle(), any::<bool>()).prop_map(|(handle, admin)| AdminChange { handle, admin });
    (
        vec(fanout, 0..4),
        vec(handle(), 0..4),
        of(join_key),
        any::<bool>(),
        vec(admin, 0..4),
    )
        .prop_map(|(add, remove, join_key, close, admins)| Change {
            add,
            remove,
            join_key,
            close,
            admins,
        })
}

fn entry() -> impl Strategy<Value = LogEntry> {
    (group(), position(), opaque(), change(), handle(), message()).prop_map(
        |(group, position, commit, change, author, message)| LogEntry {
            group,
            position,
            commit,
            change,
            author,
            message,
        },
    )
}

fn bundle() -> impl Strategy<Value = Bundle> {
    let welcome =
        (vec(handle(), 0..4), opaque()).prop_map(|(handles, welcome)| Welcome { handles, welcome });
    let head = (group(), position(), opaque(), change());
    let tail = (vec(welcome, 0..3), opaque(), handle(), of(opaque()));
    (head, tail).prop_map(|(head, tail)| {
        let (group, expect, commit, change) = head;
        let (welcomes, sealed_group_info, author, first_message) = tail;
        Bundle {
            group,
            expect,
            commit,
            change,
            welcomes,
            sealed_group_info,
            author,
            first_message,
        }
    })
}

fn event() -> impl Strategy<Value = GroupEvent> {
    let kind = (0..9_u64).prop_map(EventKind::of_code);
    let reason = (0..9_u64).prop_map(Reason::of_code);
    let handles = of(vec(handle(), 0..4));
    (
        of(group()),
        kind,
        of(position()),
        handles,
        of(message()),
        of(reason),
        of(any::<[u8; 16]>().prop_map(DedupeKey::new)),
    )
        .prop_map(
            |(group, kind, position, handles, about, reason, returned)| {
                GroupEvent::new(Notice {
                    group,
                    kind,
                    position,
                    handles,
                    about,
                    reason,
                    returned,
                })
            },
        )
}

fn ack_down() -> impl Strategy<Value = AckDown> {
    let status = prop_oneof![
        Just(CustodyStatus::Stored),
        Just(CustodyStatus::Relayed),
        Just(CustodyStatus::Delivered),
        Just(CustodyStatus::Refused),
    ];
    let run = (1..=u32::MAX / 2, 1..=u32::MAX / 2, status).prop_map(|(first, count, status)| {
        CustodyRun {
            first,
            count,
            status,
        }
    });
    (
        vec(run, 0..5),
        of((any::<u32>(), sealed_ref())),
        any::<bool>(),
    )
        .prop_map(|(custody, answer, queue_empty)| {
            let ack = answer.map_or_else(AckDown::default, |(request, result)| {
                AckDown::with_result(request, &result)
            });
            AckDown {
                custody,
                queue_empty,
                ..ack
            }
        })
}

fn ack_up() -> impl Strategy<Value = AckUp> {
    let tag =
        (group(), position(), of(any::<[u8; 16]>())).prop_map(|(group, position, tag)| ForkTag {
            group,
            position,
            tag,
        });
    (of(any::<u32>()), vec(tag, 0..4)).prop_map(|(through, tags)| AckUp { through, tags })
}

fn msg() -> impl Strategy<Value = Msg> {
    (position(), message(), opaque())
        .prop_map(|(position, message, ciphertext)| Msg::new(position, message, &ciphertext))
}

fn comes_back<T: Cbor + Debug + PartialEq>(value: &T) -> Result<(), TestCaseError> {
    let raw = Bytes::from(value.encode());
    let back = T::decode_shared(&raw);
    prop_assert_eq!(back.as_ref(), Ok(value));
    prop_assert_eq!(Bytes::from(back.unwrap().encode()), raw);
    Ok(())
}

fn one_frame(direction: Direction, raw: &[u8]) -> Frame {
    let mut decoder = Decoder::tunnel(direction);
    decoder.push(raw);
    match decoder.next_frame() {
        Ok(Some(Incoming::Frame(frame))) => frame,
        other => panic!("{other:?}"),
    }
}

proptest! {
    #[test]
    fn bundles_and_entries_come_back(bundle in bundle(), entry in entry()) {
        comes_back(&bundle)?;
        comes_back(&entry)?;
        let body = bundle.encode();
        let appended = bundle.entry(&body).unwrap();
        prop_assert_eq!(appended.authenticated_hash(), bundle.authenticated_hash());
        prop_assert_eq!(appended.message, MessageId::of_body(&body));
    }

    #[test]
    fn events_and_acks_come_back(event in event(), down in ack_down(), up in ack_up()) {
        comes_back(&event)?;
        comes_back(&down)?;
        comes_back(&up)?;
    }

    #[test]
    fn frames_of_a_client_come_back(
        hub in domain(), bundle in signed(), sealed_ref in sealed_ref(), msg in msg(), channel: u32,
    ) {
        let update = FromClient::KeyUpdate(KeyUpdate { hub, bundle, sealed_ref });
        for (value, channel) in [(update, 0), (FromClient::Msg(msg), channel)] {
            let mut raw = BytesMut::from(&b"before"[..]);
            value.encode(channel, 1, &mut raw);
            let frame = one_frame(Direction::Up, &raw[6..]);
            prop_assert_eq!(frame.header.channel, channel);
            prop_assert_eq!(FromClient::decode(&frame), Ok(value));
            prop_assert_eq!(&raw[..6], b"before");
        }
    }

    #[test]
    fn frames_of_a_server_come_back(group in of(group()), msg in msg(), entry in entry()) {
        let channel = u32::from(group.is_none());
        let msg = FromServer::Msg(MsgDown { group, msg });
        for (value, channel) in [(msg, channel), (FromServer::KeyUpdate(entry), 0)] {
            let mut raw = BytesMut::new();
            value.encode(channel, 1, &mut raw);
            let frame = one_frame(Direction::Down, &raw);
            prop_assert_eq!(FromServer::decode(&frame), Ok(value));
        }
    }

    #[test]
    fn a_stream_means_the_same_in_any_pieces(msgs in vec(msg(), 1..8), cuts in vec(1..50_usize, 1..80)) {
        let mut raw = BytesMut::new();
        for (index, msg) in msgs.iter().enumerate() {
            FromClient::Msg(msg.clone()).encode(1, u32::try_from(index).unwrap() + 1, &mut raw);
        }
        let mut decoder = Decoder::tunnel(Direction::Up);
        let mut seen = Vec::new();
        let mut rest = &raw[..];
        for cut in cuts.iter().cycle() {
            let (piece, behind) = rest.split_at((*cut).min(rest.len()));
            decoder.push(piece);
            while let Some(Incoming::Frame(frame)) = decoder.next_frame().unwrap() {
                seen.push(Msg::decode(&frame.payload).unwrap());
            }
            rest = behind;
            if rest.is_empty() {
                break;
            }
        }
        prop_assert_eq!(seen, msgs);
    }

    #[test]
    fn any_bytes_are_decoded_or_refused(raw in vec(any::<u8>(), 0..300), phase: bool, side: bool) {
        let direction = if side { Direction::Up } else { Direction::Down };
        let mut decoder =
            if phase { Decoder::tunnel(direction) } else { Decoder::clear(direction) };
        decoder.push(&raw);
        while let Ok(Some(incoming)) = decoder.next_frame() {
            if let Incoming::Frame(frame) = incoming {
                drop(FromClient::decode(&frame));
                drop(FromServer::decode(&frame));
            }
        }
    }

    #[test]
    fn any_text_is_a_link_or_refused(text in "(commucat:|https:)?[ -~]{0,80}(#[ -~]{0,80})?") {
        drop(Link::parse(&text));
    }

    #[test]
    fn invite_links_come_back(host in domain(), domain in domain(), token: [u8; 16], key: [u8; 32]) {
        let invite = InviteLink {
            host,
            token: commucat_proto::id::Token::new(token),
            domain,
            domain_key: commucat_proto::id::DomainKey::new(key),
        };
        prop_assert_eq!(InviteLink::parse(&invite.to_link()), Ok(invite.clone()));
        prop_assert_eq!(InviteLink::parse(&invite.to_page()), Ok(invite));
    }
}
