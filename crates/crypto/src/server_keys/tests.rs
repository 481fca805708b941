//! A statement is believed under the pinned key, or where the chain leads from it.

use data_encoding::HEXLOWER;

use super::*;
use crate::noise::StaticKey;

const NOW: Timestamp = Timestamp::from_millis(1_767_225_600_000);
const YEAR_LATER: Timestamp = Timestamp::from_millis(1_798_761_600_000);

fn domain() -> Domain {
    Domain::parse("chat.example.org").unwrap()
}

fn secret(seed: u8) -> DomainSecret {
    DomainSecret::from_seed(&Secret::new([seed; 32]))
}

fn noise(seed: u8, not_before: Timestamp, not_after: Timestamp) -> ServerNoiseKey {
    let key = StaticKey::from_private(Secret::new([seed; 32]));
    ServerNoiseKey {
        key: *key.public(),
        not_before,
        not_after,
    }
}

fn keys(signer: u8, serial: u64) -> ServerKeys {
    ServerKeys {
        domain: domain(),
        domain_key: secret(signer).key(),
        serial,
        noise_keys: vec![noise(1, NOW, YEAR_LATER)],
        next_domain_key: None,
        issued: NOW,
    }
}

fn statement(signer: u8, serial: u64) -> Signed {
    secret(signer).state(&keys(signer, serial))
}

/// The last statement of `signer`, which hands over to `next`.
fn link(signer: u8, serial: u64, next: u8) -> Signed {
    let next_domain_key = Some(secret(next).key());
    secret(signer).state(&ServerKeys {
        next_domain_key,
        ..keys(signer, serial)
    })
}

fn pin(signer: u8, serial: u64) -> Pin {
    Pin {
        domain: domain(),
        key: secret(signer).key(),
        serial,
    }
}

#[test]
fn the_statement_is_the_one_in_the_protocol_text() {
    // docs/PROTOCOL.md section 15.3, made by another implementation.
    let expected = "48425666c22c673213d2fafe0c9b8be74039c2195a5917b2f3e720b65ecc65983dd9033520ecb8fa\
                    96661e7265949ed8997ed9f9fb9254042c0fb818810d6009";

    let signed = statement(7, 1);

    assert_eq!(HEXLOWER.encode(&signed.signature), expected);
    assert_eq!(Statement::verify(&signed).unwrap().pin(), pin(7, 1));
}

#[test]
fn the_valid_noise_key_with_the_latest_start_is_used() {
    let at = |millis| Timestamp::from_millis(NOW.as_millis() + millis);
    let noise_keys = vec![
        noise(1, at(0), at(50)),
        noise(2, at(20), at(90)),
        noise(3, at(80), at(99)),
    ];
    let signed = secret(7).state(&ServerKeys {
        noise_keys: noise_keys.clone(),
        ..keys(7, 1)
    });

    let statement = Statement::verify(&signed).unwrap();

    let used = |millis| statement.noise_key(at(millis));
    assert_eq!(used(0), Some(&noise_keys[0].key));
    assert_eq!(used(20), Some(&noise_keys[1].key));
    assert_eq!(used(85), Some(&noise_keys[2].key));
    assert_eq!(used(100), None);
    assert_eq!(statement.noise_key(Timestamp::ZERO), None);
}

#[test]
fn a_statement_without_usable_keys_does_not_hold() {
    let refusal = |keys: ServerKeys| Statement::verify(&secret(7).state(&keys)).err();
    let mut low_order = noise(1, NOW, YEAR_LATER);
    low_order.key = NoiseKey::new([0; 32]);
    let mut identity = [0; 32];
    identity[0] = 1;

    for noise_keys in [
        Vec::new(),
        vec![noise(1, NOW, YEAR_LATER); NOISE_KEYS_MAX + 1],
        vec![low_order],
        vec![noise(1, YEAR_LATER, NOW)],
    ] {
        let keys = ServerKeys {
            noise_keys,
            ..keys(7, 1)
        };
        assert_eq!(refusal(keys), Some(StatementError::NoiseKeys));
    }
    let next_domain_key = Some(DomainKey::new(identity));
    let keys = ServerKeys {
        next_domain_key,
        ..keys(7, 1)
    };
    assert_eq!(refusal(keys), Some(StatementError::NextKey));
}

#[test]
fn a_statement_that_somebody_else_signed_does_not_hold() {
    let forged = secret(8).state(&keys(7, 1));

    assert_eq!(Statement::verify(&forged), Err(StatementError::Signature));
}

#[test]
fn a_pin_accepts_its_own_key_and_no_older_serial() {
    assert_eq!(pin(7, 3).follow(&[], &statement(7, 3)).unwrap().serial(), 3);
    assert_eq!(pin(7, 3).follow(&[], &statement(7, 4)).unwrap().serial(), 4);
    assert_eq!(
        pin(7, 3).follow(&[], &statement(7, 2)),
        Err(FollowError::Old)
    );
    assert_eq!(
        pin(7, 0).follow(&[], &statement(8, 1)),
        Err(FollowError::UnknownSigner)
    );
    let elsewhere = Pin {
        domain: Domain::parse("other.example").unwrap(),
        ..pin(7, 0)
    };
    assert_eq!(
        elsewhere.follow(&[], &statement(7, 1)),
        Err(FollowError::OtherDomain)
    );
}

#[test]
fn a_chain_leads_from_any_earlier_key_to_the_latest() {
    let chain = [link(7, 2, 8), link(8, 5, 9)];
    let latest = statement(9, 6);

    for start in [pin(7, 0), pin(7, 2), pin(8, 3), pin(9, 6)] {
        assert_eq!(start.follow(&chain, &latest).unwrap().pin(), pin(9, 6));
    }
    assert_eq!(
        pin(6, 0).follow(&chain, &latest),
        Err(FollowError::UnknownSigner)
    );
    assert_eq!(
        pin(7, 0).follow(&chain[1..], &latest),
        Err(FollowError::UnknownSigner)
    );
    assert_eq!(
        pin(7, 0).follow(&chain, &statement(8, 6)),
        Err(FollowError::UnknownSigner)
    );
}

#[test]
fn a_chain_does_not_lead_back_to_a_key_that_was_given_up() {
    let chain = [link(7, 2, 8), link(8, 1, 7)];

    assert_eq!(
        pin(7, 0).follow(&chain, &statement(7, 9)),
        Err(FollowError::UnknownSigner)
    );
    assert_eq!(
        pin(7, 0).follow(&chain[..1], &statement(8, 2)),
        Err(FollowError::Old)
    );
}

#[test]
fn a_link_that_is_forged_or_of_another_domain_leads_nowhere() {
    let mut forged = link(7, 2, 8);
    forged.signature[0] ^= 1;
    let elsewhere = ServerKeys {
        domain: Domain::parse("other.example").unwrap(),
        next_domain_key: Some(secret(8).key()),
        ..keys(7, 2)
    };

    for chain in [forged, secret(7).state(&elsewhere)] {
        let followed = pin(7, 0).follow(&[chain], &statement(8, 3));
        assert_eq!(followed, Err(FollowError::UnknownSigner));
    }
}
