//! The half that reads: opens records, takes frames in order, hands each to what handles it.

use std::sync::Arc;
use std::time::Instant;

use commucat_crypto::tunnel::Opener;
use commucat_proto::decoder::{Decoder, Incoming, SkipReason, Skipped};
use commucat_proto::error::Title;
use commucat_proto::frame::ack::AckUp;
use commucat_proto::frame::error::Problem;
use commucat_proto::frame::msg::Msg;
use commucat_proto::frame::payload::FromClient;
use commucat_proto::frame::presence::Presence;
use commucat_proto::frame::{Direction, Frame, FrameType, Header};
use commucat_proto::wire::reader::CborError;
use commucat_storage::Device;
use tokio::sync::Semaphore;
use tokio::time::{self, sleep, sleep_until};
use tokio_util::task::TaskTracker;
use tracing::debug;

use super::budget::Lent;
use super::link::Link;
use super::{Batch, Drain, Rules, Sessions, lost_after};
use crate::accounts::Accounts;
use crate::carrier::CarrierReader;
use crate::hub::Hub;
use crate::mailbox::Attached;
use crate::metrics::{Metrics, label};
use crate::peers::Peers;
use crate::signal::Quiet;

/// Requests of one session that wait for other domains; more are `Rate Limited`.
const ABROAD_MAX: usize = 16;

/// How a session's reading ended.
pub(super) enum Ended {
    /// The client went away, or sent what nobody answers.
    Closed,
    /// The client is told, then the connection closes.
    Fatal(Title),
    /// The session ends, for a reason that the client is being told.
    Told,
    /// The server stops: nothing more is read.
    Draining,
}

/// The reading half.
pub(super) struct Inbound {
    rules: Arc<Rules>,
    pub(super) accounts: Accounts,
    pub(super) hub: Hub,
    pub(super) peers: Peers,
    pub(super) metrics: Metrics,
    pub(super) device: Device,
    pub(super) link: Link,
    /// For what goes on when the session has ended.
    pub(super) tasks: TaskTracker,
    pub(super) budget: Lent,
    /// Requests that wait for other domains.
    pub(super) abroad: Arc<Semaphore>,
    attached: Arc<Attached>,
    opener: Opener,
    reader: CarrierReader,
    decoder: Decoder,
    drain: Drain,
    /// The frames that came together.
    batch: Batch,
    /// When the last bytes came.
    heard: time::Instant,
}

impl Inbound {
    pub(super) fn new(
        sessions: &Sessions,
        device: Device,
        (link, attached): (Link, Arc<Attached>),
        opener: Opener,
        reader: CarrierReader,
    ) -> Self {
        let rules = Arc::clone(&sessions.rules);
        let mut decoder = Decoder::tunnel(Direction::Up);
        let max = rules.announced.max_payload;
        decoder.set_ciphertext_max(usize::try_from(max).unwrap_or(usize::MAX));
        Self {
            accounts: sessions.accounts.clone(),
            hub: sessions.hub.clone(),
            peers: sessions.peers.clone(),
            metrics: sessions.metrics.clone(),
            tasks: sessions.tasks.clone(),
            budget: sessions.budgets.lend(device.queue, Instant::now()),
            abroad: Arc::new(Semaphore::new(ABROAD_MAX)),
            rules,
            device,
            link,
            attached,
            opener,
            reader,
            decoder,
            drain: sessions.drain.clone(),
            batch: Batch::new(Instant::now()),
            heard: time::Instant::now(),
        }
    }

    /// Takes up what came behind the handshake: `opened` already, then `rest`; whether it opens.
    pub(super) fn take_up(&mut self, opened: &[u8], rest: &[u8]) -> bool {
        self.decoder.push(opened);
        self.opener.open(rest, self.decoder.buffer_mut()).is_ok()
    }

    /// Reads until the session ends.
    pub(super) async fn run(&mut self) -> Ended {
        let drain = self.drain.clone();
        let mut draining = Quiet::new(drain.begun.cancelled());
        // One timer for the whole session, moved when it fires, or when it would fire too late.
        let mut silence = Box::pin(sleep_until(self.lost_at()));
        loop {
            let taken = self.take_frames().await;
            self.batch.flush();
            if let Err(ended) = taken {
                return ended;
            }
            if self.lost_at() < silence.deadline() {
                silence.as_mut().reset(self.lost_at());
            }
            let chunk = tokio::select! {
                biased;
                chunk = self.reader.next() => chunk,
                () = &mut draining => return Ended::Draining,
                () = &mut silence => {
                    if self.lost_at() <= time::Instant::now() {
                        return Ended::Fatal(Title::IdleTimeout);
                    }
                    silence.as_mut().reset(self.lost_at());
                    continue;
                }
            };
            let Ok(Some(chunk)) = chunk else {
                return Ended::Closed;
            };
            self.heard = time::Instant::now();
            self.batch.set_now(self.heard.into());
            self.metrics
                .bytes
                .of(label::Direction::In)
                .inc_by(length(&chunk));
            if self.opener.open(&chunk, self.decoder.buffer_mut()).is_err() {
                debug!("a record did not open");
                return Ended::Closed;
            }
        }
    }

    /// When the client counts as gone, if nothing comes.
    fn lost_at(&self) -> time::Instant {
        let keepalive = if self.link.is_idle() {
            self.rules.keepalive_idle
        } else {
            self.rules.keepalive
        };
        self.heard + lost_after(keepalive)
    }

    async fn take_frames(&mut self) -> Result<(), Ended> {
        loop {
            // Who does not read its answers is not read either; and a session that ends takes no more.
            if !self.link.has_room_now() {
                self.batch.flush();
                if !self.link.has_room().await {
                    return Err(Ended::Told);
                }
            }
            if self.drain.has_begun() {
                return Err(Ended::Draining);
            }
            match self.decoder.next_frame() {
                Ok(None) => return Ok(()),
                Ok(Some(Incoming::Frame(frame))) => self.handle(frame).await?,
                Ok(Some(Incoming::Skipped(skipped))) => self.skipped(skipped)?,
                Err(error) => {
                    debug!(%error, "a frame ends the connection");
                    return Err(Ended::Fatal(error.into()));
                }
            }
        }
    }

    fn skipped(&self, skipped: Skipped) -> Result<(), Ended> {
        match skipped.reason {
            SkipReason::UnknownType(_) => {
                let problem = Problem::new(Title::InvalidFrameType, "no such frame type");
                self.answer_problem(problem, skipped.sequence);
                Ok(())
            }
            SkipReason::MessageTooLarge => {
                let problem = Problem::new(Title::PayloadTooLarge, "the message is too large");
                self.refuse_message(skipped.channel, skipped.sequence, problem)
            }
        }
    }

    async fn handle(&mut self, frame: Frame) -> Result<(), Ended> {
        let Header {
            kind,
            channel,
            sequence,
        } = frame.header;
        self.metrics
            .frames_in
            .of(label::Frame::of_code(kind.code()))
            .inc();
        // What comes most is not moved about in an enum that is as large as the largest request.
        if kind == FrameType::Msg {
            return match Msg::decode(&frame.payload) {
                Ok(msg) => self.message(channel, sequence, msg).await,
                Err(error) => self.malformed(frame.header, error),
            };
        }
        let payload = match FromClient::decode(&frame) {
            Ok(payload) => payload,
            Err(error) => return self.malformed(frame.header, error),
        };
        match payload {
            FromClient::Msg(msg) => self.message(channel, sequence, msg).await,
            FromClient::Ack(ack) => self.acked(ack).await,
            FromClient::Typing(bytes) => {
                if let Some(binding) = self.link.binding(channel)
                    && self.may_hint()
                {
                    self.batch.flush();
                    Box::pin(self.hub.typing(&binding, bytes)).await;
                }
                Ok(())
            }
            FromClient::Presence(presence) => {
                self.link.set_idle(presence == Presence::Idle);
                self.link.wake();
                Ok(())
            }
            FromClient::Padding => Ok(()),
            FromClient::Join(_)
            | FromClient::Leave(_)
            | FromClient::KeyUpdate(_)
            | FromClient::GroupCreate(_)
            | FromClient::KeyPackage(_)
            | FromClient::Directory(_)
            | FromClient::Fetch(_) => {
                self.batch.flush();
                // In boxes what is rare: an idle session is as large as its largest future.
                Box::pin(self.request((channel, sequence), payload, frame.payload)).await;
                Ok(())
            }
        }
    }

    /// Answers a frame whose payload is not what it must be.
    fn malformed(&self, header: Header, error: CborError) -> Result<(), Ended> {
        let Header {
            kind,
            channel,
            sequence,
        } = header;
        debug!(%error, frame = kind.name(), "a payload is refused");
        let title = Title::from(error);
        let problem = Problem::new(title, "the payload is not what it must be");
        if kind == FrameType::Msg {
            return self.refuse_message(channel, sequence, problem);
        }
        if !kind.is_request() || title != Title::InvalidControlPayload {
            return Err(Ended::Fatal(title));
        }
        self.answer_problem(problem, sequence);
        Ok(())
    }

    async fn message(&mut self, channel: u32, sequence: u32, msg: Msg) -> Result<(), Ended> {
        let begun = self
            .link
            .begin(sequence, channel, msg.payload().len(), self.rules.unacked);
        let binding = begun.map_err(|_| Ended::Fatal(Title::RateLimited))?;
        let Some(binding) = binding else {
            let problem = Problem::new(Title::NotJoined, "the channel is not bound to a group");
            self.link.refuse(sequence, problem);
            return Ok(());
        };
        // A MSG is never refused for its rate: the client is read more slowly instead.
        let taken = self
            .budget
            .lock()
            .submits
            .take(binding.handle, self.batch.now());
        if let Err(wait) = taken {
            self.batch.flush();
            Box::pin(sleep(wait)).await;
            self.batch.set_now(time::Instant::now().into());
            let mut budget = self.budget.lock();
            budget.submits.charge(binding.handle, self.batch.now());
        }
        let member = self.member();
        let hub = &self.hub;
        let accepted = hub.message(&member, &binding, (sequence, &msg), &mut self.batch);
        if let Err(problem) = accepted.await {
            self.metrics.note(&problem);
            self.link.refuse(sequence, problem);
        }
        Ok(())
    }

    /// Ephemeral frames and fork tags beyond the rate of messages are dropped: each may cost a look
    /// into the store, and a wake of everyone in the group.
    fn may_hint(&self) -> bool {
        self.budget.lock().hints.take((), Instant::now()).is_ok()
    }

    fn refuse_message(&self, channel: u32, sequence: u32, problem: Problem) -> Result<(), Ended> {
        let begun = self.link.begin(sequence, channel, 0, self.rules.unacked);
        begun.map_err(|_| Ended::Fatal(Title::RateLimited))?;
        self.link.refuse(sequence, problem);
        Ok(())
    }

    async fn acked(&mut self, ack: AckUp) -> Result<(), Ended> {
        if let Some(through) = ack.through {
            let entries: Vec<_> = match self.link.sent().acked(through.into()) {
                Ok(entries) => entries.collect(),
                Err(_) => return Err(Ended::Fatal(Title::SequenceOutOfOrder)),
            };
            if !entries.is_empty() {
                self.attached.acked(entries);
                self.link.made_room();
            }
        }
        for tag in ack.tags {
            let channel = self.link.channel_of(&tag.group);
            if let Some(binding) = channel.and_then(|channel| self.link.binding(channel))
                && self.may_hint()
            {
                self.batch.flush();
                Box::pin(self.hub.tag(&binding, &tag)).await;
            }
        }
        Ok(())
    }
}

fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}
