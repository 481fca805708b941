//! Whatever a server keeps or shows: its files and its metrics.

use std::path::{Path, PathBuf};

use anyhow::Result;
use commucat_testkit::canary::{Kind, Place};
use commucat_testkit::server::{Server, http};

/// The files and what the running server shows.
pub(crate) async fn of(server: &Server, when: &str) -> Result<Vec<Place>> {
    let mut places = files(server, when)?;
    for path in [
        "/metrics",
        "/healthz",
        "/readyz",
        "/.well-known/commucat",
        "/",
    ] {
        let reply = http::get(server, path).await?;
        places.push(Place {
            name: format!("{path} {when}"),
            kind: Kind::Other,
            bytes: [reply.head, reply.body].concat().into_bytes(),
        });
    }
    Ok(places)
}

/// Every file below the server's directory: store and its log, ledger, keys, stdout, stderr.
pub(crate) fn files(server: &Server, when: &str) -> Result<Vec<Place>> {
    let mut found = Vec::new();
    walk(server.home(), &mut found)?;
    found.sort();
    let mut places = Vec::new();
    for path in found {
        let name = path.strip_prefix(server.home()).unwrap_or(&path);
        let name = name.display().to_string();
        let kind = match name.as_str() {
            "stdout" => Kind::Terminal,
            store if store.contains("store.sqlite3") => Kind::Store,
            _ => Kind::Other,
        };
        places.push(Place {
            name: format!("{name} {when}"),
            kind,
            bytes: std::fs::read(&path)?,
        });
    }
    Ok(places)
}

fn walk(directory: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            walk(&entry.path(), found)?;
        } else if kind.is_file() {
            found.push(entry.path());
        }
    }
    Ok(())
}

/// Writes them into a directory, for somebody who wants to look.
pub(crate) fn keep(places: &[Place], directory: &Path) -> Result<()> {
    std::fs::create_dir_all(directory)?;
    for place in places {
        let name = place.name.replace(['/', ' '], "_");
        std::fs::write(directory.join(name), &place.bytes)?;
    }
    Ok(())
}
