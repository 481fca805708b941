//! Tests of the vault as its users see it.

use super::*;

fn passphrase(text: &str) -> Unlock {
    Unlock::Passphrase(Passphrase::new(text.to_owned()))
}

#[test]
fn values_survive_reopening_and_the_file_does_not_show_them() {
    let dir = tempfile::tempdir().unwrap();
    let vault = Vault::create(dir.path(), &Unlock::KeyFileBeside).unwrap();
    vault
        .put("contact", b"", b"canary-id", b"canary-value")
        .unwrap();
    vault
        .append("history", b"canary-scope", b"canary-entry")
        .unwrap();
    drop(vault);

    let vault = Vault::open(dir.path(), &Unlock::KeyFileBeside).unwrap();
    let mut raw = std::fs::read(dir.path().join(FILE)).unwrap();
    raw.extend(std::fs::read(dir.path().join("vault.db-wal")).unwrap_or_default());

    assert_eq!(
        vault.get("contact", b"", b"canary-id").unwrap().unwrap(),
        b"canary-value"
    );
    assert_eq!(
        vault.entries("history", b"canary-scope", 0, 9).unwrap()[0].1,
        b"canary-entry"
    );
    assert!(!raw.windows(6).any(|window| window == b"canary"));
}

#[test]
fn a_wrong_passphrase_does_not_open_and_the_right_one_does() {
    let dir = tempfile::tempdir().unwrap();
    drop(Vault::create(dir.path(), &passphrase("correct horse")).unwrap());

    let wrong = Vault::open(dir.path(), &passphrase("battery staple"));
    let none = Vault::open(dir.path(), &Unlock::KeyFileBeside);
    let right = Vault::open(dir.path(), &passphrase("correct horse"));

    assert!(matches!(wrong, Err(VaultError::WrongKey)));
    assert!(matches!(none, Err(VaultError::PassphraseNeeded)));
    assert!(right.is_ok());
}

#[test]
fn a_second_owner_is_refused_with_the_process_id_of_the_first() {
    let dir = tempfile::tempdir().unwrap();
    let first = Vault::create(dir.path(), &Unlock::KeyFileBeside).unwrap();

    let second = Vault::open(dir.path(), &Unlock::KeyFileBeside);
    drop(first);

    assert!(matches!(second, Err(VaultError::InUse { pid }) if pid == std::process::id()));
    assert!(Vault::open(dir.path(), &Unlock::KeyFileBeside).is_ok());
}

#[cfg(unix)]
#[test]
fn every_file_of_a_profile_is_private() {
    use std::os::unix::fs::PermissionsExt as _;

    let dir = tempfile::tempdir().unwrap();
    let profile = dir.path().join("profile");
    let vault = Vault::create(&profile, &Unlock::KeyFileBeside).unwrap();
    vault.put("a", b"", b"b", b"c").unwrap();

    for entry in std::fs::read_dir(&profile).unwrap() {
        let mode = entry.unwrap().metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    assert_eq!(
        std::fs::metadata(&profile).unwrap().permissions().mode() & 0o777,
        0o700
    );
}

#[test]
fn a_failed_transaction_leaves_nothing_and_a_nested_one_joins() {
    let vault = Vault::in_memory().unwrap();

    let result: Result<(), VaultError> = vault.transaction(|| {
        vault.put("t", b"", b"a", b"1")?;
        vault.transaction(|| vault.put("t", b"", b"b", b"2"))?;
        Err(VaultError::Random)
    });

    assert!(result.is_err());
    assert!(vault.list("t", b"").unwrap().is_empty());
}

#[test]
fn a_row_moved_to_another_name_does_not_open() {
    let vault = Vault::in_memory().unwrap();
    vault.put("t", b"", b"a", b"1").unwrap();
    vault.put("t", b"", b"b", b"2").unwrap();
    let a = vault.inner.sealer.name("t", b"", b"a").id;
    let b = vault.inner.sealer.name("t", b"", b"b").id;

    let sql = "UPDATE item SET value = (SELECT value FROM item WHERE id = ?1) WHERE id = ?2";
    vault
        .inner
        .db
        .lock()
        .connection
        .execute(sql, params![a, b])
        .unwrap();

    assert!(matches!(
        vault.get("t", b"", b"b"),
        Err(VaultError::Damaged { .. })
    ));
    assert_eq!(vault.get("t", b"", b"a").unwrap().unwrap(), b"1");
}

#[test]
fn lists_are_of_one_scope_and_in_order_of_id() {
    let vault = Vault::in_memory().unwrap();
    for id in [b"b", b"a", b"c"] {
        vault.put("t", b"one", id, id).unwrap();
    }
    vault.put("t", b"two", b"z", b"z").unwrap();

    let ids: Vec<_> = vault
        .list("t", b"one")
        .unwrap()
        .into_iter()
        .map(|(id, _)| id)
        .collect();

    assert_eq!(ids, [b"a", b"b", b"c"]);
    assert_eq!(vault.delete_scope("t", b"one").unwrap(), 3);
    assert_eq!(vault.list("t", b"two").unwrap().len(), 1);
}
