//! Registration, device lists, devices.

use commucat_proto::id::AccountId;

use super::*;
use crate::{ListChange, ListPut, StoredList};

pub(crate) async fn a_registered_device_is_found_by_id_and_key(store: &Store) {
    let done = register(store, list(1, 5, &[1, 2]), 1).await;

    let added = vec![device_id(1), device_id(2)];
    let change = ListChange {
        added,
        opened: true,
        ..ListChange::default()
    };
    assert_eq!(done, Registration::Registered(change));
    let device = store.device(&device_id(2)).await.unwrap().unwrap();
    assert_eq!(device.account, account(1));
    assert_eq!(
        (device.not_before, device.not_after),
        (at(0), at(1_000_000))
    );
    let by_key = store.device_by_key(&NoiseKey::new([2; 32])).await.unwrap();
    assert_eq!(by_key, Some(device.clone()));
    let both = store.account_devices(&account(1)).await.unwrap();
    assert_eq!(both.len(), 2);
    assert_ne!(both[0].queue, both[1].queue);
    assert_eq!(
        store.devices(Some(&both[0].device), 9).await.unwrap().len(),
        { usize::from(both[0].device < both[1].device) }
    );
}

pub(crate) async fn the_list_is_kept_as_signed(store: &Store) {
    let (list, other) = (list(1, u64::MAX, &[1]), list(2, 3, &[2]));
    register(store, list.clone(), 1).await;

    let stored = StoredList {
        account_key: list.account_key,
        version: u64::MAX,
        signed: list.signed,
    };
    assert_eq!(store.list(&account(1)).await.unwrap(), Some(stored));
    assert_eq!(store.list(&account(2)).await.unwrap(), None);
    let versions = store.list_versions(None, 9).await.unwrap();
    assert_eq!(versions, [(account(1), u64::MAX)]);
    register(store, other, 2).await;
    let mut both = vec![(account(1), u64::MAX), (account(2), 3)];
    both.sort();
    let first = store.list_versions(None, 1).await.unwrap();
    let second = store.list_versions(Some(&both[0].0), 9).await.unwrap();
    assert_eq!([first, second].concat(), both);
}

pub(crate) async fn an_unknown_account_needs_an_invite_unless_registration_is_open(store: &Store) {
    for admission in [Admission::Invite(None), Admission::Closed] {
        let done = store
            .register(list(1, 1, &[1]), &device_id(1), admission, at(1))
            .await
            .unwrap();
        assert_eq!(done, Registration::NotInvited);
    }
    assert_eq!(store.list(&account(1)).await.unwrap(), None);
}

pub(crate) async fn a_known_account_registers_devices_by_a_higher_version_alone(store: &Store) {
    register(store, list(1, 5, &[1]), 1).await;

    let newer = list(1, 6, &[1, 2]);
    let done = store
        .register(newer.clone(), &device_id(2), Admission::Closed, at(2))
        .await
        .unwrap();

    let change = ListChange {
        added: vec![device_id(2)],
        ..ListChange::default()
    };
    assert_eq!(done, Registration::Registered(change));
    assert_eq!(register(store, newer, 2).await, Registration::Unchanged);
    assert_eq!(
        register(store, list(1, 5, &[1, 3]), 3).await,
        Registration::Outdated
    );
    assert_eq!(
        register(store, list(1, 6, &[1, 3]), 3).await,
        Registration::Equivocation
    );
    assert_eq!(
        register(store, list(1, 7, &[1, 2]), 3).await,
        Registration::NotListed
    );
    assert_eq!(store.list(&account(1)).await.unwrap().unwrap().version, 6);
}

pub(crate) async fn ids_and_keys_of_other_accounts_cannot_be_taken(store: &Store) {
    register(store, list(1, 1, &[1]), 1).await;
    let mut same_key = list(2, 1, &[2]);
    same_key.devices[0].noise_key = NoiseKey::new([1; 32]);

    assert_eq!(
        register(store, list(2, 1, &[1, 2]), 2).await,
        Registration::Taken
    );
    assert_eq!(register(store, same_key, 2).await, Registration::Taken);

    let device = store.device(&device_id(1)).await.unwrap().unwrap();
    assert_eq!(device.account, account(1));
    register(store, list(2, 1, &[2]), 2).await;
    assert_eq!(put(store, list(2, 2, &[1, 2]), 2).await, ListPut::Taken);
}

pub(crate) async fn a_refused_registration_does_not_use_the_invite(store: &Store) {
    register(store, list(1, 1, &[1]), 1).await;
    let invite = crate::NewInvite {
        hash: token_hash(7),
        uses: 1,
        expires: at(99),
    };
    store.create_invite(invite, at(1)).await.unwrap();
    let admission = Admission::Invite(Some(token_hash(7)));

    let taken = store
        .register(list(2, 1, &[2, 1]), &device_id(2), admission, at(2))
        .await
        .unwrap();

    assert_eq!(taken, Registration::Taken);
    assert!(store.invite_is_live(&token_hash(7), at(2)).await.unwrap());
}

pub(crate) async fn a_device_that_left_the_list_loses_everything(store: &Store) {
    register(store, list(1, 1, &[1, 2]), 1).await;
    let left = store.device(&device_id(2)).await.unwrap().unwrap();

    let done = put(store, list(1, 2, &[1]), 1).await;

    let removed = vec![(device_id(2), left.queue)];
    assert_eq!(
        done,
        ListPut::Stored(ListChange {
            removed,
            ..ListChange::default()
        })
    );
    assert_eq!(store.device(&device_id(2)).await.unwrap(), None);
    assert_eq!(store.device_by_key(&left.noise_key).await.unwrap(), None);
    // Back again it gets another queue.
    put(store, list(1, 3, &[1, 2]), 1).await;
    assert_ne!(
        store.device(&device_id(2)).await.unwrap().unwrap().queue,
        left.queue
    );
}

pub(crate) async fn lists_are_put_by_devices_of_the_old_or_new_list_only(store: &Store) {
    register(store, list(1, 1, &[1]), 1).await;
    register(store, list(2, 1, &[2]), 2).await;

    assert_eq!(put(store, list(1, 2, &[1, 3]), 2).await, ListPut::Forbidden);
    assert_eq!(put(store, list(3, 1, &[3]), 3).await, ListPut::Forbidden);
    assert!(matches!(
        put(store, list(1, 2, &[3]), 1).await,
        ListPut::Stored(_)
    ));
    assert_eq!(put(store, list(1, 3, &[3]), 1).await, ListPut::Forbidden);
    assert!(matches!(
        put(store, list(1, 3, &[3, 4]), 4).await,
        ListPut::Stored(_)
    ));
}

pub(crate) async fn versions_decide_between_lists(store: &Store) {
    register(store, list(1, 5, &[1]), 1).await;

    assert_eq!(put(store, list(1, 5, &[1]), 1).await, ListPut::Unchanged);
    assert_eq!(
        put(store, list(1, 5, &[1, 2]), 1).await,
        ListPut::Equivocation
    );
    assert_eq!(put(store, list(1, 4, &[1, 2]), 1).await, ListPut::Outdated);
}

pub(crate) async fn keys_change_under_their_device(store: &Store) {
    register(store, list(1, 1, &[1, 2]), 1).await;
    let queue = store.device(&device_id(1)).await.unwrap().unwrap().queue;
    let mut swapped = list(1, 2, &[1, 2]);
    swapped.devices[0].noise_key = NoiseKey::new([2; 32]);
    swapped.devices[1].noise_key = NoiseKey::new([1; 32]);

    let done = put(store, swapped, 1).await;

    let rekeyed = vec![device_id(1), device_id(2)];
    assert_eq!(
        done,
        ListPut::Stored(ListChange {
            rekeyed,
            ..ListChange::default()
        })
    );
    let device = store
        .device_by_key(&NoiseKey::new([2; 32]))
        .await
        .unwrap()
        .unwrap();
    assert_eq!((device.device, device.queue), (device_id(1), queue));
}

pub(crate) async fn an_empty_list_deletes_the_account(store: &Store) {
    register(store, list(1, 1, &[1]), 1).await;
    store
        .change_capabilities(&account(1), vec![token_hash(1)], vec![])
        .await
        .unwrap();
    let device = store.device(&device_id(1)).await.unwrap().unwrap();

    let done = put(store, list(1, 2, &[]), 1).await;

    let removed = vec![(device_id(1), device.queue)];
    let change = ListChange {
        removed,
        deleted: true,
        ..ListChange::default()
    };
    assert_eq!(done, ListPut::Stored(change));
    assert_eq!(store.list(&account(1)).await.unwrap(), None);
    assert_eq!(store.devices(None, 9).await.unwrap(), []);
    assert!(
        !store
            .capability_is_live(&account(1), &token_hash(1))
            .await
            .unwrap()
    );
}

pub(crate) async fn a_device_revoked_by_the_operator_stays_shut_out(store: &Store) {
    register(store, list(1, 1, &[1, 2]), 1).await;
    let device = store.device(&device_id(2)).await.unwrap().unwrap();

    assert_eq!(
        store.revoke_device(&device_id(2)).await.unwrap(),
        Some(device.clone())
    );
    assert_eq!(store.revoke_device(&device_id(2)).await.unwrap(), None);

    assert_eq!(store.device_by_key(&device.noise_key).await.unwrap(), None);
    assert_eq!(store.queue_state(&device.queue).await.unwrap(), None);
    assert_eq!(
        register(store, list(1, 2, &[1, 2]), 2).await,
        Registration::NotListed
    );
    assert_eq!(put(store, list(1, 2, &[1, 2]), 2).await, ListPut::Forbidden);
    assert!(matches!(
        put(store, list(1, 2, &[1, 2]), 1).await,
        ListPut::Stored(_)
    ));
    assert_eq!(store.device(&device_id(2)).await.unwrap(), None);
}

fn account(number: u8) -> AccountId {
    AccountId::of_key(&AccountKey::new([number; 32]))
}

async fn register(store: &Store, list: DeviceList, device: u8) -> Registration {
    store
        .register(list, &device_id(device), Admission::Open, at(1))
        .await
        .unwrap()
}

async fn put(store: &Store, list: DeviceList, by: u8) -> ListPut {
    store.put_list(list, &device_id(by)).await.unwrap()
}
