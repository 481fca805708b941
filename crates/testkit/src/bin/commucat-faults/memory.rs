//! What servers have used of memory.

use anyhow::{Context as _, Result, ensure};
use commucat_testkit::server::Server;

/// More than a server of a few devices may ever have had, in MiB. It is a debug build.
const PEAK_MAX: u64 = 512;

/// The highest peak of these servers, in MiB.
pub(crate) fn peak(servers: &[Server]) -> Result<u64> {
    let mut highest = 0;
    for server in servers {
        let pid = server.pid().context("a server does not run")?;
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib: u64 = line
            .and_then(|line| line.trim().strip_suffix(" kB"))
            .context("no VmHWM")?
            .parse()?;
        highest = highest.max(kib / 1024);
    }
    ensure!(highest <= PEAK_MAX, "a server has used {highest} MiB");
    Ok(highest)
}
