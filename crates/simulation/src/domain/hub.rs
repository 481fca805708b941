//! Groups of this domain: who gets what, with a look at hand for each node.

use commucat_proto::error::Title;
use commucat_proto::frame::FrameType;
use commucat_proto::frame::ack::ForkTag;
use commucat_proto::frame::error::Problem;
use commucat_proto::frame::join::Join;
use commucat_proto::frame::msg::Msg;
use commucat_proto::id::{GroupId, Handle, QueueId, SealedRef};
use commucat_routing::hub::{Author, Entry, Fanout, Group, Refusal, Source};
use commucat_routing::ticket::Reason;

use super::Domain;
use super::custody::{Frame, Purpose, named, peer_entry};
use crate::outside::{Connection, Index, Outside};
use crate::peer::{Event as PeerEvent, ReturnTo};
use crate::plant::Plant;

/// How long a node believes what it read.
const VIEW_MS: u64 = 1_000;

/// A group as a node saw it last.
#[derive(Debug)]
pub(super) struct View {
    group: Group,
    read_at: u64,
}

/// Who sends: handle, reference, and the domain that vouches for both.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sender {
    pub(super) handle: Handle,
    pub(super) reference: SealedRef,
    pub(super) origin: Index,
}

impl Domain {
    /// The queue that a reference leads to.
    ///
    /// # Errors
    ///
    /// Why there is none.
    pub(super) fn open_reference(
        &self,
        reference: &SealedRef,
        group: &GroupId,
        hub: Index,
    ) -> Result<QueueId, Reason> {
        let opened = self.store.references.get(reference);
        let opened = opened
            .filter(|opened| opened.group == *group && opened.hub == hub)
            .ok_or(Reason::Forbidden)?;
        match self.store.left.get(&(opened.queue, *group)) {
            Some(left) if opened.issued <= *left => Err(Reason::Gone),
            _ => Ok(opened.queue),
        }
    }

    /// A MSG of an own device: to its group here, or to the hub.
    ///
    /// # Errors
    ///
    /// What the device is told; nobody gets the message then.
    pub(super) fn submit_own(
        &mut self,
        out: &mut Outside,
        (connection, sequence): (Connection, u32),
        (queue, node): (QueueId, usize),
        join: &Join,
        msg: &Msg,
    ) -> Result<(), Problem> {
        let purpose = Purpose::Frame(connection, sequence);
        let sender = Sender {
            handle: join.handle,
            reference: join.sealed_ref,
            origin: self.index,
        };
        let to = ReturnTo::Here(queue);
        let hub = self.index_of(&join.hub).unwrap_or(self.index);
        if hub == self.index {
            return self.fan_out(out, purpose, (node, join.group), (sender, to), msg);
        }
        let event = PeerEvent::Submit {
            group: join.group,
            handle: join.handle,
            reference: join.sealed_ref,
            payload: msg.payload().clone(),
        };
        let about = (join.group, Some((named(&join.group, msg), to)));
        let (ticket, guard) = self.open_ticket(out, purpose, about, Vec::new());
        let (place, envelope) = peer_entry(out, (hub, join.group), event);
        let leg = self.leg(ticket, 0, Some((place, envelope.key)));
        self.append(out, place, envelope, leg);
        self.drop_guard(out, ticket, guard);
        Ok(())
    }

    /// A MSG of a member goes to all others.
    ///
    /// # Errors
    ///
    /// What its author is told.
    pub(super) fn fan_out(
        &mut self,
        out: &mut Outside,
        purpose: Purpose,
        (node, group): (usize, GroupId),
        (sender, to): (Sender, ReturnTo),
        msg: &Msg,
    ) -> Result<(), Problem> {
        let index = self.index;
        // The last word of a ciphertext is the text's number.
        let text = || {
            msg.ciphertext()
                .last_chunk::<8>()
                .map(|word| u64::from_be_bytes(*word))
        };
        let list = self
            .admitted(out, node, &group, sender, msg.position())
            .inspect_err(|problem| {
                out.note(|| {
                    format!(
                        "domain {index} refuses text {:?} of {}: {:?}",
                        text(),
                        msg.position(),
                        problem.title
                    )
                });
            })?;
        out.note(|| {
            format!(
                "domain {index} fans out text {:?} of {}",
                text(),
                msg.position()
            )
        });
        if let Purpose::Frame(connection, sequence) = purpose
            && !self.awaits(connection, sequence)
        {
            return Ok(());
        }
        let name = named(&group, msg);
        let frame = Frame {
            group,
            kind: FrameType::Msg,
            key: name.1,
            payload: msg.payload().clone(),
            author: Some((name, to)),
        };
        self.accept(out, purpose, &frame, &list);
        Ok(())
    }

    fn admitted(
        &mut self,
        out: &Outside,
        node: usize,
        group: &GroupId,
        sender: Sender,
        position: u64,
    ) -> Result<Vec<Entry>, Problem> {
        let origin = self.names.get(sender.origin).ok_or_else(not_found)?.clone();
        let author = Author {
            handle: &sender.handle,
            sealed_ref: &sender.reference,
            origin: &origin,
        };
        let all = |list: Vec<&Entry>| list.into_iter().cloned().collect();
        let stale = out.has(Plant::StaleFanoutCache);
        if let Some(view) = self
            .process
            .views
            .get(node)
            .and_then(|views| views.get(group))
            && (out.now < view.read_at + VIEW_MS || stale)
        {
            if stale && view.group.authorise(author).is_ok() {
                return Ok(all(view.group.all_but(&sender.handle)));
            }
            match view.group.fanout(author, position, Source::Cache) {
                Ok(Fanout::To(list)) => return Ok(all(list)),
                Ok(Fanout::Reload) => {}
                Err(refusal) => return Err(refused(refusal)),
            }
        }
        let kept = self.store.groups.get(group).ok_or_else(not_found)?;
        let list = match kept.group.fanout(author, position, Source::Store) {
            Ok(Fanout::To(list)) => all(list),
            Err(Refusal::NotFound) if out.has(Plant::RemovedMaySend) => {
                all(kept.group.all_but(&sender.handle))
            }
            Ok(Fanout::Reload) => return Err(not_found()),
            Err(refusal) => return Err(refused(refusal)),
        };
        let view = View {
            group: kept.group.clone(),
            read_at: out.now,
        };
        if let Some(views) = self.process.views.get_mut(node) {
            views.insert(*group, view);
        }
        Ok(list)
    }

    /// A node reads a group again.
    pub(super) fn refresh(&mut self, out: &Outside, node: usize, group: &GroupId) {
        let Some(kept) = self.store.groups.get(group) else {
            return;
        };
        let view = View {
            group: kept.group.clone(),
            read_at: out.now,
        };
        if let Some(views) = self.process.views.get_mut(node) {
            views.insert(*group, view);
        }
    }

    pub(super) fn forget_view(&mut self, group: &GroupId) {
        for views in &mut self.process.views {
            views.remove(group);
        }
    }

    /// A fork tag of an own device.
    pub(super) fn own_tag(&mut self, out: &mut Outside, join: &Join, tag: &ForkTag) {
        let hub = self.index_of(&join.hub).unwrap_or(self.index);
        let sender = Sender {
            handle: join.handle,
            reference: join.sealed_ref,
            origin: self.index,
        };
        if hub == self.index {
            return self.tag(out, sender, &join.group, (tag.position, tag.tag));
        }
        let event = PeerEvent::Tag {
            group: join.group,
            handle: join.handle,
            reference: join.sealed_ref,
            position: tag.position,
            tag: tag.tag,
        };
        self.send_unkept(out, hub, event, None);
    }

    /// A fork tag of a member.
    pub(super) fn tag(
        &mut self,
        out: &mut Outside,
        sender: Sender,
        group: &GroupId,
        (position, tag): (u64, Option<[u8; 16]>),
    ) {
        let Some(kept) = self.store.groups.get(group) else {
            return;
        };
        let Some(origin) = self.names.get(sender.origin) else {
            return;
        };
        let author = Author {
            handle: &sender.handle,
            sealed_ref: &sender.reference,
            origin,
        };
        let is_member = kept.group.authorise(author).is_ok();
        if !(is_member || out.has(Plant::TagsOfAnybody)) || position > kept.group.head {
            return;
        }
        let alarm = self.process.alarms.entry(*group).or_default();
        let fork = alarm.report(position, sender.handle, tag, out.instant());
        if let Some(fork) = fork {
            self.tell_fork(out, group, &fork);
        }
        self.arm(out);
    }
}

/// What a device is told about a rule of the hub.
pub(super) fn refused(refusal: Refusal) -> Problem {
    match refusal {
        Refusal::NotFound => not_found(),
        Refusal::Conflict { head } => {
            let mut problem = Problem::new(Title::Conflict, "");
            problem.extra.head = Some(head);
            problem
        }
        Refusal::EpochOld => Problem::new(Title::EpochOld, ""),
        Refusal::Forbidden(detail) => Problem::new(Title::Forbidden, detail),
        Refusal::Invalid(detail) => Problem::new(Title::InvalidControlPayload, detail),
    }
}

pub(super) fn not_found() -> Problem {
    Problem::new(Title::NotFound, "")
}
