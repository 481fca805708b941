//! A full disk under the embedded store: a small file system of its own that is filled; where none may
//! be mounted, every write of the server to its files is made to fail as it would there.

use std::fs::File;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::slice;
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use commucat_testkit::company::Company;
use commucat_testkit::program::say;
use commucat_testkit::random::Random;
use commucat_testkit::server::{Options, Server};
use commucat_testkit::stage::Director;
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::{ACCOUNTS, DEVICES, MANNERS, hindered, judge, memory, told, total};

const FAILURES: &str = "commucat_store_failures_total";

/// Size of the file system.
const SIZE: &str = "size=64m";

/// What the disk is filled with at a time.
const CHUNK: usize = 65_536;

/// Fills the disk, frees it, and judges.
pub(crate) async fn run(seed: u64) -> Result<()> {
    let mut random = Random::new(seed);
    let disk = Disk::mount().await?;
    let mut options = Options::default().for_load();
    options.place = disk.as_ref().map(|disk| disk.0.path().to_owned());
    let mut server = Server::start(options).await?;
    let company = Company::gather(&server, ACCOUNTS, DEVICES).await?;
    let played = company.play(MANNERS, &mut random, async |director, _| {
        director.progress().await?;
        full(&mut server, disk.as_ref(), director).await?;
        director.listen().await?;
        director.last_words().await
    });
    let played = played.await;
    judge("disk", seed, &company, slice::from_ref(&server), played)
}

async fn full(server: &mut Server, disk: Option<&Disk>, director: &Director) -> Result<()> {
    // The log of the store is as large as it ever was, and would have room for a while; an orderly end
    // takes it away.
    let ended = server.terminate().await?;
    ensure!(ended.success(), "SIGTERM ended with {ended}");
    server.restart().await?;
    let server = &*server;
    let servers = slice::from_ref(server);
    let (before, failures) = (director.acknowledged(), total(servers, FAILURES).await?);
    let begun = Instant::now();
    let full = Full::begin(server, disk)?;
    let seen = async {
        let failed = told(servers, (FAILURES, "the disk is full"), |value| {
            value > failures
        });
        failed.await?;
        hindered(servers, Some("store")).await
    };
    let seen = seen.await;
    let meanwhile = director.acknowledged().saturating_sub(before);
    let how = full.name();
    full.end().await?;
    seen?;
    let lasted = begun.elapsed();
    let again = director.progress().await?;
    hindered(servers, None).await?;
    say(&format!(
        "DiskFull ({how}): {:.1} s, {meanwhile} acknowledged meanwhile, {} requests to the store failed, goes on \
         after {:.1} s, {} MiB at most",
        lasted.as_secs_f64(),
        total(servers, FAILURES).await?.saturating_sub(failures),
        again.as_secs_f64(),
        memory::peak(servers)?,
    ));
    Ok(())
}

/// A file system in memory. Dropped, it is unmounted.
struct Disk(TempDir);

impl Disk {
    /// `None` where this user may not mount any.
    async fn mount() -> Result<Option<Self>> {
        let place = TempDir::with_prefix("cc-disk-")?;
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", SIZE, "tmpfs"])
            .arg(place.path())
            .stderr(Stdio::null())
            .status()
            .await;
        let is_mounted = mounted.is_ok_and(|status| status.success());
        Ok(is_mounted.then_some(Self(place)))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: a server that is killed a moment later still has its files open.
        let mut unmount = std::process::Command::new("umount");
        unmount.arg("-l").arg(self.0.path()).status().ok();
    }
}

/// A disk without room.
enum Full {
    /// The file that takes it.
    Filled(PathBuf),
    /// A tracer that answers each write of the server at a position of a file, as only the store makes
    /// them, with ENOSPC, as a file system without room does.
    Traced(Child),
}

impl Full {
    fn begin(server: &Server, disk: Option<&Disk>) -> Result<Self> {
        if let Some(disk) = disk {
            let filler = disk.0.path().join("filler");
            fill(&filler)?;
            return Ok(Self::Filled(filler));
        }
        let pid = server.pid().context("the server does not run")?;
        let tracer = Command::new("strace")
            .args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=pwrite64"])
            .args(["-e", "inject=pwrite64:error=ENOSPC", "-p", &pid.to_string()])
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn();
        Ok(Self::Traced(tracer.context("strace does not run")?))
    }

    const fn name(&self) -> &'static str {
        match self {
            Self::Filled(_) => "a file system of 64 MiB",
            Self::Traced(_) => "writes fail by strace",
        }
    }

    async fn end(self) -> Result<()> {
        let mut tracer = match self {
            Self::Filled(filler) => return Ok(std::fs::remove_file(filler)?),
            Self::Traced(tracer) => tracer,
        };
        ensure!(
            matches!(tracer.try_wait(), Ok(None)),
            "strace ended by itself"
        );
        let pid = tracer.id().context("strace has ended")?;
        // In order: killed, it would leave a write half answered.
        let script = format!("kill -TERM {pid}");
        let sent = Command::new("sh").args(["-c", &script]).status().await?;
        ensure!(sent.success(), "no signal to strace");
        tracer.wait().await?;
        Ok(())
    }
}

/// Writes until there is no room for a byte.
fn fill(path: &Path) -> Result<()> {
    let mut file = File::create(path)?;
    let mut size = CHUNK;
    loop {
        match file.write_all(&vec![0; size]) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::StorageFull && size == 1 => return Ok(()),
            Err(error) if error.kind() == ErrorKind::StorageFull => size /= 2,
            Err(error) => bail!("the disk cannot be filled: {error}"),
        }
    }
}
