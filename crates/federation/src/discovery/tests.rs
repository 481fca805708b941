//! Documents that are believed, and those that are not.

use std::time::Duration;

use commucat_crypto::Secret;
use commucat_crypto::server_keys::DomainSecret;
use commucat_proto::id::NoiseKey;
use commucat_proto::identity::{ServerKeys, ServerNoiseKey};
use commucat_proto::signed::Signed;
use commucat_proto::time::Timestamp;
use commucat_proto::well_known::RegistrationPolicy;

use super::*;

fn secret(seed: u8) -> DomainSecret {
    DomainSecret::from_seed(&Secret::new([seed; 32]))
}

fn domain(name: &str) -> Domain {
    Domain::parse(name).unwrap()
}

/// A statement of near.example, signed by `seed`, that names `next` as the next key.
fn statement(seed: u8, serial: u64, next: Option<u8>) -> Signed {
    statement_of("near.example", seed, serial, next)
}

fn statement_of(name: &str, seed: u8, serial: u64, next: Option<u8>) -> Signed {
    let noise = ServerNoiseKey {
        key: NoiseKey::new([0x51; 32]),
        not_before: Timestamp::ZERO,
        not_after: Timestamp::ZERO.saturating_add(Duration::from_secs(1 << 40)),
    };
    secret(seed).state(&ServerKeys {
        domain: domain(name),
        domain_key: secret(seed).key(),
        serial,
        noise_keys: vec![noise],
        next_domain_key: next.map(|seed| secret(seed).key()),
        issued: Timestamp::ZERO,
    })
}

fn document(server_keys: Signed, chain: Vec<Signed>) -> WellKnown {
    WellKnown {
        domain: domain("near.example"),
        endpoint: "https://chat.near.example:8443/connect".to_owned(),
        versions: vec![2],
        server_keys,
        chain,
        registration: RegistrationPolicy::Invite,
        ledger: None,
    }
}

fn pin(seed: u8, serial: u64) -> Pin {
    Pin {
        domain: domain("near.example"),
        key: secret(seed).key(),
        serial,
    }
}

fn look(document: &WellKnown, pin: Option<&Pin>) -> Result<Found, DiscoveryError> {
    read(&document.encode(), &domain("near.example"), pin)
}

#[test]
fn a_first_contact_takes_the_key_that_signed() {
    let found = look(&document(statement(1, 3, None), vec![]), None).unwrap();

    let expected = Found {
        key: secret(1).key(),
        serial: 3,
        endpoint: domain("chat.near.example:8443"),
    };
    assert_eq!(found, expected);
}

#[test]
fn a_pinned_key_is_followed_along_its_chain_only() {
    let chain = vec![statement(1, 4, Some(2)), statement(2, 6, Some(3))];
    let latest = document(statement(3, 7, None), chain);

    let found = look(&latest, Some(&pin(1, 3))).unwrap();
    assert_eq!((found.key, found.serial), (secret(3).key(), 7));
    assert!(look(&latest, Some(&pin(2, 5))).is_ok());
    let stranger = look(&latest, Some(&pin(9, 0))).unwrap_err();
    assert!(stranger.is_other_key());
    let broken = document(statement(3, 7, None), vec![statement(1, 4, Some(2))]);
    assert!(look(&broken, Some(&pin(1, 3))).unwrap_err().is_other_key());
}

#[test]
fn an_older_statement_than_the_pinned_one_is_refused() {
    let old = document(statement(1, 3, None), vec![]);

    assert!(look(&old, Some(&pin(1, 3))).is_ok());
    assert!(matches!(
        look(&old, Some(&pin(1, 4))),
        Err(DiscoveryError::Follow(FollowError::Old))
    ));
}

#[test]
fn a_document_or_statement_of_another_domain_is_refused() {
    let other = WellKnown {
        domain: domain("other.example"),
        ..document(statement(1, 3, None), vec![])
    };
    assert!(matches!(
        look(&other, None),
        Err(DiscoveryError::OtherDomain)
    ));

    let borrowed = document(statement_of("other.example", 1, 3, None), vec![]);
    assert!(matches!(
        look(&borrowed, None),
        Err(DiscoveryError::OtherDomain)
    ));
    assert!(look(&borrowed, Some(&pin(1, 3))).is_err());
}

#[test]
fn an_endpoint_is_an_https_url_of_a_host() {
    let with = |endpoint: &str| {
        let document = WellKnown {
            endpoint: endpoint.to_owned(),
            ..document(statement(1, 3, None), vec![])
        };
        look(&document, None).map(|found| found.endpoint)
    };

    for (url, host) in [
        ("https://near.example", "near.example"),
        ("https://near.example/connect", "near.example"),
        ("https://[2001:db8::1]:8443/x/y", "[2001:db8::1]:8443"),
        ("https://192.0.2.1/", "192.0.2.1"),
    ] {
        assert_eq!(with(url).unwrap(), domain(host));
    }
    for url in [
        "http://near.example/connect",
        "https://",
        "https:///connect",
        "https://user@near.example/",
        "https://near.example:0/",
        "https://near.example?x",
        "https://near.example#x",
        "https://NEAR.example/",
        "https://near.example\\@other.example/",
        "https://near.example\r\nhost: other.example/",
    ] {
        assert!(with(url).is_err(), "{url}");
    }
}

#[test]
fn other_versions_and_no_documents_are_refused() {
    let newer = WellKnown {
        versions: vec![3],
        ..document(statement(1, 3, None), vec![])
    };
    assert!(matches!(look(&newer, None), Err(DiscoveryError::Version)));

    let whole = document(statement(1, 3, None), vec![]).encode();
    for raw in [&b""[..], b"{}", b"<html>", &whole[..whole.len() - 1]] {
        let read = read(raw, &domain("near.example"), None);
        assert!(matches!(read, Err(DiscoveryError::Document(_))));
    }
    let long = vec![b' '; 64 * 1024 + 1];
    assert!(matches!(
        read(&long, &domain("near.example"), None),
        Err(DiscoveryError::Document(JsonError::TooLarge(_)))
    ));
}

#[test]
fn a_statement_that_its_key_did_not_sign_is_refused() {
    let mut forged = statement(1, 3, None);
    forged.signature[0] ^= 1;

    assert!(matches!(
        look(&document(forged.clone(), vec![]), None),
        Err(DiscoveryError::Statement(_))
    ));
    assert!(look(&document(forged, vec![]), Some(&pin(1, 3))).is_err());
}
