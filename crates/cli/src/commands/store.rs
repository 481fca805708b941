//! `store copy`: from the embedded store to PostgreSQL.

use std::io::{self, Write as _};
use std::ops::ControlFlow;

use commucat_config::Config;
use commucat_storage::{Location, OpenError, TransferProgress, transfer};
use serde::Serialize;

use crate::args;
use crate::output::{Output, table};
use crate::report::Report;
use crate::site;

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
    let args::Store::Copy { from, to } = command;
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
