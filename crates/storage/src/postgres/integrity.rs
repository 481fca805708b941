//! Whether what is stored fits together.

use std::time::Duration;

use super::fault::Fault;
use super::tx::Tx;

/// Longest that the check may take: it reads everything.
pub(super) const WAIT: Duration = Duration::from_secs(3_600);

/// Each must be false: a sum that is kept and what it is the sum of.
const CHECKS: [(&str, &str); 4] = [
    (
        "queues",
        "SELECT EXISTS (SELECT FROM queues AS q LEFT JOIN (
             SELECT queue, count(*) AS entries, sum(length) AS bytes, max(position) AS head,
                 count(*) FILTER (WHERE kind = 11) AS invites
             FROM queue_entries WHERE kind <> 0 GROUP BY queue) AS e USING (queue)
         WHERE q.entries <> coalesce(e.entries, 0) OR q.bytes <> coalesce(e.bytes, 0)
             OR q.invites <> coalesce(e.invites, 0) OR q.next_position <= coalesce(e.head, 0))",
    ),
    (
        "queue_groups",
        "SELECT EXISTS (SELECT FROM (
             SELECT queue, group_id, count(*) AS entries, sum(length) AS bytes
             FROM queue_entries WHERE kind <> 0 GROUP BY queue, group_id) AS e
             FULL JOIN queue_groups AS g USING (queue, group_id)
         WHERE coalesce(g.entries, 0) <> coalesce(e.entries, 0)
             OR coalesce(g.bytes, 0) <> coalesce(e.bytes, 0))",
    ),
    (
        "shared_bodies",
        "SELECT EXISTS (SELECT FROM (
             SELECT body, count(*) AS refs FROM queue_entries
             WHERE body IS NOT NULL GROUP BY body) AS e
             FULL JOIN shared_bodies AS s USING (body)
         WHERE e.refs IS DISTINCT FROM s.refs)",
    ),
    (
        "bodies",
        "SELECT EXISTS (SELECT FROM bodies AS b FULL JOIN shared_bodies AS s ON s.body = b.id
         WHERE b.id IS NULL OR s.body IS NULL)",
    ),
];

/// Compares all sums in one moment.
pub(super) async fn check(tx: &Tx) -> Result<(), Fault> {
    // Each statement reads whole tables, which sessions are told not to do otherwise.
    tx.begin(
        "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY;
         SET LOCAL statement_timeout = 0; SET LOCAL enable_seqscan = on;
         SET LOCAL enable_hashjoin = on; SET LOCAL enable_mergejoin = on;",
    )
    .await?;
    for (table, sql) in CHECKS {
        // Not prepared: the plan is for this transaction alone.
        let rows = tx.client()?.query(sql, &[]).await?;
        let is_wrong = match rows.first() {
            Some(row) => row.try_get(0)?,
            None => true,
        };
        if is_wrong {
            return Err(Fault::corrupt(table));
        }
    }
    Ok(())
}
