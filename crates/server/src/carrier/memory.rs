//! Halves of a carrier that join two tasks of one process.

use std::mem;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_util::sync::PollSender;

use super::CarrierError;

/// Chunks that wait before the writer does.
const CHUNKS_MAX: usize = 16;

/// Makes one direction.
pub(crate) fn half() -> (MemoryWriter, MemoryReader) {
    let (tx, rx) = mpsc::channel(CHUNKS_MAX);
    (MemoryWriter(PollSender::new(tx)), MemoryReader(rx))
}

/// Reads what the other task wrote.
#[derive(Debug)]
pub struct MemoryReader(mpsc::Receiver<Bytes>);

impl MemoryReader {
    pub(crate) fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Bytes>, CarrierError>> {
        self.0.poll_recv(cx).map(Ok)
    }
}

/// Writes for the other task.
#[derive(Debug)]
pub struct MemoryWriter(PollSender<Bytes>);

impl MemoryWriter {
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
