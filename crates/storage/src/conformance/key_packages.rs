//! Key packages and claims.

use commucat_proto::id::{AccountId, ClaimId};

use super::*;
use crate::{Access, Claim, ClaimBudgets, ClaimedPackage, NewPackage, PackageCount, Published};

pub(crate) async fn a_package_is_handed_out_once(store: &Store) {
    queue(store, 1).await;
    publish(store, 1, &[single(1), single(2)]).await;

    let first = claim(store, 1, 100).await.unwrap();
    let second = claim(store, 2, 100).await.unwrap();
    let third = claim(store, 3, 100).await.unwrap();

    assert_eq!(
        (texts(&first), texts(&second)),
        (vec!["single 1"], vec!["single 2"])
    );
    assert_eq!(third, []);
    assert_eq!(count(store, 1).await, PackageCount::default());
}

pub(crate) async fn each_device_of_the_account_gives_one(store: &Store) {
    let both = list(1, 1, &[1, 2]);
    store
        .register(both, &device_id(1), Admission::Open, at(1))
        .await
        .unwrap();
    publish(store, 1, &[single(1)]).await;
    publish(store, 2, &[single(2), last_resort(2)]).await;

    let claimed = claim(store, 1, 100).await.unwrap();

    assert_eq!(texts(&claimed), ["single 1", "single 2"]);
    let device = store.device(&device_id(1)).await.unwrap().unwrap();
    let expected = ClaimedPackage {
        device: device.device,
        queue: device.queue,
        package: Bytes::from_static(b"single 1"),
        last_resort: false,
    };
    assert_eq!(claimed[0], expected);
}

pub(crate) async fn a_repeated_claim_gets_the_same_packages_for_ten_minutes(store: &Store) {
    queue(store, 1).await;
    publish(store, 1, &[single(1), single(2)]).await;

    let first = claim(store, 1, 1_000).await;
    let repeat = claim(store, 1, 600_999).await;
    let late = claim(store, 1, 601_000).await;

    assert_eq!(first, repeat);
    assert_eq!(texts(&late.unwrap()), ["single 2"]);
}

pub(crate) async fn the_last_resort_is_handed_out_again_and_again(store: &Store) {
    queue(store, 1).await;
    publish(store, 1, &[last_resort(1)]).await;

    let first = claim(store, 1, 100).await.unwrap();
    let second = claim(store, 2, 100).await.unwrap();

    assert!(first[0].last_resort);
    assert_eq!(first, second);
    assert_eq!(
        count(store, 1).await,
        PackageCount {
            single_use: 0,
            last_resort: 1
        }
    );
}

pub(crate) async fn a_repeated_publication_brings_nothing_back(store: &Store) {
    queue(store, 1).await;
    publish(store, 1, &[single(1), single(2)]).await;
    claim(store, 1, 100).await;

    assert_eq!(
        publish(store, 1, &[single(1), single(2)]).await,
        Published::Stored
    );

    assert_eq!(count(store, 1).await.single_use, 1);
}

pub(crate) async fn a_device_keeps_a_hundred_and_one_last_resort(store: &Store) {
    queue(store, 1).await;
    let hundred: Vec<_> = (0..100).map(single).collect();

    assert_eq!(publish(store, 1, &hundred).await, Published::Stored);
    assert_eq!(publish(store, 1, &hundred).await, Published::Stored);
    assert_eq!(publish(store, 1, &[single(100)]).await, Published::TooMany);
    assert_eq!(
        publish(store, 1, &[last_resort(1), last_resort(2)]).await,
        Published::TooMany
    );
    publish(store, 1, &[last_resort(1)]).await;
    publish(store, 1, &[last_resort(2)]).await;

    assert_eq!(
        count(store, 1).await,
        PackageCount {
            single_use: 100,
            last_resort: 1
        }
    );
    assert_eq!(
        publish(store, 9, &[single(1)]).await,
        Published::UnknownDevice
    );
}

pub(crate) async fn ended_packages_are_not_handed_out(store: &Store) {
    queue(store, 1).await;
    let ended = NewPackage {
        not_after: at(50),
        ..single(1)
    };
    publish(store, 1, &[ended, single(2)]).await;

    assert_eq!(texts(&claim(store, 1, 100).await.unwrap()), ["single 2"]);

    assert!(
        !store
            .sweep_expired(crate::ExpiryClock(at(100)))
            .await
            .unwrap()
    );
    assert_eq!(count(store, 1).await.single_use, 0);
}

pub(crate) async fn a_capability_is_needed_and_wrong_ones_look_like_unknown_accounts(
    store: &Store,
) {
    queue(store, 1).await;
    publish(store, 1, &[single(1)]).await;
    let account = AccountId::of_key(&AccountKey::new([1; 32]));
    store
        .change_capabilities(&account, vec![token_hash(1)], vec![])
        .await
        .unwrap();

    for access in [Access::Nothing, Access::Capability(token_hash(2))] {
        let wrong = Claim {
            access,
            ..request(1)
        };
        assert_eq!(store.claim_packages(wrong, at(100)).await.unwrap(), None);
    }
    let nobody = AccountId::of_key(&AccountKey::new([9; 32]));
    let unknown = Claim {
        account: nobody,
        ..request(1)
    };
    assert_eq!(store.claim_packages(unknown, at(100)).await.unwrap(), None);
    let right = Claim {
        access: Access::Capability(token_hash(1)),
        ..request(1)
    };
    let claimed = store.claim_packages(right, at(100)).await.unwrap().unwrap();
    assert_eq!(texts(&claimed), ["single 1"]);
}

pub(crate) async fn beyond_the_daily_budget_the_last_resort_is_handed_out(store: &Store) {
    queue(store, 1).await;
    let packages: Vec<_> = (0..30).map(single).chain([last_resort(1)]).collect();
    publish(store, 1, &packages).await;
    let account = AccountId::of_key(&AccountKey::new([1; 32]));
    let both = vec![token_hash(1), token_hash(2)];
    store
        .change_capabilities(&account, both, vec![])
        .await
        .unwrap();
    let claim = async |id, capability, now| {
        let access = Access::Capability(token_hash(capability));
        let claimed = store
            .claim_packages(
                Claim {
                    access,
                    ..request(id)
                },
                at(now),
            )
            .await;
        claimed.unwrap().unwrap()[0].last_resort
    };

    for id in 0..20 {
        assert!(!claim(id, 1, 1_000).await);
    }
    assert!(claim(20, 1, 1_000).await);
    // A repeat does not count, another capability has its own budget, and so has the next day.
    assert!(!claim(0, 1, 1_000).await);
    assert!(!claim(21, 2, 1_000).await);
    assert!(!claim(22, 1, 86_400_000).await);
}

fn single(number: u8) -> NewPackage {
    NewPackage {
        not_after: at(100_000_000),
        last_resort: false,
        package: Bytes::from(format!("single {number}")),
    }
}

fn last_resort(number: u8) -> NewPackage {
    NewPackage {
        last_resort: true,
        package: Bytes::from(format!("last resort {number}")),
        ..single(number)
    }
}

fn texts(claimed: &[ClaimedPackage]) -> Vec<&str> {
    claimed
        .iter()
        .map(|one| std::str::from_utf8(&one.package).unwrap())
        .collect()
}

fn request(id: u8) -> Claim {
    Claim {
        id: ClaimId::new([id; 16]),
        account: AccountId::of_key(&AccountKey::new([1; 32])),
        access: Access::Own(DeviceId::parse("the-device-that-asks").unwrap()),
        origin: Domain::parse("example.org").unwrap(),
        budgets: ClaimBudgets::default(),
    }
}

async fn publish(store: &Store, device: u8, packages: &[NewPackage]) -> Published {
    store
        .publish_packages(&device_id(device), packages.to_vec(), at(1))
        .await
        .unwrap()
}

async fn count(store: &Store, device: u8) -> PackageCount {
    store
        .count_packages(&device_id(device), at(100))
        .await
        .unwrap()
}

async fn claim(store: &Store, id: u8, now: u64) -> Option<Vec<ClaimedPackage>> {
    store.claim_packages(request(id), at(now)).await.unwrap()
}
