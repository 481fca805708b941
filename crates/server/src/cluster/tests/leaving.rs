//! A device leaves a group for good on one node while another one has at hand where its reference
//! leads.

use commucat_federation::batch::{Outcome as Event, Unsettled};
use commucat_federation::event::{self, Body, Class, Deliver, Delivered, EventId, Submit};
use commucat_proto::frame::group_event::Reason;
use commucat_proto::frame::msg::Msg;
use commucat_proto::id::Domain;
use commucat_storage::{FanoutEntry, NewGroup};

use super::*;

const DEVICE: Handle = Handle::new([2; 32]);
const FAR: Handle = Handle::new([3; 32]);
const FAR_REFERENCE: SealedRef = SealedRef::new([4; 65]);

fn far() -> Domain {
    Domain::parse("far.example").unwrap()
}

impl World {
    /// The device's reference in the group, whose hub is `hub`.
    fn reference(&self, hub: &Domain) -> SealedRef {
        let issued = clock::now();
        self.keys.seal_reference(&self.queue, issued, &GROUP, hub)
    }

    async fn head(&self) -> Option<QueuePosition> {
        let heads = self.store.queue_heads(vec![self.queue]).await.unwrap();
        heads.first().copied().flatten()
    }

    /// A group of this domain with the device and a member of another domain, who made it.
    async fn group(&self, domain: &Domain) {
        let entry = |handle, domain: &Domain, sealed_ref| FanoutEntry {
            handle,
            domain: domain.clone(),
            sealed_ref,
            admin: true,
        };
        let made = NewGroup {
            group: GROUP,
            request_hash: [1; 32],
            creator: entry(FAR, &far(), FAR_REFERENCE),
            group_info: None,
            join_key: None,
        };
        self.store.create_group(made, clock::now()).await.unwrap();
        let added = fixtures::addition(GROUP, entry(DEVICE, domain, self.reference(domain)));
        self.store.commit(added, clock::now()).await.unwrap();
    }
}

impl Node {
    /// The other domain sends a message, in a group of this one or of its own.
    async fn takes(&self, number: u8, body: impl FnOnce(Bytes) -> Body) -> Event {
        let message = Msg::new(0, MessageId::new([number; 16]), b"text");
        let body = body(message.payload().clone());
        let sent = event::Event::new(EventId::new([number; 16]), body);
        let inbox = self.engine.inbox().clone();
        let taken = timeout(PATIENCE, async { inbox.take(&far(), vec![sent]).await });
        let [(_, outcome)] = <[_; 1]>::try_from(taken.await.unwrap()).unwrap();
        outcome
    }

    /// The device leaves over this node, and gets its answer.
    async fn leaves(&self) {
        let left = self.engine.accounts().leave(&self.queue, &GROUP);
        left.await.unwrap();
        self.engine.router().until_all_look_again().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_of_another_domain_that_was_left_on_one_node_is_left_on_all() {
    let world = World::new().await;
    let (one, two) = (world.node("one").await, world.node("two").await);
    let reference = world.reference(&far());
    let deliver = |payload| {
        Body::Deliver(Deliver {
            group: GROUP,
            frame: Delivered::Message,
            payload,
            references: vec![reference],
        })
    };
    assert_eq!(one.takes(1, deliver).await, Event::Custody(Vec::new()));

    two.leaves().await;
    let outcome = one.takes(2, deliver).await;

    let gone = Unsettled {
        index: 0,
        gone: true,
        reason: Reason::Gone,
    };
    assert_eq!(outcome, Event::Custody(vec![gone]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_was_left_on_one_node_is_left_on_all() {
    let world = World::new().await;
    let (one, two) = (world.node("one").await, world.node("two").await);
    world.group(one.engine.router().domain()).await;
    let submit = |payload| {
        Body::Submit(Submit {
            group: GROUP,
            handle: FAR,
            reference: FAR_REFERENCE,
            class: Class::Durable,
            payload,
        })
    };
    assert_eq!(one.takes(1, submit).await, Event::Custody(Vec::new()));

    two.leaves().await;
    let before = world.head().await;
    assert_eq!(one.takes(2, submit).await, Event::Custody(Vec::new()));

    assert_eq!(world.head().await, before);
}
