//! Whatever a server keeps or shows: its files and its metrics.

use std::path::{Path, PathBuf};

use anyhow::Result;
use commucat_testkit::canary::{Kind, Place};
use commucat_testkit::server::{Server, http};
use commucat_testkit::services::{Database, Postgres};

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
    if let Some(database) = server.database() {
        places.append(&mut cluster(database, when)?);
    }
    Ok(places)
}

/// A dump of the database, every file of its cluster with the WAL, and the cluster's log.
fn cluster(database: &Database<'static>, when: &str) -> Result<Vec<Place>> {
    let postgres = Postgres::shared()?;
    // What is in its memory goes to its files.
    postgres.sql("postgres", "CHECKPOINT")?;
    let mut places = vec![
        Place {
            name: format!("pg_dump {when}"),
            kind: Kind::Store,
            bytes: database.dump()?.into_bytes(),
        },
        Place {
            name: format!("PostgreSQL's log {when}"),
            kind: Kind::Other,
            bytes: std::fs::read(postgres.log_file())?,
        },
    ];
    let mut found = Vec::new();
    walk(&postgres.data(), &mut found)?;
    found.sort();
    for path in found {
        // A running cluster makes and removes files.
        let Ok(bytes) = std::fs::read(&path) else {
            continue;
        };
        let name = path.strip_prefix(postgres.data()).unwrap_or(&path);
        places.push(Place {
            name: format!("cluster/{} {when}", name.display()),
            kind: Kind::Store,
            bytes,
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
