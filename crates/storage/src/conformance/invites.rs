//! Invites.

use super::*;
use crate::{Invite, NewInvite};

pub(crate) async fn an_invite_opens_as_many_accounts_as_it_says(store: &Store) {
    create(store, 7, 2, 1_000).await;

    assert!(matches!(
        register(store, 1, 7, 10).await,
        Registration::Registered(_)
    ));
    assert!(matches!(
        register(store, 2, 7, 10).await,
        Registration::Registered(_)
    ));
    assert_eq!(register(store, 3, 7, 10).await, Registration::NotInvited);

    assert_eq!(store.invites().await.unwrap()[0].uses_left, 0);
    assert!(store.device(&device_id(3)).await.unwrap().is_none());
}

pub(crate) async fn expired_unknown_and_revoked_invites_open_nothing(store: &Store) {
    create(store, 7, 1, 1_000).await;
    create(store, 8, 1, 9_000).await;

    assert!(store.revoke_invite(&token_hash(8)).await.unwrap());
    assert!(!store.revoke_invite(&token_hash(8)).await.unwrap());

    assert_eq!(register(store, 1, 7, 1_000).await, Registration::NotInvited);
    assert_eq!(register(store, 1, 8, 10).await, Registration::NotInvited);
    assert_eq!(register(store, 1, 9, 10).await, Registration::NotInvited);
    assert!(store.invite_is_live(&token_hash(7), at(999)).await.unwrap());
    assert!(
        !store
            .invite_is_live(&token_hash(7), at(1_000))
            .await
            .unwrap()
    );
}

pub(crate) async fn invites_are_listed_until_they_are_swept(store: &Store) {
    create(store, 7, 3, 1_000).await;
    create(store, 8, 1, 5_000).await;
    let expected = Invite {
        hash: token_hash(7),
        uses: 3,
        uses_left: 3,
        created: at(1),
        expires: at(1_000),
    };

    assert_eq!(store.invites().await.unwrap()[0], expected);
    assert!(
        !store
            .sweep_expired(crate::ExpiryClock(at(1_000)))
            .await
            .unwrap()
    );

    let left: Vec<_> = store
        .invites()
        .await
        .unwrap()
        .iter()
        .map(|one| one.hash)
        .collect();
    assert_eq!(left, [token_hash(8)]);
}

pub(crate) async fn an_invite_is_made_once(store: &Store) {
    create(store, 7, 1, 1_000).await;
    register(store, 1, 7, 10).await;

    let again = NewInvite {
        hash: token_hash(7),
        uses: 9,
        expires: at(9_000),
    };
    assert!(!store.create_invite(again, at(2)).await.unwrap());

    assert_eq!(store.invites().await.unwrap()[0].uses_left, 0);
}

async fn create(store: &Store, token: u8, uses: u32, expires: u64) {
    let invite = NewInvite {
        hash: token_hash(token),
        uses,
        expires: at(expires),
    };
    assert!(store.create_invite(invite, at(1)).await.unwrap());
}

async fn register(store: &Store, account: u8, token: u8, now: u64) -> Registration {
    let admission = Admission::Invite(Some(token_hash(token)));
    let list = list(account, 1, &[account]);
    store
        .register(list, &device_id(account), admission, at(now))
        .await
        .unwrap()
}
