//! Halves of a carrier over HTTP bodies: HTTP/2 streams of the `h2` crate, HTTP/1.1 bodies of hyper.

use std::convert::Infallible;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{RecvStream, SendStream};
use hyper::body::{Body, Frame, Incoming};
use tokio::sync::mpsc;
use tokio_util::sync::PollSender;

use super::CarrierError;

/// Reads the DATA frames of a request.
#[derive(Debug)]
pub struct StreamReader {
    stream: RecvStream,
    /// Bytes given out and not yet released to the client's windows.
    held: usize,
}

impl StreamReader {
    pub(crate) const fn new(stream: RecvStream) -> Self {
        Self { stream, held: 0 }
    }

    pub(crate) fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Bytes>, CarrierError>> {
        self.release();
        loop {
            match ready!(self.stream.poll_data(cx)) {
                None => return Poll::Ready(Ok(None)),
                Some(Err(_)) => return Poll::Ready(Err(CarrierError::Broken)),
                Some(Ok(bytes)) if bytes.is_empty() => {}
                Some(Ok(bytes)) => {
                    self.held = bytes.len();
                    return Poll::Ready(Ok(Some(bytes)));
                }
            }
        }
    }

    fn release(&mut self) {
        let held = mem::take(&mut self.held);
        if held > 0 {
            // A stream that has ended refuses; then there is nobody to tell either.
            let _ended = self.stream.flow_control().release_capacity(held);
        }
    }
}

/// Writes the DATA frames of a response.
#[derive(Debug)]
pub struct StreamWriter {
    stream: SendStream<Bytes>,
}

impl StreamWriter {
    pub(crate) const fn new(stream: SendStream<Bytes>) -> Self {
        Self { stream }
    }

    pub(crate) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &mut Bytes,
    ) -> Poll<Result<(), CarrierError>> {
        while !bytes.is_empty() {
            self.stream.reserve_capacity(bytes.len());
            let mut capacity = self.stream.capacity();
            if capacity == 0 {
                match ready!(self.stream.poll_capacity(cx)) {
                    Some(Ok(granted)) => capacity = granted,
                    Some(Err(_)) | None => return Poll::Ready(Err(CarrierError::Broken)),
                }
            }
            let part = bytes.split_to(capacity.min(bytes.len()));
            if part.is_empty() {
                continue;
            }
            self.stream
                .send_data(part, false)
                .map_err(|_| CarrierError::Broken)?;
        }
        Poll::Ready(Ok(()))
    }

    pub(crate) fn close(mut self) {
        // Refused only when the stream is gone already.
        let _gone = self.stream.send_data(Bytes::new(), true);
    }
}

/// Reads an HTTP/1.1 request body.
#[derive(Debug)]
pub struct BodyReader(Incoming);

impl BodyReader {
    pub(crate) const fn new(body: Incoming) -> Self {
        Self(body)
    }

    pub(crate) fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Bytes>, CarrierError>> {
        loop {
            match ready!(Pin::new(&mut self.0).poll_frame(cx)) {
                None => return Poll::Ready(Ok(None)),
                Some(Err(_)) => return Poll::Ready(Err(CarrierError::Broken)),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(bytes) if !bytes.is_empty() => return Poll::Ready(Ok(Some(bytes))),
                    // Trailers and empty chunks say nothing.
                    Ok(_) | Err(_) => {}
                },
            }
        }
    }
}

/// Writes an HTTP/1.1 response body; hyper reads the other end, a [`BodyOut`].
#[derive(Debug)]
pub struct BodyWriter(PollSender<Bytes>);

impl BodyWriter {
    /// Makes the writer and the response body that it feeds. One chunk waits at most: hyper's own
    /// buffer stands behind it.
    pub(crate) fn new() -> (Self, BodyOut) {
        let (tx, rx) = mpsc::channel(1);
        (Self(PollSender::new(tx)), BodyOut(rx))
    }

    pub(crate) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &mut Bytes,
    ) -> Poll<Result<(), CarrierError>> {
        if bytes.is_empty() {
            return Poll::Ready(Ok(()));
        }
        ready!(self.0.poll_reserve(cx)).map_err(|_| CarrierError::Broken)?;
        Poll::Ready(
            self.0
                .send_item(mem::take(bytes))
                .map_err(|_| CarrierError::Broken),
        )
    }

    pub(crate) fn close(mut self) {
        self.0.close();
    }
}

/// The response body that a [`BodyWriter`] feeds.
#[derive(Debug)]
pub(crate) struct BodyOut(mpsc::Receiver<Bytes>);

impl Body for BodyOut {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0
            .poll_recv(cx)
            .map(|chunk| chunk.map(|bytes| Ok(Frame::data(bytes))))
    }
}
