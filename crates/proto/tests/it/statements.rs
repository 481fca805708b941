//! Signed bodies, Noise payloads and results against their vectors.

use std::fmt::Debug;

use bytes::Bytes;
use commucat_proto::frame::ack::{Done, FirstAck, SessionLimits};
use commucat_proto::frame::bundle::{AuthenticatedData, Bundle, Welcome, join_entry_message};
use commucat_proto::frame::directory::DirectoryResult;
use commucat_proto::frame::fanout::{AdminChange, Change, JoinKeyChange};
use commucat_proto::frame::fetch::{FetchResult, KeptGroupInfo};
use commucat_proto::frame::group_event::GroupEvent;
use commucat_proto::frame::key_package::{ClaimResult, ClaimedPackage, PackageCount};
use commucat_proto::frame::key_update::KeyUpdateResult;
use commucat_proto::frame::msg::Msg;
use commucat_proto::frame::{Direction, FrameType, Header};
use commucat_proto::id::{
    AccountKey, DeviceId, DomainKey, GroupId, Handle, JoinKey, MessageId, NoiseKey,
};
use commucat_proto::identity::{
    DeviceCertificate, DeviceList, Identification, JoinRead, Registration, ServerKeys,
    ServerNoiseKey,
};
use commucat_proto::signed::Signed;
use commucat_proto::well_known::{RegistrationPolicy, WellKnown};
use commucat_proto::wire::Cbor;
use commucat_proto::{decoder::Decoder, encoder};
use data_encoding::HEXLOWER;

use crate::samples::{
    ALICE, BOB, CAROL, MS, MS2, REF, REF2, device, entry, fanout_alice, fanout_bob, group, home,
    hub, message, signed, small_entry, token,
};
use crate::vectors::{decode, vector};

fn check<T: Cbor + Debug + PartialEq>(file: &str, name: &str, value: &T) {
    let raw = vector(file, name);

    assert_eq!(
        HEXLOWER.encode(&value.encode()),
        HEXLOWER.encode(&raw),
        "{file}/{name}"
    );
    assert_eq!(T::decode(&raw).as_ref(), Ok(value), "{file}/{name}");
    for end in 0..raw.len() {
        assert!(
            T::decode(&raw[..end]).is_err(),
            "{file}/{name} cut at {end}"
        );
    }
}

#[test]
fn an_identification_is_that_of_the_vectors() {
    let known = Identification {
        device: device(),
        registration: None,
        capabilities: vec![],
        versions: vec![2],
    };
    let registration = Registration {
        invite: Some(token()),
        list: signed(b"list"),
    };
    let account = Identification {
        registration: Some(registration),
        ..known.clone()
    };
    let registration = Registration {
        invite: None,
        list: signed(b"list"),
    };
    let linked = Identification {
        registration: Some(registration),
        capabilities: vec![1],
        versions: vec![2, 3],
        ..known.clone()
    };

    check("statements", "identification", &known);
    check("statements", "identification_new_account", &account);
    check("statements", "identification_new_device", &linked);
}

#[test]
fn statements_of_accounts_and_servers_are_those_of_the_vectors() {
    let certificate = DeviceCertificate {
        account: AccountKey::new([0xa1; 32]),
        device: device(),
        noise_key: NoiseKey::new([0xb2; 32]),
        mls_key: Bytes::from_static(&[0xc3; 32]),
        not_before: MS,
        not_after: MS2,
    };
    let list = DeviceList {
        account: AccountKey::new([0xa1; 32]),
        domain: hub(),
        version: 7,
        issued: MS,
        certificates: vec![signed(b"one"), signed(b"two")],
    };
    let empty = DeviceList {
        version: 8,
        certificates: vec![],
        ..list.clone()
    };
    let noise_key = ServerNoiseKey {
        key: NoiseKey::new([0xb2; 32]),
        not_before: MS,
        not_after: MS2,
    };
    let keys = ServerKeys {
        domain: hub(),
        domain_key: DomainKey::new([0xa1; 32]),
        serial: 3,
        noise_keys: vec![noise_key],
        next_domain_key: None,
        issued: MS,
    };
    let next = Some(DomainKey::new([0xc3; 32]));
    let next = ServerKeys {
        serial: 4,
        noise_keys: vec![],
        next_domain_key: next,
        ..keys.clone()
    };

    check("statements", "device_certificate", &certificate);
    check("statements", "device_list", &list);
    check("statements", "device_list_empty", &empty);
    check("statements", "server_keys", &keys);
    check("statements", "server_keys_next", &next);
    check(
        "statements",
        "join_read",
        &JoinRead {
            group: group(),
            hub: hub(),
            created: MS,
        },
    );
}

#[test]
fn a_bundle_is_that_of_the_vectors() {
    let small = Bundle {
        group: group(),
        expect: 299,
        commit: Bytes::from_static(b"commit"),
        change: Change::default(),
        welcomes: vec![],
        sealed_group_info: Bytes::from_static(b"info"),
        author: ALICE,
        first_message: None,
    };
    let flag = |handle, admin| AdminChange { handle, admin };
    let full = Bundle {
        change: Change {
            add: vec![fanout_bob()],
            remove: vec![CAROL],
            join_key: Some(JoinKeyChange::Set(JoinKey::new([0xc3; 32]))),
            close: true,
            admins: vec![flag(BOB, true), flag(ALICE, false)],
        },
        welcomes: vec![Welcome {
            handles: vec![BOB],
            welcome: Bytes::from_static(b"welcome"),
        }],
        first_message: Some(Msg::new(300, message(), b"hi").payload().clone()),
        ..small.clone()
    };

    check("statements", "bundle", &small);
    check("statements", "bundle_full", &full);
    assert!(full.change.needs_admin() && !small.change.needs_admin());
}

#[test]
fn results_are_those_of_the_vectors() {
    let claimed = |device, package, sealed_ref, last_resort| ClaimedPackage {
        device,
        package: Bytes::from_static(package),
        sealed_ref,
        last_resort,
    };
    let claim = ClaimResult(vec![
        claimed(device(), b"one", REF, false),
        claimed(DeviceId::parse("alice-phone").unwrap(), b"two", REF2, true),
    ]);
    let list = DirectoryResult {
        list: signed(b"list"),
        ledger_proof: None,
    };
    let proof = Some(Bytes::from_static(b"proof"));

    check("results", "done", &Done);
    check(
        "results",
        "key_update",
        &KeyUpdateResult {
            position: 300,
            refused: vec![],
        },
    );
    check(
        "results",
        "key_update_refused",
        &KeyUpdateResult {
            position: 300,
            refused: vec![BOB],
        },
    );
    check(
        "results",
        "count",
        &PackageCount {
            single_use: 99,
            last_resort: 1,
        },
    );
    check("results", "claim", &claim);
    check("results", "own_reference", &REF);
    check("results", "directory", &list);
    check(
        "results",
        "directory_proof",
        &DirectoryResult {
            ledger_proof: proof,
            ..list
        },
    );
}

#[test]
fn results_of_fetch_are_those_of_the_vectors() {
    let all = FetchResult {
        head: 301,
        first_kept: 302,
        entries: vec![],
        group_infos: vec![
            KeptGroupInfo {
                position: 301,
                sealed: Bytes::from_static(b"info"),
            },
            KeptGroupInfo {
                position: 300,
                sealed: Bytes::from_static(b"older"),
            },
        ],
        fanout: Some(vec![fanout_alice(), fanout_bob()]),
    };
    let log = FetchResult {
        head: 301,
        first_kept: 300,
        entries: vec![entry(), small_entry()],
        ..FetchResult::default()
    };

    check("results", "fetch", &log);
    check("results", "fetch_all", &all);
}

#[test]
fn the_first_ack_is_that_of_the_vectors() {
    let first = FirstAck {
        waiting: 12,
        capabilities: vec![],
        server_keys: signed(b"keys"),
        versions: vec![2],
        server_time: MS,
        limits: SessionLimits::default(),
    };
    let raw = vector("ack", "first");
    let mut written = bytes::BytesMut::new();
    encoder::cbor(Header::bare(FrameType::Ack), &first, &mut written);

    assert_eq!(written, raw);
    let frame = decode(Decoder::tunnel(Direction::Down), &raw);
    assert_eq!(FirstAck::decode_shared(&frame.payload), Ok(first));
}

/// Section 15.8 of the document: the values were made with other tools.
#[test]
fn the_authenticated_data_of_a_commit_is_that_of_the_document() {
    let hex = |text: &str| HEXLOWER.decode(text.as_bytes()).unwrap();
    let author = "8a875fff1eb38451577acd5afee405456568dd7c89e090863a0557bc7af49f17";
    let body = hex(&format!(
        "a5005820000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f010002\
         4700636f6d6d697406517365616c65642067726f757020696e666f075820{author}"
    ));

    let bundle = Bundle::decode(&body).unwrap();
    let entry = bundle.entry(&body).unwrap();

    assert_eq!(bundle.encode(), body);
    assert_eq!(bundle.author, Handle::parse(&hex(author)).unwrap());
    let hash = "dd2b4ef85ce77b162b401c61a06c2e5fdc1401971b89c0b673da200bf6311cef";
    assert_eq!(HEXLOWER.encode(&bundle.authenticated_hash()), hash);
    assert_eq!(entry.authenticated_hash(), bundle.authenticated_hash());
    assert_eq!(entry.position, 1);
    let message = MessageId::parse(&hex("335863711c47bc1d2264d3abd398619e")).unwrap();
    assert_eq!(entry.message, message);
}

#[test]
fn authenticated_data_holds_a_hash_and_perhaps_a_signature() {
    let plain = AuthenticatedData {
        hash: [1; 32],
        join_signature: None,
    };
    let joined = AuthenticatedData {
        hash: [1; 32],
        join_signature: Some([2; 64]),
    };

    assert_eq!(AuthenticatedData::parse(&plain.to_bytes()), Some(plain));
    assert_eq!(AuthenticatedData::parse(&joined.to_bytes()), Some(joined));
    assert_eq!(AuthenticatedData::parse(&[0; 31]), None);
    assert_eq!(AuthenticatedData::parse(&[0; 95]), None);
    assert_eq!(
        join_entry_message(&[1; 32]),
        [b"commucat/2 join entry\0", &[1; 32][..]].concat()
    );
}

#[test]
fn the_well_known_document_comes_back() {
    let document = WellKnown {
        domain: home(),
        endpoint: "https://other.example:8443/connect".to_owned(),
        versions: vec![2],
        server_keys: signed(b"keys"),
        chain: vec![signed(b"first"), signed(b"second")],
        registration: RegistrationPolicy::Invite,
        ledger: None,
    };

    let raw = document.encode();

    assert_eq!(WellKnown::decode(&raw).unwrap(), document);
    let text = String::from_utf8(raw).unwrap();
    assert!(text.contains(r#""registration":"invite""#) && !text.contains("ledger"));
    assert!(WellKnown::decode(text.replace("https:", "http:").as_bytes()).is_err());
    assert!(WellKnown::decode(text.replace("invite", "anybody").as_bytes()).is_err());
}

#[test]
fn a_signed_thing_holds_a_signature_of_64_bytes() {
    let signed = Signed {
        body: Bytes::from_static(b"body"),
        signature: [7; 64],
    };
    let mut raw = signed.encode();

    assert_eq!(Signed::decode(&raw), Ok(signed));
    raw[7] = 0x3f;
    raw.pop();
    assert!(Signed::decode(&raw).is_err());
}

#[test]
fn a_list_of_more_devices_than_an_account_may_have_is_refused() {
    let list = DeviceList {
        account: AccountKey::new([0xa1; 32]),
        domain: hub(),
        version: 1,
        issued: MS,
        certificates: vec![signed(b"one"); 17],
    };

    assert!(DeviceList::decode(&list.encode()).is_err());
}

#[test]
fn an_event_is_named_by_its_content() {
    let first = GroupEvent::closed(GroupId::new([1; 32]));
    let second = GroupEvent::closed(GroupId::new([2; 32]));

    assert_ne!(first.message, second.message);
    assert_eq!(first, GroupEvent::closed(GroupId::new([1; 32])));
}
