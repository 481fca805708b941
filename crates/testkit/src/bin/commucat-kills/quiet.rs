//! Both ends online: messages are acknowledged by their recipients and touch no disk.

use anyhow::{Context as _, Result, ensure};
use commucat_client::{Client, Event, Tick};
use commucat_testkit::people::{Circle, Room, told};
use commucat_testkit::server::metrics::Metrics;
use commucat_testkit::server::{Backend, Options, Server};
use tokio::time::timeout;

use crate::grouped;

/// Messages under way at once in each direction.
const WINDOW: u64 = 16;

/// Sends so many messages between two devices; a line of figures. System calls are counted where the
/// store is the server's own file.
pub(crate) async fn run(messages: u64, backend: Backend) -> Result<String> {
    let is_own = backend == Backend::Sqlite;
    // A machine that is busy with something else may be slower than the usual 250 ms after which
    // a message goes to disk; what is shown here is that nothing else makes it go there.
    let options = Options {
        traced: is_own,
        ..Options::default()
            .for_load()
            .set("limits.ack_wait", "10s")
            .on(backend)
    };
    let server = Server::start(options).await?;
    let directory = tempfile::tempdir()?;
    let circle = Circle::gather(&server, directory.path(), &["alice", "bob"], 1).await?;
    let room = circle.pair(0, 1).await?;
    let (alice, bob) = (circle.first(0)?, circle.first(1)?);
    exchange(alice, bob, &room, 2 * WINDOW).await?;

    let before = server.metrics().await?;
    let traced = trace(&server).len();
    exchange(alice, bob, &room, messages / 2).await?;
    exchange(bob, alice, &room, messages - messages / 2).await?;
    let after = server.metrics().await?;
    let written = writes(&server, traced)?;

    // That the tracer sees writes at all: an invite is one.
    server.invite(1).await?;
    let control = writes(&server, traced)?;
    let commits = grown(&before, &after, "commucat_store_commits_total", "");
    let rows = grown(&before, &after, "commucat_store_rows_total", "");
    let acknowledged = grown(
        &before,
        &after,
        "commucat_acks_total",
        "status=\"delivered\"",
    );
    ensure!(
        !is_own || control > written,
        "the tracer does not see an invite being stored"
    );
    let line = format!(
        "quiet disk: {} messages, {} acknowledged by their recipients, {commits} commits, {rows} \
         rows, {written} system calls on the store",
        grouped(usize::try_from(messages)?),
        grouped(usize::try_from(acknowledged)?),
    );
    ensure!(
        acknowledged >= messages && commits == 0 && rows == 0 && written == 0,
        "{line}\nwhat changed:\n{}",
        after.changes_since(&before)
    );
    Ok(line)
}

fn grown(before: &Metrics, after: &Metrics, name: &str, label: &str) -> u64 {
    after
        .sum(name, label)
        .saturating_sub(before.sum(name, label))
}

/// Empty if nothing is traced; the control notices if it should be.
fn trace(server: &Server) -> String {
    std::fs::read_to_string(server.trace_file()).unwrap_or_default()
}

/// System calls on files of the data directory, and syncs of whatever file, after `from` bytes of
/// the trace.
fn writes(server: &Server, from: usize) -> Result<usize> {
    let trace = trace(server);
    let new = trace.get(from..).context("the trace became shorter")?;
    let data = server.data();
    let data = data.to_str().context("the path is no text")?;
    let on_disk = new
        .lines()
        .filter(|line| line.contains(data) || line.contains("sync"));
    Ok(on_disk.count())
}

/// Sends and waits until the author knows of every message that the recipient has it.
async fn exchange(from: &Client, to: &Client, room: &Room, messages: u64) -> Result<()> {
    let (mut events, mut arrivals) = (from.subscribe(), to.subscribe());
    let (mut sent, mut delivered, mut shown) = (0, 0, 0);
    while delivered < messages || shown < messages {
        while sent < messages && sent < delivered.min(shown) + WINDOW {
            from.send(&room.name, "quiet").await.map_err(told)?;
            sent += 1;
        }
        let event = async {
            tokio::select! {
                event = events.next() => event.map(|event| (true, event)),
                event = arrivals.next() => event.map(|event| (false, event)),
            }
        };
        let event = timeout(commucat_testkit::traffic::STILL_WAIT, event).await;
        match event
            .context("messages do not arrive")?
            .context("a client has stopped")?
        {
            (
                true,
                Event::Tick {
                    tick: Tick::Delivered,
                    ..
                },
            ) => delivered += 1,
            (false, Event::Message(message)) if !message.own => shown += 1,
            _ => {}
        }
    }
    Ok(())
}
