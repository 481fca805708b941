//! A device on bare TLS, for the peers that are not CommuCat.

use anyhow::Result;
use bytes::BytesMut;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::socket::Tls;
use crate::tally::{STAMP_BYTES, Stamp};
use crate::wire::{Inbox, Wire};

/// How messages stand in the stream.
pub(crate) trait Codec: Send {
    fn put(&mut self, stamp: Stamp, filler: &[u8], out: &mut BytesMut);

    /// Takes the next message; `None` if more bytes are needed.
    fn take(&mut self, input: &mut BytesMut) -> Result<Option<Stamp>>;
}

pub(crate) struct Plain<C> {
    tls: Tls,
    codec: C,
    filler: Vec<u8>,
    input: BytesMut,
    output: BytesMut,
}

impl<C: Codec> Plain<C> {
    pub(crate) fn new(tls: Tls, codec: C, payload: usize) -> Self {
        Self {
            tls,
            codec,
            filler: vec![0xa5; payload.saturating_sub(STAMP_BYTES)],
            input: BytesMut::new(),
            output: BytesMut::new(),
        }
    }
}

const READ_BYTES: usize = 16 * 1024;

impl<C: Codec> Wire for Plain<C> {
    async fn receive(&mut self, inbox: &mut Inbox) -> Result<bool> {
        self.input.reserve(READ_BYTES);
        if self.tls.read_buf(&mut self.input).await? == 0 {
            return Ok(false);
        }
        while let Some(stamp) = self.codec.take(&mut self.input)? {
            inbox.stamps.push(stamp);
        }
        Ok(true)
    }

    fn put(&mut self, stamp: Stamp) {
        self.codec.put(stamp, &self.filler, &mut self.output);
    }

    fn confirm(&mut self) {}

    async fn flush(&mut self) -> Result<()> {
        if !self.output.is_empty() {
            self.tls.write_all_buf(&mut self.output).await?;
        }
        Ok(())
    }
}
