//! Certificates and lists hold under their account key, and only then.

use data_encoding::HEXLOWER;

use super::*;
use crate::noise::StaticKey;

const NOW: Timestamp = Timestamp::from_millis(1_767_225_600_000);
const YEAR_LATER: Timestamp = Timestamp::from_millis(1_798_761_600_000);
const VALIDITY: Validity = Validity {
    not_before: NOW,
    not_after: YEAR_LATER,
};

fn account() -> AccountSecret {
    AccountSecret::from_seed(&Secret::new([5; 32]))
}

fn domain() -> Domain {
    Domain::parse("chat.example.org").unwrap()
}

fn device(seed: u8) -> DeviceKeys {
    let key = StaticKey::from_private(Secret::new([seed; 32]));
    DeviceKeys {
        device: DeviceId::of_key(key.public()),
        noise_key: *key.public(),
        mls_key: Bytes::copy_from_slice(&SigningKey::from_seed(&Secret::new([8; 32])).public()),
    }
}

fn list_of(version: u64, certificates: Vec<Signed>) -> Result<List, ListError> {
    List::verify(&account().list(&domain(), version, NOW, certificates))
}

fn unhex(text: &str) -> Vec<u8> {
    HEXLOWER
        .decode(text.split_whitespace().collect::<String>().as_bytes())
        .unwrap()
}

#[test]
fn the_certificate_is_the_one_in_the_protocol_text() {
    // docs/PROTOCOL.md section 15.2, made by another implementation.
    let expected = unhex(
        "82589ba60058206e7a1cdd29b0b78fd13af4c5598feff4ef2a97166e3ca6f2e4fbfccd80505bf101781a376978756379
         736363333371346a7065366164746d6370737634025820ce8d3ad1ccb633ec7b70c17814a5c76ecd029685050d344745
         ba05870e587d590358201398f62c6d1a457c51ba6a4b5f3dbd2f69fca93216218dc8997e416bd17d93ca041b0000019b
         76daa800051b000001a2ce8bd4005840039a77be8d647e580c023f3d8204cfe0f33631358760b0c7e2e940914d7b2cdc
         2af3d15765b77f8295254ccccd6254673572d8a4b00ca61f1b7fc5bca5578d0d",
    );

    let signed = account().certify(&device(2), VALIDITY);

    assert_eq!(account().id().as_str(), "sc6655e5lutgjzxpgf6d7rg6yslv6ezi");
    assert_eq!(
        HEXLOWER.encode(&signed.encode()),
        HEXLOWER.encode(&expected)
    );
    let certificate = Certificate::verify(&Signed::decode(&expected).unwrap()).unwrap();
    assert_eq!(certificate.device().as_str(), "7ixucyscc33q4jpe6adtmcpsv4");
    assert!(certificate.has_id_of_its_key());
}

#[test]
fn the_device_list_is_the_one_in_the_protocol_text() {
    let certificate = account().certify(&device(2), VALIDITY);

    let signed = account().list(&domain(), 1, NOW, vec![certificate]);

    let expected = "beffcd8423a3d0ceb1c6321387b6b0e2e55294eb7923c9e08b7c31f88ea1cda719db34dfb36064e2\
                    b5958bbc8faf5bd70d874f0f9c7fae9da1ff65f477924a09";
    assert_eq!(HEXLOWER.encode(&signed.signature), expected);
    let list = List::verify(&signed).unwrap();
    assert_eq!(
        (list.version(), list.account_id(), list.domain()),
        (1, account().id(), &domain())
    );
    assert_eq!(list.certificates().len(), 1);
}

#[test]
fn a_certificate_that_is_changed_anywhere_does_not_hold() {
    let signed = account().certify(&device(2), VALIDITY);

    for at in 0..signed.body.len() {
        let mut body = signed.body.to_vec();
        body[at] ^= 1;
        let changed = Signed {
            body: body.into(),
            signature: signed.signature,
        };
        assert!(Certificate::verify(&changed).is_err(), "byte {at}");
    }
}

#[test]
fn a_certificate_for_another_purpose_does_not_hold() {
    let body = account().certify(&device(2), VALIDITY).body;

    let as_list = account().0.sign(Purpose::DeviceList, body);

    assert_eq!(
        Certificate::verify(&as_list),
        Err(CertificateError::Signature)
    );
}

#[test]
fn a_certificate_under_the_identity_point_is_refused() {
    let mut identity = [0; 32];
    identity[0] = 1;
    let mut signature = [0; 64];
    signature[0] = 1;
    let body = DeviceCertificate {
        account: AccountKey::new(identity),
        device: device(2).device,
        noise_key: device(2).noise_key,
        mls_key: device(2).mls_key,
        not_before: NOW,
        not_after: YEAR_LATER,
    };

    let forged = Signed {
        body: body.encode().into(),
        signature,
    };

    assert_eq!(
        Certificate::verify(&forged),
        Err(CertificateError::Signature)
    );
}

#[test]
fn keys_that_prove_nothing_are_not_certified() {
    let low_order = DeviceKeys {
        noise_key: NoiseKey::new([0; 32]),
        ..device(2)
    };
    let mut identity = vec![0; 32];
    identity[0] = 1;

    let refusal = |keys: &DeviceKeys| Certificate::verify(&account().certify(keys, VALIDITY)).err();

    assert_eq!(refusal(&low_order), Some(CertificateError::NoiseKey));
    for mls_key in [Vec::new(), identity, vec![1; MLS_KEY_BYTES_MAX + 1]] {
        let keys = DeviceKeys {
            mls_key: mls_key.into(),
            ..device(2)
        };
        assert_eq!(refusal(&keys), Some(CertificateError::MlsKey));
    }
}

#[test]
fn a_certificate_is_valid_from_its_first_to_its_last_moment() {
    let certificate = Certificate::verify(&account().certify(&device(2), VALIDITY)).unwrap();
    let before = Timestamp::from_millis(NOW.as_millis() - 1);
    let after = Timestamp::from_millis(YEAR_LATER.as_millis() + 1);

    assert!(certificate.is_valid(NOW) && certificate.is_valid(YEAR_LATER));
    assert!(!certificate.is_valid(before) && !certificate.is_valid(after));
    let never = Validity {
        not_before: YEAR_LATER,
        not_after: NOW,
    };
    let refused = Certificate::verify(&account().certify(&device(2), never));
    assert_eq!(refused, Err(CertificateError::Validity));
}

#[test]
fn a_list_holds_sixteen_devices_and_no_more() {
    let certificates = |count| (1..=count).map(|n| account().certify(&device(n), VALIDITY));

    assert_eq!(
        list_of(1, certificates(16).collect())
            .unwrap()
            .certificates()
            .len(),
        16
    );
    assert!(list_of(1, certificates(17).collect()).is_err());
    assert!(list_of(1, Vec::new()).unwrap().certificates().is_empty());
}

#[test]
fn a_list_takes_each_device_once_and_only_of_its_own_account() {
    let own = account().certify(&device(2), VALIDITY);
    let stranger = AccountSecret::from_seed(&Secret::new([6; 32])).certify(&device(3), VALIDITY);
    let same_id = DeviceKeys {
        device: device(2).device,
        ..device(3)
    };
    let same_key = DeviceKeys {
        device: DeviceId::parse("other").unwrap(),
        ..device(2)
    };
    let broken = Signed {
        signature: [0; 64],
        ..own.clone()
    };

    let refusal = |second: Signed| list_of(1, vec![own.clone(), second]).err();

    assert_eq!(
        refusal(stranger),
        Some(ListError::OtherAccount { index: 1 })
    );
    for keys in [same_id, same_key] {
        let repeated = account().certify(&keys, VALIDITY);
        assert_eq!(refusal(repeated), Some(ListError::Repeated { index: 1 }));
    }
    assert!(matches!(
        refusal(broken),
        Some(ListError::Certificate { index: 1, .. })
    ));
    assert_eq!(list_of(0, Vec::new()), Err(ListError::Version));
}

#[test]
fn a_list_signed_by_another_account_does_not_hold() {
    let body = account().list(&domain(), 1, NOW, Vec::new()).body;

    let forged = SigningKey::generate().sign(Purpose::DeviceList, body);

    assert_eq!(List::verify(&forged), Err(ListError::Signature));
}

#[test]
fn lists_are_ordered_by_version_and_two_of_one_version_are_an_equivocation() {
    let known = list_of(2, Vec::new()).unwrap();
    let compare = |list: &List| list.compare(known.version(), &known.hash());

    assert_eq!(compare(&known), Succession::Same);
    assert_eq!(compare(&list_of(1, Vec::new()).unwrap()), Succession::Older);
    assert_eq!(compare(&list_of(3, Vec::new()).unwrap()), Succession::Newer);
    let other = list_of(2, vec![account().certify(&device(2), VALIDITY)]).unwrap();
    assert_eq!(compare(&other), Succession::Equivocation);
}

#[test]
fn a_registration_needs_the_key_that_was_proven_and_a_certificate_valid_now() {
    let (mine, other) = (device(2), device(3));
    let list = list_of(1, vec![account().certify(&mine, VALIDITY)]).unwrap();

    assert!(
        list.certificate_for(&mine.device, &mine.noise_key, NOW)
            .is_some()
    );
    assert!(
        list.certificate_for(&mine.device, &other.noise_key, NOW)
            .is_none()
    );
    assert!(
        list.certificate_for(&other.device, &mine.noise_key, NOW)
            .is_none()
    );
    assert!(
        list.certificate_for(&mine.device, &mine.noise_key, Timestamp::ZERO)
            .is_none()
    );
}

#[test]
fn an_account_comes_back_from_its_seed() {
    let restored = AccountSecret::from_seed(&account().seed());

    assert_eq!(restored.key(), account().key());
    assert_eq!(format!("{restored:?}"), "AccountSecret(..)");
}
