//! An embedded store copied to PostgreSQL, killed half-way and gone on with; a server on the copy.

use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use commucat_services::Postgres;
use commucat_testkit::server::{Options, Server};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};

use crate::restore::{cli, refused};
use crate::story::{Story, judge, texts};

/// Runs it; a line of figures.
pub(crate) async fn run(messages: u64) -> Result<String> {
    let mut server = Server::start(Options::default().for_load()).await?;
    let directory = tempfile::tempdir()?;
    let story = Story::begin(&server, directory.path()).await?;
    story.say("before", messages).await?;
    story.acknowledged().await?;
    story.bob_shows(&format!("before {messages}")).await?;

    let making = tokio::task::spawn_blocking(|| Postgres::shared()?.database());
    let database = making.await??;
    let copied = copy(&mut server, &database.url()).await?;
    server.restart().await?;
    story.say("later", messages).await?;
    story.acknowledged().await?;
    let last = format!("later {messages}");
    story.bob_shows(&last).await?;
    let (_, carols) = story.carol_returns(&last).await?;
    let all = [("before", messages), ("later", messages)];
    judge("carol", &carols, &all)?;
    judge("bob", &texts(&story.bob, &story.room).await?, &all)?;
    Ok(format!(
        "copy: {copied}; {} messages that waited delivered, 0 lost, 0 twice",
        carols.len()
    ))
}

/// Copies the store, killed once, and names the database to the server; what was copied.
async fn copy(server: &mut Server, url: &str) -> Result<String> {
    let from = format!("sqlite:{}", server.data().display());
    let args = ["store", "copy", "--from", &from, "--to", url];
    refused(server, &args, "another process has the store open").await?;
    server.terminate().await?;
    let interrupted = interrupt(server, &args).await?;
    server.set("storage.url", url);
    if !interrupted {
        return Ok("it was done before it could be killed".to_owned());
    }
    let started = server.restart().await;
    ensure!(started.is_err(), "a server started on half a copy");
    let log = std::fs::read_to_string(server.stderr_file())?;
    ensure!(log.contains("not complete"), "the server does not say why");
    let done = cli(server, &args).await?;
    let rows = |name: &str| done.get(name).and_then(Value::as_u64).context("no count");
    Ok(format!(
        "{} rows, killed once, {} of them copied before",
        rows("rows")?,
        rows("resumed")?
    ))
}

/// Kills the copy when it has written something; `false` if it was done by then.
async fn interrupt(server: &Server, copy: &[&str]) -> Result<bool> {
    let mut child = server
        .cli_command(copy)?
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    let said = child.stderr.take().context("no stderr")?;
    let first = BufReader::new(said).lines().next_line().await?;
    ensure!(
        first.as_ref().is_some_and(|line| line.contains(" rows")),
        "the copy says {first:?}"
    );
    child.start_kill()?;
    Ok(!child.wait().await?.success())
}
