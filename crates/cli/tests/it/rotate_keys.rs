//! `rotate-keys`, without a server.

use crate::world::World;

#[test]
fn a_new_noise_key_leaves_the_old_one_accepted() {
    let world = World::made();

    let text = world.stdout(&["rotate-keys"]);
    let next = world.json(&["rotate-keys", "--noise"]);

    insta::assert_snapshot!(world.steady(&text));
    assert_eq!(next["rotated"], "noise");
    assert_eq!(next["noise_keys"].as_array().unwrap().len(), 3);
}

#[test]
fn a_new_domain_key_wants_a_yes_and_extends_the_chain() {
    let world = World::made();

    let without = world.run(&["rotate-keys", "--domain-key"]);
    let with = world.json(&["rotate-keys", "--domain-key", "--yes"]);

    assert_eq!(without.code, 2);
    assert_eq!(
        (&with["rotated"], &with["earlier_domain_keys"]),
        (&"domain".into(), &1.into())
    );
}

#[test]
fn new_reference_keys_change_no_statement() {
    let world = World::made();
    let before = world.json(&["rotate-keys"]);

    let after = world.json(&["rotate-keys", "--references"]);

    assert_eq!(
        (&after["rotated"], &after["serial"]),
        (&"references".into(), &before["serial"])
    );
}
