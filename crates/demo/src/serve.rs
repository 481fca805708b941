//! The other half of this program: the real server, as a process of its own.

use std::error::Error;
use std::ffi::OsString;
use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::Parser as _;
use commucat_server::args::Args;
use commucat_server::start::{self, Before};
use commucat_server::telemetry;
use rustix::process::{Signal, set_parent_process_death_signal};

/// First argument that makes this program the server; the server's own arguments follow.
pub(crate) const FLAG: &str = "--as-server";

/// Runs the server until it is told to end.
pub(crate) fn run(words: impl Iterator<Item = OsString>) -> ExitCode {
    match serve(words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let mut text = format!("Error: {error}\n");
            let mut cause = error.source();
            while let Some(inner) = cause {
                text.push_str(&format!("  caused by: {inner}\n"));
                cause = inner.source();
            }
            io::stderr().write_all(text.as_bytes()).ok();
            ExitCode::from(1)
        }
    }
}

fn serve(words: impl Iterator<Item = OsString>) -> Result<(), Box<dyn Error>> {
    // Whoever kills the demonstration with `kill -9` leaves no server behind.
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let args = Args::try_parse_from(std::iter::once(FLAG.into()).chain(words))?;
    let config = args.load()?;
    telemetry::start(&config.server.log, config.server.log_format)?;
    Ok(start::run(config, Before::Nobody)?)
}
