//! Claims of key packages in PostgreSQL: handing out, repeats, daily budgets.

use commucat_proto::id::DeviceId;
use commucat_proto::time::Timestamp;
use tokio_postgres::Row;

use super::convert::{Uuid, bytes, millis, queue_id, signed, text_id};
use super::fault::Fault;
use super::tx::Tx;
use super::{Postgres, SWEEP_ROWS, capabilities, transact};
use crate::StoreError;
use crate::store::Store;
use crate::store::key_packages::{Access, Claim, ClaimedPackage};
use crate::stored::{claim_name, claim_subject, day};

/// Moves a single-use package of each device `$2` to the claim `$1`. Nobody waits for a package that
/// another claim is about to take.
const TAKE: &str = "WITH taken AS (
        SELECT k.id FROM unnest($2::bigint[]) AS d (id) CROSS JOIN LATERAL (
            SELECT p.id FROM key_packages AS p WHERE p.device = d.id AND NOT p.last_resort
                AND p.package IS NOT NULL AND p.not_after > $3
            ORDER BY p.id LIMIT 1 FOR UPDATE SKIP LOCKED) AS k),
    copied AS (
        INSERT INTO claimed_packages (claim, device, last_resort, package)
        SELECT $1, p.device, false, p.package FROM key_packages AS p JOIN taken USING (id))
    UPDATE key_packages AS p SET package = NULL FROM taken WHERE p.id = taken.id
    RETURNING p.device";
/// Copies the last resort of each device `$2` that gave nothing.
const COPY: &str = "INSERT INTO claimed_packages (claim, device, last_resort, package)
    SELECT $1, p.device, true, p.package FROM key_packages AS p
    WHERE p.device = ANY ($2) AND p.last_resort AND p.package IS NOT NULL AND p.not_after > $3";

impl Postgres {
    pub(crate) async fn claim_packages(
        &self,
        claim: Claim,
        now: Timestamp,
    ) -> Result<Option<Vec<ClaimedPackage>>, StoreError> {
        transact!(self, tx => hand_out(&tx, &claim, now))
    }
}

async fn hand_out(
    tx: &Tx,
    claim: &Claim,
    now: Timestamp,
) -> Result<Option<Vec<ClaimedPackage>>, Fault> {
    let account = claim.account.as_str();
    let allowed = match &claim.access {
        Access::Own(_) => true,
        Access::Capability(hash) => {
            let hash = &hash.as_bytes()[..];
            let live = tx.row(capabilities::IS_LIVE, &[&account, &hash]).await?;
            live.is_some()
        }
        Access::Nothing => false,
    };
    let is_there = "SELECT FROM accounts WHERE account = $1";
    if !allowed || tx.row(is_there, &[&account]).await?.is_none() {
        return Ok(None);
    }
    let name = claim_name(claim);
    let name = &name[..];
    tx.execute(
        "DELETE FROM claims WHERE claim = $1 AND claimed_at <= $2",
        &[&name, &horizon(now)],
    )
    .await?;
    let made = tx
        .execute(
            "INSERT INTO claims (claim, claimed_at) VALUES ($1, $2) ON CONFLICT DO NOTHING",
            &[&name, &millis(now)],
        )
        .await?;
    if made > 0 {
        take(tx, claim, name, now).await?;
    }
    let claimed = tx
        .query(
            "SELECT d.device, q.queue, c.package, c.last_resort FROM claimed_packages AS c
             JOIN devices AS d ON d.id = c.device JOIN queues AS q ON q.id = d.queue
             WHERE c.claim = $1 AND NOT d.revoked ORDER BY d.id",
            &[&name],
        )
        .await?;
    claimed.iter().map(read).collect::<Result<_, _>>().map(Some)
}

fn read(row: &Row) -> Result<ClaimedPackage, Fault> {
    Ok(ClaimedPackage {
        device: text_id(row, 0, DeviceId::parse)?,
        queue: queue_id(row, 1)?,
        package: bytes(row, 2)?,
        last_resort: row.try_get(3)?,
    })
}

/// Takes a package of each device of the account but the one that asks.
async fn take(tx: &Tx, claim: &Claim, name: &[u8], now: Timestamp) -> Result<(), Fault> {
    let within_budget = use_budgets(tx, claim, now).await?;
    let except = match &claim.access {
        Access::Own(device) => device.as_str(),
        Access::Capability(_) | Access::Nothing => "",
    };
    let found = tx
        .query(
            "SELECT id FROM devices
             WHERE account = (SELECT id FROM accounts WHERE account = $1) AND NOT revoked
             AND device <> $2 ORDER BY id",
            &[&claim.account.as_str(), &except],
        )
        .await?;
    let mut devices = Vec::with_capacity(found.len());
    for row in &found {
        devices.push(row.try_get::<_, i64>(0)?);
    }
    if within_budget {
        let taken = tx.change(TAKE, &[&name, &devices, &millis(now)]).await?;
        for row in &taken {
            let gave: i64 = row.try_get(0)?;
            devices.retain(|device| *device != gave);
        }
    }
    if !devices.is_empty() {
        tx.execute(COPY, &[&name, &devices, &millis(now)]).await?;
    }
    Ok(())
}

/// Counts the claim against its budgets; `false` if one of them is used up.
async fn use_budgets(tx: &Tx, claim: &Claim, now: Timestamp) -> Result<bool, Fault> {
    let account = &claim.account;
    let domain = claim_subject(account, "domain", claim.origin.as_str().as_bytes());
    let mut within = use_budget(tx, domain, claim.budgets.per_domain, now).await?;
    if let Access::Capability(hash) = &claim.access {
        let capability = claim_subject(account, "capability", hash.as_bytes());
        within &= use_budget(tx, capability, claim.budgets.per_capability, now).await?;
    }
    Ok(within)
}

async fn use_budget(tx: &Tx, subject: [u8; 16], most: u64, now: Timestamp) -> Result<bool, Fault> {
    let used = tx
        .change(
            "INSERT INTO claim_budgets AS b (subject, day, used) VALUES ($1, $2, 1)
             ON CONFLICT (day, subject) DO UPDATE SET used = b.used + 1 RETURNING used",
            &[&Uuid(subject), &day(now)],
        )
        .await?;
    match used.first() {
        Some(row) => Ok(row.try_get::<_, i64>(0)? <= signed(most)),
        None => Ok(false),
    }
}

fn horizon(now: Timestamp) -> i64 {
    millis(now.saturating_sub(Store::CLAIM_KEPT))
}

/// Deletes some claims that can no longer be repeated and budgets of days gone by; `true` if there
/// may be more.
pub(super) async fn sweep(tx: &Tx, now: Timestamp) -> Result<bool, Fault> {
    let claims = tx
        .execute(
            "DELETE FROM claims WHERE claim = ANY (ARRAY(
             SELECT claim FROM claims WHERE claimed_at <= $1 LIMIT $2))",
            &[&horizon(now), &SWEEP_ROWS],
        )
        .await?;
    let budgets = tx
        .execute(
            "DELETE FROM claim_budgets AS b USING (
             SELECT day, subject FROM claim_budgets WHERE day < $1 LIMIT $2) AS old
         WHERE b.day = old.day AND b.subject = old.subject",
            &[&day(now), &SWEEP_ROWS],
        )
        .await?;
    let most = u64::try_from(SWEEP_ROWS).unwrap_or(u64::MAX);
    Ok(claims == most || budgets == most)
}
