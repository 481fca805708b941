//! What every backend must do, as plain functions on a fresh, empty store. A backend runs all of
//! them by `run_conformance!`.

use bytes::Bytes;
use commucat_proto::id::{
    AccountKey, DedupeKey, DeviceId, Domain, GroupId, Handle, MessageId, NoiseKey, QueueId,
    SealedRef, TokenHash,
};
use commucat_proto::time::Timestamp;

use crate::{
    Admission, Content, Delivery, DeviceList, EntryKind, FanoutEntry, ListedDevice, NewEntry,
    NewGroup, Page, QueuePosition, Registration, RowId, Spooled, Store,
};

pub(crate) mod capabilities;
pub(crate) mod clock;
pub(crate) mod devices;
pub(crate) mod expiry;
pub(crate) mod groups;
pub(crate) mod invites;
pub(crate) mod key_packages;
pub(crate) mod log;
pub(crate) mod outbox;
pub(crate) mod peers;
pub(crate) mod queue_limits;
pub(crate) mod queues;

/// Makes one test per conformance function; `$open` gives a store with the limits asked for, and
/// something that lives as long as it.
macro_rules! run_conformance {
    ($open:path: $($concern:ident { $($name:ident)+ })+) => {$(
        mod $concern {
            $(#[tokio::test]
            async fn $name() {
                let (store, _guard) = $open().await;
                $crate::conformance::$concern::$name(&store).await;
            })+
        }
    )+};
}
pub(crate) use run_conformance;

/// Limits that the suite is written for: small, so that full queues are cheap.
pub(crate) const LIMITS: crate::QueueLimits = crate::QueueLimits {
    bytes: 4_000,
    entries: 40,
};

/// The same for what waits for one peer.
pub(crate) const OUTBOX_LIMITS: crate::OutboxLimits = crate::OutboxLimits {
    bytes: 4_000,
    entries: 20,
};

pub(crate) fn at(millis: u64) -> Timestamp {
    Timestamp::from_millis(millis)
}

pub(crate) fn device_id(number: u8) -> DeviceId {
    DeviceId::of_key(&NoiseKey::new([number; 32]))
}

pub(crate) fn listed(number: u8) -> ListedDevice {
    ListedDevice {
        device: device_id(number),
        noise_key: NoiseKey::new([number; 32]),
        not_before: at(0),
        not_after: at(1_000_000),
    }
}

/// The list of account `account` with those devices.
pub(crate) fn list(account: u8, version: u64, devices: &[u8]) -> DeviceList {
    DeviceList {
        account_key: AccountKey::new([account; 32]),
        version,
        signed: Bytes::from(format!("list {account} {version} {devices:?}")),
        devices: devices.iter().map(|number| listed(*number)).collect(),
    }
}

/// Registers account and device `number`; returns the device's queue.
pub(crate) async fn queue(store: &Store, number: u8) -> QueueId {
    let device = device_id(number);
    let done = store
        .register(list(number, 1, &[number]), &device, Admission::Open, at(1))
        .await;
    assert!(matches!(done, Ok(Registration::Registered(_))));
    store.device(&device).await.unwrap().unwrap().queue
}

pub(crate) fn group_id(number: u8) -> GroupId {
    GroupId::new([number; 32])
}

/// A message of `size` bytes that differs from others by `number`.
pub(crate) fn message(group: u8, number: u32, size: usize) -> NewEntry {
    let mut body = number.to_be_bytes().to_vec();
    body.resize(size.max(4), 0);
    let id = MessageId::of_body(&body);
    NewEntry {
        key: DedupeKey::of(&group_id(group), &id, &body),
        kind: EntryKind::Message,
        group: group_id(group),
        body: Bytes::from(body),
    }
}

pub(crate) fn delivery(queue: QueueId, entries: &[NewEntry]) -> Delivery {
    Delivery {
        queue,
        entries: entries.to_vec(),
    }
}

/// Spools to one queue; returns the outcomes.
pub(crate) async fn spool(store: &Store, queue: QueueId, entries: &[NewEntry]) -> Vec<Spooled> {
    let mut done = store
        .spool(vec![delivery(queue, entries)], at(1_000))
        .await
        .unwrap();
    done.remove(0).outcomes
}

/// Everything that waits in a queue.
pub(crate) async fn all(store: &Store, queue: QueueId) -> Page {
    store
        .page(&queue, QueuePosition::START, usize::MAX, 100_000)
        .await
        .unwrap()
        .unwrap()
}

pub(crate) fn row_ids(queue: QueueId, page: &Page) -> Vec<RowId> {
    page.rows
        .iter()
        .map(|row| RowId {
            queue,
            position: row.position,
            key: row.key,
        })
        .collect()
}

pub(crate) fn bodies(page: &Page) -> Vec<Bytes> {
    let body = |content: &Content| match content {
        Content::Frame { body, .. } => Some(body.clone()),
        Content::Gap | Content::Corrupt => None,
    };
    page.rows
        .iter()
        .filter_map(|row| body(&row.content))
        .collect()
}

pub(crate) fn gaps(page: &Page) -> usize {
    page.rows
        .iter()
        .filter(|row| row.content == Content::Gap)
        .count()
}

pub(crate) fn member(number: u8, admin: bool) -> FanoutEntry {
    FanoutEntry {
        handle: Handle::new([number; 32]),
        domain: Domain::parse("example.org").unwrap(),
        sealed_ref: SealedRef::new([number; 65]),
        admin,
    }
}

pub(crate) fn new_group(number: u8) -> NewGroup {
    NewGroup {
        group: group_id(number),
        request_hash: [number; 32],
        creator: member(1, true),
        group_info: Some(Bytes::from_static(b"info 0")),
        join_key: None,
    }
}

pub(crate) fn token_hash(number: u8) -> TokenHash {
    TokenHash::new([number; 32])
}
