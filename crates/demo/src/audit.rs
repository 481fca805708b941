//! "What do the servers know?": every stored row, and a search for what it must not know.

mod rows;
mod search;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use commucat_client::Client;

use self::search::Needles;
use crate::people::{ALICE, BOB, OPENING, People, told};
use crate::screen::Screen;
use crate::server::{Server, Servers};
use crate::{burst, story};

/// Shows every table.
pub(crate) fn show_rows(screen: &Screen, server: &Server) -> Result<u64> {
    let tables = rows::read(&server.store_file(), screen.rows_max())?;
    let mut all = 0;
    for table in &tables {
        all += table.count;
        if table.count == 0 {
            continue;
        }
        screen.say(&format!("{}: {} rows", table.name, table.count));
        screen.detail(&format!("kept: {}", table.lifetime));
        for row in &table.rows {
            screen.detail(row);
        }
        let shown = u64::try_from(table.rows.len())?;
        if table.count > shown {
            screen.detail(&format!("... and {} more like these", table.count - shown));
        }
    }
    let empty: Vec<_> = tables.iter().filter(|table| table.count == 0).collect();
    let names: Vec<_> = empty.iter().map(|table| table.name.as_str()).collect();
    screen.say(&format!("Empty: {}.", names.join(", ")));
    screen.say(&format!(
        "{all} rows: that is all. docs/data-manifest.toml says why each column exists."
    ));
    Ok(all)
}

/// Searches all files of both servers for what they must not know.
pub(crate) async fn search(screen: &Screen, servers: &Servers, people: &People) -> Result<usize> {
    let mut files = files_below(servers.alice.home())?;
    files.extend(files_below(servers.bob.home())?);
    let mut texts: Vec<_> = (0..burst::MESSAGES).map(burst::text).collect();
    texts.extend([OPENING, story::WHILE_OFF, story::WAITING].map(str::to_owned));
    let names = [ALICE, BOB].map(str::to_owned).to_vec();
    let mut addresses = vec!["127.0.0.1".to_owned()];
    for client in [&people.alice, &people.phone] {
        let me = client.me().await.map_err(told)?;
        addresses.push(format!("{}@{}", me.account.as_str(), me.domain));
    }
    let mut hits = 0;
    let mut bytes = 0;
    let wanted = [
        ("texts", &texts),
        ("names", &names),
        ("addresses", &addresses),
    ];
    let mut found = [0; 3];
    let control = Needles::new(&[known(&people.alice).await?])?;
    let mut proof = 0;
    let needles = wanted.map(|(_, words)| Needles::new(words));
    for file in &files {
        let content = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        bytes += content.len();
        proof += control.count(&content);
        for (needles, found) in needles.iter().zip(&mut found) {
            *found += needles
                .as_ref()
                .map_or(0, |needles| needles.count(&content));
        }
    }
    for ((what, words), found) in wanted.iter().zip(found) {
        hits += found;
        let text = format!("{} {what} searched, {found} found", words.len());
        screen.result(found == 0, &text);
    }
    screen.detail(&format!(
        "in {} files, {} KiB: as they are, in hex and in base64; database, logs, keys, ledger.",
        files.len(),
        bytes / 1024
    ));
    screen.detail("\"hi\" was left out: two letters are found in any random bytes.");
    ensure!(proof > 0, "the search does not find what is there");
    screen.detail(&format!(
        "That the search can find things: Alice's device id, which her server must know, {proof} times."
    ));
    Ok(hits)
}

/// Something that the server must know.
async fn known(client: &Client) -> Result<String> {
    let me = client.me().await.map_err(told)?;
    Ok(me.device.as_str().to_owned())
}

fn files_below(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut directories = vec![directory.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                directories.push(entry.path());
            } else if kind.is_file() {
                files.push(entry.path());
            }
        }
    }
    Ok(files)
}
