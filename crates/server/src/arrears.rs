//! Ledger entries that a crash kept from being written: the store had the change already.
//!
//! At the start the ledger's file, which is read to the end in any case, is compared with the devices
//! and lists in force, before anybody can change them. So each missing entry is written once.

use std::collections::HashSet;
use std::time::Duration;

use commucat_ledger::{AccountMark, Change, DeviceMark, Hash, Known, Ledger, RecordError};
use commucat_proto::id::AccountId;
use commucat_proto::signed::Signed;
use commucat_proto::wire::Cbor as _;
use commucat_storage::{Device, Store, StoreError};
use tokio::time::timeout;

use crate::chain::chain;
use crate::clock;

/// Devices of one read.
const PAGE: usize = 256;
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
    let (mut missing, mut seen) = (0, HashSet::new());
    let mut after = None;
    loop {
        let page = store.devices(after.as_ref(), PAGE).await?;
        for device in &page {
            for change in of_device(store, device, &mut known, &mut seen).await? {
                ledger.record(clock::now(), change).await?;
                missing += 1;
            }
        }
        match page.last() {
            Some(last) if page.len() == PAGE => after = Some(last.device.clone()),
            Some(_) | None => break,
        }
    }
    for (account, device) in known.into_rest() {
        let revoked = Change::DeviceRevoked {
            account,
            device,
            version: None,
        };
        ledger.record(clock::now(), revoked).await?;
        missing += 1;
    }
    Ok(missing)
}

/// What the ledger lacks of a device and, at the account's first one, of its list.
async fn of_device(
    store: &Store,
    device: &Device,
    known: &mut Known,
    seen: &mut HashSet<AccountId>,
) -> Result<Vec<Change>, StoreError> {
    let (account, mark) = (
        AccountMark::of(&device.account),
        DeviceMark::of(&device.account, &device.device),
    );
    let (is_known, is_first) = (known.tick_off(mark), seen.insert(device.account.clone()));
    if is_known && !is_first {
        return Ok(Vec::new());
    }
    let Some(list) = store.list(&device.account).await? else {
        return Ok(Vec::new());
    };
    // What cannot be decoded is damaged: the store's own check tells of it.
    let Ok(signed) = Signed::decode_shared(&list.signed) else {
        return Ok(Vec::new());
    };
    let (version, list) = (list.version, Hash::of_body(&signed.body));
    let registered = (!is_known).then_some(Change::DeviceRegistered {
        account,
        device: mark,
        version,
        list,
    });
    let changed = (is_first && !known.has_list(account, version)).then_some(Change::ListChanged {
        account,
        version,
        list,
    });
    Ok(registered.into_iter().chain(changed).collect())
}

#[cfg(test)]
mod tests;
