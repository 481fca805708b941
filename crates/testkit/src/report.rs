//! What is said and kept of a run under faults.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};

use crate::checker::Verdict;
use crate::history::History;
use crate::server::Server;

/// The line of figures of a verdict.
#[must_use]
pub fn figures(verdict: &Verdict) -> String {
    format!(
        "{} sent, {} acknowledged, {} lost, {} twice, {} out of order, {} from nowhere",
        verdict.sent,
        verdict.acknowledged,
        verdict.lost.len(),
        verdict.twice.len(),
        verdict.disordered.len(),
        verdict.alien.len(),
    )
}

/// Writes history, verdict and the servers' logs into a directory of that name below the one for
/// temporary files, where they outlive the run.
///
/// # Errors
///
/// The system's.
pub fn keep<'a>(
    name: &str,
    (history, verdict): (&History, &Verdict),
    servers: impl IntoIterator<Item = &'a Server>,
) -> Result<PathBuf> {
    let kept = std::env::temp_dir().join(name);
    std::fs::create_dir_all(&kept)?;
    history.write(&kept.join("history.jsonl"))?;
    std::fs::write(kept.join("verdict"), format!("{verdict:#?}\n"))?;
    for (number, server) in servers.into_iter().enumerate() {
        let log = kept.join(format!("server-{number}.log"));
        std::fs::copy(server.stderr_file(), log)?;
    }
    Ok(kept)
}

/// A server's log must not tell of a panic.
///
/// # Errors
///
/// If it does.
pub fn no_panic(log: &Path) -> Result<()> {
    let text = std::fs::read_to_string(log)?;
    ensure!(!text.contains("panicked"), "a server panicked");
    Ok(())
}
