//! Control requests: answered here, or by the domain that they concern.

use bytes::Bytes;
use commucat_crypto::signing::{Purpose, verify};
use commucat_federation::batch::Outcome;
use commucat_proto::error::Title;
use commucat_proto::frame::ack::{AckDown, Answer, Done};
use commucat_proto::frame::directory::Directory;
use commucat_proto::frame::error::Problem;
use commucat_proto::frame::fetch::{Fetch, FetchAccess, FetchResult, KeptGroupInfo};
use commucat_proto::frame::group_create::GroupCreate;
use commucat_proto::frame::key_package::KeyPackage;
use commucat_proto::frame::key_update::KeyUpdate;
use commucat_proto::frame::leave::Leave;
use commucat_proto::frame::payload::FromClient;
use commucat_proto::frame::{Frame, FrameType};
use commucat_proto::id::{Domain as DomainId, GroupId, QueueId, SealedRef};
use commucat_proto::identity::JoinRead;
use commucat_proto::wire::Cbor as _;
use commucat_routing::hub::{Author, Group};

use super::Domain;
use super::commit::{Committer, entry, wire_entry};
use super::hub::{not_found, refused};
use crate::outside::{Connection, Index, Outside};
use crate::peer::{Event as PeerEvent, ReturnTo};
use crate::store::Kept;

/// Who waits for an answer.
#[derive(Clone, Copy, Debug)]
pub(super) enum Asker {
    /// A device of this domain: its connection and the request's sequence.
    Device(Connection, u32),
    /// Another domain: a batch and the event's place in it.
    Peer(u64, usize),
}

/// A request's answer.
pub(super) type Answered = Result<Bytes, Problem>;

impl Domain {
    /// A request of an own device.
    pub(super) fn request(
        &mut self,
        out: &mut Outside,
        connection: Connection,
        sequence: u32,
        payload: FromClient,
        frame: &Frame,
    ) {
        let asker = Asker::Device(connection, sequence);
        let Some(session) = self.process.sessions.get(&connection) else {
            return;
        };
        let (queue, node) = (session.queue, session.node);
        let device = session.device.clone();
        let remote = |hub: &DomainId| self.index_of(hub).filter(|hub| *hub != self.index);
        let to = match &payload {
            FromClient::KeyUpdate(update) => {
                let group =
                    commucat_proto::frame::bundle::Bundle::decode_shared(&update.bundle.body);
                let group = group.map(|bundle| bundle.group);
                let own = group.is_ok_and(|group| {
                    self.is_own((&update.sealed_ref, &group), &update.hub, queue)
                });
                if !own {
                    return self.answer(out, asker, Err(not_found()));
                }
                remote(&update.hub)
            }
            FromClient::Fetch(fetch) => {
                if let FetchAccess::Member { sealed_ref, .. } = &fetch.access
                    && !self.is_own((sealed_ref, &fetch.group), &fetch.hub, queue)
                {
                    return self.answer(out, asker, Err(not_found()));
                }
                remote(&fetch.hub)
            }
            FromClient::KeyPackage(KeyPackage::Claim(claim)) => remote(&claim.domain),
            FromClient::Directory(Directory::Get { domain, .. }) => remote(domain),
            _ => None,
        };
        if let Some(to) = to {
            let event = PeerEvent::Request {
                frame: frame.header.kind,
                payload: frame.payload.clone(),
            };
            return self.send_unkept(out, to, event, Some((connection, sequence)));
        }
        let answer = match payload {
            FromClient::KeyUpdate(update) => {
                let committer = Committer {
                    asker,
                    origin: self.index,
                    node,
                    to: ReturnTo::Here(queue),
                };
                return self.key_update(out, committer, update);
            }
            FromClient::GroupCreate(create) => self.create(&create, queue),
            FromClient::Fetch(fetch) => self.fetch(out, &fetch, self.index),
            FromClient::Leave(leave) => self.leave(out, connection, queue, &leave),
            FromClient::KeyPackage(operation) => self.key_package(out, &device, operation),
            FromClient::Directory(operation) => self.directory(operation),
            FromClient::Join(_)
            | FromClient::Msg(_)
            | FromClient::Ack(_)
            | FromClient::Typing(_)
            | FromClient::Presence(_)
            | FromClient::Padding => return,
        };
        self.answer(out, asker, answer);
    }

    /// A request that another domain passes on.
    pub(super) fn request_of_peer(
        &mut self,
        out: &mut Outside,
        (asker, from): (Asker, Index),
        kind: FrameType,
        payload: &Bytes,
    ) {
        let node = out.random.index(super::NODES);
        let answer = match kind {
            FrameType::KeyUpdate => {
                if let Ok(update) = KeyUpdate::decode_shared(payload) {
                    let committer = Committer {
                        asker,
                        origin: from,
                        node,
                        to: ReturnTo::There(from, update.sealed_ref),
                    };
                    return self.key_update(out, committer, update);
                }
                Err(not_found())
            }
            FrameType::Fetch => match Fetch::decode_shared(payload) {
                Ok(fetch) => self.fetch(out, &fetch, from),
                Err(_) => Err(not_found()),
            },
            FrameType::KeyPackage => match KeyPackage::decode_shared(payload) {
                Ok(KeyPackage::Claim(claim)) => self.claim(out, &claim, None),
                _ => Err(not_found()),
            },
            FrameType::Directory => match Directory::decode_shared(payload) {
                Ok(operation @ Directory::Get { .. }) => self.directory(operation),
                _ => Err(not_found()),
            },
            _ => Err(not_found()),
        };
        self.answer(out, asker, answer);
    }

    /// Gives an answer to whoever waits for it.
    pub(super) fn answer(&mut self, out: &mut Outside, asker: Asker, answer: Answered) {
        match asker {
            Asker::Device(connection, sequence) => {
                let answer = answer.map(|result| AckDown {
                    answer: Some(Answer {
                        request: sequence,
                        result,
                    }),
                    ..AckDown::default()
                });
                self.answer_session(out, connection, sequence, answer);
            }
            Asker::Peer(inbound, index) => {
                let outcome = match answer {
                    Ok(result) => Outcome::Result(result),
                    Err(problem) => Outcome::Refused(Box::new(problem)),
                };
                self.event_done(out, inbound, index, outcome);
            }
        }
    }

    fn is_own(
        &self,
        (reference, group): (&SealedRef, &GroupId),
        hub: &DomainId,
        queue: QueueId,
    ) -> bool {
        self.index_of(hub)
            .is_some_and(|hub| self.open_reference(reference, group, hub) == Ok(queue))
    }

    fn create(&mut self, create: &GroupCreate, queue: QueueId) -> Answered {
        let bytes = Bytes::from(create.encode());
        if let Some(kept) = self.store.groups.get(&create.group) {
            let repeat = kept.created_by == bytes;
            return if repeat {
                Ok(Done.encode().into())
            } else {
                Err(Problem::new(Title::Conflict, ""))
            };
        }
        let list: Vec<_> = create.fanout.iter().map(entry).collect();
        let join_key = create.join_key.map(|key| *key.as_bytes());
        let hub = self.name().ok_or_else(not_found)?;
        let group = Group::create(&list, hub, join_key).map_err(refused)?;
        let creator = list.first().ok_or_else(not_found)?;
        if !self.is_own((&creator.sealed_ref, &create.group), hub, queue) {
            return Err(not_found());
        }
        let infos = create.sealed_group_info.clone();
        let kept = Kept {
            group,
            revision: 0,
            created_by: bytes,
            log: Vec::new(),
            first_kept: 1,
            infos: infos.into_iter().map(|info| (0, info)).collect(),
        };
        self.store.groups.insert(create.group, kept);
        Ok(Done.encode().into())
    }

    fn fetch(&self, out: &Outside, fetch: &Fetch, origin: Index) -> Answered {
        let kept = self.store.groups.get(&fetch.group).ok_or_else(not_found)?;
        match &fetch.access {
            FetchAccess::Member { handle, sealed_ref } => {
                let origin = self.names.get(origin).ok_or_else(not_found)?;
                let author = Author {
                    handle,
                    sealed_ref,
                    origin,
                };
                kept.group.authorise(author).map_err(refused)?;
            }
            FetchAccess::Joiner(signed) => {
                let read = JoinRead::decode_shared(&signed.body).map_err(|_| not_found())?;
                let key = kept.group.join_key.ok_or_else(not_found)?;
                verify(signed, Purpose::JoinRead, &key).map_err(|_| not_found())?;
                let more = fetch.want.entries || fetch.want.list;
                let grant = kept.group.may_join_read(read.created, out.time(), more);
                grant.map_err(refused)?;
            }
        }
        let mut result = FetchResult {
            head: kept.group.head,
            first_kept: kept.first_kept,
            ..FetchResult::default()
        };
        if fetch.want.entries {
            result.entries = kept.entries_from(fetch.from).take(8).cloned().collect();
        }
        if fetch.want.group_info {
            let infos = kept.infos.iter().rev();
            let info = |(position, sealed): &(u64, Bytes)| KeptGroupInfo {
                position: *position,
                sealed: sealed.clone(),
            };
            result.group_infos = infos.map(info).collect();
        }
        if fetch.want.list {
            result.fanout = Some(kept.group.list.iter().map(wire_entry).collect());
        }
        Ok(result.encode().into())
    }

    fn leave(
        &mut self,
        out: &Outside,
        connection: Connection,
        queue: QueueId,
        leave: &Leave,
    ) -> Answered {
        if let Some(session) = self.process.sessions.get_mut(&connection) {
            session.unbind(&leave.group);
        }
        if leave.for_good {
            self.store.left.insert((queue, leave.group), out.now);
        }
        Ok(Done.encode().into())
    }
}
