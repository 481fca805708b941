//! What only one of the backends promises: lock, files, schema, damage; TLS and safe settings; and the
//! data manifest.

#![cfg(test)]

mod backup;
mod bookkeeping;
mod damage;
mod manifest;
mod opening;
mod protection;

use std::path::Path;

use bytes::Bytes;
use commucat_proto::id::{AccountKey, DedupeKey, DeviceId, GroupId, NoiseKey, QueueId};
use commucat_proto::time::Timestamp;
use commucat_storage::{
    Admission, Delivery, DeviceList, EntryKind, ListedDevice, Location, NewEntry, OpenError,
    Options, Store,
};

async fn open(directory: &Path) -> Result<Store, OpenError> {
    let location = Location::Sqlite {
        directory: directory.to_owned(),
    };
    Store::open(location, Options::default()).await
}

/// Registers the one device of these tests.
async fn queue(store: &Store) -> QueueId {
    let noise_key = NoiseKey::new([1; 32]);
    let device = DeviceId::of_key(&noise_key);
    let listed = ListedDevice {
        device: device.clone(),
        noise_key,
        not_before: Timestamp::ZERO,
        not_after: Timestamp::from_millis(9_000),
    };
    let list = DeviceList {
        account_key: AccountKey::new([1; 32]),
        version: 1,
        signed: Bytes::from_static(b"list"),
        devices: vec![listed],
    };
    store
        .register(list, &device, Admission::Open, Timestamp::ZERO)
        .await
        .unwrap();
    store.device(&device).await.unwrap().unwrap().queue
}

fn delivery(queue: QueueId, texts: &[&'static str]) -> Delivery {
    let entry = |text: &&'static str| NewEntry {
        key: DedupeKey::parse(&blake3::hash(text.as_bytes()).as_bytes()[..16]).unwrap(),
        kind: EntryKind::Message,
        group: GroupId::new([7; 32]),
        body: Bytes::from_static(text.as_bytes()),
    };
    Delivery {
        queue,
        entries: texts.iter().map(entry).collect(),
    }
}
