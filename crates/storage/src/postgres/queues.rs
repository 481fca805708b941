//! Queues, apart from spooling, reading and deleting.

use commucat_proto::id::{GroupId, QueueId};
use commucat_proto::time::Timestamp;

use super::changes::{After, removed_columns};
use super::convert::{Uuid, millis, number, random_id, signed, unsigned};
use super::delete::account;
use super::fault::Fault;
use super::spool::Queues;
use super::tx::Tx;
use super::{Postgres, transact};
use crate::StoreError;
use crate::store::QueueLimits;
use crate::store::queues::{Left, QueuePosition, QueueState, Reference, ReferenceState};

const DELETE_OF_GROUP: &str = concat!(
    "DELETE FROM queue_entries AS e WHERE e.queue = $1 AND e.group_id = $2 RETURNING ",
    removed_columns!()
);

impl Postgres {
    pub(crate) async fn queue_state(
        &self,
        queue: &QueueId,
    ) -> Result<Option<QueueState>, StoreError> {
        let found = self
            .row(
                "SELECT next_position - 1, entries, bytes FROM queues
                 WHERE queue = $1 AND NOT revoked",
                &[&Uuid::from(*queue)],
            )
            .await?;
        let Some(row) = found else { return Ok(None) };
        Ok(Some(QueueState {
            head: QueuePosition::new(number(&row, 0)?),
            entries: number(&row, 1)?,
            bytes: number(&row, 2)?,
        }))
    }

    pub(crate) async fn queue_heads(
        &self,
        queues: Vec<QueueId>,
    ) -> Result<Vec<Option<QueuePosition>>, StoreError> {
        let queues: Vec<_> = queues.into_iter().map(Uuid::from).collect();
        let found = self
            .query(
                "SELECT q.next_position - 1
                 FROM unnest($1::uuid[]) WITH ORDINALITY AS t (queue, n)
                 LEFT JOIN queues AS q ON q.queue = t.queue AND NOT q.revoked ORDER BY t.n",
                &[&queues],
            )
            .await?;
        let heads: Result<Vec<_>, Fault> = found
            .iter()
            .map(|row| {
                let head: Option<i64> = row.try_get(0)?;
                Ok(head.map(|head| QueuePosition::new(unsigned(head))))
            })
            .collect();
        Ok(heads?)
    }

    pub(crate) async fn reference_states(
        &self,
        references: Vec<Reference>,
    ) -> Result<Vec<ReferenceState>, StoreError> {
        let queues: Vec<_> = references.iter().map(|one| Uuid::from(one.queue)).collect();
        let groups: Vec<_> = references
            .iter()
            .map(|one| &one.group.as_bytes()[..])
            .collect();
        let found = self
            .query(
                "SELECT q.revoked, g.left_at
                 FROM unnest($1::uuid[], $2::bytea[]) WITH ORDINALITY AS t (queue, group_id, n)
                 LEFT JOIN queues AS q ON q.queue = t.queue
                 LEFT JOIN queue_groups AS g ON g.queue = t.queue AND g.group_id = t.group_id
                 ORDER BY t.n",
                &[&queues, &groups],
            )
            .await?;
        let states: Result<Vec<_>, Fault> = references
            .iter()
            .zip(&found)
            .map(|(reference, row)| {
                let (revoked, left_at) = (row.try_get(0)?, row.try_get::<_, Option<i64>>(1)?);
                Ok(match (revoked, left_at) {
                    (None, _) => ReferenceState::Unknown,
                    (Some(true), _) => ReferenceState::Gone,
                    (Some(false), Some(left_at)) if millis(reference.issued) <= left_at => {
                        ReferenceState::Gone
                    }
                    (Some(false), _) => ReferenceState::Live,
                })
            })
            .collect();
        Ok(states?)
    }

    pub(crate) async fn leave_group(
        &self,
        queue: &QueueId,
        group: &GroupId,
        now: Timestamp,
    ) -> Result<Left, StoreError> {
        transact!(self, tx => leave(&tx, *queue, group, now))
    }
}

/// Makes queues; returns their rows.
pub(super) async fn create(tx: &Tx, count: usize) -> Result<Vec<i64>, Fault> {
    let ids: Result<Vec<_>, StoreError> = (0..count).map(|_| random_id().map(Uuid)).collect();
    let made = tx
        .change(
            "INSERT INTO queues (queue) SELECT * FROM unnest($1::uuid[]) RETURNING id",
            &[&ids?],
        )
        .await?;
    made.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

/// Shuts queues for good. Their entries go in the steps of expiry.
pub(super) async fn revoke(tx: &Tx, rows: &[i64]) -> Result<(), Fault> {
    tx.query(
        "SELECT id FROM queues WHERE id = ANY ($1) ORDER BY queue FOR UPDATE",
        &[&rows],
    )
    .await?;
    tx.execute(
        "UPDATE queues SET revoked = true WHERE id = ANY ($1)",
        &[&rows],
    )
    .await?;
    Ok(())
}

async fn leave(tx: &Tx, queue: QueueId, group: &GroupId, now: Timestamp) -> Result<Left, Fault> {
    let id = Uuid::from(queue);
    let mut queues = Queues::lock(tx, &[id]).await?;
    let Some(line) = queues.line(queue).filter(|line| !line.revoked) else {
        return Ok(Left::UnknownQueue);
    };
    let raw = &group.as_bytes()[..];
    let mark = tx
        .row(
            "SELECT left_at FROM queue_groups WHERE queue = $1 AND group_id = $2",
            &[&id, &raw],
        )
        .await?;
    let is_marked = match mark {
        Some(row) => row.try_get::<_, Option<i64>>(0)?.is_some(),
        None => false,
    };
    if !is_marked {
        if line.left_marks >= signed(QueueLimits::LEFT_MARKS) {
            return Ok(Left::TooMany);
        }
        line.set_left_marks(line.left_marks + 1);
    }
    tx.execute(
        "INSERT INTO queue_groups AS g (queue, group_id, left_at) VALUES ($1, $2, $3)
         ON CONFLICT (queue, group_id)
         DO UPDATE SET left_at = greatest(g.left_at, excluded.left_at)",
        &[&id, &raw, &millis(now)],
    )
    .await?;
    let deleted = tx.query(DELETE_OF_GROUP, &[&id, &raw]).await?;
    let dropped = account(tx, &mut queues, &deleted)?.len();
    queues.write(tx, After::GoOn).await?;
    Ok(Left::Marked {
        dropped: u64::try_from(dropped).unwrap_or(u64::MAX),
    })
}
