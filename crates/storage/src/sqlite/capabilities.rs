//! Capabilities in SQLite.

use commucat_proto::id::{AccountId, TokenHash};
use rusqlite::{Connection, OptionalExtension as _, params};

use super::Sqlite;
use super::writer::Tx;
use crate::StoreError;
use crate::store::Store;
use crate::store::capabilities::CapabilityChange;

impl Sqlite {
    pub(crate) async fn change_capabilities(
        &self,
        account: &AccountId,
        add: Vec<TokenHash>,
        remove: Vec<TokenHash>,
    ) -> Result<CapabilityChange, StoreError> {
        let account = account.clone();
        self.write(move |tx| change(tx, &account, &add, &remove))
            .await
    }

    pub(crate) async fn capability_is_live(
        &self,
        account: &AccountId,
        capability: &TokenHash,
    ) -> Result<bool, StoreError> {
        let (account, capability) = (account.clone(), *capability);
        self.read(move |connection| is_live(connection, &account, &capability))
            .await
    }
}

/// Whether `capability` is live for `account`.
pub(super) fn is_live(
    connection: &Connection,
    account: &AccountId,
    capability: &TokenHash,
) -> Result<bool, StoreError> {
    let live = connection
        .prepare_cached(
            "SELECT 1 FROM capabilities
             WHERE account = (SELECT id FROM accounts WHERE account = ?1) AND hash = ?2",
        )?
        .query_row(params![account.as_str(), capability.as_bytes()], |_| Ok(()))
        .optional()?;
    Ok(live.is_some())
}

fn change(
    tx: &Tx<'_>,
    account: &AccountId,
    add: &[TokenHash],
    remove: &[TokenHash],
) -> Result<CapabilityChange, StoreError> {
    let found: Option<i64> = tx.row(
        "SELECT id FROM accounts WHERE account = ?1",
        [account.as_str()],
        |row| row.get(0),
    )?;
    let Some(account) = found else {
        return Ok(CapabilityChange::UnknownAccount);
    };
    let mut after: std::collections::BTreeSet<[u8; 32]> = tx
        .prepare("SELECT hash FROM capabilities WHERE account = ?1")?
        .query_map([account], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    for hash in remove {
        after.remove(hash.as_bytes());
    }
    after.extend(add.iter().map(TokenHash::as_bytes));
    if after.len() > Store::CAPABILITIES_MAX {
        return Ok(CapabilityChange::TooMany);
    }
    for hash in remove {
        tx.execute(
            "DELETE FROM capabilities WHERE account = ?1 AND hash = ?2",
            params![account, hash.as_bytes()],
        )?;
    }
    for hash in add {
        tx.execute(
            "INSERT INTO capabilities (account, hash) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
            params![account, hash.as_bytes()],
        )?;
    }
    Ok(CapabilityChange::Changed)
}
