//! Connects all the time, as clients that never heard of upgrades would.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use commucat_testkit::server::http;
use parking_lot::Mutex;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;

use crate::grouped;

/// Longest wait for an answer, on a machine that is busy with other things.
const ANSWER_WAIT: Duration = Duration::from_secs(60);
/// Failures that are told in full.
const TOLD_MAX: usize = 5;

/// What became of the connections.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    served: AtomicUsize,
    failed: Mutex<Vec<String>>,
    longest: Mutex<Duration>,
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (served, failed) = (
            self.served.load(Ordering::Relaxed),
            self.failed.lock().len(),
        );
        let longest = self.longest.lock().as_millis();
        write!(
            f,
            "{} connections served, {failed} refused, longest wait {longest} ms",
            grouped(served)
        )
    }
}

/// Connects until `lives` has ended.
///
/// # Errors
///
/// What `lives` says; or how connections failed, of which none may.
pub(crate) async fn during(
    lives: impl Future<Output = Result<()>>,
    port: u16,
    tally: &Tally,
) -> Result<()> {
    let connector = http::connector(b"http/1.1")?;
    // Two at a time, so that a connection is always about to be accepted.
    tokio::select! {
        ended = lives => ended?,
        () = probe(&connector, port, tally) => {}
        () = probe(&connector, port, tally) => {}
    }
    let failed = tally.failed.lock();
    let told: Vec<_> = failed.iter().take(TOLD_MAX).cloned().collect();
    ensure!(
        failed.is_empty(),
        "{} connections failed: {}",
        failed.len(),
        told.join("; ")
    );
    ensure!(tally.served.load(Ordering::Relaxed) > 0, "nobody connected");
    Ok(())
}

async fn probe(connector: &TlsConnector, port: u16, tally: &Tally) {
    loop {
        let begun = Instant::now();
        let asked = timeout(ANSWER_WAIT, ask(connector, port)).await;
        match asked.context("no answer").and_then(|asked| asked) {
            Ok(()) => {
                tally.served.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => tally.failed.lock().push(format!("{error:#}")),
        }
        let mut longest = tally.longest.lock();
        *longest = begun.elapsed().max(*longest);
    }
}

/// A connection of its own, and one question.
async fn ask(connector: &TlsConnector, port: u16) -> Result<()> {
    let tcp = TcpStream::connect(("127.0.0.1", port))
        .await
        .context("TCP")?;
    let name = ServerName::try_from("localhost")?;
    let mut stream = connector.connect(name, tcp).await.context("TLS")?;
    let request = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    stream.write_all(request).await.context("request")?;
    let mut answer = Vec::new();
    // A server that closes without a TLS goodbye has said all the same what it had to say.
    stream.read_to_end(&mut answer).await.ok();
    ensure!(
        answer.starts_with(b"HTTP/1.1 200"),
        "answered by {} bytes",
        answer.len()
    );
    Ok(())
}
