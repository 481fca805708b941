//! The engine as a whole, over carriers in this process.

use std::time::Duration;

use commucat_config::Sources;
use commucat_federation::batch::Outcome;
use commucat_federation::event::{Body, Class, Event, EventId, Return, Submit};
use commucat_ledger::NullSink;
use commucat_proto::decoder::{Decoder, Incoming};
use commucat_proto::frame::group_event::Reason;
use commucat_proto::frame::msg::Msg;
use commucat_proto::frame::{Direction, FrameType};
use commucat_proto::id::{DedupeKey, GroupId, Handle, MessageId, QueueId, SealedRef};
use commucat_storage::{Commit, FanoutEntry, Location, NewGroup, Options};
use tokio::time::{sleep, timeout};

use super::*;
use crate::{clock, fixtures};

/// Longer than anything here takes, shorter than a handshake may.
const PATIENCE: Duration = Duration::from_secs(5);

async fn engine() -> (Arc<Engine>, tempfile::TempDir) {
    let (engine, _, place) = engine_with(|_| ()).await;
    (engine, place)
}

async fn engine_with(set: impl FnOnce(&mut Config)) -> (Arc<Engine>, Store, tempfile::TempDir) {
    let place = tempfile::tempdir().unwrap();
    let mut config = Config::load(&Sources::default()).unwrap();
    set(&mut config);
    let directory = place.path().join("data");
    let store = Store::open(Location::Sqlite { directory }, Options::default());
    let keys = Keys::open(
        &place.path().join("keys"),
        &config.server.domain,
        clock::now(),
    );
    let (ledger, _worker) = Ledger::start(NullSink::default()).unwrap();
    let (keys, store) = (keys.unwrap(), store.await.unwrap());
    let (metrics, buckets) = (Metrics::new(), Buckets::alone(&config.limits));
    let client = crate::federation::client(
        &config,
        keys.clone(),
        store.clone(),
        (metrics.clone(), buckets.clone()),
    );
    let engine = Engine::new(Parts {
        client: client.unwrap(),
        config: Arc::new(config),
        keys,
        store: store.clone(),
        ledger,
        metrics,
        buckets,
        nodes: Nodes::default(),
    });
    Arc::clone(&engine).start();
    (engine, store, place)
}

/// A member of a domain far away, alone in a group of this one.
#[derive(Clone, Copy)]
struct Far {
    group: GroupId,
    handle: Handle,
    reference: SealedRef,
}

impl Far {
    async fn member(store: &Store, number: u8) -> Self {
        let far = Self {
            group: GroupId::new([number; 32]),
            handle: Handle::new([number; 32]),
            reference: SealedRef::new([number; 65]),
        };
        let group = NewGroup {
            group: far.group,
            request_hash: [number; 32],
            creator: FanoutEntry {
                handle: far.handle,
                domain: far_domain(),
                sealed_ref: far.reference,
                admin: true,
            },
            group_info: None,
            join_key: None,
        };
        store.create_group(group, clock::now()).await.unwrap();
        far
    }

    /// A message of it, as its domain passes it on.
    fn submits(self, number: u8) -> Event {
        let msg = Msg::new(0, MessageId::new([number; 16]), b"text");
        let submit = Submit {
            group: self.group,
            handle: self.handle,
            reference: self.reference,
            class: Class::Durable,
            payload: msg.payload().clone(),
        };
        Event::new(EventId::new([number; 16]), Body::Submit(submit))
    }

    /// A frame that comes back to somebody who is not here: refused for good when it is looked at.
    fn returns(self, number: u8) -> Event {
        let returned = Return {
            group: self.group,
            message: MessageId::new([number; 16]),
            returned: DedupeKey::new([number; 16]),
            handles: Vec::new(),
            reason: Reason::Forbidden,
            author: self.reference,
        };
        Event::new(EventId::new([number; 16]), Body::Return(returned))
    }
}

/// The commit that adds a device with this handle to a new group.
fn addition(engine: &Engine, group: GroupId, (queue, handle): (QueueId, Handle)) -> Commit {
    let domain = engine.router().domain().clone();
    let keys = &engine.sessions.keys;
    let sealed_ref = keys.seal_reference(&queue, clock::now(), &group, &domain);
    let added = FanoutEntry {
        handle,
        domain,
        sealed_ref,
        admin: false,
    };
    fixtures::addition(group, added)
}

fn far_domain() -> Domain {
    Domain::parse("far.example").unwrap()
}

async fn outcomes(engine: &Engine, events: Vec<Event>) -> Vec<&'static str> {
    let far = far_domain();
    let taken = engine.inbox().take(&far, events);
    let outcomes = timeout(PATIENCE, taken).await.unwrap();
    let name = |(_, outcome): &(EventId, Outcome)| match outcome {
        Outcome::Custody(_) => "custody",
        Outcome::Result(_) => "result",
        Outcome::Refused(_) => "refused",
        Outcome::Gone => "gone",
        Outcome::Later => "later",
    };
    outcomes.iter().map(name).collect()
}

#[tokio::test]
async fn a_handle_of_another_domain_submits_no_faster_than_own_ones() {
    let (engine, store, _place) = engine_with(|config| {
        config.limits.submit_rate = 1;
        config.limits.submit_burst = 2;
    })
    .await;
    let (fast, other) = (Far::member(&store, 1).await, Far::member(&store, 2).await);

    let events = [1, 2, 3].map(|number| fast.submits(number));
    let first = outcomes(&engine, events.to_vec()).await;
    let second = outcomes(&engine, vec![other.submits(4)]).await;

    assert_eq!(first, ["custody", "custody", "later"]);
    assert_eq!(second, ["custody"]);
}

#[tokio::test]
async fn whoever_is_not_in_the_list_uses_up_no_budget() {
    let (engine, store, _place) = engine_with(|config| {
        config.limits.submit_rate = 1;
        config.limits.submit_burst = 1;
    })
    .await;
    let member = Far::member(&store, 1).await;
    let stranger = Far {
        reference: SealedRef::new([9; 65]),
        ..member
    };

    let events = vec![stranger.submits(1), member.submits(2)];
    let outcomes = outcomes(&engine, events).await;

    assert_eq!(outcomes, ["refused", "custody"]);
}

#[tokio::test]
async fn behind_an_event_that_is_held_up_those_of_its_group_wait_and_others_pass() {
    let (engine, store, _place) = engine_with(|config| {
        config.limits.submit_rate = 1;
        config.limits.submit_burst = 1;
    })
    .await;
    let (held_up, other) = (Far::member(&store, 1).await, Far::member(&store, 2).await);

    let alone = outcomes(&engine, vec![held_up.returns(1)]).await;
    let events = vec![
        held_up.submits(2),
        held_up.submits(3),
        held_up.returns(1),
        other.returns(4),
        other.submits(5),
    ];
    let behind = outcomes(&engine, events).await;

    assert_eq!(alone, ["refused"]);
    assert_eq!(behind, ["custody", "later", "later", "refused", "custody"]);
}

#[tokio::test]
async fn a_queue_that_turns_out_to_be_revoked_leaves_the_list() {
    let (engine, store, _place) = engine_with(|_| ()).await;
    let far = Far::member(&store, 1).await;
    let (device, handle) = (fixtures::device(&store, 5).await, Handle::new([9; 32]));
    let commit = addition(&engine, far.group, (device.queue, handle));
    store.commit(commit, clock::now()).await.unwrap();
    // From now on the hub has the group at hand.
    assert_eq!(outcomes(&engine, vec![far.submits(1)]).await, ["custody"]);

    // Nobody tells the hub, as on another node that has not heard of it yet.
    store.revoke_device(&device.device).await.unwrap().unwrap();
    assert_eq!(outcomes(&engine, vec![far.submits(2)]).await, ["custody"]);

    let leaves = async {
        loop {
            let group = store.group(&far.group).await.unwrap().unwrap();
            if group.entries.iter().all(|entry| entry.handle != handle) {
                return group;
            }
            sleep(Duration::from_millis(2)).await;
        }
    };
    let group = timeout(PATIENCE, leaves).await.unwrap();
    assert_eq!(group.entries.len(), 1);
}

#[tokio::test]
async fn a_session_takes_little_room() {
    let (engine, _place) = engine().await;
    let (near, _far) = Carrier::pair();

    let session = engine.serve(near);

    let bytes = size_of_val(&session);
    assert!(bytes <= 4 * 1024, "{bytes} bytes");
}

#[tokio::test]
async fn the_end_waits_for_no_handshake() {
    let (engine, _place) = engine().await;
    let (near, mut far) = Carrier::pair();
    let session = TaskTracker::new().spawn(Arc::clone(&engine).serve(near));

    timeout(PATIENCE, Arc::clone(&engine).drain())
        .await
        .unwrap();

    session.await.unwrap();
    let told = far.reader.next().await.unwrap().unwrap();
    let mut decoder = Decoder::clear(Direction::Down);
    decoder.push(&told);
    let Ok(Some(Incoming::Frame(frame))) = decoder.next_frame() else {
        panic!("no frame");
    };
    assert_eq!(frame.header.kind, FrameType::Error);
    assert!(String::from_utf8_lossy(&frame.payload).contains("Draining"));
}

#[tokio::test]
async fn a_session_whose_carrier_is_dropped_is_counted_no_more() {
    let (engine, _place) = engine().await;
    let (near, far) = Carrier::pair();
    let metrics = engine.sessions.metrics.clone();

    let session = TaskTracker::new().spawn(engine.serve(near));
    drop(far);
    timeout(PATIENCE, session).await.unwrap().unwrap();

    assert_eq!(metrics.sessions.get(), 0);
}
