//! Invites in SQLite.

use commucat_proto::id::TokenHash;
use commucat_proto::time::Timestamp;
use rusqlite::{OptionalExtension as _, params};

use super::convert::{millis, time};
use super::writer::Tx;
use super::{SWEEP_ROWS, Sqlite};
use crate::StoreError;
use crate::store::invites::{Invite, NewInvite};

impl Sqlite {
    pub(crate) async fn create_invite(
        &self,
        invite: NewInvite,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        self.write(move |tx| {
            let made = tx.execute(
                "INSERT INTO invites (hash, uses, uses_left, created, expires)
                 VALUES (?1, ?2, ?2, ?3, ?4) ON CONFLICT (hash) DO NOTHING",
                params![
                    invite.hash.as_bytes(),
                    invite.uses,
                    millis(now),
                    millis(invite.expires)
                ],
            )?;
            Ok(made > 0)
        })
        .await
    }

    pub(crate) async fn invites(&self) -> Result<Vec<Invite>, StoreError> {
        self.read(|connection| {
            let invites = connection
                .prepare_cached(
                    "SELECT hash, uses, uses_left, created, expires FROM invites
                     ORDER BY created, hash",
                )?
                .query_map([], |row| {
                    Ok(Invite {
                        hash: TokenHash::new(row.get(0)?),
                        uses: row.get(1)?,
                        uses_left: row.get(2)?,
                        created: time(row, 3)?,
                        expires: time(row, 4)?,
                    })
                })?
                .collect::<Result<_, _>>()?;
            Ok(invites)
        })
        .await
    }

    pub(crate) async fn revoke_invite(&self, hash: &TokenHash) -> Result<bool, StoreError> {
        let hash = *hash;
        self.write(move |tx| {
            Ok(tx.execute("DELETE FROM invites WHERE hash = ?1", [hash.as_bytes()])? > 0)
        })
        .await
    }

    pub(crate) async fn invite_is_live(
        &self,
        hash: &TokenHash,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let hash = *hash;
        self.read(move |connection| {
            let live = connection
                .prepare_cached(
                    "SELECT 1 FROM invites WHERE hash = ?1 AND uses_left > 0 AND expires > ?2",
                )?
                .query_row(params![hash.as_bytes(), millis(now)], |_| Ok(()))
                .optional()?;
            Ok(live.is_some())
        })
        .await
    }
}

/// Uses an invite up by one; `false` if it is not live.
pub(super) fn consume(tx: &Tx<'_>, hash: &TokenHash, now: Timestamp) -> Result<bool, StoreError> {
    let used = tx.execute(
        "UPDATE invites SET uses_left = uses_left - 1
         WHERE hash = ?1 AND uses_left > 0 AND expires > ?2",
        params![hash.as_bytes(), millis(now)],
    )?;
    Ok(used > 0)
}

/// Deletes some expired invites; `true` if there may be more.
pub(super) fn sweep(tx: &Tx<'_>, now: Timestamp) -> Result<bool, StoreError> {
    let deleted = tx.execute(
        "DELETE FROM invites WHERE hash IN
             (SELECT hash FROM invites WHERE expires <= ?1 LIMIT ?2)",
        params![millis(now), SWEEP_ROWS],
    )?;
    Ok(deleted == SWEEP_ROWS)
}
