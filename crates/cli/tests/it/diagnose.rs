//! `diagnose` where no server runs.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use crate::world::World;

/// A port that nobody has: it was free a moment ago.
pub(crate) fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

fn outcomes(checks: &serde_json::Value) -> Vec<(String, String)> {
    let checks = checks["checks"].as_array().unwrap();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    checks
        .iter()
        .map(|check| (text(&check["name"]), text(&check["outcome"])))
        .collect()
}

#[test]
fn a_fresh_directory_is_sound_and_what_needs_a_server_is_skipped() {
    let world = World::made();
    let listen = format!("server.listen=127.0.0.1:{}", free_port());

    let text = world.stdout(&["--set", &listen, "diagnose"]);

    let text = text.replace(&listen[14..], "[address]");
    insta::assert_snapshot!(world.steady(&text));
}

#[test]
fn a_health_check_fails_where_no_server_runs() {
    let world = World::made();
    let listen = format!("server.listen=127.0.0.1:{}", free_port());
    let check = ["--set", &listen, "--json", "diagnose", "--quick"];

    let sound = world.run(&check);
    let health = world.run(&[&check[..], &["--running"]].concat());

    assert_eq!((sound.code, health.code), (0, 1));
    let checks: serde_json::Value = serde_json::from_str(&health.stdout).unwrap();
    let failed = ("server".to_owned(), "fail".to_owned());
    assert!(outcomes(&checks).contains(&failed), "{}", health.stdout);
}

#[test]
fn each_fault_is_named_with_a_hint_and_fails_the_command() {
    let world = World::made();
    let keys = world.data().join("keys/keyring.json");
    fs::set_permissions(keys, fs::Permissions::from_mode(0o644)).unwrap();
    fs::set_permissions(world.data(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(
        world.data().join("store.sqlite3"),
        "no database at all, but a long text",
    )
    .unwrap();
    let listen = format!("server.listen=127.0.0.1:{}", free_port());

    let run = world.run(&["--set", &listen, "diagnose", "--json"]);

    assert_eq!(run.code, 1);
    let checks: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    let outcomes = outcomes(&checks);
    let has = |name: &str, outcome: &str| outcomes.contains(&(name.to_owned(), outcome.to_owned()));
    assert!(
        has("data directory", "warn") && has("keys", "fail") && has("store", "fail"),
        "{outcomes:?}"
    );
    assert_eq!(
        (&checks["failed"], &checks["warned"]),
        (&2.into(), &1.into())
    );
    for check in checks["checks"].as_array().unwrap() {
        let needs_hint = check["outcome"] == "fail" || check["outcome"] == "warn";
        assert_eq!(check["hint"].is_string(), needs_hint, "{check}");
    }
}

#[test]
fn a_wrong_configuration_is_the_one_thing_that_is_told() {
    let world = World::made();

    let run = world.run(&["--set", "server.padding=perhaps", "diagnose"]);

    assert_eq!(run.code, 1);
    insta::assert_snapshot!(run.stdout);
}

#[test]
fn nothing_is_made_in_a_directory_that_is_not_there() {
    let world = World::new();

    let run = world.run(&["diagnose"]);

    assert_eq!(run.code, 1);
    assert!(!world.data().exists());
}
