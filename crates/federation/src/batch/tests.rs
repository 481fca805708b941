//! Batches and answers: bounds, strictness, and what an answer must be about.

use commucat_crypto::server_keys::DomainSecret;
use commucat_crypto::{Purpose, Secret};
use commucat_proto::error::Title;
use commucat_proto::frame::error::Problem;
use commucat_proto::frame::group_event::Reason;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::event::{Body, Request, Requested};

fn secret(seed: u8) -> DomainSecret {
    DomainSecret::from_seed(&Secret::new([seed; 32]))
}

fn domain(name: &str) -> Domain {
    Domain::parse(name).unwrap()
}

fn event(number: u8, size: usize) -> Event {
    let body = Body::Request(Request {
        frame: Requested::Fetch,
        payload: vec![number; size].into(),
    });
    Event::new(EventId::new([number; 16]), body)
}

fn parcel(events: &[Event]) -> Parcel {
    let mut parcel = Parcel::new();
    for event in events {
        assert!(parcel.push(event.into()));
    }
    parcel
}

fn sent(events: &[Event]) -> Sent {
    parcel(events).sign(
        BatchId::new([0xb1; 16]),
        (&domain("near.example"), &domain("far.example")),
        Timestamp::from_millis(5_000),
        &secret(1),
    )
}

fn settled(number: u8, outcome: Outcome) -> Settled {
    Settled {
        event: EventId::new([number; 16]),
        outcome,
    }
}

fn answer(settled: Vec<Settled>, sent: &Sent) -> Bytes {
    let batch = Batch::decode(sent.request()).unwrap();
    Answer { settled }.sign(&batch, &domain("far.example"), &secret(2))
}

/// A request body with these events, which need not be any.
fn body_of(events: &[Bytes]) -> Bytes {
    encode(
        |to| {
            to.map(|map| {
                map.put(0, &BatchId::new([0xb1; 16]));
                map.put(1, &domain("near.example"));
                map.put(2, &domain("far.example"));
                map.put(3, &Timestamp::ZERO);
                let list = map.key(4);
                list.array(events.len());
                events.iter().for_each(|event| list.raw(event));
                map.put(5, &KeyId::of(&secret(1).key()));
            });
        },
        0,
    )
}

fn decode_body(body: impl Into<Bytes>) -> Result<Batch, BatchError> {
    let signed = secret(1).sign(Purpose::FederationRequest, body);
    Batch::decode(&signed.encode().into())
}

#[test]
fn a_request_reads_as_it_was_made() {
    let events = [event(1, 3), event(2, 300)];
    let sent = sent(&events);

    let batch = Batch::decode(sent.request()).unwrap();

    assert_eq!(batch.id, BatchId::new([0xb1; 16]));
    assert_eq!(batch.origin, domain("near.example"));
    assert_eq!(batch.destination, domain("far.example"));
    assert_eq!(batch.created, Timestamp::from_millis(5_000));
    assert_eq!(batch.key_id, KeyId::of(&secret(1).key()));
    let decoded: Vec<_> = batch
        .events
        .iter()
        .map(|event| event.decode().unwrap())
        .collect();
    assert_eq!(decoded, events);
}

#[test]
fn a_request_that_ends_early_or_late_is_none() {
    let sent = sent(&[event(1, 3)]);
    let whole = sent.request();

    for len in 0..whole.len() {
        assert!(Batch::decode(&whole.slice(..len)).is_err(), "{len}");
    }
    let longer = Bytes::from([whole.as_ref(), &[0]].concat());
    assert_eq!(
        Batch::decode(&longer),
        Err(BatchError::Structure(CborError::Trailing(1)))
    );
}

#[test]
fn a_parcel_is_bounded_by_events_and_by_bytes() {
    let mut many = Parcel::new();
    let numbered = |number: u16| {
        let mut id = [0; 16];
        id[..2].copy_from_slice(&number.to_be_bytes());
        let body = event(0, 1).body;
        RawEvent::from(&Event::new(EventId::new(id), body))
    };
    for number in 0..1_000 {
        assert!(many.push(numbered(number)));
    }
    assert!(!many.push(numbered(1_000)));

    let mut big = Parcel::new();
    let size = 1024 * 1024 - 100;
    for number in 1..=4 {
        let fits = big.push((&event(number, size)).into());
        assert_eq!(
            fits,
            number < 4 || BATCH_MAX - 1_024 >= 4 * (size + 30),
            "{number}"
        );
    }
    let request = big.sign(
        BatchId::new([0; 16]),
        (&domain(&"a".repeat(63)), &domain("b")),
        Timestamp::ZERO,
        &secret(1),
    );
    assert!(Batch::decode(request.request()).is_ok());
}

#[test]
fn more_events_and_bytes_than_allowed_are_refused() {
    let one = |number: u16| -> Bytes {
        let mut raw = vec![0x83, 0x50];
        raw.extend(number.to_be_bytes());
        raw.extend([0; 14]);
        raw.extend([5, 0xa0]);
        raw.into()
    };
    let of_count = |count| decode_body(body_of(&(0..count).map(one).collect::<Vec<_>>()));

    assert!(of_count(1_000).is_ok());
    assert_eq!(of_count(1_001), Err(BatchError::TooMany(1_001)));
    let long = Bytes::from(vec![0; BATCH_MAX + 1]);
    assert_eq!(
        Batch::decode(&long),
        Err(BatchError::TooLarge(BATCH_MAX + 1))
    );
    assert_eq!(
        decode_body(body_of(&[one(1), one(2), one(1)])),
        Err(BatchError::EventTwice)
    );
    let huge = event(1, 1024 * 1024);
    assert_eq!(
        decode_body(body_of(std::slice::from_ref(huge.encoded()))),
        Err(BatchError::Structure(CborError::Oversize("an event")))
    );
}

#[test]
fn an_event_that_is_none_is_refused_alone_but_its_id_must_be_there() {
    let odd = Bytes::from([&[0x83, 0x50][..], &[7; 16], &[0x18, 99, 0xa0]].concat());
    let batch = decode_body(body_of(&[odd, event(1, 3).encoded().clone()])).unwrap();
    assert_eq!(batch.events[0].id, EventId::new([7; 16]));
    assert!(batch.events[0].decode().is_err());
    assert!(batch.events[1].decode().is_ok());

    for nameless in [
        &[0x82, 1, 0xa0][..],
        &[0x83, 0x41, 7, 1, 0xa0],
        &[0xa0],
        &[0xf6],
    ] {
        let nameless = Bytes::copy_from_slice(nameless);
        assert!(decode_body(body_of(&[nameless])).is_err());
    }
}

#[test]
fn keys_of_a_request_are_all_needed_and_come_once() {
    let whole = body_of(&[]);
    // The head of the map, then key 0 with its 17 bytes.
    let (first, rest) = (whole.slice(1..19), whole.slice(19..));
    let without = Bytes::from([&[0xa5], rest.as_ref()].concat());
    let twice = Bytes::from([&[0xa7], first.as_ref(), &first, &rest].concat());
    let unknown = Bytes::from([&[0xa7], first.as_ref(), &rest, &[9, 0x80]].concat());

    let refused = |error| Err(BatchError::Structure(error));
    assert_eq!(decode_body(without), refused(CborError::MissingKey(0)));
    assert_eq!(decode_body(twice), refused(CborError::DuplicateKey));
    assert!(decode_body(unknown).is_ok());
}

#[test]
fn every_outcome_reads_as_it_was_made() {
    let events: Vec<_> = (1..=7).map(|number| event(number, 1)).collect();
    let sent = sent(&events);
    let unsettled = vec![
        Unsettled {
            index: 0,
            gone: true,
            reason: Reason::Gone,
        },
        Unsettled {
            index: 4,
            gone: false,
            reason: Reason::Full,
        },
    ];
    let problem = Problem::new(Title::EpochOld, "behind the head");
    let outcomes = vec![
        settled(1, Outcome::Custody(vec![])),
        settled(2, Outcome::Custody(unsettled)),
        settled(3, Outcome::Result(Bytes::from_static(&[0xa0]))),
        settled(4, Outcome::Refused(Box::new(problem))),
        settled(5, Outcome::Gone),
        settled(6, Outcome::Later),
    ];

    let raw = answer(outcomes.clone(), &sent);
    let read = Answer::verify(&raw, &sent, &[secret(2).key()]);

    assert_eq!(read, Ok(Answer { settled: outcomes }));
    for len in 0..raw.len() {
        let short = Answer::verify(&raw.slice(..len), &sent, &[secret(2).key()]);
        assert!(short.is_err(), "{len}");
    }
}

#[test]
fn an_answer_changed_anywhere_is_none() {
    let sent = sent(&[event(1, 3)]);
    let raw = answer(vec![settled(1, Outcome::Custody(vec![]))], &sent);

    for at in 0..raw.len() {
        let mut changed = raw.to_vec();
        changed[at] ^= 1;
        let read = Answer::verify(&changed.into(), &sent, &[secret(2).key()]);
        assert!(read.is_err(), "byte {at}");
    }
}

#[test]
fn an_answer_is_about_this_batch_and_by_that_domain() {
    let mine = sent(&[event(1, 3)]);
    let custody = vec![settled(1, Outcome::Custody(vec![]))];
    let keys = [secret(2).key()];
    let verify = |raw: &Bytes, keys: &[DomainKey]| Answer::verify(raw, &mine, keys);
    let good = answer(custody.clone(), &mine);
    let batch = Batch::decode(mine.request()).unwrap();
    let by = |domain_name: &str, seed| {
        Answer {
            settled: custody.clone(),
        }
        .sign(&batch, &domain(domain_name), &secret(seed))
    };

    assert!(verify(&good, &keys).is_ok());
    assert!(verify(&good, &[secret(7).key(), secret(2).key()]).is_ok());
    assert_eq!(
        verify(&good, &[secret(7).key()]),
        Err(AnswerError::Other("key"))
    );
    assert_eq!(
        verify(&by("other.example", 2), &keys),
        Err(AnswerError::Other("domain"))
    );
    assert_eq!(
        verify(&by("far.example", 7), &keys),
        Err(AnswerError::Other("key"))
    );
    let elsewhere = sent(&[event(1, 4)]);
    assert_eq!(
        verify(&answer(custody.clone(), &elsewhere), &keys),
        Err(AnswerError::Other("request"))
    );
    let again = parcel(&[event(1, 3)]).sign(
        BatchId::new([0xb2; 16]),
        (&domain("near.example"), &domain("far.example")),
        Timestamp::from_millis(5_000),
        &secret(1),
    );
    assert_eq!(
        verify(&answer(custody, &again), &keys),
        Err(AnswerError::Other("batch"))
    );
}

#[test]
fn an_answer_names_events_of_the_batch_and_none_twice() {
    let mine = sent(&[event(1, 3), event(2, 3)]);
    let keys = [secret(2).key()];
    let of = |numbers: &[u8]| {
        let settled = numbers
            .iter()
            .map(|number| settled(*number, Outcome::Later));
        Answer::verify(&answer(settled.collect(), &mine), &mine, &keys).map(drop)
    };

    assert_eq!(of(&[2]), Ok(()));
    assert_eq!(of(&[]), Ok(()));
    assert_eq!(of(&[1, 2, 1]), Err(AnswerError::Other("event")));
    assert_eq!(of(&[3]), Err(AnswerError::Other("event")));
}

#[test]
fn the_signature_of_a_request_is_none_for_an_answer() {
    let mine = sent(&[event(1, 3)]);
    let raw = answer(vec![], &mine);
    let body = Signed::decode_shared(&raw).unwrap().body;
    let crossed = secret(2).sign(Purpose::FederationRequest, body);

    let read = Answer::verify(&crossed.encode().into(), &mine, &[secret(2).key()]);

    assert_eq!(read, Err(AnswerError::Signature));
}

#[test]
fn results_that_do_not_fit_wait_for_another_batch() {
    let events: Vec<_> = (1..=5).map(|number| event(number, 1)).collect();
    let mine = sent(&events);
    let result = |number| settled(number, Outcome::Result(vec![0; 1_000_000].into()));

    let raw = answer((1..=5).map(result).collect(), &mine);

    assert!(raw.len() <= ANSWER_MAX);
    let read = Answer::verify(&raw, &mine, &[secret(2).key()]).unwrap();
    let later = read
        .settled
        .iter()
        .filter(|settled| settled.outcome == Outcome::Later);
    assert_eq!((read.settled.len(), later.count()), (5, 1));
}

#[test]
fn a_refusal_that_a_later_version_names_is_still_one() {
    let raw = Settled::decode(&[&[0x83, 0x50][..], &[1; 16], &[3, 0x41, 0xa0]].concat()).unwrap();

    let Outcome::Refused(problem) = raw.outcome else {
        panic!("not refused");
    };
    assert_eq!(problem.title, Title::FederationFailure);
}

#[test]
fn outcomes_that_are_none_are_refused() {
    let decode = |rest: &[u8]| {
        let head = [0x82 + u8::from(rest.len() > 1), 0x50];
        Settled::decode(&[&head[..], &[1; 16], rest].concat())
    };

    assert_eq!(
        decode(&[0]),
        Err(CborError::Range("the outcome of an event"))
    );
    assert_eq!(
        decode(&[6]),
        Err(CborError::Range("the outcome of an event"))
    );
    assert_eq!(decode(&[2]), Err(CborError::MissingKey(2)));
    assert_eq!(decode(&[3]), Err(CborError::MissingKey(2)));
    // References out of order: [[1, 4, 2], [0, 4, 2]].
    let reversed = [1, 0x49, 0x82, 0x83, 1, 4, 2, 0x83, 0, 4, 2];
    assert_eq!(
        decode(&reversed),
        Err(CborError::Range("the references not in custody"))
    );
}

proptest! {
    /// No change of a good request or answer ends in a panic, and none is taken for a good answer.
    #[test]
    fn any_bytes_are_a_batch_or_refused(
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        rubbish in vec(any::<u8>(), 0..200),
    ) {
        let sent = sent(&[event(1, 40), event(2, 0)]);
        let good = answer(vec![settled(1, Outcome::Later)], &sent);
        let bend = |raw: &Bytes| {
            let mut bent = raw.to_vec();
            for (at, byte) in &changes {
                *at.get_mut(&mut bent[..]) = *byte;
            }
            Bytes::from(bent)
        };
        for raw in [bend(sent.request()), Bytes::from(rubbish.clone())] {
            if let Ok(batch) = Batch::decode(&raw) {
                prop_assert!(batch.events.len() <= EVENTS_MAX);
                for event in &batch.events {
                    drop(event.decode());
                }
            }
        }
        let keys = [secret(2).key()];
        for raw in [bend(&good), Bytes::from(rubbish)] {
            if raw != good {
                prop_assert!(Answer::verify(&raw, &sent, &keys).is_err());
            }
        }
    }
}
