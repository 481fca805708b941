//! What the tests of this crate put into a store.

use bytes::Bytes;
use commucat_proto::id::{AccountKey, DeviceId, GroupId, NoiseKey};
use commucat_proto::signed::Signed;
use commucat_proto::time::Timestamp;
use commucat_proto::wire::Cbor as _;
use commucat_storage::{
    Admission, Commit, Device, DeviceList, FanoutEntry, JoinKeyChange, ListedDevice, Store,
};

use crate::clock;

/// Registers an account with one device, whose keys are made of `number`.
pub(crate) async fn device(store: &Store, number: u8) -> Device {
    let key = NoiseKey::new([number; 32]);
    let id = DeviceId::of_key(&key);
    let device = ListedDevice {
        device: id.clone(),
        noise_key: key,
        not_before: Timestamp::from_millis(0),
        not_after: Timestamp::from_millis(u64::MAX / 2),
    };
    let signed = Signed {
        body: Bytes::from(vec![number; 8]),
        signature: [0; 64],
    };
    let list = DeviceList {
        account_key: AccountKey::new([number; 32]),
        version: 1,
        signed: signed.encode().into(),
        devices: vec![device],
    };
    let registered = store.register(list, &id, Admission::Open, clock::now());
    registered.await.unwrap();
    store.device_by_key(&key).await.unwrap().unwrap()
}

/// The first commit of a group after it was made: adds `member`.
pub(crate) fn addition(group: GroupId, member: FanoutEntry) -> Commit {
    Commit {
        group,
        expect: 0,
        body_hash: [1; 32],
        entry: Bytes::from_static(b"an entry"),
        group_info: Bytes::from_static(b"a group info"),
        add: vec![member],
        remove: Vec::new(),
        admins: Vec::new(),
        join_key: JoinKeyChange::Keep,
        close: false,
        deliveries: Vec::new(),
        relays: Vec::new(),
        refused: Vec::new(),
    }
}
