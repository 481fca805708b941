//! One run of a service's process: started, signalled, ended.

use std::fs::{self, OpenOptions};
use std::io::{BufRead as _, BufReader, PipeReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

/// Longest that a start may take: recovery on a machine that is busy with other things.
const START_WAIT: Duration = Duration::from_secs(90);
/// Longest that an end may take: a last checkpoint on such a machine.
const END_WAIT: Duration = Duration::from_secs(90);

/// A process that became ready. It must be ended by [`Run::end`].
#[derive(Debug)]
pub(crate) struct Run {
    child: Child,
    /// Disconnected once no process of this run holds its output any more.
    output: Receiver<()>,
}

impl Run {
    /// Starts `command`, whose output goes to `log`, and waits for a line with `ready` in it.
    pub(crate) fn start(mut command: Command, ready: &'static str, log: &Path) -> Result<Self> {
        let (reader, writer) = std::io::pipe()?;
        let child = command
            .stdin(Stdio::null())
            .stdout(writer.try_clone()?)
            .stderr(writer)
            .process_group(0)
            .spawn()
            .with_context(|| format!("{} does not run", command.get_program().display()))?;
        // It holds the writing ends, and the end of the output is to tell the end of the process.
        drop(command);
        let file = OpenOptions::new().create(true).append(true).open(log)?;
        let (seen, output) = channel();
        std::thread::Builder::new()
            .name("service-output".to_owned())
            .spawn(move || copy(reader, file, ready, &seen))?;
        let mut run = Self { child, output };
        if run.output.recv_timeout(START_WAIT).is_ok() {
            return Ok(run);
        }
        run.child.kill().ok();
        run.child.wait().ok();
        let written = fs::read_to_string(log).unwrap_or_default();
        let tail: Vec<_> = written.lines().rev().take(8).collect();
        let tail: Vec<_> = tail.into_iter().rev().collect();
        bail!("it did not start:\n{}", tail.join("\n"))
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends `signal`, and waits until no process of this run is left.
    pub(crate) fn end(mut self, signal: Signal) -> Result<()> {
        self.resume()?;
        send(self.child.id(), signal)?;
        let waited = loop {
            match self.output.recv_timeout(END_WAIT) {
                Ok(()) => {}
                Err(ended) => break ended,
            }
        };
        ensure!(
            waited == std::sync::mpsc::RecvTimeoutError::Disconnected,
            "it did not end in time"
        );
        self.child.wait()?;
        Ok(())
    }

    /// Stops the process and its children where they are.
    pub(crate) fn pause(&self) -> Result<()> {
        // The parent first, so that no child is added.
        send(self.child.id(), Signal::STOP)?;
        for child in children(self.child.id())? {
            // One that has just ended needs no pause.
            send(child, Signal::STOP).ok();
        }
        Ok(())
    }

    /// Lets them go on.
    pub(crate) fn resume(&self) -> Result<()> {
        for child in children(self.child.id())? {
            send(child, Signal::CONT).ok();
        }
        send(self.child.id(), Signal::CONT)
    }

    /// Processor time used by the process and its children, those that have ended included.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        let mut ticks = 0;
        let own = stat(self.child.id()).context("the process has ended")?;
        for field in [
            USER_TICKS,
            SYSTEM_TICKS,
            CHILDREN_USER_TICKS,
            CHILDREN_SYSTEM_TICKS,
        ] {
            ticks += number(&own, field);
        }
        for child in children(self.child.id())? {
            let fields = stat(child).unwrap_or_default();
            ticks += number(&fields, USER_TICKS) + number(&fields, SYSTEM_TICKS);
        }
        let per_second = rustix::param::clock_ticks_per_second();
        Ok(Duration::from_millis(
            ticks.saturating_mul(1000) / per_second,
        ))
    }
}

/// Fields of `/proc/PID/stat` after the program's name, from zero.
const PARENT: usize = 1;
const USER_TICKS: usize = 11;
const SYSTEM_TICKS: usize = 12;
const CHILDREN_USER_TICKS: usize = 13;
const CHILDREN_SYSTEM_TICKS: usize = 14;

fn stat(pid: u32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name is in parentheses and may hold anything.
    let (_, fields) = text.rsplit_once(')')?;
    Some(fields.split_whitespace().map(str::to_owned).collect())
}

fn number(fields: &[String], index: usize) -> u64 {
    fields
        .get(index)
        .and_then(|field| field.parse().ok())
        .unwrap_or(0)
}

fn children(parent: u32) -> Result<Vec<u32>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let fields = stat(pid).unwrap_or_default();
        if number(&fields, PARENT) == u64::from(parent) {
            found.push(pid);
        }
    }
    Ok(found)
}

fn send(pid: u32, signal: Signal) -> Result<()> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    kill_process(pid.context("no such process")?, signal)?;
    Ok(())
}

fn copy(reader: PipeReader, mut log: fs::File, ready: &str, seen: &Sender<()>) {
    let mut lines = BufReader::new(reader);
    let mut line = Vec::new();
    while matches!(lines.read_until(b'\n', &mut line), Ok(read) if read > 0) {
        // A full disk is the business of a test; the end of the output must be seen all the same.
        log.write_all(&line).ok();
        if String::from_utf8_lossy(&line).contains(ready) {
            // Nobody waits after the first time.
            seen.send(()).ok();
        }
        line.clear();
    }
}
