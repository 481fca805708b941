//! A stream between TLS and HTTP/2 that counts control frames.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::limit::Bucket;

/// Ends a connection that floods with PING or SETTINGS, which h2 answers without bound.
///
/// Writes are vectored: a DATA frame of 256 bytes or more goes out with its head, and what was waiting,
/// in one record and one write. To a stream that is not, h2 writes the first 1 KiB by itself. The price
/// is that each such frame is a write: a session joins what it has into one, see
/// [`CarrierWriter::write`](crate::carrier::CarrierWriter::write).
#[derive(Debug)]
pub(super) struct Guarded<S> {
    inner: S,
    frames: FrameCounter,
}

impl<S> Guarded<S> {
    pub(super) fn new(inner: S, control: Bucket) -> Self {
        Self {
            inner,
            frames: FrameCounter::new(control),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(cx, buf))?;
        let new = buf.filled().get(before..).unwrap_or_default();
        if self.frames.observe(new) {
            Poll::Ready(Ok(()))
        } else {
            Poll::Ready(Err(io::Error::new(FLOOD, "too many control frames")))
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// The kind of the error that ends a flood. h2 keeps the kind only; no socket gives this one.
const FLOOD: io::ErrorKind = io::ErrorKind::QuotaExceeded;

/// Whether a connection ended by too many control frames.
pub(super) fn is_flood(error: &h2::Error) -> bool {
    error.get_io().is_some_and(|inner| inner.kind() == FLOOD)
}

/// Bytes of the client's connection preface.
const PREFACE_BYTES: usize = 24;
/// Bytes of a frame's header.
const HEADER_BYTES: u8 = 9;

/// Walks over the frames of a client without keeping them.
#[derive(Debug)]
struct FrameCounter {
    /// Bytes to pass over: the preface, then payloads.
    skip: usize,
    /// Bytes of the header that have come.
    header: u8,
    length: u32,
    control: Bucket,
}

impl FrameCounter {
    fn new(control: Bucket) -> Self {
        Self {
            skip: PREFACE_BYTES,
            header: 0,
            length: 0,
            control,
        }
    }

    /// Takes bytes as they come; false when the client sent too many control frames.
    fn observe(&mut self, mut bytes: &[u8]) -> bool {
        loop {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = bytes.get(skipped..).unwrap_or_default();
            let Some((byte, rest)) = bytes.split_first() else {
                return true;
            };
            bytes = rest;
            if self.header < 3 {
                self.length = (self.length << 8) | u32::from(*byte);
            } else if self.header == 3 && !self.take(*byte) {
                return false;
            }
            self.header += 1;
            if self.header == HEADER_BYTES {
                self.skip = usize::try_from(self.length).unwrap_or(usize::MAX);
                (self.header, self.length) = (0, 0);
            }
        }
    }

    fn take(&mut self, kind: u8) -> bool {
        // RFC 9113 section 6. DATA, HEADERS, RST_STREAM, PUSH_PROMISE, CONTINUATION are bounded by
        // h2; WINDOW_UPDATE comes with every chunk that an honest client reads, and GOAWAY once.
        // That leaves PRIORITY, SETTINGS, PING, and types that nobody knows.
        match kind {
            0 | 1 | 3 | 5 | 7 | 8 | 9 => true,
            _ => self.control.take(1, Instant::now()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counter(burst: u32) -> FrameCounter {
        FrameCounter::new(Bucket::new(0, burst, Instant::now()))
    }

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let length = u8::try_from(payload.len()).unwrap();
        let mut bytes = vec![0, 0, length, kind, 0, 0, 0, 0, 0];
        bytes.extend_from_slice(payload);
        bytes
    }

    #[test]
    fn pings_are_counted_however_the_bytes_are_cut() {
        let mut bytes = vec![b'x'; PREFACE_BYTES];
        for _ in 0..3 {
            bytes.extend(frame(0, &[6; 40]));
            bytes.extend(frame(6, &[0; 8]));
        }

        for step in [1, 2, 7, 1000] {
            let mut counter = counter(2);
            let seen: Vec<bool> = bytes
                .chunks(step)
                .map(|part| counter.observe(part))
                .collect();

            assert_eq!(seen.iter().filter(|good| !**good).count(), 1, "step {step}");
            assert_eq!(
                seen.last(),
                Some(&false).filter(|_| step == 1000).or(seen.last())
            );
        }
    }

    #[test]
    fn data_and_window_updates_are_free() {
        let mut counter = counter(1);
        let mut bytes = vec![0; PREFACE_BYTES];
        for _ in 0..1000 {
            bytes.extend(frame(0, b"6666"));
            bytes.extend(frame(8, &[0, 0, 0, 1]));
        }

        assert!(counter.observe(&bytes));
    }
}
