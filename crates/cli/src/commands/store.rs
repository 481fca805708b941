//! `store copy`: from the embedded store to PostgreSQL. `store restored`: after PostgreSQL was put back.

use std::io::{self, Write as _};
use std::ops::ControlFlow;

use commucat_config::Config;
use commucat_crypto::keyring::Keyring;
use commucat_storage::{Location, Migrations, OpenError, Store, TransferProgress, transfer};
use serde::Serialize;

use crate::args;
use crate::clock;
use crate::output::{Output, table};
use crate::report::Report;
use crate::site;

/// What PostgreSQL shows of this command; servers have another name.
const SESSION_NAME: &str = "commucat-cli";

#[derive(Serialize)]
struct Copied {
    tables: Vec<Counted>,
    rows: u64,
    /// Rows that an earlier run had copied.
    resumed: u64,
}

#[derive(Serialize)]
struct Counted {
    table: &'static str,
    rows: u64,
}

/// Runs it.
pub(crate) async fn run(
    config: &Config,
    command: args::Store,
    output: Output,
) -> Result<(), Report> {
    match command {
        args::Store::Copy { from, to } => copy(config, from, to, output).await,
        args::Store::Restored { yes } => restored(config, yes, output).await,
    }
}

#[derive(Serialize)]
struct Restored {
    domain: String,
    done: bool,
}

async fn restored(config: &Config, yes: bool, output: Output) -> Result<(), Report> {
    let Location::Postgres { url } = site::location(config)? else {
        let report = Report::new("the store of this server is embedded");
        return Err(report.hint("`commucat-cli restore` puts a backup back and readies it"));
    };
    Keyring::open(&config.keys_path(), &config.server.domain)?;
    let url = url.named(SESSION_NAME);
    let store = site::open_at(config, Location::Postgres { url }, Migrations::Apply).await?;
    let readied = ready(&store, yes).await;
    store.close().await;
    readied?;
    let restored = Restored {
        domain: config.server.domain.as_str().to_owned(),
        done: yes,
    };
    output.show(&restored, told)
}

async fn ready(store: &Store, yes: bool) -> Result<(), Report> {
    let others = store.others_connected().await?;
    if others > 0 {
        let text = format!("{others} other sessions of this user are on the database");
        let hint = "stop all servers of the domain, and whatever else is connected as this user";
        return Err(Report::new(text).hint(hint));
    }
    if yes {
        store.ready_after_restore(clock::now()).await?;
    }
    Ok(())
}

fn told(restored: &Restored) -> String {
    if !restored.done {
        return format!(
            "The database of {} would be readied: with --yes. Nothing was changed.\n",
            restored.domain
        );
    }
    format!(
        "The database of {} is ready.\n\nWhat was acknowledged after the moment that it was put back to is gone: \
         messages that waited,\naccounts, devices and groups made since. Devices revoked and invites used since \
         are good again:\nrevoke them. Every device is told that something may be missing. A group whose members \
         or settings\nchanged since must be replaced by a new one.\nNext: start the servers.\n",
        restored.domain
    )
}

async fn copy(
    config: &Config,
    from: Option<String>,
    to: Option<String>,
    output: Output,
) -> Result<(), Report> {
    let parse = |text: &str| text.parse::<Location>().map_err(OpenError::from);
    let from = match from {
        Some(text) => parse(&text)?,
        None => Location::Sqlite {
            directory: config.server.data.clone(),
        },
    };
    let to = match to {
        Some(text) => parse(&text)?,
        None => site::location(config)?,
    };
    let done = transfer(from, to, say).await?;
    let counted = |(table, rows): (&'static str, u64)| Counted { table, rows };
    let copied = Copied {
        rows: done.tables.iter().map(|(_, rows)| rows).sum(),
        resumed: done.resumed,
        tables: done.tables.into_iter().map(counted).collect(),
    };
    output.show(&copied, text)
}

/// A line for each batch.
fn say(progress: TransferProgress) -> ControlFlow<()> {
    let TransferProgress { table, rows, total } = progress;
    // Whoever closed stderr does not want to know.
    writeln!(io::stderr(), "{table}: {rows} of {total} rows").ok();
    ControlFlow::Continue(())
}

fn text(copied: &Copied) -> String {
    let rows: Vec<[String; 2]> = copied
        .tables
        .iter()
        .map(|one| [one.table.to_owned(), one.rows.to_string()])
        .collect();
    let mut text = table(["TABLE", "ROWS"], &rows);
    text.push_str(&format!(
        "\n{} rows, counted on both sides and checked",
        copied.rows
    ));
    if copied.resumed > 0 {
        text.push_str(&format!("; {} of an earlier run", copied.resumed));
    }
    text.push_str(
        ".\nNext: set `storage.url` to the database and start the server. The old store is as it was: keep \
         it\nuntil the server has run well, and never start a server on it again.\n",
    );
    text
}
