//! A device that speaks CCP-1: TLS, HTTP/2, Noise, frames; one task drives all of it.

pub(crate) mod connect;
pub(crate) mod group;

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use anyhow::{Context as _, Result, bail, ensure};
use bytes::{BufMut as _, Bytes, BytesMut};
use commucat_crypto::tunnel::{Opener, Sealer};
use commucat_proto::decoder::{Decoder, Incoming};
use commucat_proto::encoder;
use commucat_proto::frame::ack::{AckDown, AckUp, CustodyStatus};
use commucat_proto::frame::error::Problem;
use commucat_proto::frame::{Frame, FrameType, Header};
use commucat_proto::id::{Domain, GroupId, MessageId};
use commucat_proto::wire::{Cbor, varint};

use crate::socket::Tls;
use crate::tally::{STAMP_BYTES, Stamp};
use crate::wire::{Inbox, Wire};

/// The channel that a device's one group is bound to.
pub(crate) const CHANNEL: u32 = 1;
/// Position of the one commit that put everybody into the group.
const POSITION: u64 = 1;

/// The HTTP/2 stream, with its connection: driven by whoever waits on it, without a task of its own.
pub(crate) struct Stream {
    connection: h2::client::Connection<Tls, Bytes>,
    /// Held, for h2 closes a connection that nobody can open a stream on.
    _requests: h2::client::SendRequest<Bytes>,
    sending: h2::SendStream<Bytes>,
    receiving: h2::RecvStream,
}

impl Stream {
    /// Moves the connection on; whether it is over.
    fn drive(&mut self, cx: &mut Context<'_>) -> bool {
        Pin::new(&mut self.connection).poll(cx).is_ready()
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>>> {
        let over = self.drive(cx);
        match self.receiving.poll_data(cx) {
            Poll::Ready(Some(chunk)) => {
                let chunk = chunk?;
                let credit = self.receiving.flow_control();
                credit.release_capacity(chunk.len())?;
                Poll::Ready(Ok(Some(chunk)))
            }
            Poll::Ready(None) => Poll::Ready(Ok(None)),
            Poll::Pending if over => Poll::Ready(Ok(None)),
            Poll::Pending => Poll::Pending,
        }
    }

    async fn read(&mut self) -> Result<Option<Bytes>> {
        poll_fn(|cx| self.poll_read(cx)).await
    }

    async fn write(&mut self, mut bytes: Bytes) -> Result<()> {
        while !bytes.is_empty() {
            self.sending.reserve_capacity(bytes.len());
            let granted = poll_fn(|cx| match self.sending.poll_capacity(cx) {
                Poll::Pending if self.drive(cx) => Poll::Ready(None),
                other => other,
            });
            let granted = granted.await.context("the stream is over")??;
            let part = bytes.split_to(granted.min(bytes.len()));
            self.sending.send_data(part, false)?;
        }
        // Hands it to the socket.
        poll_fn(|cx| Poll::Ready(self.drive(cx))).await;
        Ok(())
    }
}

/// A device in its tunnel.
pub(crate) struct Device {
    /// Its server's domain.
    domain: Domain,
    stream: Stream,
    sealer: Sealer,
    opener: Opener,
    decoder: Decoder,
    next: u32,
    confirmed: u32,
    /// Frames that wait for [`Wire::flush`].
    plain: BytesMut,
    /// A message's payload, whose stamp and name are written anew for each.
    template: BytesMut,
    /// Makes names of messages differ between runs.
    salt: u64,
}

impl Device {
    /// Sets the size of the messages that this device will send.
    pub(crate) fn set_payload(&mut self, ciphertext: usize) {
        self.template.clear();
        varint::write(POSITION, &mut self.template);
        self.template.put_bytes(0, MessageId::LEN);
        self.template.put_bytes(0xa5, ciphertext);
    }

    fn numbered(&mut self) -> u32 {
        let number = self.next;
        self.next += 1;
        number
    }

    /// Sends a request and waits for its result. What else comes is not looked at.
    pub(crate) async fn request(
        &mut self,
        kind: FrameType,
        channel: u32,
        value: &impl Cbor,
    ) -> Result<Bytes> {
        let sequence = self.numbered();
        let header = Header {
            kind,
            channel,
            sequence,
        };
        encoder::cbor(header, value, &mut self.plain);
        self.flush().await?;
        loop {
            let frame = self.frame().await?;
            match frame.header.kind {
                FrameType::Ack => {
                    let ack = AckDown::decode_shared(&frame.payload)?;
                    if let Some(answer) = ack.answer
                        && answer.request == sequence
                    {
                        return Ok(answer.result);
                    }
                }
                FrameType::Error => {
                    let problem = Problem::decode_shared(&frame.payload)?;
                    bail!("{} is answered by {:?}", kind.name(), problem.title);
                }
                _ => {}
            }
        }
    }

    /// The next frame, while the device is set up.
    async fn frame(&mut self) -> Result<Frame> {
        loop {
            match self.decoder.next_frame()? {
                Some(Incoming::Frame(frame)) => return Ok(frame),
                Some(Incoming::Skipped(_)) => {}
                None => {
                    let bytes = self.stream.read().await?.context("the server closed")?;
                    self.opener.open(&bytes, self.decoder.buffer_mut())?;
                }
            }
        }
    }

    fn take(&mut self, bytes: &[u8], inbox: &mut Inbox) -> Result<()> {
        self.opener.open(bytes, self.decoder.buffer_mut())?;
        while let Some(incoming) = self.decoder.next_frame()? {
            let Incoming::Frame(frame) = incoming else {
                continue;
            };
            match frame.header.kind {
                FrameType::Msg => inbox.stamps.push(stamp_of(&frame)?),
                FrameType::Ack => {
                    let ack = AckDown::decode_shared(&frame.payload)?;
                    inbox.queue_empty |= ack.queue_empty;
                    for run in ack.custody {
                        inbox.acknowledged += u64::from(run.count);
                        if run.status == CustodyStatus::Refused {
                            inbox.refused += u64::from(run.count);
                        }
                    }
                }
                FrameType::Error => {
                    let problem = Problem::decode_shared(&frame.payload)?;
                    bail!("the server says {:?}", problem.title);
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// The stamp in a MSG, past group id (on channel 0), position and name.
fn stamp_of(frame: &Frame) -> Result<Stamp> {
    let group = if frame.header.channel == 0 {
        GroupId::LEN
    } else {
        0
    };
    let stamp = frame.payload.get(group + 1 + MessageId::LEN..);
    stamp.and_then(Stamp::read).context("a message of nobody")
}

impl Wire for Device {
    async fn receive(&mut self, inbox: &mut Inbox) -> Result<bool> {
        let Some(first) = self.stream.read().await? else {
            return Ok(false);
        };
        self.take(&first, inbox)?;
        // What came with it is taken in the same turn, so that one acknowledgement covers it.
        loop {
            let more = poll_fn(|cx| Poll::Ready(self.stream.poll_read(cx))).await;
            match more {
                Poll::Ready(Ok(Some(chunk))) => self.take(&chunk, inbox)?,
                Poll::Ready(other) => return Ok(other?.is_some()),
                Poll::Pending => return Ok(true),
            }
        }
    }

    fn put(&mut self, stamp: Stamp) {
        let mut body = BytesMut::with_capacity(STAMP_BYTES);
        stamp.write(&mut body);
        let name = [self.salt.to_be_bytes(), stamp.number.to_be_bytes()].concat();
        let at = 1 + MessageId::LEN;
        for (range, bytes) in [(1..at, &name[..]), (at..at + STAMP_BYTES, &body[..])] {
            if let Some(place) = self.template.get_mut(range) {
                place.copy_from_slice(bytes);
            }
        }
        let header = Header {
            kind: FrameType::Msg,
            channel: CHANNEL,
            sequence: self.numbered(),
        };
        encoder::raw(header, &self.template, &mut self.plain);
    }

    fn confirm(&mut self) {
        let last = self.decoder.last_sequence();
        if last == self.confirmed {
            return;
        }
        self.confirmed = last;
        let ack = AckUp {
            through: Some(last),
            tags: Vec::new(),
        };
        encoder::cbor(Header::bare(FrameType::Ack), &ack, &mut self.plain);
    }

    async fn flush(&mut self) -> Result<()> {
        if self.plain.is_empty() {
            return Ok(());
        }
        let mut sealed = BytesMut::with_capacity(self.plain.len() + 64);
        self.sealer.seal_all(&self.plain, &mut sealed)?;
        self.plain.clear();
        ensure!(!sealed.is_empty(), "nothing was sealed");
        self.stream.write(sealed.freeze()).await
    }
}
