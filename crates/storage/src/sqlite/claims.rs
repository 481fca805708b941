//! Claims of key packages in SQLite: handing out, repeats, daily budgets.

use commucat_proto::id::{AccountId, DeviceId};
use commucat_proto::time::Timestamp;
use rusqlite::params;

use super::convert::{bytes, millis, queue_id, signed, text_id};
use super::writer::Tx;
use super::{SWEEP_ROWS, Sqlite, capabilities};
use crate::StoreError;
use crate::store::Store;
use crate::store::key_packages::{Access, Claim, ClaimedPackage};
use crate::stored::{claim_name, claim_subject, day};

impl Sqlite {
    pub(crate) async fn claim_packages(
        &self,
        claim: Claim,
        now: Timestamp,
    ) -> Result<Option<Vec<ClaimedPackage>>, StoreError> {
        self.write(move |tx| hand_out(tx, &claim, now)).await
    }
}

fn hand_out(
    tx: &Tx<'_>,
    claim: &Claim,
    now: Timestamp,
) -> Result<Option<Vec<ClaimedPackage>>, StoreError> {
    let allowed = match &claim.access {
        Access::Own(_) => true,
        Access::Capability(hash) => capabilities::is_live(tx.connection, &claim.account, hash)?,
        Access::Nothing => false,
    };
    if !allowed || !account_exists(tx, &claim.account)? {
        return Ok(None);
    }
    let name = claim_name(claim);
    forget_old_claim(tx, &name, now)?;
    let is_new = tx.execute(
        "INSERT INTO claims (claim, claimed_at) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
        params![name, millis(now)],
    )? > 0;
    if is_new {
        let within_budget = use_budgets(tx, claim, now)?;
        for device in devices(tx, claim)? {
            take_one(tx, &name, device, within_budget, now)?;
        }
    }
    claimed(tx, &name).map(Some)
}

fn account_exists(tx: &Tx<'_>, account: &AccountId) -> Result<bool, StoreError> {
    let found = tx.row(
        "SELECT 1 FROM accounts WHERE account = ?1",
        [account.as_str()],
        |_| Ok(()),
    )?;
    Ok(found.is_some())
}

fn forget_old_claim(tx: &Tx<'_>, name: &[u8; 32], now: Timestamp) -> Result<(), StoreError> {
    tx.execute(
        "DELETE FROM claims WHERE claim = ?1 AND claimed_at <= ?2",
        params![name, horizon(now)],
    )?;
    Ok(())
}

fn horizon(now: Timestamp) -> i64 {
    millis(now.saturating_sub(Store::CLAIM_KEPT))
}

/// Counts the claim against its budgets; `false` if one of them is used up.
fn use_budgets(tx: &Tx<'_>, claim: &Claim, now: Timestamp) -> Result<bool, StoreError> {
    let account = &claim.account;
    let domain = claim_subject(account, "domain", claim.origin.as_str().as_bytes());
    let mut within = use_budget(tx, &domain, claim.budgets.per_domain, now)?;
    if let Access::Capability(hash) = &claim.access {
        let capability = claim_subject(account, "capability", hash.as_bytes());
        within &= use_budget(tx, &capability, claim.budgets.per_capability, now)?;
    }
    Ok(within)
}

fn use_budget(
    tx: &Tx<'_>,
    subject: &[u8; 16],
    most: u64,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let used: Option<i64> = tx.row(
        "INSERT INTO claim_budgets (subject, day, used) VALUES (?1, ?2, 1)
         ON CONFLICT (day, subject) DO UPDATE SET used = used + 1 RETURNING used",
        params![subject, day(now)],
        |row| row.get(0),
    )?;
    Ok(used.is_some_and(|used| used <= signed(most)))
}

/// The devices that a package is taken of: all of the account but the one that asks.
fn devices(tx: &Tx<'_>, claim: &Claim) -> Result<Vec<i64>, StoreError> {
    let mut statement = tx.prepare(
        "SELECT id FROM devices
         WHERE account = (SELECT id FROM accounts WHERE account = ?1) AND revoked = 0
         AND device <> ?2 ORDER BY id",
    )?;
    let except = match &claim.access {
        Access::Own(device) => device.as_str(),
        Access::Capability(_) | Access::Nothing => "",
    };
    let found = statement.query_map([claim.account.as_str(), except], |row| row.get(0))?;
    let found: Result<Vec<_>, rusqlite::Error> = found.collect();
    Ok(found?)
}

/// Moves a single-use package of `device` to the claim, or copies its last resort.
fn take_one(
    tx: &Tx<'_>,
    claim: &[u8; 32],
    device: i64,
    within_budget: bool,
    now: Timestamp,
) -> Result<(), StoreError> {
    let pick = |last_resort: bool| -> Result<Option<i64>, StoreError> {
        let found = tx.row(
            "SELECT id FROM key_packages WHERE device = ?1 AND last_resort = ?2
             AND package IS NOT NULL AND not_after > ?3 ORDER BY id LIMIT 1",
            params![device, last_resort, millis(now)],
            |row| row.get(0),
        )?;
        Ok(found)
    };
    let single_use = if within_budget { pick(false)? } else { None };
    let Some(package) = single_use.map_or_else(|| pick(true), |id| Ok(Some(id)))? else {
        return Ok(());
    };
    tx.execute(
        "INSERT INTO claimed_packages (claim, device, last_resort, package)
         SELECT ?1, device, last_resort, package FROM key_packages WHERE id = ?2",
        params![claim, package],
    )?;
    if single_use.is_some() {
        tx.execute(
            "UPDATE key_packages SET package = NULL WHERE id = ?1",
            [package],
        )?;
    }
    Ok(())
}

fn claimed(tx: &Tx<'_>, claim: &[u8; 32]) -> Result<Vec<ClaimedPackage>, StoreError> {
    let mut statement = tx.prepare(
        "SELECT d.device, q.queue, c.package, c.last_resort FROM claimed_packages AS c
         JOIN devices AS d ON d.id = c.device JOIN queues AS q ON q.id = d.queue
         WHERE c.claim = ?1 AND d.revoked = 0 ORDER BY d.id",
    )?;
    let packages = statement
        .query_map([claim], |row| {
            Ok(ClaimedPackage {
                device: text_id(row, 0, DeviceId::parse)?,
                queue: queue_id(row, 1)?,
                package: bytes(row, 2)?,
                last_resort: row.get(3)?,
            })
        })?
        .collect::<Result<_, _>>()?;
    Ok(packages)
}

/// Deletes some claims that can no longer be repeated and budgets of days gone by; `true` if there
/// may be more.
pub(super) fn sweep(tx: &Tx<'_>, now: Timestamp) -> Result<bool, StoreError> {
    let claims = tx.execute(
        "DELETE FROM claims WHERE claim IN
             (SELECT claim FROM claims WHERE claimed_at <= ?1 LIMIT ?2)",
        params![horizon(now), SWEEP_ROWS],
    )?;
    let budgets = tx.execute(
        "DELETE FROM claim_budgets WHERE (day, subject) IN
             (SELECT day, subject FROM claim_budgets WHERE day < ?1 LIMIT ?2)",
        params![day(now), SWEEP_ROWS],
    )?;
    Ok(claims == SWEEP_ROWS || budgets == SWEEP_ROWS)
}
