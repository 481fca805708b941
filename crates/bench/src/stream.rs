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
    /// Whether messages are acknowledged in the stream; without, nothing below is used.
    acknowledged: bool,
    listens: bool,
    /// What came and was not acknowledged yet.
    came: u64,
}

impl<C: Codec> Plain<C> {
    pub(crate) fn new(tls: Tls, codec: C, payload: usize) -> Self {
        Self {
            tls,
            codec,
            filler: vec![0xa5; payload.saturating_sub(STAMP_BYTES)],
            input: BytesMut::new(),
            output: BytesMut::new(),
            acknowledged: false,
            listens: false,
            came: 0,
        }
    }

    /// The same, with acknowledgements: one that listens sends them, an author gets them.
    pub(crate) fn acknowledged(mut self, listens: bool) -> Self {
        (self.acknowledged, self.listens) = (true, listens);
        self
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
            if self.acknowledged && !self.listens {
                inbox.acknowledged += stamp.number;
                continue;
            }
            self.came += 1;
            inbox.stamps.push(stamp);
        }
        Ok(true)
    }

    fn put(&mut self, stamp: Stamp) {
        self.codec.put(stamp, &self.filler, &mut self.output);
    }

    fn confirm(&mut self) {
        let came = std::mem::take(&mut self.came);
        if self.acknowledged && came > 0 {
            let all = Stamp {
                sender: 0,
                number: came,
                sent_ns: 0,
            };
            self.codec.put(all, &[], &mut self.output);
        }
    }

    async fn flush(&mut self) -> Result<()> {
        if !self.output.is_empty() {
            self.tls.write_all_buf(&mut self.output).await?;
        }
        Ok(())
    }
}
