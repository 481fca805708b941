//! How our values are stored, whichever the backend: integers are signed there.

use commucat_proto::id::AccountId;
use commucat_proto::time::Timestamp;

use crate::StoreError;
use crate::error::BackendError;
use crate::store::key_packages::{Access, Claim};
use crate::store::peers::{PeerSource, PeerStatus};

const DAY_MS: u64 = 24 * 3600 * 1000;

/// For the database. Values beyond are no real sizes, places or times.
pub(crate) fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// From the database; the schema holds no negative numbers of this kind.
pub(crate) fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

/// A length, for the database.
pub(crate) fn length(bytes: &[u8]) -> i64 {
    i64::try_from(bytes.len()).unwrap_or(i64::MAX)
}

pub(crate) fn millis(time: Timestamp) -> i64 {
    signed(time.as_millis())
}

/// What is stored beside bytes to notice damage: the first half of their BLAKE3.
pub(crate) fn checksum(bytes: &[u8]) -> [u8; 16] {
    half(&blake3::hash(bytes))
}

pub(crate) fn half(hash: &blake3::Hash) -> [u8; 16] {
    std::array::from_fn(|index| hash.as_bytes().get(index).copied().unwrap_or_default())
}

/// 16 random bytes from the operating system.
pub(crate) fn random_id() -> Result<[u8; 16], StoreError> {
    let mut raw = [0; 16];
    getrandom::fill(&mut raw)
        .map_err(|_| StoreError::Unavailable(BackendError::text("no random bytes")))?;
    Ok(raw)
}

/// The day of a budget.
pub(crate) fn day(now: Timestamp) -> i64 {
    signed(now.as_millis() / DAY_MS)
}

/// A claim is repeated by the same domain with the same right for the same account, or it is another
/// claim.
pub(crate) fn claim_name(claim: &Claim) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(claim.id.as_bytes());
    hasher.update(claim.account.as_str().as_bytes());
    match &claim.access {
        Access::Capability(hash) => hasher.update(hash.as_bytes()),
        Access::Own(device) => hasher.update(device.as_str().as_bytes()),
        Access::Nothing => hasher.update(&[0; 32]),
    };
    hasher.update(claim.origin.as_str().as_bytes());
    *hasher.finalize().as_bytes()
}

/// Whom a budget of claims is for: a capability or a domain, for one account.
pub(crate) fn claim_subject(account: &AccountId, kind: &str, raw: &[u8]) -> [u8; 16] {
    let account = account.as_str();
    let mut text = Vec::with_capacity(account.len() + kind.len() + raw.len() + 3);
    for part in [account.as_bytes(), kind.as_bytes(), raw] {
        text.extend_from_slice(part);
        text.push(0);
    }
    checksum(&text)
}

/// Over an event of the outbox and whom to tell.
pub(crate) fn outbox_checksum(event: &[u8], return_to: Option<&[u8]>) -> [u8; 16] {
    match return_to {
        None => checksum(event),
        Some(return_to) => checksum(&[event, return_to].concat()),
    }
}

pub(crate) const fn status_code(status: PeerStatus) -> i64 {
    match status {
        PeerStatus::Active => 1,
        PeerStatus::Pending => 2,
        PeerStatus::Blocked => 3,
    }
}

/// What is written by nobody counts as blocked.
pub(crate) const fn status_of(code: i64) -> PeerStatus {
    match code {
        1 => PeerStatus::Active,
        2 => PeerStatus::Pending,
        _ => PeerStatus::Blocked,
    }
}

pub(crate) const fn source_code(source: PeerSource) -> i64 {
    match source {
        PeerSource::Static => 1,
        PeerSource::Operator => 2,
        PeerSource::Discovered => 3,
    }
}

pub(crate) const fn source_of(code: i64) -> PeerSource {
    match code {
        1 => PeerSource::Static,
        2 => PeerSource::Operator,
        _ => PeerSource::Discovered,
    }
}
