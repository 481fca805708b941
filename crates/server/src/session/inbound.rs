//! The half that reads: opens records, takes frames in order, hands each to what handles it.

use std::sync::Arc;
use std::time::Instant;

use bytes::BytesMut;
use commucat_crypto::tunnel::Opener;
use commucat_proto::decoder::{Decoder, Incoming, SkipReason, Skipped};
use commucat_proto::encoder;
use commucat_proto::error::{GoesOn, Title};
use commucat_proto::frame::ack::{AckDown, AckUp};
use commucat_proto::frame::error::Problem;
use commucat_proto::frame::join::Join;
use commucat_proto::frame::leave::Leave;
use commucat_proto::frame::msg::Msg;
use commucat_proto::frame::payload::FromClient;
use commucat_proto::frame::presence::Presence;
use commucat_proto::frame::{Direction, Frame, FrameType, Header};
use commucat_routing::hub::{Limiter, Rate};
use commucat_storage::Device;
use tokio::time::{sleep, timeout};
use tracing::debug;

use super::link::{Binding, Bound, Link};
use super::{Drain, Rules, Sessions, lost_after};
use crate::accounts::Accounts;
use crate::carrier::CarrierReader;
use crate::hub::{Hub, Member};
use crate::mailbox::Attached;
use crate::metrics::{Metrics, label};

/// How a session's reading ended.
pub(super) enum Ended {
    /// The client went away, or sent what nobody answers.
    Closed,
    /// The client is told, then the connection closes.
    Fatal(Title),
    /// The server stops: nothing more is read.
    Draining,
}

/// The reading half.
pub(super) struct Inbound {
    rules: Arc<Rules>,
    accounts: Accounts,
    hub: Hub,
    metrics: Metrics,
    device: Device,
    link: Link,
    attached: Arc<Attached>,
    opener: Opener,
    reader: CarrierReader,
    decoder: Decoder,
    drain: Drain,
    requests: Limiter<()>,
    submits: Limiter<commucat_proto::id::Handle>,
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
            metrics: sessions.metrics.clone(),
            requests: Limiter::new(rate(rules.request_rate, rules.request_burst)),
            submits: Limiter::new(rate(rules.submit_rate, rules.submit_burst)),
            rules,
            device,
            link,
            attached,
            opener,
            reader,
            decoder,
            drain: sessions.drain.clone(),
        }
    }

    /// Reads until the session ends. `rest` is what was read and not opened, `opened` what was.
    pub(super) async fn run(mut self, rest: BytesMut, opened: BytesMut) -> Ended {
        self.decoder.push(&opened);
        if self.opener.open(&rest, self.decoder.buffer_mut()).is_err() {
            return Ended::Closed;
        }
        loop {
            if let Err(ended) = self.take_frames().await {
                return ended;
            }
            let keepalive = if self.link.is_idle() {
                self.rules.keepalive_idle
            } else {
                self.rules.keepalive
            };
            let next = timeout(lost_after(keepalive), self.reader.next());
            let chunk = tokio::select! {
                biased;
                () = self.drain.begun.cancelled() => return Ended::Draining,
                chunk = next => chunk,
            };
            let chunk = match chunk {
                Err(_) => return Ended::Fatal(Title::IdleTimeout),
                Ok(Ok(Some(chunk))) => chunk,
                Ok(Ok(None) | Err(_)) => return Ended::Closed,
            };
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

    async fn take_frames(&mut self) -> Result<(), Ended> {
        loop {
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
        let payload = match FromClient::decode(&frame) {
            Ok(payload) => payload,
            Err(error) => {
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
                return Ok(());
            }
        };
        match payload {
            FromClient::Msg(msg) => self.message(channel, sequence, msg).await,
            FromClient::Ack(ack) => self.acked(ack).await,
            FromClient::Typing(bytes) => {
                if let Some(binding) = self.link.binding(channel) {
                    self.hub.typing(&binding, bytes).await;
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
                self.request(channel, sequence, payload).await;
                Ok(())
            }
        }
    }

    async fn message(&mut self, channel: u32, sequence: u32, msg: Msg) -> Result<(), Ended> {
        let begun = self
            .link
            .begin(sequence, channel, msg.payload().len(), self.rules.unacked);
        begun.map_err(|_| Ended::Fatal(Title::RateLimited))?;
        let Some(binding) = self.link.binding(channel) else {
            let problem = Problem::new(Title::NotJoined, "the channel is not bound to a group");
            self.link.refuse(sequence, problem);
            return Ok(());
        };
        // A MSG is never refused for its rate: the client is read more slowly instead.
        if let Err(wait) = self.submits.check(&binding.handle, Instant::now()) {
            sleep(wait).await;
        }
        self.submits.charge(binding.handle, Instant::now());
        let member = self.member();
        if let Err(problem) = self.hub.message(&member, &binding, sequence, &msg).await {
            self.link.refuse(sequence, problem);
        }
        Ok(())
    }

    fn refuse_message(&self, channel: u32, sequence: u32, problem: Problem) -> Result<(), Ended> {
        let begun = self.link.begin(sequence, channel, 0, self.rules.unacked);
        begun.map_err(|_| Ended::Fatal(Title::RateLimited))?;
        self.link.refuse(sequence, problem);
        Ok(())
    }

    async fn acked(&self, ack: AckUp) -> Result<(), Ended> {
        if let Some(through) = ack.through {
            let entries: Vec<_> = match self.link.sent().acked(through.into()) {
                Ok(entries) => entries.collect(),
                Err(_) => return Err(Ended::Fatal(Title::SequenceOutOfOrder)),
            };
            if !entries.is_empty() {
                self.attached.acked(entries);
                // The room that this made may let more of the queue out.
                self.link.wake();
            }
        }
        for tag in ack.tags {
            let channel = self.link.channel_of(&tag.group);
            if let Some(binding) = channel.and_then(|channel| self.link.binding(channel)) {
                self.hub.tag(&binding, &tag).await;
            }
        }
        Ok(())
    }

    async fn request(&mut self, channel: u32, sequence: u32, request: FromClient) {
        let now = Instant::now();
        if let Err(wait) = self.requests.take((), now) {
            let problem = Problem::new(Title::RateLimited, "too many requests");
            self.answer_problem(
                problem.retry_after(wait.as_secs().saturating_add(1)),
                sequence,
            );
            return;
        }
        let member = self.member();
        let answer = match request {
            FromClient::Join(join) => self.join(channel, &join).map(|()| AckDown::done(sequence)),
            FromClient::Leave(leave) => self.leave(&leave).await.map(|()| AckDown::done(sequence)),
            FromClient::GroupCreate(create) => {
                let made = self.hub.create(&member, &create).await;
                made.map(|()| AckDown::done(sequence))
            }
            FromClient::KeyUpdate(update) => {
                let result = self.hub.key_update(&member, &update).await;
                result.map(|result| AckDown::with_result(sequence, &result))
            }
            FromClient::Fetch(fetch) => {
                let result = self.hub.fetch(&member, &fetch).await;
                result.map(|result| AckDown::with_result(sequence, &result))
            }
            FromClient::KeyPackage(operation) => {
                self.accounts
                    .key_package(&self.device, operation, sequence)
                    .await
            }
            FromClient::Directory(operation) => {
                self.accounts
                    .directory(&self.device, operation, sequence)
                    .await
            }
            FromClient::Msg(_)
            | FromClient::Ack(_)
            | FromClient::Typing(_)
            | FromClient::Presence(_)
            | FromClient::Padding => return,
        };
        match answer {
            Ok(ack) => {
                self.metrics.frames_out.of(label::Frame::Ack).inc();
                self.link
                    .answer(|out| encoder::cbor(Header::bare(FrameType::Ack), &ack, out));
            }
            // What is too large inside of a request ends the connection like a request too large.
            Err(problem) if problem.title.goes_on() == GoesOn::Never => {
                self.link.end(problem.title);
            }
            Err(problem) => self.answer_problem(problem, sequence),
        }
    }

    /// Binds a channel; the group's hub is not asked (CCP-1 section 5.3).
    fn join(&self, channel: u32, join: &Join) -> Result<(), Problem> {
        if !self
            .hub
            .is_own(&join.sealed_ref, &join.group, &join.hub, &self.device.queue)
        {
            return Err(Problem::new(
                Title::NotFound,
                "no such group, or no entry of yours in it",
            ));
        }
        let binding = Binding {
            group: join.group,
            hub: join.hub.clone(),
            handle: join.handle,
            sealed_ref: join.sealed_ref,
        };
        match self.link.bind(channel, binding) {
            Bound::Done => Ok(()),
            Bound::Conflict => Err(Problem::new(
                Title::Conflict,
                "channel or group is bound otherwise",
            )),
        }
    }

    async fn leave(&self, leave: &Leave) -> Result<(), Problem> {
        if leave.for_good {
            self.accounts
                .leave(&self.device.queue, &leave.group)
                .await?;
        }
        self.link.unbind_group(&leave.group);
        Ok(())
    }

    fn member(&self) -> Member {
        Member {
            link: self.link.clone(),
            queue: self.device.queue,
        }
    }

    fn answer_problem(&self, problem: Problem, sequence: u32) {
        self.metrics.frames_out.of(label::Frame::Error).inc();
        self.link
            .answer(|out| super::outbound::problem(&problem.of_frame(sequence), out));
    }
}

fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

fn rate(per_second: u32, burst: u32) -> Rate {
    Rate {
        interval: std::time::Duration::from_secs(1) / per_second.max(1),
        burst,
    }
}
