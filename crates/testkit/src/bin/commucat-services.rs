//! `commucat-services`: starts PostgreSQL and Redis of its own, and runs a command that finds them in
//! its environment; for tests that are not written in Rust.

use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result};
use clap::Parser;
use commucat_testkit::services::{Postgres, Redis};

/// Run a command beside a private PostgreSQL and a private Redis
#[derive(Debug, Parser)]
struct Args {
    /// The command; it gets `TEST_POSTGRES_URL`, the address of the cluster's own database as its
    /// superuser, `TEST_PSQL`, the client to make others with, and `TEST_REDIS_URL`
    #[arg(required = true, trailing_var_arg = true)]
    command: Vec<String>,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln(&format!("failed: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<u8> {
    let postgres = Postgres::start(&commucat_testkit::services::postgres::Options::default())?;
    let redis = Redis::start(&[])?;
    let (program, rest) = args.command.split_first().context("no command")?;
    let status = Command::new(program)
        .args(rest)
        .env("TEST_POSTGRES_URL", postgres.url("postgres"))
        .env("TEST_PSQL", postgres.program("psql").get_program())
        .env("TEST_REDIS_URL", redis.url())
        .status()
        .with_context(|| format!("`{program}` does not run"))?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.unwrap_or(1))
}

fn eprintln(line: &str) {
    use std::io::Write as _;

    writeln!(std::io::stderr(), "{line}").ok();
}
