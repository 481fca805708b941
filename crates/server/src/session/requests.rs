//! Control requests: each is answered once, by an ACK with its result or an ERROR.

use std::sync::atomic::AtomicBool;
use std::time::Instant;

use bytes::Bytes;
use commucat_proto::encoder;
use commucat_proto::error::{GoesOn, Title};
use commucat_proto::frame::ack::AckDown;
use commucat_proto::frame::directory::Directory;
use commucat_proto::frame::error::Problem;
use commucat_proto::frame::join::Join;
use commucat_proto::frame::key_update::{KeyUpdate, KeyUpdateResult};
use commucat_proto::frame::leave::Leave;
use commucat_proto::frame::payload::FromClient;
use commucat_proto::frame::{FrameType, Header};

use super::inbound::Inbound;
use super::link::{Binding, Bound, Link};
use super::{outbound, to_its_end};
use crate::hub::Member;
use crate::metrics::{Metrics, label};

/// Writes answers to requests, also when the session reads on meanwhile.
#[derive(Clone)]
pub(super) struct Answerer {
    link: Link,
    metrics: Metrics,
}

impl Answerer {
    pub(super) fn done(&self, ack: &AckDown) {
        self.metrics.frames_out.of(label::Frame::Ack).inc();
        self.link
            .answer(|out| encoder::cbor(Header::bare(FrameType::Ack), ack, out));
    }

    pub(super) fn problem(&self, problem: Problem, sequence: u32) {
        self.metrics.frames_out.of(label::Frame::Error).inc();
        self.metrics.note(&problem);
        self.link
            .answer(|out| outbound::problem(&problem.of_frame(sequence), out));
    }
}

impl Inbound {
    /// Answers a request; `raw` are the bytes of its payload.
    pub(super) async fn request(
        &self,
        (channel, sequence): (u32, u32),
        request: FromClient,
        raw: Bytes,
    ) {
        if let Err(wait) = self.budget.request(Instant::now()) {
            let problem = Problem::new(Title::RateLimited, "too many requests");
            self.answer_problem(
                problem.retry_after(wait.as_secs().saturating_add(1)),
                sequence,
            );
            return;
        }
        match self.destination(&request) {
            Ok(None) => {}
            Ok(Some((domain, frame))) => {
                self.pass_on(sequence, domain, frame, raw);
                return;
            }
            Err(problem) => {
                self.answer_problem(problem, sequence);
                return;
            }
        }
        let answer = match request {
            FromClient::Join(join) => self.join(channel, &join).map(|()| AckDown::done(sequence)),
            FromClient::Leave(leave) => match self.leave(&leave).await {
                Ok(()) if leave.for_good => {
                    self.answer_when_all_know(sequence);
                    return;
                }
                left => left.map(|()| AckDown::done(sequence)),
            },
            FromClient::GroupCreate(create) => {
                let made = self.hub.create(&self.member(), &create).await;
                made.map(|()| AckDown::done(sequence))
            }
            FromClient::KeyUpdate(update) => {
                let result = self.key_update(update).await;
                result.map(|result| AckDown::with_result(sequence, &result))
            }
            FromClient::Fetch(fetch) => {
                let result = self.hub.fetch(&self.device.queue, &fetch).await;
                result.map(|result| AckDown::with_result(sequence, &result))
            }
            FromClient::KeyPackage(operation) => {
                self.accounts
                    .key_package(&self.device, operation, sequence)
                    .await
            }
            FromClient::Directory(operation) => self.directory(operation, sequence).await,
            FromClient::Msg(_)
            | FromClient::Ack(_)
            | FromClient::Typing(_)
            | FromClient::Presence(_)
            | FromClient::Padding => return,
        };
        match answer {
            Ok(ack) => self.answerer().done(&ack),
            // What is too large inside of a request ends the connection like a request too large.
            Err(problem) if problem.title.goes_on() == GoesOn::Never => {
                self.link.end(problem.title);
            }
            Err(problem) => self.answer_problem(problem, sequence),
        }
    }

    async fn key_update(&self, update: KeyUpdate) -> Result<KeyUpdateResult, Problem> {
        let (hub, queue) = (self.hub.clone(), self.device.queue);
        to_its_end(
            &self.tasks,
            async move { hub.key_update(&queue, &update).await },
        )
        .await
    }

    async fn directory(&self, operation: Directory, sequence: u32) -> Result<AckDown, Problem> {
        let (accounts, device) = (self.accounts.clone(), self.device.clone());
        to_its_end(&self.tasks, async move {
            accounts.directory(&device, operation, sequence).await
        })
        .await
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
            used: AtomicBool::new(false),
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
            let (accounts, queue, group) = (self.accounts.clone(), self.device.queue, leave.group);
            let hub = self.hub.clone();
            to_its_end(&self.tasks, async move {
                accounts.leave(&queue, &group).await?;
                hub.refresh(&group).await;
                Ok(())
            })
            .await?;
        }
        self.link.unbind_group(&leave.group);
        Ok(())
    }

    /// Answers a LEAVE for good, while the session reads on: what is sent to the group after the answer
    /// reaches this device over no node.
    fn answer_when_all_know(&self, sequence: u32) {
        let (answerer, hub) = (self.answerer(), self.hub.clone());
        self.tasks.spawn(async move {
            hub.until_all_look_again().await;
            answerer.done(&AckDown::done(sequence));
        });
    }

    pub(super) fn member(&self) -> Member {
        Member {
            link: self.link.clone(),
            queue: self.device.queue,
        }
    }

    pub(super) fn answer_problem(&self, problem: Problem, sequence: u32) {
        self.answerer().problem(problem, sequence);
    }

    pub(super) fn answerer(&self) -> Answerer {
        Answerer {
            link: self.link.clone(),
            metrics: self.metrics.clone(),
        }
    }
}
