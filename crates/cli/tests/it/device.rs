//! `device list|show|revoke`, without a server.

use std::time::Duration;

use commucat_crypto::{Secret, SigningKey, StaticKey};
use commucat_proto::id::{AccountKey, DeviceId};
use commucat_proto::time::Timestamp;
use commucat_storage::{Admission, DeviceList, ListedDevice, Location, Options, Store};

use crate::world::World;

const START: Timestamp = Timestamp::from_millis(1_790_000_000_000);

/// Puts a device into the store.
fn register(world: &World, name: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let device = DeviceId::parse(name).unwrap();
    let listed = ListedDevice {
        device: device.clone(),
        noise_key: *StaticKey::generate().public(),
        not_before: START,
        not_after: START.saturating_add(Duration::from_secs(365 * 86_400)),
    };
    let list = DeviceList {
        account_key: AccountKey::new(
            SigningKey::from_seed(&Secret::from_slice(&[7; 32]).unwrap()).public(),
        ),
        version: 1,
        signed: b"list".as_slice().into(),
        devices: vec![listed],
    };
    runtime.block_on(async {
        let location = Location::Sqlite {
            directory: world.data(),
        };
        let store = Store::open(location, Options::default()).await.unwrap();
        store
            .register(list, &device, Admission::Open, START)
            .await
            .unwrap();
        store.close().await;
    });
}

#[test]
fn an_empty_listing_says_what_to_do() {
    let world = World::made();

    insta::assert_snapshot!(world.stdout(&["device", "list"]));
    assert_eq!(
        world.json(&["device", "list"])["devices"],
        serde_json::json!([])
    );
}

#[test]
fn a_device_is_listed_shown_and_shut_out() {
    let world = World::made();
    register(&world, "alice-phone");

    insta::assert_snapshot!("device_list", world.stdout(&["device", "list"]));
    insta::assert_snapshot!(
        "device_show",
        world.stdout(&["device", "show", "alice-phone"])
    );
    let without = world.run(&["device", "revoke", "alice-phone"]);
    assert_eq!(without.code, 1);
    insta::assert_snapshot!("device_revoke_without_yes", without.stderr);
    insta::assert_snapshot!(
        "device_revoke",
        world.stdout(&["device", "revoke", "alice-phone", "--yes"])
    );

    assert_eq!(
        world.json(&["device", "list"])["devices"],
        serde_json::json!([])
    );
    let again = world.run(&["device", "show", "alice-phone"]);
    assert_eq!(again.code, 1);
    insta::assert_snapshot!("device_unknown", again.stderr);
}

#[test]
fn the_ledger_of_the_configuration_records_a_revocation() {
    let world = World::made();
    register(&world, "alice-phone");

    world.stdout(&[
        "--set",
        "ledger.sink=file",
        "device",
        "revoke",
        "alice-phone",
        "--yes",
    ]);

    let ledger = std::fs::read_to_string(world.data().join("ledger.jsonl")).unwrap();
    assert!(ledger.contains(r#""kind":"device_revoked""#), "{ledger}");
    assert!(!ledger.contains("alice"), "{ledger}");
}
