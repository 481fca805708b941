//! Groups whose hub is another domain: what devices of this domain send goes there. And members of
//! other domains in groups of this one: what the hub tells them.
//!
//! Of a group whose hub is elsewhere nothing is kept here.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use commucat_federation::event::{Body, Class, Submit, Tag};
use commucat_proto::frame::ack::ForkTag;
use commucat_proto::frame::msg::Msg;
use commucat_proto::id::{DedupeKey, Domain};
use commucat_routing::lane::Envelope;

use super::Hub;
use crate::custody::{self, Author, Frame, Leg};
use crate::peers::{Outgoing, PeerLeg, ReturnTo};
pub(super) use crate::router::Member as Listed;
use crate::session::Binding;

impl Hub {
    /// Takes a MSG into custody for the hub of its group: one leg, which ends when the hub's domain
    /// has answered, or when the message is in the outbox.
    pub(super) fn submit_abroad(&self, author: Author, binding: &Binding, msg: &Msg) {
        let now = Instant::now();
        let frame = Frame {
            author,
            group: binding.group,
            message: msg.message(),
            key: DedupeKey::of(&binding.group, &msg.message(), &msg.ciphertext()),
            recipients: Arc::default(),
            since: now,
        };
        let body = Self::submission(binding, Class::Durable, msg.payload().clone());
        let outgoing = Outgoing::new(body, None);
        let router = &self.0.router;
        custody::accept(frame, router, |leg| {
            let leg = PeerLeg::new(leg(0), Vec::new());
            router.peers().send(&binding.hub, outgoing, leg, now);
        });
    }

    pub(super) fn typing_abroad(&self, binding: &Binding, payload: Bytes) {
        let body = Self::submission(binding, Class::Ephemeral, payload);
        self.0.router.peers().hint(&binding.hub, body);
    }

    fn submission(binding: &Binding, class: Class, payload: Bytes) -> Body {
        Body::Submit(Submit {
            group: binding.group,
            handle: binding.handle,
            reference: binding.sealed_ref,
            class,
            payload,
        })
    }

    pub(super) fn tag_abroad(&self, binding: &Binding, tag: &ForkTag) {
        let tag = Tag {
            group: binding.group,
            handle: binding.handle,
            reference: binding.sealed_ref,
            position: tag.position,
            tag: tag.tag,
        };
        self.0.router.peers().hint(&binding.hub, Body::Tag(tag));
    }

    /// Hands a notice of the hub to the domain of `members`. It is never returned.
    pub(super) fn notify_abroad(
        &self,
        domain: &Domain,
        notice: &Envelope,
        members: &[Listed],
        leg: Leg,
    ) {
        if members.is_empty() {
            leg.resolve(commucat_routing::ticket::Outcome::Delivered);
            return;
        }
        let return_to = ReturnTo {
            author: None,
            handles: members.iter().map(|member| member.handle).collect(),
        };
        self.0
            .router
            .relay(notice, (domain, members), return_to, leg);
    }
}
