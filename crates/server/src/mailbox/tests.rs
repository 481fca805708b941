//! Mailboxes with a real store, without sessions: what a link hears and what an author is answered.

use bytes::Bytes;
use commucat_proto::error::Title;
use commucat_proto::frame::FrameType;
use commucat_proto::id::{GroupId, Handle, MessageId, SealedRef};
use commucat_routing::pipeline::Limits;
use commucat_routing::ticket::Status;
use commucat_storage::{Location, Options};

use super::*;
use crate::clock;
use crate::custody::{self, Author, Frame};
use crate::router::Router;

const QUEUE: QueueId = QueueId::new([7; 16]);
const GROUP: GroupId = GroupId::new([1; 32]);

struct Place {
    mailboxes: Mailboxes,
    store: Store,
    router: Router,
    _directory: tempfile::TempDir,
}

async fn place() -> Place {
    let directory = tempfile::tempdir().unwrap();
    let location = Location::Sqlite {
        directory: directory.path().join("data"),
    };
    let store = Store::open(location, Options::default()).await.unwrap();
    let mailboxes = Mailboxes::new(store.clone(), Settings::mailbox(), 1 << 30, Metrics::new());
    mailboxes.start(&TaskTracker::new(), &CancellationToken::new());
    Place {
        router: Router::alone(&mailboxes, &store, directory.path()),
        mailboxes,
        store,
        _directory: directory,
    }
}

/// An author's connection that has sent the MSG `sequence`, in custody of `QUEUE` from now on.
fn send(place: &Place, sequence: u32) -> Link {
    let author = Link::new();
    let limits = Limits {
        frames: 10,
        bytes: 1_000,
    };
    author.begin(sequence, 1, 5, limits).unwrap();
    let frame = Frame {
        author: Author::Device {
            link: author.clone(),
            sequence,
            queue: QueueId::new([9; 16]),
            reference: SealedRef::new([0; 65]),
        },
        group: GROUP,
        message: MessageId::new([3; 16]),
        key: DedupeKey::new([5; 16]),
        recipients: Arc::new([Handle::new([4; 32])]),
        since: Instant::now(),
    };
    let envelope = Envelope {
        key: DedupeKey::new([5; 16]),
        group: Some(GROUP),
        frame: FrameType::Msg.code(),
        body: Bytes::from_static(b"hello"),
    };
    custody::accept(frame, &place.router, |leg| {
        place
            .mailboxes
            .append(QUEUE, envelope, leg(0), Instant::now());
    });
    author
}

/// Pumps until the queue has nothing more to give.
async fn pump(attached: &Attached) -> Vec<Delivery> {
    let mut sends = Vec::new();
    loop {
        match attached.pump(1_000, &mut sends) {
            Pumped::ReadPage { after } => {
                let page = attached.read_page(after, 1_000, clock::now(), &mut sends);
                page.await.unwrap();
            }
            Pumped::Idle | Pumped::Detached => return sends,
            Pumped::More | Pumped::Emptied | Pumped::Full | Pumped::Reading => {}
        }
    }
}

#[tokio::test]
async fn what_a_device_that_is_there_acknowledges_is_delivered_and_leaves_nothing() {
    let place = place().await;
    let attached = place.mailboxes.attach(QUEUE, Link::new());
    assert_eq!(pump(&attached).await, []);

    let author = send(&place, 1);
    let sent = pump(&attached).await;
    attached.acked(sent.iter().map(Delivery::sent).collect());

    let acks = author.take().acks;
    assert_eq!((acks.len(), acks[0].status), (1, Status::Delivered));
    assert_eq!(place.mailboxes.memory(), 0);
    drop(attached);
    assert_eq!(place.mailboxes.len(), 0);
}

#[tokio::test]
async fn an_author_is_answered_when_the_device_goes_without_a_word() {
    let place = place().await;
    let attached = place.mailboxes.attach(QUEUE, Link::new());
    pump(&attached).await;

    let author = send(&place, 1);
    drop(attached);
    author.woken().await;

    // Nobody registered the queue, so it counts as gone, and the author is told.
    assert_eq!(author.take().acks[0].status, Status::Stored);
    place.mailboxes.drain().await;
    assert_eq!(place.mailboxes.len(), 0);
}

#[tokio::test]
async fn a_second_connection_replaces_the_first_which_may_still_acknowledge() {
    let place = place().await;
    let (first, second) = (Link::new(), Link::new());
    let old = place.mailboxes.attach(QUEUE, first.clone());
    pump(&old).await;
    let author = send(&place, 1);
    let sent = pump(&old).await;

    let new = place.mailboxes.attach(QUEUE, second.clone());
    old.acked(sent.iter().map(Delivery::sent).collect());
    drop(old);

    assert_eq!(first.take().ending, Some(Title::Replaced));
    assert_eq!(second.take().ending, None);
    assert_eq!(author.take().acks[0].status, Status::Delivered);
    assert_eq!(pump(&new).await, []);
}

#[tokio::test]
async fn a_revoked_queue_ends_its_connection_and_every_ticket() {
    let place = place().await;
    let link = Link::new();
    let attached = place.mailboxes.attach(QUEUE, link.clone());
    pump(&attached).await;
    let author = send(&place, 1);

    place.mailboxes.revoke(&QUEUE);

    assert_eq!(link.take().ending, Some(Title::Revoked));
    assert!(!link.has_room().await);
    assert!(matches!(
        attached.pump(1_000, &mut Vec::new()),
        Pumped::Detached
    ));
    author.woken().await;
    assert_eq!(author.take().acks[0].status, Status::Stored);
    assert_eq!(place.mailboxes.memory(), 0);
    assert!(place.store.queue_state(&QUEUE).await.unwrap().is_none());
}

#[tokio::test]
async fn who_takes_no_answers_is_not_read() {
    let link = Link::new();
    assert!(link.has_room().await);

    link.answer(|out| out.extend_from_slice(&[0; 65_537]));
    let waiting = TaskTracker::new().spawn({
        let link = link.clone();
        async move { link.has_room().await }
    });
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());

    assert_eq!(link.take().control.len(), 65_537);
    assert!(waiting.await.unwrap());
}
