//! A backup while messages flow; the server is killed; the backup takes the place of its store.

use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use commucat_testkit::people::{told, until};
use commucat_testkit::server::{Options, Server};
use serde_json::Value;

use crate::story::{Story, judge, texts};

/// Runs it; a line of figures.
pub(crate) async fn run(messages: u64) -> Result<String> {
    let options = Options::default().for_load().set("ledger.sink", "file");
    let mut server = Server::start(options).await?;
    let directory = tempfile::tempdir()?;
    let story = Story::begin(&server, directory.path()).await?;
    let place = server.home().join("backup");
    let bytes = back_up(&server, &story, &place, messages).await?;
    server.kill().await?;
    put_back(&server, &place).await?;
    server.restart().await?;
    let late = judge_all(&story, messages).await?;
    let log = std::fs::read_to_string(server.stderr_file())?;
    ensure!(!log.contains("panicked"), "the server panicked");
    Ok(format!(
        "restore: {} messages before, while and after a backup of {bytes} bytes; {messages} of them \
         acknowledged before it, 0 lost, 0 twice; {late} of those after it came to carol",
        3 * messages,
    ))
}

/// Talks before, while and after the backup is made; its size.
async fn back_up(server: &Server, story: &Story, place: &Path, messages: u64) -> Result<u64> {
    story.say("before", messages).await?;
    story.acknowledged().await?;
    let backup = ["backup", text(place)?];
    let (said, made) = tokio::join!(story.say("meanwhile", messages), cli(server, &backup));
    said?;
    story.say("after", messages).await?;
    story.acknowledged().await?;
    story.bob_shows(&format!("after {messages}")).await?;
    let args = ["restore", "--force", text(place)?];
    refused(server, &args, "works on this store").await?;
    let bytes = made?.pointer("/files/0/bytes").and_then(Value::as_u64);
    bytes.context("the backup says no size")
}

/// Puts the backup in the place of the store of a server that is dead.
async fn put_back(server: &Server, place: &Path) -> Result<()> {
    refused(server, &["restore", text(place)?], "there is a store").await?;
    refuse_damaged(server, place).await?;
    let restored = cli(server, &["restore", "--force", text(place)?]).await?;
    let kept = restored.get("kept").and_then(Value::as_str);
    let kept = Path::new(kept.context("nothing was kept")?).join("store.sqlite3");
    ensure!(kept.exists(), "the old store is gone");
    Ok(())
}

/// Looks at what everybody shows, and that new groups come about; how many messages carol has that
/// were sent after the backup.
async fn judge_all(story: &Story, messages: u64) -> Result<usize> {
    story.say("later", messages).await?;
    story.acknowledged().await?;
    let last = format!("later {messages}");
    story.bob_shows(&last).await?;
    let (carol, carols) = story.carol_returns(&last).await?;
    let bobs = texts(&story.bob, &story.room).await?;
    let all = ["before", "meanwhile", "after", "later"].map(|what| (what, messages));
    judge("bob", &bobs, &all)?;
    judge(
        "carol",
        &carols,
        &[("before", messages), ("later", messages)],
    )?;
    // It takes key packages of both.
    let made = story.alice.create_group("anew", &["bob", "carol"]).await;
    let group = made.map_err(told)?;
    until(&carol, "carol in the new group", async |client| {
        let all = client.conversations().await?;
        let is_there = all.iter().any(|one| one.id == group && one.ready);
        Ok(is_there.then_some(()))
    })
    .await?;
    let late = carols.iter().filter(|text| text.starts_with("after "));
    Ok(late.count())
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("the path is no text")
}

/// A byte of a copy of the backup is changed: it is refused, and the store is as it was.
async fn refuse_damaged(server: &Server, place: &Path) -> Result<()> {
    let damaged = server.home().join("damaged");
    std::fs::create_dir(&damaged)?;
    for name in ["manifest.json", "store.sqlite3", "ledger.jsonl"] {
        std::fs::copy(place.join(name), damaged.join(name))?;
    }
    let path = damaged.join("store.sqlite3");
    let mut bytes = std::fs::read(&path)?;
    let middle = bytes.len() / 2;
    if let Some(byte) = bytes.get_mut(middle) {
        *byte ^= 1;
    }
    std::fs::write(&path, bytes)?;
    let store = server.data().join("store.sqlite3");
    let before = std::fs::read(&store)?;
    let args = ["restore", "--force", text(&damaged)?];
    refused(server, &args, "not what was backed up").await?;
    ensure!(std::fs::read(&store)? == before, "the store was touched");
    Ok(())
}

/// What `commucat-cli` prints.
pub(crate) async fn cli(server: &Server, args: &[&str]) -> Result<Value> {
    let args = [&["--json"], args].concat();
    let done = server.cli(&args).await?;
    if !done.status.success() {
        bail!("{args:?}: {}", String::from_utf8_lossy(&done.stderr));
    }
    Ok(serde_json::from_slice(&done.stdout)?)
}

/// `commucat-cli` does not do it, and says why.
pub(crate) async fn refused(server: &Server, args: &[&str], why: &str) -> Result<()> {
    let done = server.cli(args).await?;
    let said = String::from_utf8_lossy(&done.stderr);
    ensure!(
        done.status.code() == Some(1) && said.contains(why),
        "{args:?} ended with {}: {said}",
        done.status
    );
    Ok(())
}
