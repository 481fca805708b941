//! Halves of a carrier over a WebSocket; binary messages only, their boundaries mean nothing.

use std::future::poll_fn;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::{Sink, Stream};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{Message, Role, WebSocketConfig};

use super::CarrierError;

/// Longest message; a client may cut its stream wherever it likes.
const MESSAGE_BYTES_MAX: usize = 256 * 1024;
/// Unsent bytes before the writer waits.
const WRITE_BUFFER_BYTES_MAX: usize = 128 * 1024;

type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// Both halves poll one socket; the lock is held for one poll and never across an await.
type Shared = Arc<Mutex<Socket>>;

/// Makes the halves of an upgraded connection.
pub(crate) async fn halves(upgraded: Upgraded) -> (SocketReader, SocketWriter) {
    let config = WebSocketConfig::default()
        .read_buffer_size(8 * 1024)
        .write_buffer_size(0)
        .max_write_buffer_size(WRITE_BUFFER_BYTES_MAX)
        .max_message_size(Some(MESSAGE_BYTES_MAX))
        .max_frame_size(Some(MESSAGE_BYTES_MAX));
    let io = TokioIo::new(upgraded);
    let socket = WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await;
    let shared = Arc::new(Mutex::new(socket));
    (SocketReader(Arc::clone(&shared)), SocketWriter(shared))
}

/// Reads the binary messages of a WebSocket.
#[derive(Debug)]
pub struct SocketReader(Shared);

impl SocketReader {
    pub(crate) fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Bytes>, CarrierError>> {
        let mut socket = self.0.lock();
        loop {
            match ready!(Pin::new(&mut *socket).poll_next(cx)) {
                None | Some(Ok(Message::Close(_))) => return Poll::Ready(Ok(None)),
                Some(Err(_)) => return Poll::Ready(Err(CarrierError::Broken)),
                Some(Ok(Message::Binary(bytes))) if bytes.is_empty() => {}
                Some(Ok(Message::Binary(bytes))) => return Poll::Ready(Ok(Some(bytes))),
                // The socket answers pings by itself while it is polled.
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(Message::Text(_) | Message::Frame(_))) => {
                    return Poll::Ready(Err(CarrierError::Unexpected));
                }
            }
        }
    }
}

/// Writes binary messages to a WebSocket.
#[derive(Debug)]
pub struct SocketWriter(Shared);

impl SocketWriter {
    pub(crate) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &mut Bytes,
    ) -> Poll<Result<(), CarrierError>> {
        let mut socket = self.0.lock();
        if !bytes.is_empty() {
            ready!(Pin::new(&mut *socket).poll_ready(cx)).map_err(|_| CarrierError::Broken)?;
            let message = Message::Binary(mem::take(bytes));
            Pin::new(&mut *socket)
                .start_send(message)
                .map_err(|_| CarrierError::Broken)?;
        }
        Pin::new(&mut *socket)
            .poll_flush(cx)
            .map_err(|_| CarrierError::Broken)
    }

    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), CarrierError>> {
        Pin::new(&mut *self.0.lock())
            .poll_flush(cx)
            .map_err(|_| CarrierError::Broken)
    }

    pub(crate) async fn close(self) {
        // Refused only when the socket is gone already.
        let _gone = poll_fn(|cx| Pin::new(&mut *self.0.lock()).poll_close(cx)).await;
    }
}
