//! `commucat-cli`: reads the command line and ends with a code that says how it went.

use std::process::ExitCode;

use clap::Parser as _;
use commucat_cli::args::Args;
use commucat_cli::report;
use commucat_cli::run::run;

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            let code = if error.use_stderr() { report::USAGE } else { 0 };
            // A closed terminal is no reason to end otherwise.
            error.print().ok();
            return ExitCode::from(code);
        }
    };
    let is_json = args.json;
    match run(args) {
        Ok(code) => code,
        Err(report) => report.print(is_json),
    }
}
