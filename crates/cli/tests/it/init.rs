//! `init` and `migrate`.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use commucat_proto::link::InviteLink;

use crate::world::World;

#[test]
fn init_makes_keys_store_and_an_invite_and_says_what_comes_next() {
    let world = World::new();

    let text = world.stdout(&["init"]);

    insta::assert_snapshot!(world.steady(&text));
    let link = text.split('\'').nth(1).unwrap();
    assert_eq!(
        InviteLink::parse(link).unwrap().host.as_str(),
        "localhost:8443"
    );
    let mode = |path: &str| {
        fs::metadata(world.data().join(path))
            .unwrap()
            .permissions()
            .mode()
            & 0o777
    };
    assert_eq!(
        (mode(""), mode("keys"), mode("keys/keyring.json")),
        (0o700, 0o700, 0o600)
    );
    assert_eq!(mode("store.sqlite3"), 0o600);
}

#[test]
fn a_second_init_changes_nothing() {
    let world = World::made();
    let keys = fs::read(world.data().join("keys/keyring.json")).unwrap();

    let again = world.json(&["init"]);

    assert_eq!(
        (&again["created"], &again["invite"]),
        (&false.into(), &serde_json::Value::Null)
    );
    assert_eq!(
        fs::read(world.data().join("keys/keyring.json")).unwrap(),
        keys
    );
    assert_eq!(
        world.json(&["invite", "list"])["invites"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
}

#[test]
fn the_keys_of_another_domain_are_not_touched() {
    let world = World::made();

    let run = world.run(&["--domain", "chat.example.org", "init"]);

    assert_eq!(run.code, 1);
    insta::assert_snapshot!(run.stderr);
}

#[test]
fn a_store_of_this_release_needs_no_migration() {
    let world = World::made();

    let text = world.stdout(&["migrate"]);
    let json = world.json(&["migrate"]);

    assert!(text.starts_with("the store has schema version"), "{text}");
    assert_eq!(json["from"], json["to"]);
}
