//! Ledger entries that a crash kept from being written: the store had the change already.
//!
//! At the start the ledger's file, which is read to the end in any case, is compared with the devices
//! and lists in force, before anybody can change them. So each missing entry is written once.

use std::time::Duration;

use commucat_ledger::{AccountMark, Change, DeviceMark, Hash, Known, Ledger, RecordError};
use commucat_proto::id::AccountId;
use commucat_proto::signed::Signed;
use commucat_proto::wire::Cbor as _;
use commucat_storage::{Store, StoreError};
use tokio::time::timeout;

use crate::chain::chain;
use crate::clock;

/// Devices, or accounts, of one read.
const PAGE: usize = 1_024;
/// Longest that a start waits for a ledger that takes nothing; `/readyz` then says so.
const WAIT: Duration = Duration::from_secs(30);

/// Why the comparison did not come to its end. The next start makes it again.
#[derive(Debug, thiserror::Error)]
enum ArrearsError {
    #[error("the store cannot be read")]
    Store(#[from] StoreError),
    #[error("the ledger does not take what is missing")]
    Ledger(#[from] RecordError),
}

/// Records what `known` lacks. A failure is logged and holds up nobody.
pub(crate) async fn settle(store: &Store, ledger: &Ledger, known: Known) {
    match timeout(WAIT, compare(store, ledger, known)).await {
        Ok(Ok(0)) => {}
        Ok(Ok(count)) => tracing::warn!(count, "the ledger lacked entries; they are written now"),
        Ok(Err(error)) => {
            tracing::error!(error = %chain(&error), "the ledger may lack entries");
        }
        Err(_) => tracing::error!("the ledger may lack entries: it takes none"),
    }
}

/// How many entries were missing.
async fn compare(store: &Store, ledger: &Ledger, mut known: Known) -> Result<u64, ArrearsError> {
    let devices = compare_devices(store, ledger, &mut known).await?;
    let lists = compare_lists(store, ledger, &known).await?;
    let mut revoked = 0;
    for (account, device) in known.into_rest() {
        let change = Change::DeviceRevoked {
            account,
            device,
            version: None,
        };
        ledger.record(clock::now(), change).await?;
        revoked += 1;
    }
    Ok(devices + lists + revoked)
}

async fn compare_devices(
    store: &Store,
    ledger: &Ledger,
    known: &mut Known,
) -> Result<u64, ArrearsError> {
    let (mut missing, mut after) = (0, None);
    loop {
        let page = store.devices(after.as_ref(), PAGE).await?;
        for found in &page {
            let device = DeviceMark::of(&found.account, &found.device);
            if known.tick_off(device) {
                continue;
            }
            let Some((version, list)) = list(store, &found.account).await? else {
                continue;
            };
            let change = Change::DeviceRegistered {
                account: AccountMark::of(&found.account),
                device,
                version,
                list,
            };
            ledger.record(clock::now(), change).await?;
            missing += 1;
        }
        match page.last() {
            Some(last) if page.len() == PAGE => after = Some(last.device.clone()),
            Some(_) | None => return Ok(missing),
        }
    }
}

/// By their versions: only what the ledger lacks is read.
async fn compare_lists(store: &Store, ledger: &Ledger, known: &Known) -> Result<u64, ArrearsError> {
    let (mut missing, mut after) = (0, None);
    loop {
        let page = store.list_versions(after.as_ref(), PAGE).await?;
        for (id, version) in &page {
            let account = AccountMark::of(id);
            if known.has_list(account, *version) {
                continue;
            }
            let Some((version, list)) = list(store, id).await? else {
                continue;
            };
            let change = Change::ListChanged {
                account,
                version,
                list,
            };
            ledger.record(clock::now(), change).await?;
            missing += 1;
        }
        match page.last() {
            Some((last, _)) if page.len() == PAGE => after = Some(last.clone()),
            Some(_) | None => return Ok(missing),
        }
    }
}

/// Version and hash of an account's list.
async fn list(store: &Store, account: &AccountId) -> Result<Option<(u64, Hash)>, StoreError> {
    let Some(list) = store.list(account).await? else {
        return Ok(None);
    };
    // What cannot be decoded is damaged: the store's own check tells of it.
    let signed = Signed::decode_shared(&list.signed).ok();
    Ok(signed.map(|signed| (list.version, Hash::of_body(&signed.body))))
}

#[cfg(test)]
mod tests;
