//! One stream to `/connect` over HTTP/2, carrying any bytes.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use commucat_testkit::server::{Server, http};
use h2::client::SendRequest;
use h2::{RecvStream, SendStream};
use tokio_util::task::TaskTracker;

/// Longest wait for anything that must come.
pub(crate) const WAIT: Duration = Duration::from_secs(20);

/// Streams that one connection may have.
const STREAMS: usize = 6;
const WINDOW: u32 = 1 << 20;

/// An HTTP/2 connection.
#[derive(Clone)]
pub(crate) struct Link {
    sender: SendRequest<Bytes>,
    _tasks: TaskTracker,
}

impl Link {
    pub(crate) async fn connect(server: &Server) -> Result<Self> {
        let tls = http::connect(server, b"h2").await?;
        let (sender, connection) = h2::client::Builder::new()
            .initial_window_size(WINDOW)
            .initial_connection_window_size(8 * WINDOW)
            .initial_max_send_streams(STREAMS)
            .handshake(tls)
            .await?;
        let tasks = TaskTracker::new();
        tasks.spawn(async move {
            // How it ended is seen on the streams.
            drop(connection.await);
        });
        Ok(Self {
            sender,
            _tasks: tasks,
        })
    }

    pub(crate) async fn open(&self) -> Result<Carrier> {
        let opened = async {
            let mut sender = self.sender.clone().ready().await?;
            let request = http_request()?;
            let (answer, sending) = sender.send_request(request, false)?;
            let answer = answer.await?;
            ensure!(answer.status() == 200, "status {}", answer.status());
            Ok(Carrier {
                sending,
                receiving: answer.into_body(),
            })
        };
        tokio::time::timeout(WAIT, opened)
            .await
            .context("no stream")?
    }
}

fn http_request() -> Result<::http::Request<()>> {
    Ok(::http::Request::post("https://localhost/connect")
        .header("content-type", "application/octet-stream")
        .body(())?)
}

/// A stream.
pub(crate) struct Carrier {
    sending: SendStream<Bytes>,
    receiving: RecvStream,
}

impl Carrier {
    /// Sends bytes; `false` if the other side does not take them any more.
    pub(crate) async fn write(&mut self, bytes: &[u8]) -> bool {
        let mut rest = Bytes::copy_from_slice(bytes);
        while !rest.is_empty() {
            self.sending.reserve_capacity(rest.len());
            let granted = std::future::poll_fn(|cx| self.sending.poll_capacity(cx));
            let Ok(Some(Ok(granted))) = tokio::time::timeout(WAIT, granted).await else {
                return false;
            };
            let part = rest.split_to(granted.min(rest.len()));
            if self.sending.send_data(part, false).is_err() {
                return false;
            }
        }
        true
    }

    /// The next bytes; `None` at the end of the stream, however it came.
    pub(crate) async fn read(&mut self) -> Option<Bytes> {
        loop {
            let chunk = self.receiving.data().await?.ok()?;
            let credit = self.receiving.flow_control();
            if credit.release_capacity(chunk.len()).is_err() {
                return None;
            }
            if !chunk.is_empty() {
                return Some(chunk);
            }
        }
    }

    /// Ends our direction.
    pub(crate) fn end(&mut self) {
        // If the stream is over, it is.
        drop(self.sending.send_data(Bytes::new(), true));
    }

    /// Breaks the stream off.
    pub(crate) fn reset(&mut self) {
        self.sending.send_reset(h2::Reason::CANCEL);
    }
}
