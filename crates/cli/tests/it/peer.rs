//! `peer add|list|show|allow|block|remove|ping`, without a server.

use crate::world::World;

#[test]
fn an_empty_listing_says_what_to_do() {
    let world = World::made();

    assert_eq!(
        world.stdout(&["peer", "list"]),
        "no other domain is known; `commucat-cli peer add DOMAIN` names one\n"
    );
    assert_eq!(
        world.json(&["peer", "list"])["peers"],
        serde_json::json!([])
    );
}

#[test]
fn a_domain_is_named_blocked_allowed_and_forgotten() {
    let world = World::made();
    let key = "a7".repeat(32);
    let add = [
        "peer",
        "add",
        "b.example",
        "--endpoint",
        "in.b.example:8443",
    ];

    insta::assert_snapshot!(
        "peer_add",
        world.stdout(&[&add[..], &["--key", &key]].concat())
    );
    world.stdout(&["peer", "block", "b.example"]);
    insta::assert_snapshot!("peer_list", world.stdout(&["peer", "list"]));
    world.stdout(&["peer", "allow", "b.example"]);
    assert_eq!(
        world.json(&["peer", "show", "b.example"])["standing"],
        serde_json::json!("active")
    );
    let without = world.run(&["peer", "remove", "b.example"]);
    assert_eq!(without.code, 1);
    insta::assert_snapshot!("peer_remove_without_yes", without.stderr);
    world.stdout(&["peer", "remove", "b.example", "--yes"]);

    let gone = world.run(&["peer", "show", "b.example"]);
    assert_eq!(gone.code, 1);
    insta::assert_snapshot!("peer_unknown", gone.stderr);
}

#[test]
fn what_is_no_domain_is_not_taken_for_the_servers_own() {
    let world = World::made();

    let run = world.run(&["peer", "ping", "Not_A.Domain"]);

    assert_eq!(run.code, 1);
    insta::assert_snapshot!("peer_wrong_name", run.stderr);
}

#[test]
fn a_ping_needs_a_server() {
    let world = World::made();

    let run = world.run(&["peer", "ping", "b.example"]);

    assert_eq!(run.code, 1);
    insta::assert_snapshot!("peer_ping_without_a_server", run.stderr);
}
