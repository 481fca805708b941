//! A follower that lies: about what it has taken, and in the names of others.
//!
//! It can lose what is for its own devices, which nobody can keep it from. It must not be able to do
//! anything else.

use bytes::Bytes;
use commucat_federation::batch::{Outcome, Unsettled};
use commucat_proto::frame::FrameType;
use commucat_proto::frame::group_event::GroupEvent;
use commucat_proto::frame::msg::Msg;
use commucat_proto::id::{GroupId, MessageId};
use commucat_routing::hub::Entry;
use commucat_routing::ticket::Reason;

use super::Domain;
use super::custody::group_event;
use super::hub::not_found;
use crate::outside::{Index, Outside};
use crate::peer::{Event as PeerEvent, wire_reason};

/// What a follower that lies knows of a group: its devices are members.
#[derive(Debug)]
pub(crate) struct Known<'a> {
    pub(crate) group: GroupId,
    pub(crate) hub: Index,
    /// A member of another domain.
    pub(crate) victim: &'a Entry,
    /// An entry that a member of its own made and never gave to the hub.
    pub(crate) entry: Bytes,
    pub(crate) head: u64,
}

impl Domain {
    /// What it says of a delivery instead of taking it; none if it is honest this time.
    pub(super) fn lie(&self, out: &mut Outside, references: usize) -> Option<Outcome> {
        if out.scenario.liar != Some(self.index) {
            return None;
        }
        let one = |index: usize, reason| Unsettled {
            index: u32::try_from(index).unwrap_or(u32::MAX),
            gone: reason == Reason::Gone,
            reason: wire_reason(reason),
        };
        let all = |reason| (0..references).map(|index| one(index, reason)).collect();
        let lie = match out.random.below(12) {
            0 | 1 => Outcome::Custody(Vec::new()),
            2 => Outcome::Custody(all(Reason::Gone)),
            3 => Outcome::Custody(all(Reason::Forbidden)),
            4 => Outcome::Custody(vec![
                one(0, Reason::Forbidden),
                one(references, Reason::Gone),
                one(usize::MAX, Reason::Gone),
            ]),
            5 if out.random.chance(500) => Outcome::Gone,
            5 => Outcome::Refused(Box::new(not_found())),
            // It would go on for ever: nobody can make it take anything, or say anything of use.
            8 if !out.calm => Outcome::Custody(vec![one(1, Reason::Gone), one(0, Reason::Gone)]),
            6 if !out.calm => Outcome::Result(Bytes::new()),
            7 if !out.calm => Outcome::Later,
            _ => return None,
        };
        let index = self.index;
        out.note(|| format!("domain {index} lies: {lie:?}"));
        Some(lie)
    }

    /// Whether it leaves the last event of a request out of its answer.
    pub(super) fn lies_by_silence(&self, out: &mut Outside) -> bool {
        out.scenario.liar == Some(self.index) && !out.calm && out.random.chance(50)
    }

    /// It does something in the name of others.
    pub(crate) fn forge(&mut self, out: &mut Outside, known: &Known<'_>) {
        let Known {
            group,
            hub,
            victim,
            head,
            ..
        } = *known;
        let home = self.index_of(&victim.domain).unwrap_or(hub);
        let (handle, reference) = (victim.handle, victim.sealed_ref);
        let deliver = |frame, payload| PeerEvent::Deliver {
            group,
            frame,
            payload,
            references: vec![reference],
            handles: vec![handle],
            author: None,
        };
        let (to, event) = match out.random.below(5) {
            0 | 1 => (home, deliver(FrameType::KeyUpdate, known.entry.clone())),
            2 => {
                let gone = GroupEvent::gone(group, vec![handle]);
                let notice = group_event(group, &gone);
                (home, deliver(notice.kind, notice.payload))
            }
            3 => {
                let tag = PeerEvent::Tag {
                    group,
                    handle,
                    reference,
                    position: head,
                    tag: Some(out.random.bytes()),
                };
                (hub, tag)
            }
            _ => {
                let id = MessageId::new(out.random.bytes());
                let msg = Msg::new(head, id, b"in another's name");
                let submit = PeerEvent::Submit {
                    group,
                    handle,
                    reference,
                    payload: msg.payload().clone(),
                };
                (hub, submit)
            }
        };
        let index = self.index;
        out.note(|| format!("domain {index} forges for {to}: {event:?}"));
        if to != index {
            self.send_unkept(out, to, event, None);
        }
    }
}
