//! A full disk under the embedded store: every write of the server to its files fails.

use std::process::Stdio;
use std::slice;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use commucat_testkit::company::Company;
use commucat_testkit::program::say;
use commucat_testkit::random::Random;
use commucat_testkit::server::{Options, Server};
use commucat_testkit::stage::Director;
use tokio::process::{Child, Command};

use crate::{ACCOUNTS, DEVICES, MANNERS, judge, memory, told, total};

const FAILURES: &str = "commucat_store_failures_total";

/// Fills the disk, frees it, and judges.
pub(crate) async fn run(seed: u64) -> Result<()> {
    let mut random = Random::new(seed);
    let server = Server::start(Options::default().for_load()).await?;
    let company = Company::gather(&server, ACCOUNTS, DEVICES).await?;
    let played = company.play(MANNERS, &mut random, async |director, _| {
        director.progress().await?;
        full(&server, director).await?;
        director.listen().await?;
        director.last_words().await
    });
    let played = played.await;
    judge("disk", seed, &company, slice::from_ref(&server), played)
}

async fn full(server: &Server, director: &Director) -> Result<()> {
    let servers = slice::from_ref(server);
    let (before, failures) = (director.acknowledged(), total(servers, FAILURES).await?);
    let begun = Instant::now();
    let full = Full::begin(server)?;
    let seen = told(servers, (FAILURES, "the disk is full"), |value| {
        value > failures
    });
    let seen = seen.await;
    let meanwhile = director.acknowledged().saturating_sub(before);
    full.end().await?;
    seen?;
    let lasted = begun.elapsed();
    let again = director.progress().await?;
    say(&format!(
        "DiskFull: {:.1} s, {meanwhile} acknowledged meanwhile, {} requests to the store failed, goes on \
         after {:.1} s, {} MiB at most",
        lasted.as_secs_f64(),
        total(servers, FAILURES).await?.saturating_sub(failures),
        again.as_secs_f64(),
        memory::peak(servers)?,
    ));
    Ok(())
}

/// A tracer that answers each write of the server at a position of a file, as only the store makes
/// them, with ENOSPC, as a file system without room does.
struct Full(Child);

impl Full {
    fn begin(server: &Server) -> Result<Self> {
        let pid = server.pid().context("the server does not run")?;
        let tracer = Command::new("strace")
            .args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=pwrite64"])
            .args(["-e", "inject=pwrite64:error=ENOSPC", "-p", &pid.to_string()])
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn();
        Ok(Self(tracer.context("strace does not run")?))
    }

    /// Lets the tracer go in order: killed, it would leave a write half answered.
    async fn end(mut self) -> Result<()> {
        ensure!(
            matches!(self.0.try_wait(), Ok(None)),
            "strace ended by itself"
        );
        let pid = self.0.id().context("strace has ended")?;
        let script = format!("kill -TERM {pid}");
        let sent = Command::new("sh").args(["-c", &script]).status().await?;
        ensure!(sent.success(), "no signal to strace");
        self.0.wait().await?;
        Ok(())
    }
}
