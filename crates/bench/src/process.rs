//! What the system knows of a process: processor time, memory.

use std::fs;

use anyhow::{Context as _, Result};

/// Processor time of a process so far, in microseconds. Linux derives both parts from the
/// scheduler's nanoseconds and shows them in ticks of 10 ms.
pub(crate) fn cpu_us(pid: u32) -> Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).context("the server has ended")?;
    // The name, in parentheses, may hold spaces.
    let (_, rest) = stat.rsplit_once(')').context("no process name in stat")?;
    let mut fields = rest.split_ascii_whitespace().skip(11);
    let mut ticks = || -> Result<u64> { Ok(fields.next().context("stat ends")?.parse()?) };
    let (user, system) = (ticks()?, ticks()?);
    Ok((user + system) * TICK_US)
}

/// `USER_HZ` is 100 on every Linux.
const TICK_US: u64 = 10_000;

/// Resident memory of a process, in KiB.
pub(crate) fn resident_kib(pid: u32) -> Result<u64> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let line = rollup.lines().find_map(|line| line.strip_prefix("Rss:"));
    let value = line.and_then(|line| line.split_ascii_whitespace().next());
    Ok(value.context("no Rss")?.parse()?)
}

/// Cores that this process may use.
pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
