//! Capabilities.

use commucat_proto::id::AccountId;

use super::*;
use crate::CapabilityChange;

pub(crate) async fn capabilities_come_and_go(store: &Store) {
    let account = account(store).await;

    let added = store
        .change_capabilities(&account, vec![token_hash(1)], vec![])
        .await
        .unwrap();
    assert_eq!(added, CapabilityChange::Changed);
    assert!(
        store
            .capability_is_live(&account, &token_hash(1))
            .await
            .unwrap()
    );
    assert!(
        !store
            .capability_is_live(&account, &token_hash(2))
            .await
            .unwrap()
    );

    let both = (vec![token_hash(2)], vec![token_hash(1)]);
    store
        .change_capabilities(&account, both.0, both.1)
        .await
        .unwrap();
    assert!(
        !store
            .capability_is_live(&account, &token_hash(1))
            .await
            .unwrap()
    );
    assert!(
        store
            .capability_is_live(&account, &token_hash(2))
            .await
            .unwrap()
    );
}

pub(crate) async fn an_account_has_a_bounded_number(store: &Store) {
    let account = account(store).await;
    let hashes = |range: std::ops::Range<u16>| -> Vec<TokenHash> {
        range
            .map(|number| {
                let mut raw = [0; 32];
                raw[..2].copy_from_slice(&number.to_be_bytes());
                TokenHash::new(raw)
            })
            .collect()
    };
    let change = async |add, remove| {
        store
            .change_capabilities(&account, add, remove)
            .await
            .unwrap()
    };

    assert_eq!(
        change(hashes(0..256), vec![]).await,
        CapabilityChange::Changed
    );
    assert_eq!(
        change(hashes(0..256), vec![]).await,
        CapabilityChange::Changed
    );
    assert_eq!(
        change(hashes(300..301), vec![]).await,
        CapabilityChange::TooMany
    );
    assert_eq!(
        change(hashes(300..301), hashes(0..1)).await,
        CapabilityChange::Changed
    );
}

pub(crate) async fn an_unknown_account_has_none(store: &Store) {
    let nobody = AccountId::of_key(&AccountKey::new([9; 32]));

    let change = store
        .change_capabilities(&nobody, vec![token_hash(1)], vec![])
        .await
        .unwrap();

    assert_eq!(change, CapabilityChange::UnknownAccount);
    assert!(
        !store
            .capability_is_live(&nobody, &token_hash(1))
            .await
            .unwrap()
    );
}

async fn account(store: &Store) -> AccountId {
    queue(store, 1).await;
    AccountId::of_key(&AccountKey::new([1; 32]))
}
