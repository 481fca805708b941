//! Runs cases, and looks after each whether anything else was touched.

use std::io::{Read as _, Seek as _, SeekFrom};

use anyhow::Result;
use commucat_testkit::program::say;

use crate::client::Got;
use crate::world::World;

/// Growth of the server's memory, over what it had before, that no single case may cause.
const GROWTH_KIB: u64 = 96 * 1024;

/// The count so far.
pub(crate) struct Suite {
    pub(crate) world: World,
    cases: u64,
    failed: u64,
    panics: u64,
    effects: u64,
    log_read: u64,
    verbose: bool,
    memory: u64,
}

impl Suite {
    pub(crate) fn new(world: World, verbose: bool) -> Self {
        Self {
            world,
            cases: 0,
            failed: 0,
            panics: 0,
            effects: 0,
            log_read: 0,
            verbose,
            memory: 0,
        }
    }

    /// Cases so far.
    pub(crate) const fn count(&self) -> u64 {
        self.cases
    }

    /// Judges a case by what it came to.
    pub(crate) async fn judge(
        &mut self,
        name: &str,
        wanted: &[Got],
        got: Result<Got>,
    ) -> Result<()> {
        let outcome = match got {
            Ok(got) if wanted.contains(&got) => Ok(()),
            Ok(got) => Err(format!("{got:?} instead of {wanted:?}")),
            Err(error) => Err(format!("{error:#}")),
        };
        self.record(name, outcome).await
    }

    /// Notes a case, then looks at the server and at the honest pair. An error ends the suite: without
    /// server or honest pair no further case says anything.
    pub(crate) async fn record(&mut self, name: &str, outcome: Result<(), String>) -> Result<()> {
        self.cases += 1;
        match outcome {
            Ok(()) if self.verbose => say(&format!("ok    {name}")),
            Ok(()) => {}
            Err(why) => {
                self.failed += 1;
                say(&format!("FAIL  {name}: {why}"));
            }
        }
        let panics = self.new_panics()?;
        if panics > 0 {
            self.panics += panics;
            say(&format!("PANIC {name}"));
        }
        if !self.world.server.is_running() {
            self.panics += 1;
            anyhow::bail!("{name}: the server has ended");
        }
        let memory = self.memory_kib()?;
        if self.memory > 0 && memory > self.memory + GROWTH_KIB {
            self.failed += 1;
            say(&format!(
                "FAIL  {name}: memory went from {} to {memory} KiB",
                self.memory
            ));
        }
        self.memory = memory;
        if let Err(error) = self.world.probe().await {
            self.effects += 1;
            anyhow::bail!("{name}: {error:#}");
        }
        Ok(())
    }

    fn new_panics(&mut self) -> Result<u64> {
        let mut found = 0;
        let mut log = std::fs::File::open(self.world.server.stderr_file())?;
        log.seek(SeekFrom::Start(self.log_read))?;
        let mut text = Vec::new();
        self.log_read += log.read_to_end(&mut text)? as u64;
        for line in String::from_utf8_lossy(&text).lines() {
            if line.contains("panicked at") {
                found += 1;
                say(line);
            }
        }
        Ok(found)
    }

    /// Resident memory of the server.
    pub(crate) fn memory_kib(&self) -> Result<u64> {
        let pid = self.world.server.pid().unwrap_or_default();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let number = line.and_then(|rest| rest.split_whitespace().next());
        Ok(number.and_then(|n| n.parse().ok()).unwrap_or_default())
    }

    /// The last look, and the line of figures; whether all is well.
    pub(crate) async fn finish(mut self) -> Result<bool> {
        if !self.world.is_unchanged().await? {
            self.effects += 1;
            say("FAIL  the honest pair's groups were changed");
        }
        let status = self.world.server.terminate().await?;
        if !status.success() {
            self.failed += 1;
            say(&format!("FAIL  the server ends with {status}"));
        }
        self.panics += self.new_panics()?;
        if self.failed > 0 {
            say(&format!("{} cases failed", self.failed));
        }
        say(&format!(
            "hostile: {} cases, {} panics, {} effects on others",
            self.cases, self.panics, self.effects
        ));
        Ok(self.failed == 0 && self.panics == 0 && self.effects == 0)
    }
}
