//! Connections of devices: frames in order, channels, answers, and the reading of the queue.

use std::collections::BTreeMap;

use bytes::BytesMut;
use commucat_proto::error::Title;
use commucat_proto::frame::ack::{AckDown, AckUp, CustodyRun, CustodyStatus};
use commucat_proto::frame::error::Problem;
use commucat_proto::frame::join::Join;
use commucat_proto::frame::msg::Msg;
use commucat_proto::frame::payload::FromClient;
use commucat_proto::frame::{Frame, FrameType, Header};
use commucat_proto::id::{DeviceId, GroupId, QueueId};
use commucat_proto::wire::Cbor;
use commucat_routing::ack::Range;
use commucat_routing::lane::{Attachment, Delivery, Lane, Page, Position, Pumped};
use commucat_routing::pipeline::{Limits, Pipeline};
use commucat_routing::ticket::Status;
use commucat_routing::unacked::Unacked;

use super::Domain;
use crate::outside::{Connection, Inside, Outside};
use crate::store::Place;

/// `limits.unacked`, small enough to be reached.
pub(crate) const UNACKED: Limits = Limits {
    frames: 32,
    bytes: 1 << 20,
};

/// What a session sends ahead.
const AHEAD: Limits = Limits {
    frames: 16,
    bytes: 1 << 20,
};

/// One connection of a device.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) device: DeviceId,
    pub(super) queue: QueueId,
    /// The node that it is connected to.
    pub(super) node: usize,
    pipeline: Pipeline,
    sent: Unacked,
    channels: BTreeMap<u32, Join>,
    answers: Vec<Frame>,
    /// A connection that took the queue: this one writes what waits and ends.
    replaced: bool,
}

impl Domain {
    /// A device connects; `None` if it is not registered.
    pub(crate) fn connect(
        &mut self,
        out: &mut Outside,
        connection: Connection,
        device: &DeviceId,
    ) -> Option<u64> {
        let queue = self.store.devices.get(device)?.queue;
        let waiting = self.store.waiting(Place::Device(queue));
        let node = out.random.index(super::NODES);
        let session = Session {
            device: device.clone(),
            queue,
            node,
            pipeline: Pipeline::default(),
            sent: Unacked::default(),
            channels: BTreeMap::new(),
            answers: Vec::new(),
            replaced: false,
        };
        self.process.sessions.insert(connection, session);
        let place = Place::Device(queue);
        self.with_lane(out, place, |lane, effects| {
            lane.attach(Attachment::new(connection), effects);
        });
        let mailbox = self.process.lanes.get_mut(&place)?;
        if let Some(old) = mailbox.session.replace(connection)
            && let Some(session) = self.process.sessions.get_mut(&old)
        {
            session.replaced = true;
            self.later(out, 0, Inside::Pump(old));
        }
        self.later(out, 1, Inside::Pump(connection));
        u64::try_from(waiting).ok()
    }

    /// A connection is gone.
    pub(crate) fn disconnect(&mut self, out: &mut Outside, connection: Connection) {
        let Some(session) = self.process.sessions.remove(&connection) else {
            return;
        };
        let place = Place::Device(session.queue);
        if let Some(mailbox) = self.process.lanes.get_mut(&place)
            && mailbox.session == Some(connection)
        {
            mailbox.session = None;
        }
        if self.process.lanes.contains_key(&place) {
            self.with_lane(out, place, |lane, effects| {
                lane.detach(Attachment::new(connection), effects);
            });
        }
    }

    /// A frame arrives.
    pub(crate) fn take(&mut self, out: &mut Outside, connection: Connection, frame: &Frame) {
        let Header {
            channel, sequence, ..
        } = frame.header;
        let Ok(payload) = FromClient::decode(frame) else {
            out.judge
                .complain(|| format!("a server cannot decode {frame:?}"));
            return;
        };
        let index = self.index;
        if !matches!(payload, FromClient::Ack(_)) {
            out.note(|| format!("domain {index} takes {frame:?} on {connection}"));
        }
        match payload {
            FromClient::Msg(msg) => self.message(out, connection, (channel, sequence), &msg),
            FromClient::Ack(ack) => self.take_ack(out, connection, ack),
            FromClient::Join(join) => self.join(out, connection, (channel, sequence), join),
            FromClient::Typing(_) | FromClient::Presence(_) | FromClient::Padding => {}
            FromClient::Leave(_)
            | FromClient::KeyUpdate(_)
            | FromClient::GroupCreate(_)
            | FromClient::KeyPackage(_)
            | FromClient::Directory(_)
            | FromClient::Fetch(_) => self.request(out, connection, sequence, payload, frame),
        }
    }

    fn message(
        &mut self,
        out: &mut Outside,
        connection: Connection,
        (channel, sequence): (u32, u32),
        msg: &Msg,
    ) {
        let Some(session) = self.process.sessions.get_mut(&connection) else {
            return;
        };
        let bytes = msg.payload().len();
        let begun = session
            .pipeline
            .begin(sequence.into(), channel.into(), bytes, UNACKED);
        if begun.is_err() {
            out.judge
                .complain(|| "a client does not wait for answers".to_owned());
            return;
        }
        let Some(join) = session.channels.get(&channel).cloned() else {
            let problem = Problem::new(Title::NotJoined, "");
            return self.frame_refused(out, connection, sequence, problem);
        };
        let (queue, node) = (session.queue, session.node);
        if let Err(problem) =
            self.submit_own(out, (connection, sequence), (queue, node), &join, msg)
        {
            self.frame_refused(out, connection, sequence, problem);
        }
    }

    fn join(
        &mut self,
        out: &mut Outside,
        connection: Connection,
        (channel, sequence): (u32, u32),
        join: Join,
    ) {
        let hub = self.index_of(&join.hub);
        let opened = hub.map(|hub| self.open_reference(&join.sealed_ref, &join.group, hub));
        let Some(session) = self.process.sessions.get_mut(&connection) else {
            return;
        };
        let answer = if opened == Some(Ok(session.queue)) {
            session.channels.insert(channel, join);
            Ok(AckDown::done(sequence))
        } else {
            Err(Problem::new(Title::NotFound, ""))
        };
        self.answer_session(out, connection, sequence, answer);
    }

    fn take_ack(&mut self, out: &mut Outside, connection: Connection, ack: AckUp) {
        let place = match self.process.sessions.get(&connection) {
            Some(session) => Place::Device(session.queue),
            None => return,
        };
        if let Some(through) = ack.through {
            let Some(session) = self.process.sessions.get_mut(&connection) else {
                return;
            };
            let entries: Vec<_> = match session.sent.acked(through.into()) {
                Ok(entries) => entries.collect(),
                Err(error) => return out.judge.complain(|| format!("a client {error}")),
            };
            if !entries.is_empty() {
                self.acked(out, place, entries);
                self.later(out, 0, Inside::Pump(connection));
            }
        }
        for tag in ack.tags {
            let session = self.process.sessions.get(&connection);
            let mut joins = session.into_iter().flat_map(|one| one.channels.values());
            if let Some(join) = joins.find(|join| join.group == tag.group).cloned() {
                self.own_tag(out, &join, &tag);
            }
        }
    }

    /// A frame's ticket is done.
    pub(super) fn frame_done(
        &mut self,
        out: &mut Outside,
        connection: Connection,
        sequence: u32,
        status: Status,
    ) {
        if let Some(session) = self.process.sessions.get_mut(&connection) {
            session.pipeline.done(sequence.into(), status);
            let wait = out.random.below(3);
            self.later(out, wait, Inside::Pump(connection));
        }
    }

    /// A frame is answered by an ERROR: its channel is unbound, what is behind it fails.
    pub(super) fn frame_refused(
        &mut self,
        out: &mut Outside,
        connection: Connection,
        sequence: u32,
        problem: Problem,
    ) {
        let Some(session) = self.process.sessions.get_mut(&connection) else {
            return;
        };
        let Some(failure) = session.pipeline.failed(sequence.into()) else {
            return;
        };
        if let Ok(channel) = u32::try_from(failure.channel) {
            session.channels.remove(&channel);
        }
        session.answers.push(refusal(problem.of_frame(sequence)));
        for behind in failure.behind {
            let sequence = u32::try_from(behind).unwrap_or(u32::MAX);
            let problem = Problem::new(Title::NotJoined, "").of_frame(sequence);
            session.answers.push(refusal(problem));
        }
        self.later(out, 0, Inside::Pump(connection));
    }

    /// Whether a frame has no answer yet.
    pub(super) fn awaits(&self, connection: Connection, sequence: u32) -> bool {
        let session = self.process.sessions.get(&connection);
        session.is_some_and(|session| session.pipeline.is_open(sequence.into()))
    }

    /// Answers a request.
    pub(super) fn answer_session(
        &mut self,
        out: &mut Outside,
        connection: Connection,
        sequence: u32,
        answer: Result<AckDown, Problem>,
    ) {
        if let Some(session) = self.process.sessions.get_mut(&connection) {
            session.answers.push(match answer {
                Ok(ack) => ack_frame(&ack),
                Err(problem) => refusal(problem.of_frame(sequence)),
            });
            self.later(out, 0, Inside::Pump(connection));
        }
    }

    /// Writes what there is: answers, acknowledgements, entries of the queue.
    pub(super) fn pump(&mut self, out: &mut Outside, connection: Connection) {
        let Some(session) = self.process.sessions.get_mut(&connection) else {
            return;
        };
        let mut frames = std::mem::take(&mut session.answers);
        if session.pipeline.has_acks() {
            let runs = session.pipeline.take_acks();
            frames.push(ack_frame(&AckDown {
                custody: runs.iter().filter_map(run).collect(),
                ..AckDown::default()
            }));
        }
        if session.replaced {
            frames.push(refusal(Problem::new(Title::Replaced, "")));
            out.down(connection, frames);
            return;
        }
        out.down(connection, frames);
        let room = session.sent.room(AHEAD.frames, AHEAD.bytes);
        let mut room = room.min(4096);
        let queue = session.queue;
        loop {
            let mut sends = Vec::new();
            let attachment = Attachment::new(connection);
            let Some(mailbox) = self.process.lanes.get_mut(&Place::Device(queue)) else {
                return;
            };
            let pumped = mailbox.lane().pump(attachment, room, &mut sends);
            let spent: usize = sends.iter().map(|one| one.envelope.body.len()).sum();
            room = room.saturating_sub(spent);
            self.send(out, connection, sends);
            match pumped {
                Pumped::ReadPage { after } => {
                    let wait = out.random.below(5);
                    return self.later(out, wait, Inside::Read(connection, after));
                }
                Pumped::More | Pumped::Emptied => {}
                Pumped::Idle | Pumped::Full | Pumped::Reading | Pumped::Detached => return,
            }
        }
    }

    /// The store reads a page in one snapshot.
    pub(super) fn read_page(&mut self, out: &mut Outside, connection: Connection, after: Position) {
        let Some(session) = self.process.sessions.get(&connection) else {
            return;
        };
        let place = Place::Device(session.queue);
        let fails = !out.calm && out.random.chance(out.scenario.store_faults);
        let page = (!fails).then(|| self.store.page(place, after, &self.process.deletes));
        let wait = out.random.below(5);
        self.later(out, wait, Inside::Page(connection, page));
    }

    pub(super) fn page_arrives(
        &mut self,
        out: &mut Outside,
        connection: Connection,
        page: Option<Page>,
    ) {
        let Some(session) = self.process.sessions.get(&connection) else {
            return;
        };
        let (place, attachment) = (Place::Device(session.queue), Attachment::new(connection));
        let Some(page) = page else {
            self.with_lane(out, place, |lane, _| lane.page_failed(attachment));
            return self.later(out, 1_000, Inside::Pump(connection));
        };
        let mut sends = Vec::new();
        let pumped = self.with_lane(out, place, |lane: &mut Lane<_>, _| {
            lane.page(attachment, page, &mut sends)
        });
        self.send(out, connection, sends);
        if pumped == Pumped::Emptied {
            let emptied = AckDown {
                queue_empty: true,
                ..AckDown::default()
            };
            out.down(connection, vec![ack_frame(&emptied)]);
        }
        if pumped != Pumped::Detached {
            self.later(out, 0, Inside::Pump(connection));
        }
    }

    /// Puts entries of the queue on the wire.
    fn send(&mut self, out: &mut Outside, connection: Connection, sends: Vec<Delivery>) {
        let Some(session) = self.process.sessions.get_mut(&connection) else {
            return;
        };
        let mut frames = Vec::new();
        for delivery in sends {
            let envelope = &delivery.envelope;
            let sequence = session.sent.sent(delivery.sent(), envelope.body.len());
            let sequence = u32::try_from(sequence).unwrap_or(u32::MAX);
            let Some(kind) = FrameType::of_code(envelope.frame) else {
                continue;
            };
            let group = envelope.group.filter(|_| kind == FrameType::Msg);
            let channel = group.and_then(|group| session.channel_of(&group));
            let header = Header {
                kind,
                channel: channel.unwrap_or(0),
                sequence,
            };
            let payload = match (group, channel) {
                (Some(group), None) => {
                    let mut payload = BytesMut::from(group.as_bytes().as_slice());
                    payload.extend_from_slice(&envelope.body);
                    payload.freeze()
                }
                _ => envelope.body.clone(),
            };
            frames.push(Frame { header, payload });
        }
        out.down(connection, frames);
    }
}

impl Session {
    fn channel_of(&self, group: &GroupId) -> Option<u32> {
        let mut channels = self.channels.iter();
        channels
            .find(|(_, join)| join.group == *group)
            .map(|(channel, _)| *channel)
    }

    pub(super) fn unbind(&mut self, group: &GroupId) {
        self.channels.retain(|_, join| join.group != *group);
    }
}

fn ack_frame(ack: &AckDown) -> Frame {
    Frame {
        header: Header::bare(FrameType::Ack),
        payload: ack.encode().into(),
    }
}

fn refusal(problem: Problem) -> Frame {
    Frame {
        header: Header::bare(FrameType::Error),
        payload: problem.encode().into(),
    }
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
