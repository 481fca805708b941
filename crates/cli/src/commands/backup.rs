//! `backup`: a copy of the embedded store while it is in use.

use std::fs::File;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use commucat_admin::{Answer, BackupMade, BackupState, BackupStep, Request};
use commucat_config::{Config, LedgerSink};
use commucat_storage::Location;
use serde::Serialize;

use crate::archive::{Archive, Listed, Manifest, Part, at};
use crate::args;
use crate::door::{Door, other_answer};
use crate::output::Output;
use crate::report::{POSTGRES_HINT, Report};
use crate::site;
use crate::time::show;

/// How often the server is asked how far it is.
const ASK_EVERY: Duration = Duration::from_millis(100);

/// The key file in its directory.
pub(super) const KEY_FILE: &str = "keyring.json";

#[derive(Serialize)]
struct Done {
    directory: PathBuf,
    #[serde(flatten)]
    manifest: Manifest,
}

/// Runs it.
pub(crate) async fn run(config: &Config, how: &args::Backup, output: Output) -> Result<(), Report> {
    embedded(config)?;
    let archive = Archive::create(&how.directory)?;
    let mut door = Door::open(config).await?;
    let made = copy(&mut door).await;
    let done = match made {
        Ok((taken_ms, made)) => keep(config, how, &archive, taken_ms, &made),
        Err(error) => Err(error),
    };
    // Also what was not taken away.
    let ended = door
        .ask(Request::Backup {
            step: BackupStep::End,
        })
        .await;
    door.close().await;
    let manifest = done?;
    ended?;
    let done = Done {
        directory: how.directory.clone(),
        manifest,
    };
    output.show(&done, text)
}

/// The directory of the embedded store.
pub(super) fn embedded(config: &Config) -> Result<PathBuf, Report> {
    match site::location(config)? {
        Location::Sqlite { directory } => Ok(directory),
        Location::Postgres { .. } => {
            let text = "this command is for the embedded store, and `storage.url` names PostgreSQL";
            Err(Report::new(text).hint(POSTGRES_HINT))
        }
    }
}

async fn copy(door: &mut Door) -> Result<(u64, BackupMade), Report> {
    let mut shown = Progress::new();
    let mut step = BackupStep::Start;
    loop {
        let Answer::Backup(state) = door.ask(Request::Backup { step }).await? else {
            return Err(other_answer());
        };
        shown.show(&state);
        if let Some(made) = state.made {
            return Ok((state.taken_ms, made));
        }
        tokio::time::sleep(ASK_EVERY).await;
        step = BackupStep::State;
    }
}

fn keep(
    config: &Config,
    how: &args::Backup,
    archive: &Archive,
    taken_ms: u64,
    made: &BackupMade,
) -> Result<Manifest, Report> {
    let domain = config.server.domain.as_str();
    let mut manifest = Manifest::new(domain, taken_ms, made.schema_version);
    manifest.files.push(archive.take(Part::Store, &made.file)?);
    manifest.files.extend(ledger(config, archive)?);
    if how.with_keys {
        let path = config.keys_path().join(KEY_FILE);
        let mut file = File::open(&path).map_err(|error| at("read", &path, &error))?;
        manifest.files.push(archive.add(Part::Keys, &mut file)?);
    }
    archive.seal(&manifest)?;
    Ok(manifest)
}

/// The ledger, if it is a file: after the store, so that it is behind in nothing.
fn ledger(config: &Config, archive: &Archive) -> Result<Option<Listed>, Report> {
    let path = config.ledger_path();
    if config.ledger.sink != LedgerSink::File || !path.exists() {
        return Ok(None);
    }
    let text = std::fs::read(&path).map_err(|error| at("read", &path, &error))?;
    // A line may be on its way.
    let whole = text.iter().rposition(|byte| *byte == b'\n');
    let mut lines = text
        .get(..whole.map_or(0, |end| end + 1))
        .unwrap_or_default();
    archive.add(Part::Ledger, &mut lines).map(Some)
}

/// One line on a terminal, rewritten.
struct Progress {
    is_shown: bool,
}

impl Progress {
    fn new() -> Self {
        Self {
            is_shown: io::stderr().is_terminal(),
        }
    }

    fn show(&mut self, state: &BackupState) {
        if !self.is_shown || state.pages_total == 0 {
            return;
        }
        let end = if state.made.is_some() { "\n" } else { "" };
        let percent = state.pages.saturating_mul(100) / state.pages_total;
        let mut err = io::stderr().lock();
        // Whoever closed stderr does not want to know.
        write!(err, "\rcopying the store: {percent} %{end}").ok();
        err.flush().ok();
    }
}

fn text(done: &Done) -> String {
    let Done {
        directory,
        manifest,
    } = done;
    let mut text = format!(
        "The backup is in {}: {}, as of {}, schema {}\n\n",
        directory.display(),
        manifest.domain,
        show(manifest.taken_ms),
        manifest.schema_version
    );
    let rows: Vec<[String; 3]> = manifest
        .files
        .iter()
        .map(|file| {
            let sum = file.blake3.get(..16).unwrap_or_default();
            [
                file.name.name().to_owned(),
                file.bytes.to_string(),
                sum.to_owned(),
            ]
        })
        .collect();
    text.push_str(&crate::output::table(["FILE", "BYTES", "BLAKE3"], &rows));
    text.push_str(if manifest.part(Part::Keys).is_some() {
        "\nThe key file is in it: whoever reads it can pose as this server. Encrypt it.\n"
    } else {
        "\nThe key file is not in it. Keep a copy of it apart: without it the backup is of no use.\n"
    });
    text
}
