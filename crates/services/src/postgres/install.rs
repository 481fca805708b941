//! Where PostgreSQL's programs are: distributions keep the server's away from PATH.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// Directories with a subdirectory per version, each with a `bin`.
const ROOTS: [&str; 2] = ["/usr/lib/postgresql", "/usr/local/pgsql"];

/// An installed version.
#[derive(Clone, Debug)]
pub(super) struct Install(PathBuf);

impl Install {
    /// The newest.
    pub(super) fn find() -> Result<Self> {
        let versions = ROOTS.iter().flat_map(|root| directories(Path::new(root)));
        let newest = versions
            .filter(|directory| directory.join("bin/initdb").is_file())
            .max_by_key(|directory| version(directory));
        if let Some(directory) = newest {
            return Ok(Self(directory.join("bin")));
        }
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path)
            .find(|directory| directory.join("initdb").is_file())
            .map(Self)
            .context("PostgreSQL's server is not installed (Debian: apt-get install postgresql)")
    }

    pub(super) fn path(&self, program: &str) -> PathBuf {
        self.0.join(program)
    }
}

fn directories(root: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(root) else {
        return Vec::new();
    };
    entries.flatten().map(|entry| entry.path()).collect()
}

fn version(directory: &Path) -> u32 {
    let name = directory.file_name().and_then(|name| name.to_str());
    name.and_then(|name| name.parse().ok()).unwrap_or(0)
}
