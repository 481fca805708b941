//! `commucat-server`: reads the command line and ends with a code that says how it went.

use std::error::Error;
use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::Parser as _;
use commucat_server::args::Args;
use commucat_server::start::{self, Before};
use commucat_server::{check, telemetry};

/// Wrong use of the command line (sysexits.h `EX_USAGE`).
const USAGE: u8 = 64;
/// Wrong configuration (sysexits.h `EX_CONFIG`).
const CONFIG: u8 = 78;

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            let code = if error.use_stderr() { USAGE } else { 0 };
            // A closed terminal is no reason to end otherwise.
            error.print().ok();
            return ExitCode::from(code);
        }
    };
    let config = match args.load() {
        Ok(config) => config,
        Err(error) => return fail(&error, CONFIG),
    };
    if args.check {
        return if check::run(&config, &mut io::stdout()) {
            ExitCode::SUCCESS
        } else {
            1.into()
        };
    }
    if let Err(error) = telemetry::start(&config.server.log, config.server.log_format) {
        return fail(&error, CONFIG);
    }
    let before = if args.upgrade {
        Before::Server
    } else {
        Before::Nobody
    };
    match start::run(config, before) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error, 1),
    }
}

/// Prints an error with its causes, once.
fn fail(error: &dyn Error, code: u8) -> ExitCode {
    let mut text = format!("Error: {error}\n");
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(&format!("  caused by: {inner}\n"));
        cause = inner.source();
    }
    io::stderr().write_all(text.as_bytes()).ok();
    ExitCode::from(code)
}
