//! The CommuCat demonstration: two people chat, each through a server of their own.
//!
//! One program, so that nothing else need be built: it starts itself again as the real servers.

mod args;
mod audit;
mod burst;
mod figures;
mod people;
mod screen;
mod serve;
mod server;
mod story;

use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use clap::Parser as _;
use tokio::signal::unix::{SignalKind, signal};

use self::args::Args;
use self::screen::Screen;
use self::server::Servers;

/// Somebody stopped it: 128 and the number of SIGINT.
const STOPPED: u8 = 130;
/// What the clients may take to end after the story.
const END_WAIT: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    let mut words = std::env::args_os().skip(1);
    if words.next().is_some_and(|word| word == serve::FLAG) {
        return serve::run(words);
    }
    let args = Args::parse();
    match run(&args) {
        Ok(code) => code,
        Err(error) => {
            // Nobody may be reading.
            writeln!(io::stderr(), "Error: {error:#}").ok();
            ExitCode::from(1)
        }
    }
}

fn run(args: &Args) -> Result<ExitCode> {
    let home = tempfile::Builder::new()
        .prefix("commucat-demo-")
        .tempdir()
        .context("cannot make a temporary directory")?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("the system gives no threads")?;
    let code = runtime.block_on(perform(args, home.path()));
    // The clients' files are closed before their directory goes.
    runtime.shutdown_timeout(END_WAIT);
    home.close()
        .context("cannot remove the temporary directory")?;
    code
}

/// Tells the story until its end or until somebody stops it; the servers are gone afterwards.
async fn perform(args: &Args, home: &Path) -> Result<ExitCode> {
    let began = Instant::now();
    let mut screen = Screen::new(args);
    let mut servers = Servers::new(home)?;
    let figures = tokio::select! {
        told = Box::pin(story::tell(&mut screen, &mut servers, home)) => Some(told),
        () = stopped() => None,
    };
    servers.kill().await?;
    let Some(figures) = figures else {
        writeln!(io::stderr(), "Stopped; nothing is left behind.").ok();
        return Ok(ExitCode::from(STOPPED));
    };
    let figures = figures?.after(began.elapsed());
    let broken = figures.broken();
    if args.json {
        let text = serde_json::to_string(&figures)?;
        writeln!(io::stdout(), "{text}").ok();
    } else {
        story::end(&screen, &figures, broken.is_empty());
    }
    for promise in &broken {
        writeln!(io::stderr(), "Not as promised: {promise}").ok();
    }
    Ok(ExitCode::from(u8::from(!broken.is_empty())))
}

/// Waits for Ctrl-C, SIGTERM or the end of the terminal.
async fn stopped() {
    let kinds = [
        SignalKind::interrupt(),
        SignalKind::terminate(),
        SignalKind::hangup(),
    ];
    let [Ok(mut interrupt), Ok(mut terminate), Ok(mut hangup)] = kinds.map(signal) else {
        // Without signals the system ends the program by itself.
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        _ = hangup.recv() => {}
    }
}
