//! Whom a cluster belongs to: PostgreSQL refuses to run as root.

use std::fs;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

/// Users that a test as root becomes, by preference.
const USERS: [&str; 2] = ["postgres", "nobody"];

/// The user that runs the cluster; `None`: the one that runs the test.
#[derive(Clone, Copy, Debug)]
pub(super) struct Owner(Option<(u32, u32)>);

impl Owner {
    pub(super) fn find() -> Result<Self> {
        if !rustix::process::geteuid().is_root() {
            return Ok(Self(None));
        }
        let users = fs::read_to_string("/etc/passwd")?;
        let found = USERS.iter().find_map(|name| ids(&users, name));
        found
            .map(|ids| Self(Some(ids)))
            .context("neither user `postgres` nor `nobody` is on this machine")
    }

    /// Makes a file or directory the owner's.
    pub(super) fn give(self, path: &Path) -> Result<()> {
        if let Self(Some((user, group))) = self {
            chown(path, Some(user), Some(group))?;
        }
        Ok(())
    }

    /// Has the program run as the owner.
    pub(super) fn as_owner(self, command: &mut Command) -> &mut Command {
        if let Self(Some((user, group))) = self {
            command.gid(group).uid(user);
        }
        command
    }
}

/// User and group of a name in `/etc/passwd`.
fn ids(users: &str, name: &str) -> Option<(u32, u32)> {
    let line = users
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    let mut fields = line.split(':').skip(1);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}
