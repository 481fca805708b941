//! `restore`: a backup takes the place of the embedded store.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use commucat_admin::Client;
use commucat_config::{Config, LedgerSink};
use commucat_crypto::keyring::{Keyring, KeyringError};
use commucat_storage::{OpenError, Replacement, Since};
use serde::Serialize;

use super::backup::{KEY_FILE, embedded};
use crate::archive::{Archive, Manifest, Part, at, private};
use crate::args;
use crate::clock;
use crate::output::Output;
use crate::report::Report;
use crate::time::show;

/// How long another command may take to let go of the store.
const LOCK_WAIT: Duration = Duration::from_secs(2);

#[derive(Serialize)]
struct Restored {
    domain: String,
    taken_ms: u64,
    schema_version: u32,
    /// Where the store is that was there.
    kept: Option<PathBuf>,
    ledger: bool,
    keys: bool,
    devices_are_told: bool,
}

#[derive(Serialize)]
struct Sound {
    sound: bool,
    #[serde(flatten)]
    manifest: Manifest,
}

/// Runs it.
pub(crate) async fn run(
    config: &Config,
    how: &args::Restore,
    output: Output,
) -> Result<(), Report> {
    let directory = embedded(config)?;
    let (archive, manifest) = Archive::open(&how.directory)?;
    if how.check {
        return check(&archive, manifest, output);
    }
    if manifest.domain != config.server.domain.as_str() {
        let text = format!("the backup is of `{}`", manifest.domain);
        return Err(Report::new(text).hint("set `server.domain`, or name another --data"));
    }
    if Client::connect(&config.server.data).await?.is_some() {
        return Err(running());
    }
    let replacement = match Replacement::begin(&directory, LOCK_WAIT) {
        Err(OpenError::InUse) => return Err(running()),
        begun => begun?,
    };
    if replacement.has_store() && !how.force {
        let text = format!("there is a store in `{}`", directory.display());
        let hint = "with --force it is moved aside, and the backup takes its place";
        return Err(Report::new(text).hint(hint));
    }
    let needs_keys = check_keys(config, &manifest)?;
    stage(&archive, &manifest, &replacement)?;
    let since = if how.unchanged {
        Since::Nothing
    } else {
        Since::Unknown
    };
    let schema_version = replacement.prepare(since, clock::now()).await?;
    if needs_keys {
        put(
            &archive,
            &manifest,
            Part::Keys,
            &config.keys_path().join(KEY_FILE),
        )?;
        Keyring::open(&config.keys_path(), &config.server.domain)?;
    }
    let needs_ledger = config.ledger.sink == LedgerSink::File && !config.ledger_path().exists();
    let ledger = needs_ledger && put(&archive, &manifest, Part::Ledger, &config.ledger_path())?;
    let aside = directory.join(format!("before-restore-{}", clock::now().as_millis()));
    let kept = replacement.finish(&aside)?.then_some(aside);
    let restored = Restored {
        domain: manifest.domain,
        taken_ms: manifest.taken_ms,
        schema_version,
        kept,
        ledger,
        keys: needs_keys,
        devices_are_told: !how.unchanged,
    };
    output.show(&restored, text)
}

fn running() -> Report {
    let text = "a server or another command works on this store";
    Report::new(text).hint("stop the server: a restore needs the store for itself")
}

fn check(archive: &Archive, manifest: Manifest, output: Output) -> Result<(), Report> {
    for listed in &manifest.files {
        archive.extract(listed, &mut io::sink())?;
    }
    let sound = Sound {
        sound: true,
        manifest,
    };
    output.show(&sound, |sound| {
        let manifest = &sound.manifest;
        format!(
            "the backup is sound: {}, as of {}, schema {}, files: {}",
            manifest.domain,
            show(manifest.taken_ms),
            manifest.schema_version,
            manifest.files.len()
        )
    })
}

/// Whether the keys come from the backup. Those that are there stay: clients know them, and older
/// ones would be refused.
fn check_keys(config: &Config, manifest: &Manifest) -> Result<bool, Report> {
    match Keyring::open(&config.keys_path(), &config.server.domain) {
        Ok(_) => Ok(false),
        Err(KeyringError::Missing { .. }) if manifest.part(Part::Keys).is_some() => Ok(true),
        Err(error @ KeyringError::Missing { .. }) => {
            let path = config.keys_path().join(KEY_FILE);
            let hint = format!(
                "the backup has no keys: first put your copy of the key file to `{}`, mode 0600",
                path.display()
            );
            Err(Report::of(&error).hint(hint))
        }
        Err(error) => Err(error.into()),
    }
}

/// Copies the store beside its place, and compares all files with their sums.
fn stage(archive: &Archive, manifest: &Manifest, replacement: &Replacement) -> Result<(), Report> {
    for listed in &manifest.files {
        if listed.name == Part::Store {
            let (mut file, _) = replacement.file()?;
            archive.extract(listed, &mut file)?;
        } else {
            archive.extract(listed, &mut io::sink())?;
        }
    }
    Ok(())
}

/// Puts a file of the backup to a place where there is none; `false` if the backup has it not.
fn put(archive: &Archive, manifest: &Manifest, part: Part, to: &Path) -> Result<bool, Report> {
    let Some(listed) = manifest.part(part) else {
        return Ok(false);
    };
    let fresh = to.with_extension("restore");
    let make = || {
        if let Some(directory) = to.parent() {
            let mut builder = fs::DirBuilder::new();
            std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
            builder.recursive(true).create(directory)?;
        }
        match fs::remove_file(&fresh) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        private(&fresh)
    };
    let mut file = make().map_err(|error| at("write", &fresh, &error))?;
    archive.extract(listed, &mut file)?;
    let settle = || {
        file.sync_all()?;
        fs::rename(&fresh, to)
    };
    settle().map_err(|error| at("write", to, &error))?;
    Ok(true)
}

fn text(restored: &Restored) -> String {
    let mut text = format!(
        "The store of {} is the backup of {} now, schema {}.\n",
        restored.domain,
        show(restored.taken_ms),
        restored.schema_version
    );
    if let Some(kept) = &restored.kept {
        text.push_str(&format!(
            "The store that was here is in {}.\n",
            kept.display()
        ));
    }
    if restored.keys {
        text.push_str("The keys came from the backup.\n");
    }
    if restored.ledger {
        text.push_str("The ledger came from the backup.\n");
    }
    text.push_str(if restored.devices_are_told {
        "\nWhat was acknowledged after the backup is gone: messages that waited, accounts, devices and\n\
         groups made since. Devices revoked and invites used since are good again: revoke them. Every\n\
         device is told that something may be missing. A group whose members or settings changed since\n\
         must be replaced by a new one.\n"
    } else {
        "\nNo device is told: you said that nothing happened since.\n"
    });
    text
}
