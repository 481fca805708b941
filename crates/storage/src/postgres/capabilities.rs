//! Capabilities in PostgreSQL.

use std::collections::BTreeSet;

use commucat_proto::id::{AccountId, TokenHash};

use super::convert::fixed;
use super::fault::Fault;
use super::tx::Tx;
use super::{Postgres, transact};
use crate::StoreError;
use crate::store::Store;
use crate::store::capabilities::CapabilityChange;

/// Whether `$2` is live for the account `$1`.
pub(super) const IS_LIVE: &str = "SELECT FROM capabilities
    WHERE account = (SELECT id FROM accounts WHERE account = $1) AND hash = $2";

impl Postgres {
    pub(crate) async fn change_capabilities(
        &self,
        account: &AccountId,
        add: Vec<TokenHash>,
        remove: Vec<TokenHash>,
    ) -> Result<CapabilityChange, StoreError> {
        transact!(self, tx => change(&tx, account, &add, &remove))
    }

    pub(crate) async fn capability_is_live(
        &self,
        account: &AccountId,
        capability: &TokenHash,
    ) -> Result<bool, StoreError> {
        let hash = &capability.as_bytes()[..];
        let found = self.row(IS_LIVE, &[&account.as_str(), &hash]).await?;
        Ok(found.is_some())
    }
}

async fn change(
    tx: &Tx,
    account: &AccountId,
    add: &[TokenHash],
    remove: &[TokenHash],
) -> Result<CapabilityChange, Fault> {
    let found = tx
        .row(
            "SELECT id FROM accounts WHERE account = $1 FOR UPDATE",
            &[&account.as_str()],
        )
        .await?;
    let Some(row) = found else {
        return Ok(CapabilityChange::UnknownAccount);
    };
    let account: i64 = row.try_get(0)?;
    let stored = tx
        .query(
            "SELECT hash FROM capabilities WHERE account = $1",
            &[&account],
        )
        .await?;
    let mut after: BTreeSet<[u8; 32]> = stored
        .iter()
        .map(|row| fixed(row, 0))
        .collect::<Result<_, _>>()?;
    for hash in remove {
        after.remove(hash.as_bytes());
    }
    after.extend(add.iter().map(TokenHash::as_bytes));
    if after.len() > Store::CAPABILITIES_MAX {
        return Ok(CapabilityChange::TooMany);
    }
    let raw = |hashes: &[TokenHash]| -> Vec<Vec<u8>> {
        hashes.iter().map(|hash| hash.as_bytes().to_vec()).collect()
    };
    tx.execute(
        "DELETE FROM capabilities WHERE account = $1 AND hash = ANY ($2::bytea[])",
        &[&account, &raw(remove)],
    )
    .await?;
    tx.execute(
        "INSERT INTO capabilities (account, hash) SELECT $1, * FROM unnest($2::bytea[])
         ON CONFLICT DO NOTHING",
        &[&account, &raw(add)],
    )
    .await?;
    Ok(CapabilityChange::Changed)
}
