//! What a commit sends to other domains, in the order in which their members get it: the Welcomes,
//! the entry, the first message, the closing.

use bytes::Bytes;
use commucat_proto::frame::FrameType;
use commucat_proto::frame::group_invite::GroupInvite;
use commucat_proto::id::{DedupeKey, Handle, MessageId};
use commucat_proto::wire::Cbor;
use commucat_routing::hub::{Change, Recipient};
use commucat_routing::lane::Envelope;
use commucat_storage::{Commit, GroupRelay};

use super::Submitted;
use crate::events;
use crate::hub::Hub;
use crate::peers::ReturnTo;
use crate::router::{Abroad, Member, Placement, deliver};

/// The relays of one commit in the making.
struct Relays<'a> {
    commit: &'a mut Commit,
    /// Of each relay, whom its first message is for.
    messages: Vec<Vec<Handle>>,
}

impl Relays<'_> {
    fn push(
        &mut self,
        peer: &Abroad,
        envelope: &Envelope,
        (members, return_to): (&[Member], ReturnTo),
        welcomes: Option<Handle>,
    ) {
        let outgoing = deliver(envelope, members, Some(return_to));
        let Some(entry) = outgoing.and_then(|outgoing| outgoing.entry(&peer.domain)) else {
            return;
        };
        self.commit.relays.push(GroupRelay { welcomes, entry });
        let is_message = envelope.frame == FrameType::Msg.code();
        let handles = members.iter().filter(|_| is_message);
        self.messages
            .push(handles.map(|member| member.handle).collect());
    }
}

impl Hub {
    /// Adds what members of other domains get; returns whom the first message in each is for.
    pub(super) fn relay(
        &self,
        submitted: &Submitted<'_>,
        commit: &mut Commit,
        change: (&Change, bool),
        placement: &Placement,
    ) -> Vec<Vec<Handle>> {
        let mut relays = Relays {
            commit,
            messages: Vec::new(),
        };
        for peer in &placement.abroad {
            self.relay_to(peer, &mut relays, submitted, change);
        }
        relays.messages
    }

    fn relay_to(
        &self,
        peer: &Abroad,
        relays: &mut Relays<'_>,
        submitted: &Submitted<'_>,
        (change, closes): (&Change, bool),
    ) {
        let group = submitted.bundle.group;
        let message = MessageId::of_body(&submitted.signed().body);
        let recipient = |member: &Member| change.recipients.get(usize::from(member.recipient));
        let unreturned = |members: &[Member]| ReturnTo {
            author: None,
            handles: members.iter().map(|member| member.handle).collect(),
        };
        for member in &peer.members {
            let Some(invite) =
                recipient(member).and_then(|recipient| self.invite(submitted, recipient))
            else {
                continue;
            };
            let body = Bytes::from(invite.encode());
            let welcome = envelope_of(submitted, FrameType::GroupInvite, (message, &body), &body);
            let members = std::slice::from_ref(member);
            let return_to = submitted.return_to((message, welcome.key), members);
            relays.push(peer, &welcome, (members, return_to), Some(member.handle));
        }
        let entry = relays.commit.entry.clone();
        let entry = envelope_of(submitted, FrameType::KeyUpdate, (message, &entry), &entry);
        let members = peer.members.as_slice();
        relays.push(peer, &entry, (members, unreturned(members)), None);
        if let Some(first) = &submitted.first_message {
            let gets = |member: &&Member| recipient(member).is_some_and(|there| there.message);
            let members: Vec<Member> = peer.members.iter().filter(gets).copied().collect();
            if !members.is_empty() {
                let named = (first.message(), &first.ciphertext());
                let body = first.payload();
                let envelope = envelope_of(submitted, FrameType::Msg, named, body);
                let return_to = submitted.return_to((first.message(), envelope.key), &members);
                relays.push(peer, &envelope, (&members, return_to), None);
            }
        }
        if closes {
            let closed = events::closed(&group);
            relays.push(peer, &closed, (members, unreturned(members)), None);
        }
    }

    /// The Welcome for a member, if the bundle has one.
    pub(super) fn invite(
        &self,
        submitted: &Submitted<'_>,
        recipient: &Recipient,
    ) -> Option<GroupInvite> {
        let bundle = &submitted.bundle;
        let welcome = bundle.welcomes.get(recipient.welcome?)?;
        Some(GroupInvite {
            group: bundle.group,
            hub: self.domain().clone(),
            position: bundle.expect.saturating_add(1),
            handle: recipient.entry.handle,
            sealed_ref: recipient.entry.sealed_ref,
            welcome: welcome.welcome.clone(),
            message: MessageId::of_body(&submitted.signed().body),
        })
    }
}

fn envelope_of(
    submitted: &Submitted<'_>,
    frame: FrameType,
    (message, content): (MessageId, &Bytes),
    body: &Bytes,
) -> Envelope {
    let group = submitted.bundle.group;
    Envelope {
        key: DedupeKey::of(&group, &message, content),
        group: Some(group),
        frame: frame.code(),
        body: body.clone(),
    }
}
