//! The writable memory of a process and its children, as its operator could read it.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;

use anyhow::{Context as _, Result, ensure};
use commucat_testkit::canary::{Kind, Place};

/// One region at most; what is larger is address space that nobody uses.
const REGION_MAX: u64 = 512 * 1024 * 1024;
/// Bytes read at once.
const STEP: usize = 1024 * 1024;

/// All writable regions.
pub(crate) fn of(pid: u32) -> Result<Vec<Place>> {
    let mut places = Vec::new();
    for pid in family(pid)? {
        let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
        let memory = File::open(format!("/proc/{pid}/mem"))
            .context("the proxy's memory cannot be read: needs root, or the same user")?;
        for line in maps.lines() {
            if let Some((start, end)) = writable(line) {
                places.push(Place {
                    name: format!("memory of {pid} at {start:x}"),
                    kind: Kind::Other,
                    bytes: read(&memory, start, end),
                });
            }
        }
    }
    ensure!(
        places.iter().any(|place| !place.bytes.is_empty()),
        "no memory was read"
    );
    Ok(places)
}

/// The bounds of a region if it is writable.
fn writable(line: &str) -> Option<(u64, u64)> {
    let mut words = line.split_whitespace();
    let (range, rights) = (words.next()?, words.next()?);
    let (start, end) = range.split_once('-')?;
    let start = u64::from_str_radix(start, 16).ok()?;
    let end = u64::from_str_radix(end, 16).ok()?;
    let is_small = end.checked_sub(start)? <= REGION_MAX;
    (rights.starts_with("rw") && is_small).then_some((start, end))
}

/// What of a region can be read: a page that was never touched has nothing.
fn read(memory: &File, start: u64, end: u64) -> Vec<u8> {
    let mut all = Vec::new();
    let mut at = start;
    let mut buffer = vec![0; STEP];
    while at < end {
        let left = usize::try_from(end - at).unwrap_or(STEP).min(STEP);
        let Some(part) = buffer.get_mut(..left) else {
            break;
        };
        match memory.read_at(part, at) {
            Ok(length) if length > 0 => {
                all.extend_from_slice(part.get(..length).unwrap_or_default());
                at += u64::try_from(length).unwrap_or(end);
            }
            Ok(_) | Err(_) => break,
        }
    }
    all
}

/// A process and its children.
fn family(pid: u32) -> Result<Vec<u32>> {
    let mut family = vec![pid];
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(other) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // A process that ended in between is nobody's child.
        let status = fs::read_to_string(format!("/proc/{other}/status")).unwrap_or_default();
        let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"));
        if parent.and_then(|parent| parent.trim().parse().ok()) == Some(pid) {
            family.push(other);
        }
    }
    Ok(family)
}
