//! The keys survive, change all at once, and are open to nobody else.

use std::fs;

use super::*;
use crate::server_keys::{FollowError, Pin};
use commucat_proto::id::{GroupId, QueueId};

const NOW: Timestamp = Timestamp::from_millis(1_767_225_600_000);
const DAY: Duration = Duration::from_secs(86_400);

fn domain() -> Domain {
    Domain::parse("chat.example.org").unwrap()
}

/// Fresh keys, and the directory that they go away with.
fn keyring() -> (tempfile::TempDir, Keyring) {
    let directory = tempfile::tempdir().unwrap();
    let keyring = Keyring::open_or_create(&path(&directory), &domain(), NOW).unwrap();
    (directory, keyring)
}

fn path(directory: &tempfile::TempDir) -> PathBuf {
    directory.path().join("keys")
}

fn after(days: u32) -> Timestamp {
    NOW.saturating_add(DAY * days)
}

/// The key that a client uses at `now`, as the server has it.
fn used(keyring: &Keyring, now: Timestamp) -> Option<StaticKey> {
    let public = keyring.statement().noise_key(now)?;
    let prefix = &data_encoding::HEXLOWER.encode(public.as_bytes())[..16];
    let key = keyring.noise_key(prefix, now)?;
    (key.public() == public).then(|| key.clone())
}

#[test]
fn keys_are_made_once_and_found_again() {
    let (directory, first) = keyring();

    let again = Keyring::open_or_create(&path(&directory), &domain(), after(1)).unwrap();

    assert_eq!(again.stored, first.stored);
    assert_eq!(again.domain_key(), first.domain_key());
    assert_eq!(again.statement().signed(), first.statement().signed());
    assert!(used(&again, NOW).is_some());
}

#[test]
fn a_client_whose_clock_is_behind_finds_the_first_noise_key_valid() {
    let (_directory, keyring) = keyring();

    assert!(used(&keyring, NOW.saturating_sub(DAY)).is_some());
}

#[test]
fn opening_makes_nothing() {
    let directory = tempfile::tempdir().unwrap();

    let missing = Keyring::open(&path(&directory), &domain());

    assert!(matches!(missing, Err(KeyringError::Missing { .. })));
    assert!(!path(&directory).exists());
}

#[test]
fn the_keys_of_another_domain_are_refused() {
    let (directory, _) = keyring();
    let other = Domain::parse("other.example").unwrap();

    let opened = Keyring::open_or_create(&path(&directory), &other, NOW);

    assert!(matches!(opened, Err(KeyringError::OtherDomain { .. })));
}

#[test]
fn a_new_noise_key_is_used_at_once_and_the_old_one_thirty_days_longer() {
    let (_directory, mut keyring) = keyring();
    let old = used(&keyring, NOW).unwrap();

    keyring.rotate_noise(after(1)).unwrap();

    let new = used(&keyring, after(1)).unwrap();
    assert_ne!(new, old);
    let prefix = key_prefix(&old);
    assert_eq!(keyring.noise_key(&prefix, after(31)), Some(&old));
    assert_eq!(keyring.noise_key(&prefix, after(32)), None);
    assert_eq!(keyring.statement().serial(), 2);
    let pin = Pin::first(domain(), *keyring.domain_key());
    assert!(
        pin.follow(keyring.chain(), keyring.statement().signed())
            .is_ok()
    );

    keyring.rotate_noise(after(60)).unwrap();
    assert_eq!(
        keyring.statement().noise_keys().len(),
        2,
        "the first has gone"
    );
}

#[test]
fn rotating_without_end_is_refused_before_a_statement_is_too_large() {
    let (_directory, mut keyring) = keyring();
    for _ in 1..NOISE_KEYS_MAX {
        keyring.rotate_noise(NOW).unwrap();
    }
    let serial = keyring.statement().serial();

    let refused = keyring.rotate_noise(NOW);

    assert!(matches!(
        refused,
        Err(KeyringError::Full { what: "noise key" })
    ));
    assert_eq!(keyring.statement().serial(), serial);
}

#[test]
fn a_noise_key_is_replaced_long_before_it_expires() {
    let (_directory, mut keyring) = keyring();

    assert!(!keyring.maintain(after(364)).unwrap());
    assert!(keyring.maintain(after(366)).unwrap());
    assert!(!keyring.maintain(after(366)).unwrap());
    assert!(keyring.maintain(after(9_999)).unwrap(), "all have expired");
    assert!(used(&keyring, after(9_999)).is_some());
}

#[test]
fn a_clock_that_was_far_ahead_does_not_lock_the_server_out() {
    let directory = tempfile::tempdir().unwrap();
    let mut keyring = Keyring::open_or_create(&path(&directory), &domain(), after(9_999)).unwrap();

    assert!(used(&keyring, NOW).is_none());
    assert!(keyring.maintain(NOW).unwrap());

    assert!(used(&keyring, NOW).is_some());
}

#[test]
fn a_new_domain_key_is_reached_from_every_earlier_one() {
    let (directory, mut keyring) = keyring();
    let first = keyring.statement().pin();
    keyring.rotate_domain(after(1)).unwrap();
    let second = keyring.statement().pin();
    keyring.rotate_domain(after(2)).unwrap();

    let reopened = Keyring::open(&path(&directory), &domain()).unwrap();

    assert_eq!(reopened.domain_secret().key(), *reopened.domain_key());
    assert_eq!(reopened.chain().len(), 2);
    for pin in [first.clone(), second, keyring.statement().pin()] {
        let followed = pin
            .follow(reopened.chain(), reopened.statement().signed())
            .unwrap();
        assert_eq!(followed.pin(), keyring.statement().pin());
    }
    let alone = first.follow(&[], reopened.statement().signed());
    assert_eq!(alone, Err(FollowError::UnknownSigner));
    assert!(used(&reopened, after(2)).is_some(), "the noise key stays");
}

#[test]
fn references_of_earlier_keys_open_after_a_rotation_and_a_restart() {
    let (directory, mut keyring) = keyring();
    let (queue, group) = (QueueId::new([1; 16]), GroupId::new([2; 32]));
    let early = keyring.references().seal(&queue, NOW, &group, &domain());

    keyring.rotate_references().unwrap();
    let late = keyring.references().seal(&queue, NOW, &group, &domain());

    let reopened = Keyring::open(&path(&directory), &domain()).unwrap();
    assert_ne!(early.as_bytes()[0], late.as_bytes()[0]);
    for reference in [early, late] {
        assert!(
            reopened
                .references()
                .open(&reference, &group, &domain())
                .is_some()
        );
    }
}

#[test]
fn a_change_by_another_process_is_kept_and_seen() {
    let (directory, mut serving) = keyring();
    let mut command = Keyring::open(&path(&directory), &domain()).unwrap();

    command.rotate_noise(after(1)).unwrap();
    assert!(serving.reload().unwrap());
    assert!(!serving.reload().unwrap());
    assert_eq!(serving.stored, command.stored);

    command.rotate_references().unwrap();
    serving.rotate_noise(after(2)).unwrap();
    assert_eq!(serving.statement().serial(), 3);
    assert!(command.reload().unwrap());
    assert_eq!(command.stored, serving.stored);
}

#[test]
fn what_a_crash_left_half_written_does_no_harm() {
    let (directory, mut keyring) = keyring();
    fs::write(path(&directory).join("keyring.json.new"), b"{\"format\":").unwrap();

    keyring.rotate_noise(after(1)).unwrap();

    let reopened = Keyring::open(&path(&directory), &domain()).unwrap();
    assert_eq!(reopened.stored, keyring.stored);
    assert!(!path(&directory).join("keyring.json.new").exists());
}

#[test]
fn a_damaged_file_is_refused_and_left_as_it_is() {
    let (directory, keyring) = keyring();
    let file = path(&directory).join("keyring.json");
    let text = fs::read_to_string(&file).unwrap();
    let serial = text.replace("\"serial\": 1", "\"serial\": 2");
    let format = text.replace("\"format\": 1", "\"format\": 2");
    let key = data_encoding::HEXLOWER.encode(keyring.domain_secret().seed().expose());
    let other_key = text.replace(&key, &"11".repeat(32));
    let unknown = text.replace("\"format\"", "\"extra\": 1, \"format\"");

    for damaged in [
        &text[..text.len() / 2],
        &serial,
        &format,
        &other_key,
        &unknown,
        "",
    ] {
        assert_ne!(damaged, text);
        fs::write(&file, damaged).unwrap();
        let opened = Keyring::open_or_create(&path(&directory), &domain(), NOW);
        let error = opened.unwrap_err();
        assert!(matches!(error, KeyringError::Damaged { .. }), "{error}");
        assert_eq!(fs::read_to_string(&file).unwrap(), damaged);
    }
}

#[test]
fn no_secret_is_shown() {
    let (_directory, keyring) = keyring();

    let shown = format!("{keyring:?}");

    let text = String::from_utf8(keyring.stored.to_text().to_vec()).unwrap();
    let secrets = text.split('"').filter(|word| word.len() == 64);
    assert_eq!(secrets.clone().count(), 3);
    for secret in secrets {
        assert!(!shown.contains(secret) && !shown.contains(&secret[..16]));
    }
}

#[cfg(unix)]
#[test]
fn keys_that_others_may_read_are_refused() {
    use std::os::unix::fs::PermissionsExt;

    let (directory, _) = keyring();
    let file = path(&directory).join("keyring.json");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let set = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    assert_eq!((mode(&path(&directory)), mode(&file)), (0o700, 0o600));

    for (exposed, open, private) in [
        (file.clone(), 0o640, 0o600),
        (file, 0o604, 0o600),
        (path(&directory), 0o750, 0o700),
        (path(&directory), 0o701, 0o700),
    ] {
        set(&exposed, open);
        let refused = Keyring::open_or_create(&path(&directory), &domain(), NOW).unwrap_err();
        assert!(matches!(&refused, KeyringError::Exposed { mode, .. } if *mode == open));
        set(&exposed, private);
        assert!(Keyring::open(&path(&directory), &domain()).is_ok());
    }
}
