//! A carrier during the handshake: frames in clear, both ways.

use bytes::{Bytes, BytesMut};
use commucat_proto::decoder::{DecodeError, Decoder, Incoming};
use commucat_proto::encoder;
use commucat_proto::frame::error::Problem;
use commucat_proto::frame::{Direction, Frame, FrameType, Header};

use crate::carrier::{CarrierError, CarrierReader, CarrierWriter};

/// Why no frame came.
#[derive(Debug, thiserror::Error)]
pub(super) enum WireError {
    /// The client went away.
    #[error("the stream ended")]
    Ended,
    /// The carrier broke.
    #[error(transparent)]
    Carrier(#[from] CarrierError),
    /// Bytes that are no frame of a handshake.
    #[error(transparent)]
    Decode(#[from] DecodeError),
}

/// The two halves and what was read beyond the last frame.
pub(super) struct Wire {
    pub(super) reader: CarrierReader,
    pub(super) writer: CarrierWriter,
    decoder: Decoder,
    /// Whether the client takes every further byte for a part of a sealed record.
    sealed: bool,
}

impl Wire {
    pub(super) fn new(reader: CarrierReader, writer: CarrierWriter) -> Self {
        Self {
            reader,
            writer,
            decoder: Decoder::clear(Direction::Up),
            sealed: false,
        }
    }

    /// From here on the client expects sealed records only.
    pub(super) const fn expects_records(&mut self) {
        self.sealed = true;
    }

    /// Whether an ERROR in clear would be understood.
    pub(super) const fn is_clear(&self) -> bool {
        !self.sealed
    }

    /// The next frame in clear.
    pub(super) async fn frame(&mut self) -> Result<Frame, WireError> {
        loop {
            match self.decoder.next_frame()? {
                Some(Incoming::Frame(frame)) => return Ok(frame),
                Some(Incoming::Skipped(_)) => {}
                None => {
                    let chunk = self.reader.next().await?.ok_or(WireError::Ended)?;
                    self.decoder.push(&chunk);
                }
            }
        }
    }

    /// The bytes behind the last frame: the beginning of the tunnel.
    pub(super) fn take_rest(&mut self) -> BytesMut {
        let decoder = std::mem::replace(&mut self.decoder, Decoder::clear(Direction::Up));
        decoder.into_rest()
    }

    /// Writes one frame in clear.
    pub(super) async fn send(
        &mut self,
        header: Header,
        payload: &[u8],
    ) -> Result<(), CarrierError> {
        let mut out = BytesMut::new();
        encoder::raw(header, payload, &mut out);
        self.write(out.freeze()).await
    }

    /// Writes bytes as they are.
    pub(super) async fn write(&mut self, bytes: Bytes) -> Result<(), CarrierError> {
        self.writer.write(bytes).await?;
        self.writer.flush().await
    }

    /// Writes an ERROR in clear. That it cannot be written any more changes nothing.
    pub(super) async fn say_problem(&mut self, problem: &Problem) {
        let header = Header::bare(FrameType::Error);
        if self.send(header, &problem.to_json()).await.is_err() {
            tracing::trace!("the client did not wait for the error");
        }
    }
}
