//! A carrier: the two halves of one `/connect` stream, whatever protocol it came by.
//!
//! The shell makes one for each stream and hands it to the engine ([`Serve`]). Bytes have no
//! boundaries here: a chunk is whatever the network gave (CCP-1 section 1).

pub(crate) mod body;
pub(crate) mod memory;
pub(crate) mod websocket;

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use tracing::Span;

use self::body::{BodyReader, BodyWriter, StreamReader, StreamWriter};
use self::memory::{MemoryReader, MemoryWriter};
use self::websocket::{SocketReader, SocketWriter};

/// What the shell needs of the engine.
pub trait Serve: Send + Sync + 'static {
    /// Begins background work. Called once, on the runtime that sessions run on, before the first
    /// carrier.
    fn start(self: Arc<Self>);

    /// Serves one carrier until it ends. Dropping the future closes the carrier.
    fn serve(self: Arc<Self>, carrier: Carrier) -> impl Future<Output = ()> + Send + 'static;

    /// Ends all sessions in order (CCP-1 section 7, `Draining`); returns when all are gone. The
    /// shell waits for it as long as `server.shutdown_grace` allows.
    fn drain(self: Arc<Self>) -> impl Future<Output = ()> + Send + 'static;

    /// Whether the engine can serve: `/readyz`.
    fn is_ready(&self) -> bool;
}

/// One full-duplex stream of bytes between a client and the engine.
#[derive(Debug)]
pub struct Carrier {
    /// What the client sends.
    pub reader: CarrierReader,
    /// What the client gets.
    pub writer: CarrierWriter,
    /// From whom, as far as the engine may know.
    pub peer: PeerTag,
    /// The span that the session's events belong to.
    pub span: Span,
}

/// A keyed hash of the client's address (IPv6: its /64), for limits by address.
///
/// The key is random and dies with the process, or the one of all nodes; the address itself is kept
/// nowhere.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct PeerTag(pub(crate) u64);

impl PeerTag {
    /// A tag of its own, for carriers that have no address.
    #[must_use]
    pub const fn none() -> Self {
        Self(0)
    }
}

/// Why a carrier ended other than by the end of its stream.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum CarrierError {
    /// The client or the network broke the stream off.
    #[error("the stream was broken off")]
    Broken,
    /// The client sent what its protocol does not allow: a text message or one too large.
    #[error("the stream carried what it must not")]
    Unexpected,
}

/// The half that reads.
///
/// One enum, not a trait object: a call costs one branch.
#[derive(Debug)]
pub enum CarrierReader {
    /// HTTP/2 DATA frames of a request.
    Stream(StreamReader),
    /// An HTTP/1.1 request body, chunked.
    Body(BodyReader),
    /// Binary messages of a WebSocket.
    Socket(SocketReader),
    /// Another half in this process.
    Memory(MemoryReader),
}

impl CarrierReader {
    /// The next chunk; `None` when the client has ended its half.
    ///
    /// Asking for a chunk says that the one before is consumed: only then the client is told that
    /// it may send more. A session that asks late slows the client down (`submit_rate`).
    ///
    /// # Errors
    ///
    /// [`CarrierError`]; the carrier is of no more use.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: a chunk is never lost.
    pub async fn next(&mut self) -> Result<Option<Bytes>, CarrierError> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// [`Self::next`] for a future written by hand.
    ///
    /// # Errors
    ///
    /// As [`Self::next`].
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, CarrierError>> {
        match self {
            Self::Stream(half) => half.poll_next(cx),
            Self::Body(half) => half.poll_next(cx),
            Self::Socket(half) => half.poll_next(cx),
            Self::Memory(half) => half.poll_next(cx),
        }
    }
}

/// The half that writes.
#[derive(Debug)]
pub enum CarrierWriter {
    /// HTTP/2 DATA frames of a response.
    Stream(StreamWriter),
    /// An HTTP/1.1 response body, chunked.
    Body(BodyWriter),
    /// Binary messages of a WebSocket.
    Socket(SocketWriter),
    /// Another half in this process.
    Memory(MemoryWriter),
}

impl CarrierWriter {
    /// Hands all of `bytes` to the connection; waits while the client does not read.
    ///
    /// Over HTTP/2 one call is one DATA frame as long as the client's window and frame size allow
    /// it, so join what is ready before the call. Bounded by `limits.write_timeout` at the caller.
    ///
    /// # Errors
    ///
    /// [`CarrierError`]; some of the bytes may have gone.
    ///
    /// # Cancel safety
    ///
    /// Not cancel-safe: some of the bytes may have gone. Use [`Self::poll_write`] in a `select!`.
    pub async fn write(&mut self, mut bytes: Bytes) -> Result<(), CarrierError> {
        poll_fn(|cx| self.poll_write(cx, &mut bytes)).await
    }

    /// Hands over `bytes`, taking off its front what went; ready when nothing is left.
    ///
    /// # Errors
    ///
    /// As [`Self::write`].
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe as long as `bytes` is kept and offered again before anything else.
    pub fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &mut Bytes,
    ) -> Poll<Result<(), CarrierError>> {
        match self {
            Self::Stream(half) => half.poll_write(cx, bytes),
            Self::Body(half) => half.poll_write(cx, bytes),
            Self::Socket(half) => half.poll_write(cx, bytes),
            Self::Memory(half) => half.poll_write(cx, bytes),
        }
    }

    /// Pushes out what a layer below may hold back. HTTP bodies hold nothing back.
    ///
    /// # Errors
    ///
    /// As [`Self::write`].
    pub async fn flush(&mut self) -> Result<(), CarrierError> {
        poll_fn(|cx| self.poll_flush(cx)).await
    }

    /// [`Self::flush`] for a future written by hand.
    ///
    /// # Errors
    ///
    /// As [`Self::write`].
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), CarrierError>> {
        match self {
            Self::Socket(half) => half.poll_flush(cx),
            Self::Stream(_) | Self::Body(_) | Self::Memory(_) => Poll::Ready(Ok(())),
        }
    }

    /// Ends this half in order; what was written still arrives.
    pub async fn close(self) {
        match self {
            Self::Stream(half) => half.close(),
            Self::Body(half) => half.close(),
            Self::Socket(half) => half.close().await,
            Self::Memory(half) => half.close(),
        }
    }
}

impl Carrier {
    /// Two carriers joined in this process; each reads what the other writes. At most 16 chunks
    /// wait in a direction.
    #[must_use]
    pub fn pair() -> (Self, Self) {
        let (near_writer, far_reader) = memory::half();
        let (far_writer, near_reader) = memory::half();
        let join = |reader, writer| Self {
            reader: CarrierReader::Memory(reader),
            writer: CarrierWriter::Memory(writer),
            peer: PeerTag::none(),
            span: Span::none(),
        };
        (join(near_reader, near_writer), join(far_reader, far_writer))
    }
}
