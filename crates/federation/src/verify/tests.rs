//! The order of the checks, and each of them alone.

use commucat_crypto::Secret;
use commucat_proto::id::DomainKey;
use commucat_proto::signed::Signed;
use commucat_proto::wire::Cbor;

use super::*;
use crate::batch::{BatchId, KeyId, Parcel};
use crate::event::{Body, EventId, Request, Requested};

const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

fn secret(seed: u8) -> DomainSecret {
    DomainSecret::from_seed(&Secret::new([seed; 32]))
}

fn domain(name: &str) -> Domain {
    Domain::parse(name).unwrap()
}

fn keys() -> PeerKeys {
    PeerKeys::new(secret(1).key())
}

fn event(number: u8) -> Event {
    let body = Body::Request(Request {
        frame: Requested::Fetch,
        payload: Bytes::from_static(b"x"),
    });
    Event::new(EventId::new([number; 16]), body)
}

/// A request from near to far with one event.
fn request(created: Timestamp, seed: u8) -> Bytes {
    request_of("near.example", "far.example", created, seed)
}

fn request_of(origin: &str, destination: &str, created: Timestamp, seed: u8) -> Bytes {
    let mut parcel = Parcel::new();
    assert!(parcel.push((&event(1)).into()));
    let sent = parcel.sign(
        BatchId::new([9; 16]),
        (&domain(origin), &domain(destination)),
        created,
        &secret(seed),
    );
    sent.request().clone()
}

fn refusal(raw: &Bytes, keys: &PeerKeys) -> Option<Refusal> {
    let received = match Received::read(raw) {
        Ok(received) => received,
        Err(refusal) => return Some(refusal),
    };
    received
        .verify(&domain("far.example"), keys, NOW)
        .err()
        .map(|(_, refusal)| refusal)
}

#[test]
fn a_good_request_gives_its_origin_and_events() {
    let received = Received::read(&request(NOW, 1)).unwrap();
    assert_eq!(received.claimed_origin(), &domain("near.example"));
    assert_eq!(received.events(), 1);

    let verified = received
        .verify(&domain("far.example"), &keys(), NOW)
        .unwrap();

    assert_eq!(verified.origin(), &domain("near.example"));
    assert_eq!(verified.events(), (vec![event(1)], vec![]));
}

#[test]
fn the_window_is_fifteen_minutes_to_both_sides() {
    let edge = Duration::from_secs(900);
    let over = edge + Duration::from_millis(1);

    for (created, expected) in [
        (NOW.saturating_sub(edge), None),
        (NOW.saturating_add(edge), None),
        (NOW.saturating_sub(over), Some(Refusal::Window)),
        (NOW.saturating_add(over), Some(Refusal::Window)),
        (Timestamp::ZERO, Some(Refusal::Window)),
    ] {
        assert_eq!(refusal(&request(created, 1), &keys()), expected);
    }
}

#[test]
fn a_request_is_for_this_domain_and_not_by_it() {
    let elsewhere = request_of("near.example", "other.example", NOW, 1);
    let own = request_of("far.example", "far.example", NOW, 1);

    assert_eq!(refusal(&elsewhere, &keys()), Some(Refusal::Destination));
    assert_eq!(refusal(&own, &keys()), Some(Refusal::Destination));
}

#[test]
fn a_signature_is_by_a_key_of_the_sender() {
    assert_eq!(refusal(&request(NOW, 2), &keys()), Some(Refusal::Key));

    let previous = keys().with_previous(secret(2).key(), NOW);
    assert_eq!(refusal(&request(NOW, 2), &previous), None);

    let signed = Signed::decode_shared(&request(NOW, 1)).unwrap();
    let forged = Signed {
        signature: secret(2)
            .sign(Purpose::FederationRequest, signed.body.clone())
            .signature,
        ..signed.clone()
    };
    assert_eq!(
        refusal(&forged.encode().into(), &keys()),
        Some(Refusal::Signature)
    );
    let other_purpose = secret(1).sign(Purpose::FederationAnswer, signed.body);
    assert_eq!(
        refusal(&other_purpose.encode().into(), &keys()),
        Some(Refusal::Signature)
    );
}

#[test]
fn a_weak_key_signs_nothing() {
    let mut identity = [0; 32];
    identity[0] = 1;
    let weak = DomainKey::new(identity);
    // Under the identity point anybody can sign anything.
    let mut signature = [0; 64];
    signature[0] = 1;
    let body = Signed::decode_shared(&request(NOW, 1))
        .unwrap()
        .body
        .to_vec();
    let id_of = |key: &DomainKey| KeyId::of(key).encode();
    let (own, other) = (id_of(&secret(1).key()), id_of(&weak));
    let at = body.len() - own.len();
    assert_eq!(body[at..], own[..]);
    let body = Bytes::from([&body[..at], &other[..]].concat());
    let forged = Signed { body, signature };

    let refused = refusal(&forged.encode().into(), &PeerKeys::new(weak));

    assert_eq!(refused, Some(Refusal::Signature));
}

#[test]
fn a_request_changed_anywhere_is_refused() {
    let raw = request(NOW, 1);

    for at in 0..raw.len() {
        let mut changed = raw.to_vec();
        changed[at] ^= 1;
        assert!(refusal(&changed.into(), &keys()).is_some(), "byte {at}");
    }
}

#[test]
fn checks_come_in_their_order() {
    let old = NOW.saturating_sub(Duration::from_secs(3_600));
    // Wrong in every way from the destination on.
    let all = request_of("near.example", "other.example", old, 2);
    let from_window = request(old, 2);

    assert_eq!(refusal(&all, &keys()), Some(Refusal::Destination));
    assert_eq!(refusal(&from_window, &keys()), Some(Refusal::Window));
    assert_eq!(
        refusal(&Bytes::from_static(b"x"), &keys()),
        Some(Refusal::Malformed)
    );
    let long = Bytes::from(vec![0; 4 * 1024 * 1024 + 1]);
    assert_eq!(refusal(&long, &keys()), Some(Refusal::TooLarge));
}

#[test]
fn an_event_that_is_none_is_answered_and_the_others_go_on() {
    let odd = {
        let mut encoded = event(2).encoded().to_vec();
        // Behind head and id: the kind.
        encoded[18] = 9;
        crate::batch::RawEvent::parse(&encoded.into()).unwrap()
    };
    let mut parcel = Parcel::new();
    assert!(parcel.push(odd) && parcel.push((&event(1)).into()));
    let sent = parcel.sign(
        BatchId::new([9; 16]),
        (&domain("near.example"), &domain("far.example")),
        NOW,
        &secret(1),
    );
    let verified = Received::read(sent.request())
        .unwrap()
        .verify(&domain("far.example"), &keys(), NOW)
        .unwrap();

    let (events, refused) = verified.events();

    assert_eq!(events, [event(1)]);
    assert_eq!(refused[0].event, EventId::new([2; 16]));
    assert!(matches!(
        &refused[0].outcome,
        Outcome::Refused(problem) if problem.title == Title::InvalidControlPayload
    ));
    let raw = verified.answer(refused.clone(), &domain("far.example"), &secret(3));
    let read = Answer::verify(&raw, &sent, &[secret(3).key()]).unwrap();
    assert_eq!(read.settled, refused);
}

#[test]
fn every_refusal_has_a_word_of_its_own() {
    let all = [
        Refusal::TooLarge,
        Refusal::Malformed,
        Refusal::Peer,
        Refusal::Origin,
        Refusal::Budget {
            wait: Duration::ZERO,
        },
        Refusal::Destination,
        Refusal::Window,
        Refusal::Key,
        Refusal::Signature,
    ];
    let mut urns: Vec<_> = all.iter().map(Refusal::urn).collect();
    urns.sort_unstable();
    urns.dedup();

    assert_eq!(urns.len(), all.len());
    let statuses: Vec<_> = all.iter().map(Refusal::status).collect();
    assert_eq!(statuses, [413, 400, 403, 503, 429, 421, 400, 401, 401]);
}
