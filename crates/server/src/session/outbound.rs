//! The half that writes: answers, acknowledgements, entries of the queue; as many frames in one record
//! and as many records in one write as wait.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use commucat_crypto::tunnel::{OVERHEAD, Sealer, missing_to_class, padding_payloads};
use commucat_proto::encoder;
use commucat_proto::error::Title;
use commucat_proto::frame::ack::{AckDown, CustodyRun, CustodyStatus};
use commucat_proto::frame::error::Problem;
use commucat_proto::frame::msg::Msg;
use commucat_proto::frame::{FrameType, Header};
use commucat_proto::limits::RECORD_PLAINTEXT_MAX;
use commucat_routing::ack::Range;
use commucat_routing::lane::{Delivery, Pumped};
use commucat_routing::ticket::Status;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::trace;

use super::link::{Link, Waiting};
use super::{Rules, Sessions};
use crate::carrier::CarrierWriter;
use crate::clock;
use crate::mailbox::Attached;
use crate::metrics::{Metrics, label};

/// Payload of the queue that goes into one write: a full record, so that answers never wait for more.
const CHUNK_BYTES: usize = RECORD_PLAINTEXT_MAX;

/// The most that has to leave within `limits.write_timeout`: a record and a little more.
const WRITE_BYTES: usize = 128 * 1024;

/// A buffer above this is given back when little of it is used: most sessions are idle.
const IDLE_BYTES: usize = 8 * 1024;

/// The same for entries that are handed over, some 100 bytes each.
const IDLE_SENDS: usize = 8;

/// More than the head of any frame takes, with the group that a message may name.
const HEAD_BYTES: usize = 64;

/// After the store could not be read, the queue is asked again.
const RETRY: Duration = Duration::from_secs(1);

/// The writing half.
pub(super) struct Outbound {
    rules: Arc<Rules>,
    metrics: Metrics,
    link: Link,
    attached: Arc<Attached>,
    sealer: Sealer,
    writer: CarrierWriter,
    plain: BytesMut,
    sends: Vec<Delivery>,
    written: Instant,
    retry: Option<Instant>,
}

/// Whether the queue has more to send at once.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Queue {
    Waits,
    GoesOn,
    Detached,
}

impl Outbound {
    pub(super) fn new(
        sessions: &Sessions,
        link: Link,
        attached: Arc<Attached>,
        sealer: Sealer,
        writer: CarrierWriter,
    ) -> Self {
        Self {
            rules: Arc::clone(&sessions.rules),
            metrics: sessions.metrics.clone(),
            link,
            attached,
            sealer,
            writer,
            plain: BytesMut::new(),
            sends: Vec::new(),
            written: Instant::now(),
            retry: None,
        }
    }

    /// Writes until the session ends; `true` if the client was told why.
    pub(super) async fn run(&mut self) -> bool {
        self.link.wake();
        // One timer for the whole session. It is moved when it fires, or when it would fire too late:
        // moving it with every write would cost more than the write's share of a record.
        let mut timer = Box::pin(sleep_until(self.due()));
        loop {
            let due = self.due();
            if due < timer.deadline() || timer.is_elapsed() {
                timer.as_mut().reset(due);
            }
            tokio::select! {
                biased;
                () = self.link.woken() => {}
                () = &mut timer => {}
            }
            if self.retry.is_some_and(|retry| retry <= Instant::now()) {
                self.retry = None;
            }
            match self.write_all().await {
                Some(Said::Farewell) => return true,
                Some(Said::Everything) => {}
                None => return false,
            }
            if self.keepalive() <= Instant::now() {
                encoder::padding(0, &mut self.plain);
                if self.flush().await.is_none() {
                    return false;
                }
            }
        }
    }

    /// When there is something to do, if nobody wakes it.
    fn due(&self) -> Instant {
        self.retry
            .map_or(self.keepalive(), |retry| retry.min(self.keepalive()))
    }

    fn keepalive(&self) -> Instant {
        let rules = &self.rules;
        self.written
            + if self.link.is_idle() {
                rules.keepalive_idle
            } else {
                rules.keepalive
            }
    }

    /// Ends the stream in order.
    pub(super) async fn close(self) {
        drop(self.attached);
        self.writer.close().await;
    }

    /// Writes what waits; `None` if the client is gone.
    async fn write_all(&mut self) -> Option<Said> {
        loop {
            let waiting = self.link.take();
            let ending = waiting.ending;
            self.put_waiting(waiting);
            let queue = match ending {
                Some(_) => Queue::Detached,
                None => self.put_entries().await,
            };
            if let Some(title) = ending {
                problem(&Problem::new(title, detail(title)), &mut self.plain);
                self.flush().await?;
                return Some(Said::Farewell);
            }
            self.flush().await?;
            if queue != Queue::GoesOn {
                return Some(Said::Everything);
            }
        }
    }

    fn put_waiting(&mut self, waiting: Waiting) {
        // The buffer at hand stays: another one would have to grow anew with every write.
        if self.plain.capacity() == 0 {
            self.plain = waiting.control;
        } else {
            self.plain.extend_from_slice(&waiting.control);
        }
        if !waiting.acks.is_empty() {
            self.metrics.frames_out.of(label::Frame::Ack).inc();
            let custody = waiting.acks.iter().filter_map(run).collect();
            let ack = AckDown {
                custody,
                ..AckDown::default()
            };
            encoder::cbor(Header::bare(FrameType::Ack), &ack, &mut self.plain);
        }
        for (channel, payload) in waiting.hints {
            self.metrics.frames_out.of(label::Frame::Typing).inc();
            let header = Header {
                kind: FrameType::Typing,
                channel,
                sequence: 0,
            };
            encoder::raw(header, &payload, &mut self.plain);
        }
    }

    /// Takes entries out of the mailbox, as far as the client's unanswered frames leave room.
    async fn put_entries(&mut self) -> Queue {
        if self.retry.is_some() {
            return Queue::Waits;
        }
        let unacked = self.rules.unacked;
        let room = self.link.sent().room(unacked.frames, unacked.bytes);
        let chunk = room.min(CHUNK_BYTES);
        let mut pumped = self.attached.pump(chunk, &mut self.sends);
        if let Pumped::ReadPage { after } = pumped {
            let page = self
                .attached
                .read_page(after, chunk, clock::now(), &mut self.sends);
            let page = Box::pin(page).await;
            let Some(next) = page else {
                self.retry = Some(Instant::now() + RETRY);
                return Queue::Waits;
            };
            pumped = next;
        }
        let sent = !self.sends.is_empty();
        self.put_sends();
        match pumped {
            Pumped::Emptied => {
                let ack = AckDown {
                    queue_empty: true,
                    ..AckDown::default()
                };
                encoder::cbor(Header::bare(FrameType::Ack), &ack, &mut self.plain);
                Queue::GoesOn
            }
            Pumped::ReadPage { .. } | Pumped::More => Queue::GoesOn,
            Pumped::Full if sent || room > 0 => Queue::GoesOn,
            Pumped::Full => {
                self.link.set_full();
                Queue::Waits
            }
            Pumped::Idle | Pumped::Reading => Queue::Waits,
            Pumped::Detached => Queue::Detached,
        }
    }

    /// Puts the entries that the mailbox gave.
    fn put_sends(&mut self) {
        let mut sends = std::mem::take(&mut self.sends);
        let alike = |one: &Delivery, other: &Delivery| {
            one.envelope.frame == other.envelope.frame && one.envelope.group == other.envelope.group
        };
        for run in sends.chunk_by(alike) {
            self.put_run(run);
        }
        let used = sends.len();
        sends.clear();
        if sends.capacity() <= IDLE_SENDS || used >= sends.capacity() / 4 {
            self.sends = sends;
        }
    }

    /// Puts entries of one type and one group: what they have in common is looked up once.
    fn put_run(&mut self, run: &[Delivery]) {
        let Some(first) = run.first().map(|delivery| &delivery.envelope) else {
            return;
        };
        let count = u64::try_from(run.len()).unwrap_or(u64::MAX);
        let label = label::Frame::of_code(first.frame);
        self.metrics.frames_out.of(label).inc_by(count);
        let Some(kind) = FrameType::of_code(first.frame) else {
            return;
        };
        let group = first.group.filter(|_| kind == FrameType::Msg);
        let channel = group.and_then(|group| self.link.channel_of(&group));
        // A message of a group without a channel names the group itself.
        let unbound = group.filter(|_| channel.is_none());
        let room = run
            .iter()
            .map(|delivery| delivery.envelope.body.len() + HEAD_BYTES);
        self.plain.reserve(room.sum());
        let mut sent = self.link.sent();
        for delivery in run {
            let body = &delivery.envelope.body;
            let Ok(sequence) = u32::try_from(sent.sent(delivery.sent(), body.len())) else {
                // After four billion frames the connection starts anew.
                drop(sent);
                self.link.end(Title::IdentifierOutOfRange);
                return;
            };
            if let Some(group) = &unbound {
                match Msg::decode(body) {
                    Ok(msg) => encoder::msg_unbound(sequence, group, &msg, &mut self.plain),
                    Err(_) => trace!("a stored message has no head"),
                }
            } else {
                let header = Header {
                    kind,
                    channel: channel.unwrap_or(0),
                    sequence,
                };
                encoder::raw(header, body, &mut self.plain);
            }
        }
    }

    /// Seals and writes what was put; `None` if the client is gone or does not read.
    async fn flush(&mut self) -> Option<()> {
        if self.plain.is_empty() {
            return Some(());
        }
        if self.rules.padding {
            pad(&mut self.plain);
        }
        // A buffer for each write: what is kept between two would be kept by every idle session.
        let records = self.plain.len().div_ceil(RECORD_PLAINTEXT_MAX);
        let mut sealed = BytesMut::with_capacity(self.plain.len() + records * OVERHEAD);
        self.sealer.seal_all(&self.plain, &mut sealed).ok()?;
        let used = self.plain.len();
        self.plain.clear();
        let capacity = self.plain.capacity();
        if capacity > IDLE_BYTES && (used < capacity / 4 || capacity > 4 * CHUNK_BYTES) {
            self.plain = BytesMut::new();
        }
        let length = u64::try_from(sealed.len()).unwrap_or(u64::MAX);
        self.metrics.bytes.of(label::Direction::Out).inc_by(length);
        let mut bytes: Bytes = sealed.freeze();
        // The time is for each part: who is slow takes long over a large answer, who is gone takes
        // none of it.
        while !bytes.is_empty() {
            let part = bytes.split_to(bytes.len().min(WRITE_BYTES));
            let write = self.writer.write(part);
            timeout(self.rules.write_timeout, write).await.ok()?.ok()?;
        }
        let flush = self.writer.flush();
        timeout(self.rules.write_timeout, flush).await.ok()?.ok()?;
        self.written = Instant::now();
        Some(())
    }
}

/// What a round of writing came to.
enum Said {
    Everything,
    Farewell,
}

/// Fills the last record up to its size class.
fn pad(plain: &mut BytesMut) {
    let tail = plain.len() % RECORD_PLAINTEXT_MAX;
    for filling in padding_payloads(missing_to_class(tail)) {
        encoder::padding(filling, plain);
    }
}

/// Appends an ERROR.
pub(super) fn problem(problem: &Problem, out: &mut BytesMut) {
    encoder::cbor(Header::bare(FrameType::Error), problem, out);
}

fn run(range: &Range) -> Option<CustodyRun> {
    Some(CustodyRun {
        first: u32::try_from(range.first).ok()?,
        count: u32::try_from(range.count).ok()?,
        status: match range.status {
            Status::Stored => CustodyStatus::Stored,
            Status::Relayed => CustodyStatus::Relayed,
            Status::Delivered => CustodyStatus::Delivered,
            Status::Refused => CustodyStatus::Refused,
        },
    })
}

/// What the client is told besides the title.
const fn detail(title: Title) -> &'static str {
    match title {
        Title::Replaced => "another connection of this device took over",
        Title::Revoked => "the device is not in its account's list any more",
        Title::Draining => "the server stops; connect again",
        Title::IdleTimeout => "nothing came for too long",
        Title::RateLimited => "more messages unanswered than the limits allow",
        Title::StorageFailure => "the store is not available",
        Title::InvalidFrameType
        | Title::VarintOverflow
        | Title::TruncatedFrame
        | Title::IdentifierOutOfRange
        | Title::SequenceOutOfOrder
        | Title::FrameTooLarge
        | Title::ControlPayloadTooLarge
        | Title::PayloadTooLarge
        | Title::InvalidControlPayload
        | Title::ProtocolVersionMismatch
        | Title::HandshakeRejected
        | Title::HandshakeTimeout
        | Title::NotJoined
        | Title::Conflict
        | Title::EpochOld
        | Title::Forbidden
        | Title::NotFound
        | Title::FederationFailure => "the connection cannot go on",
    }
}
