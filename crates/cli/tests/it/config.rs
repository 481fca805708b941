//! `config show|reference`, and the help.

use std::fs;

use crate::world::World;

#[test]
fn values_come_with_their_origin_and_secrets_are_hidden() {
    let world = World::new();
    let text = "[server]\ndomain = \"chat.example.org\"\n[admin]\nmetrics_token = \"canary-canary-canary\"\n";
    fs::write(world.path().join("commucat.toml"), text).unwrap();

    let mut command = world.command(&["config", "show", "--changed"]);
    let output = command
        .env("COMMUCAT_LIMITS_UNACKED", "99")
        .output()
        .unwrap();
    let all = world.stdout(&["config", "show"]);

    insta::assert_snapshot!(String::from_utf8(output.stdout).unwrap());
    assert!(
        all.contains("server.registration") && !all.contains("canary"),
        "{all}"
    );
}

#[test]
fn an_unknown_key_names_the_nearest_one() {
    let world = World::new();
    fs::write(
        world.path().join("commucat.toml"),
        "[server]\nlistne = []\n",
    )
    .unwrap();

    let run = world.run(&["config", "show"]);

    assert_eq!(run.code, 1);
    insta::assert_snapshot!(run.stderr);
}

#[test]
fn the_reference_is_a_configuration_that_changes_nothing() {
    let world = World::new();
    let reference = world.stdout(&["config", "reference"]);
    fs::write(world.path().join("commucat.toml"), &reference).unwrap();

    let changed = world.json(&["config", "show", "--changed"]);

    let keys: Vec<_> = changed["settings"].as_array().unwrap().iter().collect();
    assert_eq!((keys.len(), &keys[0]["key"]), (1, &"server.data".into()));
}

#[test]
fn the_help_teaches() {
    let world = World::new();

    let help = world.stdout(&["--help"]);

    insta::assert_snapshot!(help);
    assert_eq!(world.run(&["fly"]).code, 2);
}
