//! Handing a request over to the process that has the profile open.
//!
//! `commucat listen` owns the profile; it answers on a Unix socket in the profile directory (0600),
//! one JSON line a request. So `commucat send` works while it runs, and nothing is opened twice.

use std::path::{Path, PathBuf};
use std::time::Duration;

use commucat_client::Client;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::args::Request;
use crate::ask;
use crate::report::Failure;

/// Name of the socket in the profile directory.
const SOCKET: &str = "control.sock";
/// A request or answer is at most this long.
const LINE_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// Requests that are answered at the same time; more wait.
const PARALLEL_MAX: usize = 32;

#[derive(Deserialize, Serialize)]
struct Question {
    request: Request,
    timeout_ms: u64,
}

#[derive(Deserialize, Serialize)]
enum Answer {
    Done(Value),
    Failed(Failure),
}

/// Answers requests until `stop`; removes the socket at the end.
pub(crate) struct Door {
    path: PathBuf,
}

impl Door {
    /// Opens the socket. The caller owns the profile, so a socket that is there is a dead one.
    pub(crate) fn open(
        profile: &Path,
        client: Client,
        tracker: &TaskTracker,
        stop: CancellationToken,
    ) -> std::io::Result<Self> {
        let path = profile.join(SOCKET);
        remove(&path);
        let listener = UnixListener::bind(&path)?;
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
        let inner = tracker.clone();
        tracker.spawn(async move {
            let limit = std::sync::Arc::new(tokio::sync::Semaphore::new(PARALLEL_MAX));
            loop {
                let Ok(permit) = std::sync::Arc::clone(&limit).acquire_owned().await else {
                    return;
                };
                let stream = tokio::select! {
                    () = stop.cancelled() => return,
                    accepted = listener.accept() => match accepted {
                        Ok((stream, _)) => stream,
                        Err(_) => continue,
                    },
                };
                let (client, stop) = (client.clone(), stop.clone());
                inner.spawn(async move {
                    tokio::select! {
                        () = stop.cancelled() => {}
                        // A caller that went away needs no answer.
                        result = serve(stream, &client) => drop(result),
                    }
                    drop(permit);
                });
            }
        });
        Ok(Self { path })
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        remove(&self.path);
    }
}

fn remove(path: &Path) {
    // Not there is what we want.
    drop(std::fs::remove_file(path));
}

async fn serve(stream: UnixStream, client: &Client) -> std::io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    BufReader::new(read.take(LINE_BYTES_MAX))
        .read_line(&mut line)
        .await?;
    let Question {
        request,
        timeout_ms,
    } = serde_json::from_str(&line)?;
    let answer = match ask::answer(client, request, Duration::from_millis(timeout_ms)).await {
        Ok(value) => Answer::Done(value),
        Err(failure) => Answer::Failed(failure),
    };
    let mut text = serde_json::to_vec(&answer)?;
    text.push(b'\n');
    write.write_all(&text).await
}

/// Asks the process that has the profile open; `None` if nobody answers there.
pub(crate) async fn ask(
    profile: &Path,
    request: &Request,
    timeout: Duration,
) -> Option<Result<Value, Failure>> {
    let stream = UnixStream::connect(profile.join(SOCKET)).await.ok()?;
    let (read, mut write) = stream.into_split();
    let timeout_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
    let question = Question {
        request: request.clone(),
        timeout_ms,
    };
    let mut text = serde_json::to_vec(&question).ok()?;
    text.push(b'\n');
    write.write_all(&text).await.ok()?;
    let mut line = String::new();
    BufReader::new(read.take(LINE_BYTES_MAX))
        .read_line(&mut line)
        .await
        .ok()?;
    match serde_json::from_str(&line).ok()? {
        Answer::Done(value) => Some(Ok(value)),
        Answer::Failed(failure) => Some(Err(failure)),
    }
}
