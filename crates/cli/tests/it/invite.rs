//! `invite create|list|revoke`, without a server.

use std::io::Read as _;
use std::process::Stdio;

use crate::world::World;

#[test]
fn an_invite_is_printed_once_and_listed_without_its_token() {
    let world = World::made();

    let text = world.stdout(&["invite", "create", "--uses", "3", "--expires", "2w"]);
    let listed = world.stdout(&["invite", "list"]);

    insta::assert_snapshot!(world.steady(&text));
    insta::assert_snapshot!(world.steady(&listed));
    let token = text.split("#i=").nth(1).unwrap().split(',').next().unwrap();
    assert!(!listed.contains(token));
}

#[test]
fn programs_get_the_same_as_json() {
    let world = World::made();

    let made = world.json(&["invite", "create", "--uses", "2"]);
    let listed = world.json(&["invite", "list"]);

    let made_text = serde_json::to_string_pretty(&made).unwrap();
    insta::assert_snapshot!(world.steady(&made_text));
    let last = listed["invites"].as_array().unwrap().last().unwrap();
    assert_eq!((&last["id"], &last["uses_left"]), (&made["id"], &2.into()));
    assert_eq!(last.get("link"), None);
}

#[test]
fn a_qr_code_is_drawn_when_it_is_asked_for() {
    let world = World::made();

    let without = world.stdout(&["invite", "create"]);
    let with = world.stdout(&["invite", "create", "--qr"]);

    assert!(!without.contains('█') && with.contains('█'));
}

#[test]
fn an_invite_is_revoked_by_its_link_or_by_the_beginning_of_its_name() {
    let world = World::made();
    let made = world.json(&["invite", "create"]);
    let (link, id) = (made["link"].as_str().unwrap(), made["id"].as_str().unwrap());

    let by_link = world.json(&["invite", "revoke", link]);
    let by_name = world.run(&["invite", "revoke", &id[..6]]);

    assert_eq!(by_link["revoked"]["id"], id);
    assert_eq!((by_name.code, by_name.stdout.as_str()), (1, ""));
    insta::assert_snapshot!(by_name.stderr);
}

#[test]
fn values_outside_their_bounds_are_wrong_use() {
    let world = World::made();

    for args in [
        ["invite", "create", "--uses", "0"],
        ["invite", "create", "--uses", "10001"],
        ["invite", "create", "--expires", "366d"],
        ["invite", "create", "--expires", "soon"],
    ] {
        assert_eq!(world.run(&args).code, 2, "{args:?}");
    }
}

#[test]
fn a_wrong_directory_is_named_and_nothing_is_made_in_it() {
    let world = World::new();

    let run = world.run(&["invite", "list"]);
    let json = world.run(&["invite", "list", "--json"]);

    assert_eq!((run.code, json.code), (1, 1));
    insta::assert_snapshot!(run.stderr);
    let report: serde_json::Value = serde_json::from_str(&json.stderr).unwrap();
    assert_eq!(report["exit_code"], 1);
    assert!(!world.data().exists());
}

#[test]
fn a_closed_pipe_is_silent() {
    let world = World::made();
    let mut command = world.command(&["config", "reference"]);
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();

    drop(child.stdout.take());
    let mut said = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut said)
        .unwrap();

    assert_eq!(said, "");
    assert_eq!(child.wait().unwrap().code(), Some(0));
}
