//! What the suites' programs share: a log on stderr, lines on stdout, a seed that is said, and an exit
//! code.

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Result;

use crate::random::Random;

/// Runs a program's work with the clients' log on stderr, `filter` being its level or filters.
pub async fn run(filter: &str, work: impl Future<Output = Result<()>>) -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::new(filter);
    let log = tracing_subscriber::fmt().with_env_filter(filter);
    log.with_writer(std::io::stderr).init();
    match work.await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("failed: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// The seed that was asked for, or a new one; says which.
///
/// # Errors
///
/// If the system gives no random number.
pub fn seed(wanted: Option<u64>) -> Result<u64> {
    let seed = wanted.map_or_else(Random::seed, Ok)?;
    say(&format!("seed {seed}"));
    Ok(seed)
}

/// Prints a line.
pub fn say(line: &str) {
    // Whoever closed the pipe does not want it.
    writeln!(std::io::stdout(), "{line}").ok();
}
