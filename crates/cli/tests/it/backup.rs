//! `backup` and `restore`, without a server.

use std::os::unix::fs::PermissionsExt as _;

use crate::world::World;

#[test]
fn a_backup_is_checked_and_put_back() {
    let world = World::made();
    world.stdout(&["invite", "create"]);

    let made = world.stdout(&["backup", "copy"]);
    let checked = world.stdout(&["restore", "--check", "copy"]);
    world.stdout(&["invite", "create"]);
    let refused = world.run(&["restore", "copy"]);
    let restored = world.stdout(&["restore", "--force", "copy"]);

    insta::assert_snapshot!("backup_made", steady(&world, &made));
    insta::assert_snapshot!("backup_checked", steady(&world, &checked));
    assert_eq!((refused.code, refused.stdout.as_str()), (1, ""));
    insta::assert_snapshot!("restore_without_force", refused.stderr);
    insta::assert_snapshot!("restore_done", steady(&world, &restored));
    let invites = world.json(&["invite", "list"]);
    assert_eq!(invites["invites"].as_array().unwrap().len(), 2);
}

/// Sizes and sums differ from run to run.
fn steady(world: &World, text: &str) -> String {
    let lines = world.steady(text);
    let steady = lines
        .lines()
        .map(|line| match line.split_once("store.sqlite3") {
            Some(_) => "store.sqlite3  [bytes]  [sum]".to_owned(),
            None => line.to_owned(),
        });
    steady.collect::<Vec<_>>().join("\n")
}

#[test]
fn nobody_else_may_read_a_backup_and_keys_are_in_it_only_if_asked() {
    let world = World::made();

    world.stdout(&["backup", "without"]);
    world.stdout(&["backup", "with", "--with-keys"]);

    let mode = |path: &str| {
        let metadata = std::fs::metadata(world.path().join(path)).unwrap();
        metadata.permissions().mode() & 0o777
    };
    assert_eq!(mode("without"), 0o700);
    assert_eq!(mode("without/store.sqlite3"), 0o600);
    assert_eq!(mode("with/keyring.json"), 0o600);
    assert!(!world.path().join("without/keyring.json").exists());
}

#[test]
fn an_empty_machine_gets_keys_and_store_from_a_backup_that_has_both() {
    let world = World::made();
    let invites = world.json(&["invite", "list"]);
    world.stdout(&["backup", "without"]);
    world.stdout(&["backup", "with", "--with-keys"]);
    std::fs::rename(world.data(), world.path().join("lost")).unwrap();

    let refused = world.run(&["restore", "without"]);
    world.stdout(&["restore", "with"]);

    assert_eq!(refused.code, 1);
    insta::assert_snapshot!("restore_without_keys", world.steady(&refused.stderr));
    assert_eq!(world.json(&["invite", "list"]), invites);
}

#[test]
fn a_backup_that_was_not_finished_or_is_of_another_domain_is_refused() {
    let world = World::made();
    world.stdout(&["backup", "copy"]);
    std::fs::create_dir(world.path().join("empty")).unwrap();

    let unfinished = world.run(&["restore", "--force", "empty"]);
    let other = world.run(&[
        "--domain",
        "other.example.org",
        "restore",
        "--force",
        "copy",
    ]);
    let full = world.run(&["backup", "copy"]);

    assert_eq!((unfinished.code, other.code, full.code), (1, 1, 1));
    insta::assert_snapshot!("restore_of_another_domain", other.stderr);
    insta::assert_snapshot!("backup_into_what_is_not_empty", full.stderr);
}

#[test]
fn a_restore_that_was_interrupted_keeps_the_store_shut_until_it_is_repeated() {
    let world = World::made();
    world.stdout(&["backup", "copy"]);
    std::fs::write(world.data().join("store.unfinished"), "").unwrap();

    let shut = world.run(&["invite", "list"]);
    world.stdout(&["restore", "--force", "copy"]);

    assert_eq!(shut.code, 1);
    insta::assert_snapshot!("store_unfinished", shut.stderr);
    world.json(&["invite", "list"]);
}

#[test]
fn a_database_has_its_own_tools() {
    let world = World::made();

    let url = "storage.url=postgres://nobody@127.0.0.1:9/none";
    let refused = world.run(&["--set", url, "backup", "copy"]);

    assert_eq!(refused.code, 1);
    insta::assert_snapshot!("backup_of_postgresql", refused.stderr);
    assert!(!world.path().join("copy").exists());
}
