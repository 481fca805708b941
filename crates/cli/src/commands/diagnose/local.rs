//! Files: the data directory, the keys, and what they say about the clock.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use commucat_config::Config;
use commucat_crypto::keyring::Keyring;
use commucat_proto::time::Timestamp;

use super::check::Check;
use crate::clock;
use crate::report::{Report, keys_hint};
use crate::time::{show, show_span};

/// This release was not there before: 2026-01-01.
const RELEASED: Timestamp = Timestamp::from_millis(1_767_225_600_000);

/// How far a file may be from the future: some file systems round times up.
const FILE_TOLERANCE: Duration = Duration::from_secs(60);

/// The data directory and its mode.
pub(super) fn data(config: &Config) -> Check {
    const NAME: &str = "data directory";
    let path = &config.server.data;
    match fs::metadata(path) {
        Err(error) => Check::fail(
            NAME,
            format!("`{}` cannot be used: {error}", path.display()),
            "run `commucat-cli init`, or name the server's directory with --data",
        ),
        Ok(metadata) if !metadata.is_dir() => Check::fail(
            NAME,
            format!("`{}` is no directory", path.display()),
            "name the server's directory with --data",
        ),
        Ok(metadata) => {
            let mode = metadata.permissions().mode() & 0o777;
            let detail = format!("`{}`, mode {mode:o}", path.display());
            if mode & 0o077 == 0 {
                Check::ok(NAME, detail)
            } else {
                let hint = format!("others may enter it: chmod 700 '{}'", path.display());
                Check::warn(NAME, detail, hint)
            }
        }
    }
}

/// The keys of the domain, and what came of opening them.
pub(super) fn keys(config: &Config) -> (Option<Keyring>, Check) {
    const NAME: &str = "keys";
    let path = config.keys_path();
    let keyring = match Keyring::open(&path, &config.server.domain) {
        Ok(keyring) => keyring,
        Err(error) => {
            let detail = Report::of(&error).line();
            return (None, Check::fail(NAME, detail, keys_hint(&error)));
        }
    };
    let now = clock::now();
    let statement = keyring.statement();
    let until = statement
        .noise_keys()
        .iter()
        .map(|key| key.not_after)
        .max()
        .unwrap_or_default();
    let check = if statement.noise_key(now).is_none() {
        let detail = "no Noise key is valid now".to_owned();
        Check::fail(
            NAME,
            detail,
            "is the clock right? Otherwise `commucat-cli rotate-keys`",
        )
    } else {
        let (serial, until) = (statement.serial(), show(until.as_millis()));
        Check::ok(NAME, format!("statement {serial}, Noise key until {until}"))
    };
    (Some(keyring), check)
}

/// Whether the clock can be right, as far as files tell.
pub(super) fn clock(config: &Config, keyring: Option<&Keyring>) -> Check {
    const NAME: &str = "clock";
    const HINT: &str = "set the clock by NTP: certificates and messages carry its time";
    let now = clock::now();
    let detail = show(now.as_millis());
    if now < RELEASED {
        return Check::fail(
            NAME,
            format!("{detail}, before this release was made"),
            HINT,
        );
    }
    let starts = keyring.and_then(|keyring| {
        keyring
            .statement()
            .noise_keys()
            .iter()
            .map(|key| key.not_before)
            .min()
    });
    if starts.is_some_and(|starts| now < starts) {
        return Check::fail(
            NAME,
            format!("{detail}, before the keys begin to hold"),
            HINT,
        );
    }
    let keys = config.keys_path().join("keyring.json");
    let store = config.store_url().directory().and_then(newest);
    let files = [store, modified(&keys)];
    let newest = files.into_iter().flatten().max().unwrap_or_default();
    if newest > now.saturating_add(FILE_TOLERANCE) {
        let ahead = show_span(newest.since(now));
        return Check::warn(
            NAME,
            format!("{detail}, but files are {ahead} ahead of it"),
            HINT,
        );
    }
    Check::ok(NAME, detail)
}

/// When a file of the store was changed last.
fn newest(directory: &Path) -> Option<Timestamp> {
    let entries = fs::read_dir(directory).ok()?.flatten();
    entries.filter_map(|entry| modified(&entry.path())).max()
}

fn modified(path: &Path) -> Option<Timestamp> {
    fs::metadata(path)
        .and_then(|metadata| metadata.modified())
        .ok()
        .map(clock::of)
}
