//! Invites in PostgreSQL.

use commucat_proto::id::TokenHash;
use commucat_proto::time::Timestamp;
use tokio_postgres::Row;

use super::convert::{fixed, millis, time};
use super::fault::Fault;
use super::tx::Tx;
use super::{Postgres, SWEEP_ROWS, transact};
use crate::StoreError;
use crate::store::invites::{Invite, NewInvite};

impl Postgres {
    pub(crate) async fn create_invite(
        &self,
        invite: NewInvite,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        transact!(self, tx => async {
            let hash = &invite.hash.as_bytes()[..];
            let made = tx.execute(
                "INSERT INTO invites (hash, uses, uses_left, created, expires)
                 VALUES ($1, $2, $2, $3, $4) ON CONFLICT (hash) DO NOTHING",
                &[&hash, &i64::from(invite.uses), &millis(now), &millis(invite.expires)],
            ).await?;
            Ok::<_, Fault>(made > 0)
        })
    }

    pub(crate) async fn invites(&self) -> Result<Vec<Invite>, StoreError> {
        let found = self
            .query(
                "SELECT hash, uses, uses_left, created, expires FROM invites
                 ORDER BY created, hash",
                &[],
            )
            .await?;
        let invites: Result<_, Fault> = found.iter().map(read).collect();
        Ok(invites?)
    }

    pub(crate) async fn revoke_invite(&self, hash: &TokenHash) -> Result<bool, StoreError> {
        let hash = &hash.as_bytes()[..];
        transact!(self, tx => async {
            let gone = tx.execute("DELETE FROM invites WHERE hash = $1", &[&hash]).await?;
            Ok::<_, Fault>(gone > 0)
        })
    }

    pub(crate) async fn invite_is_live(
        &self,
        hash: &TokenHash,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let hash = &hash.as_bytes()[..];
        let live = self
            .row(
                "SELECT FROM invites WHERE hash = $1 AND uses_left > 0 AND expires > $2",
                &[&hash, &millis(now)],
            )
            .await?;
        Ok(live.is_some())
    }
}

fn read(row: &Row) -> Result<Invite, Fault> {
    let uses = |column| -> Result<u32, Fault> {
        u32::try_from(row.try_get::<_, i64>(column)?).map_err(|_| Fault::corrupt("invites"))
    };
    Ok(Invite {
        hash: TokenHash::new(fixed(row, 0)?),
        uses: uses(1)?,
        uses_left: uses(2)?,
        created: time(row, 3)?,
        expires: time(row, 4)?,
    })
}

/// Uses an invite up by one; `false` if it is not live.
pub(super) async fn consume(tx: &Tx, hash: &TokenHash, now: Timestamp) -> Result<bool, Fault> {
    let hash = &hash.as_bytes()[..];
    let used = tx
        .execute(
            "UPDATE invites SET uses_left = uses_left - 1
         WHERE hash = $1 AND uses_left > 0 AND expires > $2",
            &[&hash, &millis(now)],
        )
        .await?;
    Ok(used > 0)
}

/// Deletes some expired invites; `true` if there may be more.
pub(super) async fn sweep(tx: &Tx, now: Timestamp) -> Result<bool, Fault> {
    let deleted = tx
        .execute(
            "DELETE FROM invites WHERE hash = ANY (ARRAY(
             SELECT hash FROM invites WHERE expires <= $1 LIMIT $2))",
            &[&millis(now), &SWEEP_ROWS],
        )
        .await?;
    Ok(i64::try_from(deleted).is_ok_and(|rows| rows == SWEEP_ROWS))
}
