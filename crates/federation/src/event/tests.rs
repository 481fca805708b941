//! Events: vectors, strictness, and what their keys tell apart.

use commucat_proto::id::Domain;
use data_encoding::HEXLOWER;
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

const ID: EventId = EventId::new([0xe1; 16]);

fn group() -> GroupId {
    GroupId::new([0x11; 32])
}

fn reference(number: u8) -> SealedRef {
    SealedRef::new([number; 65])
}

fn deliver() -> Deliver {
    Deliver {
        group: group(),
        frame: Delivered::Message,
        payload: Bytes::from_static(b"payload"),
        references: vec![reference(1), reference(2)],
    }
}

/// One of each kind, by the name of its vector.
fn samples() -> Vec<(&'static str, Body)> {
    let handle = Handle::new([0x22; 32]);
    vec![
        ("deliver", Body::Deliver(deliver())),
        (
            "submit",
            Body::Submit(Submit {
                group: group(),
                handle,
                reference: reference(3),
                class: Class::Ephemeral,
                payload: Bytes::from_static(b"typing"),
            }),
        ),
        (
            "return",
            Body::Return(Return {
                group: group(),
                message: MessageId::new([0x33; 16]),
                returned: DedupeKey::new([0x66; 16]),
                handles: vec![handle],
                reason: Reason::Expired,
                author: reference(4),
            }),
        ),
        (
            "tag",
            Body::Tag(Tag {
                group: group(),
                handle,
                reference: reference(5),
                position: 300,
                tag: Some([0x44; 16]),
            }),
        ),
        (
            "tag_skipped",
            Body::Tag(Tag {
                group: group(),
                handle,
                reference: reference(5),
                position: 301,
                tag: None,
            }),
        ),
        (
            "request",
            Body::Request(Request {
                frame: Requested::Directory,
                payload: Bytes::from_static(b"\xa1\x00\x02"),
            }),
        ),
    ]
}

fn vector(name: &str) -> Bytes {
    let text = include_str!("../../tests/vectors/events.hex");
    let hex = text
        .lines()
        .filter_map(|line| line.split_once(' '))
        .find(|(row, _)| *row == name)
        .unwrap()
        .1;
    HEXLOWER.decode(hex.as_bytes()).unwrap().into()
}

/// An event with `kind` and a map of ready-made entries.
fn raw(kind: u8, entries: &[&[u8]]) -> Bytes {
    let mut out = vec![0x83, 0x50];
    out.extend([0xe1; 16]);
    out.push(kind);
    out.push(0xa0 | u8::try_from(entries.len()).unwrap());
    out.extend(entries.concat());
    out.into()
}

#[test]
fn events_are_those_of_the_vectors() {
    for (name, body) in samples() {
        let event = Event::new(ID, body);
        let vector = vector(name);

        assert_eq!(
            HEXLOWER.encode(event.encoded()),
            HEXLOWER.encode(&vector),
            "{name}"
        );
        assert_eq!(Event::decode(&vector), Ok(event), "{name}");
    }
}

#[test]
fn an_event_that_ends_early_or_late_is_none() {
    for (name, _) in samples() {
        let whole = vector(name);

        for len in 0..whole.len() {
            assert!(Event::decode(&whole.slice(..len)).is_err(), "{name} {len}");
        }
        let longer = Bytes::from([whole.as_ref(), &[0]].concat());
        assert_eq!(
            Event::decode(&longer),
            Err(CborError::Trailing(1)),
            "{name}"
        );
    }
}

#[test]
fn the_limit_is_one_mebibyte_encoded() {
    let sized = |size| {
        let payload = Bytes::from(vec![0; size]);
        Event::new(
            ID,
            Body::Deliver(Deliver {
                payload,
                ..deliver()
            }),
        )
    };
    let rest = sized(EVENT_MAX / 2).encoded().len() - EVENT_MAX / 2;

    let most = sized(EVENT_MAX - rest);
    assert_eq!(most.encoded().len(), EVENT_MAX);
    assert!(Event::decode(most.encoded()).is_ok());
    assert_eq!(
        Event::decode(sized(EVENT_MAX - rest + 1).encoded()),
        Err(CborError::Oversize("an event"))
    );
}

#[test]
fn unknown_kinds_frames_and_classes_are_refused() {
    assert_eq!(
        Event::decode(&raw(6, &[])),
        Err(CborError::Range("the kind of an event"))
    );
    // A request that carries MSG.
    assert_eq!(
        Event::decode(&raw(5, &[&[0, 5], &[1, 0x40]])),
        Err(CborError::Range("the frame type of a request"))
    );
    let whole = vector("deliver").to_vec();
    // Behind the head, id, kind, head of the map, key 0 with its group, and key 1.
    let class_at = 1 + 17 + 1 + 1 + 1 + 34 + 1;
    let changed = |at: usize, value: u8| {
        let mut changed = whole.clone();
        changed[at] = value;
        Event::decode(&changed.into())
    };
    assert_eq!(
        changed(class_at, 1),
        Err(CborError::Range("the class of a delivery"))
    );
    assert_eq!(
        changed(class_at, 2),
        Err(CborError::Range("a field of 0 or 1"))
    );
    assert_eq!(
        changed(class_at + 2, 0x01),
        Err(CborError::Range("the frame type of a delivery"))
    );
}

#[test]
fn references_are_some_and_none_twice_and_one_for_a_welcome() {
    let decode = |frame, references| {
        let body = Deliver {
            frame,
            references,
            ..deliver()
        };
        Event::decode(Event::new(ID, Body::Deliver(body)).encoded()).map(drop)
    };
    let many = |count: usize| {
        let numbered = |number: usize| {
            let mut raw = [0; 65];
            raw[..8].copy_from_slice(&number.to_be_bytes());
            SealedRef::new(raw)
        };
        (0..count).map(numbered).collect::<Vec<_>>()
    };
    let refused = Err(CborError::Range("the references of a delivery"));

    assert_eq!(decode(Delivered::Message, many(256)), Ok(()));
    assert_eq!(decode(Delivered::Message, many(257)), refused);
    assert_eq!(decode(Delivered::Message, vec![]), refused);
    assert_eq!(
        decode(Delivered::Message, vec![reference(1), reference(1)]),
        refused
    );
    assert_eq!(decode(Delivered::GroupInvite, many(1)), Ok(()));
    assert_eq!(decode(Delivered::GroupInvite, many(2)), refused);
}

#[test]
fn keys_that_are_missing_or_twice_are_refused_and_unknown_ones_passed_over() {
    let frame: &[u8] = &[0, 0x41];
    let payload: &[u8] = &[1, 0x41, 7];
    let unknown: &[u8] = &[9, 0x82, 1, 2];

    assert_eq!(
        Event::decode(&raw(5, &[frame])),
        Err(CborError::Type("an unsigned integer")),
        "0x41 is a byte string"
    );
    let frame: &[u8] = &[0, 0x18, 0x41];
    assert_eq!(
        Event::decode(&raw(5, &[frame])),
        Err(CborError::MissingKey(1))
    );
    assert_eq!(
        Event::decode(&raw(5, &[frame, payload, payload])),
        Err(CborError::DuplicateKey)
    );
    let tolerated = Event::decode(&raw(5, &[payload, unknown, frame])).unwrap();
    assert_eq!(
        tolerated.body,
        Body::Request(Request {
            frame: Requested::Directory,
            payload: Bytes::from_static(&[7]),
        })
    );
}

#[test]
fn the_key_tells_effects_apart_and_forgets_the_id() {
    let keys: Vec<_> = samples()
        .into_iter()
        .map(|(_, body)| {
            let event = Event::new(ID, body.clone());
            let again = Event::new(EventId::new([9; 16]), body);
            assert_eq!(event.key(), again.key());
            assert_eq!(Event::decode(event.encoded()).unwrap().key(), event.key());
            event.key()
        })
        .collect();
    let mut distinct = keys.clone();
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(distinct.len(), keys.len());

    let fewer = Deliver {
        references: vec![reference(1)],
        ..deliver()
    };
    let fewer = Event::new(ID, Body::Deliver(fewer));
    assert_ne!(
        fewer.key(),
        keys[0],
        "another set of recipients is another effect"
    );
}

#[test]
fn a_lane_is_that_of_the_group_and_requests_and_tags_have_none() {
    let lane = Lane::of(&group());
    assert_eq!(lane.number(), blake3::hash(&[0x11; 32]).as_bytes()[0] % 8);

    let lanes: Vec<_> = samples()
        .into_iter()
        .map(|(_, body)| Event::new(ID, body).lane())
        .collect();

    assert_eq!(
        lanes,
        [Some(lane), Some(lane), Some(lane), None, None, None]
    );
    assert_eq!((Lane::new(7).is_some(), Lane::new(8)), (true, None));
    assert_eq!(Lane::all().count(), 8);
}

#[test]
fn debug_shows_sizes_and_tags_only() {
    let shown = format!("{:?}", samples());

    assert!(!shown.contains("payload") || !shown.contains("typing"));
    assert!(!shown.contains("1111") && !shown.contains("17, 17"));
    assert!(Domain::parse("near.example").is_ok());
}

proptest! {
    /// What is read is what its bytes say, and no change of a good event ends in a panic.
    #[test]
    fn any_bytes_are_an_event_or_refused(
        which in any::<prop::sample::Index>(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        rubbish in vec(any::<u8>(), 0..200),
    ) {
        let samples = samples();
        let (name, _) = which.get(&samples);
        let mut bent = vector(name).to_vec();
        for (at, byte) in changes {
            *at.get_mut(&mut bent[..]) = byte;
        }
        for raw in [Bytes::from(bent), Bytes::from(rubbish)] {
            if let Ok(event) = Event::decode(&raw) {
                prop_assert_eq!(event.encoded(), &raw);
                let again = Event::new(event.id, event.body.clone());
                let again = Event::decode(again.encoded());
                prop_assert_eq!(again.map(|again| again.body), Ok(event.body));
            }
        }
    }
}
