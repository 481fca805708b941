//! TLS of one connection, with buffers that are there only while something is in them.
//!
//! The usual adapter keeps 4 KiB for what may come next, in every connection and for as long as it
//! lives. Here bytes are read to the stack and opened where they lie; memory is taken for a record
//! that has not come whole, for plaintext that its reader has no room for, and for what the socket
//! does not take at once.

use std::io::{self, IoSlice};
use std::mem::{self, MaybeUninit};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, BytesMut};
use rustls::ServerConfig;
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, WriteTraffic};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

#[cfg(test)]
mod tests;

/// Bytes read at once: a whole record (RFC 8446 section 5.2).
const RECEIVED_MAX: usize = 5 + 16 * 1024 + 256;
/// Bytes of records that have not come whole. Only a message of a handshake may be larger than a
/// record, and rustls takes none above this.
const INCOMING_MAX: usize = 64 * 1024;
/// Plaintext sealed for one write.
const SEALED_MAX: usize = 64 * 1024;
/// Parts of a write that are joined before they are sealed: a frame of 16 KiB with what goes before it.
const JOINED_MAX: usize = 17 * 1024;
/// What sealing adds to a record of 16 KiB or less, with room to spare.
const OVERHEAD: usize = 64;

/// A stream inside TLS.
pub(super) struct Secure<S> {
    socket: S,
    connection: UnbufferedServerConnection,
    /// Sealed bytes that are not done with. rustls remembers places in them, so it is always shown
    /// all of them.
    incoming: BytesMut,
    /// Whether `incoming` may hold a whole record.
    holds_records: bool,
    plain: Plain,
}

/// What lies between rustls and the two ends.
#[derive(Debug, Default)]
struct Plain {
    /// Opened, and not read yet.
    opened: BytesMut,
    /// Sealed, and not taken by the socket yet.
    outgoing: BytesMut,
    /// Whether more comes.
    end: End,
    /// Whether the client was told that nothing more comes.
    closed: bool,
}

/// Whether a client sends more.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum End {
    /// It may.
    #[default]
    None,
    /// It said that it does not.
    Announced,
    /// It broke the protocol: rustls must see nothing more of it.
    Failed,
}

/// What a call of rustls came to.
enum Step<'c> {
    /// Call again.
    Again,
    /// A record was opened; so many bytes more are done with.
    Opened(usize),
    /// Everything is dealt with, and plaintext may be sealed.
    Open(WriteTraffic<'c, ServerConnectionData>),
    /// Nothing goes on before something comes.
    Waits,
}

/// Shakes hands. The caller bounds its time.
///
/// # Errors
///
/// The socket's; `InvalidData` if the client does not keep to the protocol, after it was told.
pub(super) async fn accept<S>(config: Arc<ServerConfig>, socket: S) -> io::Result<Secure<S>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut stream = Secure {
        socket,
        connection: UnbufferedServerConnection::new(config).map_err(invalid)?,
        incoming: BytesMut::new(),
        holds_records: false,
        plain: Plain::default(),
    };
    std::future::poll_fn(|cx| stream.poll_handshake(cx)).await?;
    Ok(stream)
}

impl<S> Secure<S> {
    /// What the client and this server agreed to speak (ALPN).
    pub(super) fn protocol(&self) -> Option<&[u8]> {
        self.connection.alpn_protocol()
    }

    /// Opens the records at the front of `sealed`, into `buf` as long as it has room; how many bytes
    /// are done with.
    fn open(&mut self, sealed: &mut [u8], buf: &mut ReadBuf<'_>) -> io::Result<usize> {
        let mut done = 0;
        self.holds_records = false;
        loop {
            let rest = sealed.get_mut(done..).unwrap_or_default();
            let status = self.connection.process_tls_records(rest);
            done += status.discard;
            let state = match status.state {
                Ok(state) => state,
                Err(error) => {
                    self.fail();
                    return Err(invalid(error));
                }
            };
            match self.plain.settle(state, buf)? {
                Step::Again => {}
                Step::Opened(more) => {
                    done += more;
                    if buf.remaining() == 0 {
                        self.holds_records = true;
                        return Ok(done);
                    }
                }
                Step::Open(_) | Step::Waits => return Ok(done),
            }
        }
    }

    /// After an error: takes what tells the client why, and forgets the rest. Nothing is opened any more.
    fn fail(&mut self) {
        self.plain.end = End::Failed;
        self.incoming = BytesMut::new();
        while self.connection.wants_write() {
            let status = self.connection.process_tls_records(&mut []);
            let nothing = &mut ReadBuf::new(&mut []);
            let settled = status.state.map(|state| self.plain.settle(state, nothing));
            if !matches!(settled, Ok(Ok(_))) {
                return;
            }
        }
    }

    /// Lets `seal` put something into `outgoing`, which will have `room`, if there is a tunnel.
    fn seal(
        &mut self,
        room: usize,
        mut seal: impl FnMut(
            &mut WriteTraffic<'_, ServerConnectionData>,
            &mut [u8],
        ) -> Result<usize, EncryptError>,
    ) -> io::Result<()> {
        loop {
            let status = self.connection.process_tls_records(&mut self.incoming);
            let mut done = status.discard;
            let state = match status.state {
                Ok(state) => state,
                Err(error) => {
                    self.fail();
                    return Err(invalid(error));
                }
            };
            let mut is_sealed = false;
            match self.plain.settle(state, &mut ReadBuf::new(&mut []))? {
                Step::Again => {}
                Step::Opened(more) => done += more,
                Step::Open(mut traffic) => {
                    append(&mut self.plain.outgoing, room, |room| {
                        seal(&mut traffic, room).map_err(|error| match error {
                            EncryptError::InsufficientSize(size) => Some(size.required_size),
                            EncryptError::EncryptExhausted => None,
                        })
                    })?;
                    is_sealed = true;
                }
                Step::Waits => return Err(io::ErrorKind::BrokenPipe.into()),
            }
            self.incoming.advance(done);
            if is_sealed {
                return Ok(());
            }
        }
    }
}

impl Plain {
    /// Does what rustls asks for. Plaintext goes into `buf` as far as it has room.
    fn settle<'c>(
        &mut self,
        state: ConnectionState<'c, '_, ServerConnectionData>,
        buf: &mut ReadBuf<'_>,
    ) -> io::Result<Step<'c>> {
        match state {
            ConnectionState::ReadTraffic(mut traffic) => {
                let mut done = 0;
                while let Some(record) = traffic.next_record() {
                    let record = record.map_err(|error| {
                        self.end = End::Failed;
                        invalid(error)
                    })?;
                    done += record.discard;
                    self.give(record.payload, buf);
                }
                Ok(Step::Opened(done))
            }
            ConnectionState::EncodeTlsData(mut data) => {
                append(&mut self.outgoing, 0, |room| {
                    data.encode(room).map_err(|error| match error {
                        EncodeError::InsufficientSize(size) => Some(size.required_size),
                        EncodeError::AlreadyEncoded => None,
                    })
                })?;
                Ok(Step::Again)
            }
            ConnectionState::TransmitTlsData(data) => {
                // From here on `outgoing` answers for it.
                data.done();
                Ok(Step::Again)
            }
            ConnectionState::WriteTraffic(traffic) => Ok(Step::Open(traffic)),
            ConnectionState::PeerClosed => {
                self.end = End::Announced;
                Ok(Step::Again)
            }
            ConnectionState::BlockedHandshake | ConnectionState::Closed => Ok(Step::Waits),
            // Early data is not offered.
            ConnectionState::ReadEarlyData(_) | _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    /// Hands plaintext to its reader and keeps what it has no room for.
    fn give(&mut self, payload: &[u8], buf: &mut ReadBuf<'_>) {
        let room = if self.opened.is_empty() {
            buf.remaining().min(payload.len())
        } else {
            0
        };
        let (now, later) = payload.split_at(room);
        buf.put_slice(now);
        self.opened.extend_from_slice(later);
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Secure<S> {
    fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.poll_send(cx))?;
            if !self.connection.is_handshaking() {
                return Pin::new(&mut self.socket).poll_flush(cx);
            }
            if let Err(error) = ready!(self.poll_receive(cx, &mut ReadBuf::new(&mut []))) {
                self.send_alert(cx);
                return Poll::Ready(Err(error));
            }
        }
    }

    /// Reads once from the socket and opens what is whole.
    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut space = [MaybeUninit::uninit(); RECEIVED_MAX];
        let mut came = ReadBuf::uninit(&mut space);
        ready!(Pin::new(&mut self.socket).poll_read(cx, &mut came))?;
        if came.filled().is_empty() {
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        let opened = if self.incoming.is_empty() {
            let opened = self.open(came.filled_mut(), buf);
            let done = *opened.as_ref().unwrap_or(&came.filled().len());
            let rest = came.filled().get(done..).unwrap_or_default();
            self.incoming.extend_from_slice(rest);
            opened.map(drop)
        } else if self.incoming.len() + came.filled().len() > INCOMING_MAX {
            self.fail();
            Err(io::ErrorKind::InvalidData.into())
        } else {
            self.incoming.extend_from_slice(came.filled());
            self.open_incoming(buf)
        };
        Poll::Ready(opened)
    }

    /// Opens what is whole of `incoming`.
    fn open_incoming(&mut self, buf: &mut ReadBuf<'_>) -> io::Result<()> {
        let mut incoming = mem::take(&mut self.incoming);
        let done = self.open(&mut incoming, buf)?;
        incoming.advance(done);
        if !incoming.is_empty() {
            self.incoming = incoming;
        }
        Ok(())
    }

    /// After an error: hands over what tells the client why, as far as the socket takes it now. At no other
    /// time does a reader send: it would take the place of a writer that waits for the socket.
    fn send_alert(&mut self, cx: &mut Context<'_>) {
        if self.plain.end == End::Failed {
            let _rest = self.poll_send(cx);
        }
    }

    /// Hands over what is sealed; ready when nothing is left.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outgoing = &mut self.plain.outgoing;
        while !outgoing.is_empty() {
            let sent = ready!(Pin::new(&mut self.socket).poll_write(cx, outgoing))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            outgoing.advance(sent);
        }
        *outgoing = BytesMut::new();
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Secure<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        loop {
            let opened = &mut this.plain.opened;
            if !opened.is_empty() {
                let part = opened.split_to(opened.len().min(buf.remaining()));
                buf.put_slice(&part);
                if opened.is_empty() {
                    *opened = BytesMut::new();
                }
                return Poll::Ready(Ok(()));
            }
            let opened = match this.plain.end {
                End::Failed => return Poll::Ready(Err(io::ErrorKind::InvalidData.into())),
                End::None | End::Announced if this.holds_records => this.open_incoming(buf),
                End::Announced => return Poll::Ready(Ok(())),
                End::None => ready!(this.poll_receive(cx, buf)),
            };
            if opened.is_err() {
                this.send_alert(cx);
            }
            if buf.filled().len() > before {
                // An error behind it comes with the next read.
                return Poll::Ready(Ok(()));
            }
            opened?;
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Secure<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.plain.end == End::Failed {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        // Before more is sealed the socket has to take what was.
        ready!(this.poll_send(cx))?;
        let part = bytes.get(..SEALED_MAX).unwrap_or(bytes);
        let room = part.len() + (part.len() / (16 * 1024) + 1) * OVERHEAD;
        if let Err(error) = this.seal(room, |traffic, room| traffic.encrypt(part, room)) {
            this.send_alert(cx);
            return Poll::Ready(Err(error));
        }
        match this.poll_send(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Ready(Ok(part.len())),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut filled = parts.iter().filter(|part| !part.is_empty());
        let first = filled.next().map_or(&[][..], |part| part);
        if first.len() >= JOINED_MAX {
            return self.poll_write(cx, first);
        }
        let mut space = [MaybeUninit::uninit(); JOINED_MAX];
        let mut joined = ReadBuf::uninit(&mut space);
        joined.put_slice(first);
        for part in filled {
            let fits = part.len().min(joined.remaining());
            joined.put_slice(part.get(..fits).unwrap_or_default());
        }
        self.poll_write(cx, joined.filled())
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_send(cx))?;
        Pin::new(&mut this.socket).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.plain.closed && this.plain.end != End::Failed {
            this.plain.closed = true;
            let sealed = this.seal(OVERHEAD, |traffic, room| traffic.queue_close_notify(room));
            // What came and was not looked at yet may have been broken: then an alert goes out instead.
            if this.plain.end != End::Failed {
                sealed?;
            }
        }
        ready!(this.poll_send(cx))?;
        match ready!(Pin::new(&mut this.socket).poll_shutdown(cx)) {
            // The client was faster.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Poll::Ready(Ok(())),
            ended => Poll::Ready(ended),
        }
    }
}

/// Lets `fill` write to the end of `outgoing`. It says how much it wrote, or how much room it needs, if
/// any would do.
fn append(
    outgoing: &mut BytesMut,
    mut room: usize,
    mut fill: impl FnMut(&mut [u8]) -> Result<usize, Option<usize>>,
) -> io::Result<()> {
    let start = outgoing.len();
    loop {
        outgoing.resize(start + room, 0);
        match fill(outgoing.get_mut(start..).unwrap_or_default()) {
            Ok(length) => {
                outgoing.truncate(start + length);
                return Ok(());
            }
            Err(Some(needed)) if needed > room => room = needed,
            Err(_) => {
                outgoing.truncate(start);
                return Err(io::ErrorKind::BrokenPipe.into());
            }
        }
    }
}

fn invalid(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
