//! What the chats keep: values under opaque keys, in memory, with a record of what changed.
//!
//! OpenMLS writes through its `StorageProvider`; nothing touches a disk here. The vault takes the
//! changed rows and writes them in the transaction that also holds the messages, so a crash leaves
//! either both or neither.

mod openmls;

use std::collections::HashMap;

use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

/// Secret bytes that are wiped when they are dropped.
pub type Secret = Zeroizing<Vec<u8>>;

/// Bytes in one row. OpenMLS rewrites a value of up to a megabyte for each message of a large
/// group, of which a few hundred bytes changed; only the rows that differ reach the vault.
const ROW_BYTES: usize = 4096;

/// One row that the vault must write (or delete, without a value) in its next transaction.
#[derive(Clone, Eq, PartialEq)]
pub struct RowChange {
    /// The row's key: opaque, unique, at most 24 bytes, derived by a hash from what it names.
    pub key: Vec<u8>,
    /// The new value; `None` deletes the row. Secret.
    pub value: Option<Secret>,
}

impl std::fmt::Debug for RowChange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let bytes = self.value.as_ref().map(|value| value.len());
        f.debug_struct("RowChange")
            .field("bytes", &bytes)
            .finish_non_exhaustive()
    }
}

/// Why stored rows cannot be used.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum StoreError {
    /// Rows are missing or do not belong together.
    #[error("stored rows of the chats are incomplete")]
    Incomplete,
    /// A value does not decode.
    #[error("a stored value of the chats does not decode")]
    Malformed,
    /// A value does not encode.
    #[error("a value of the chats does not encode")]
    Encode,
}

/// What a value is. The numbers are stored: never reuse one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub(super) enum Label {
    JoinConfig = 1,
    OwnLeafNodes = 2,
    Proposals = 3,
    Tree = 4,
    InterimHash = 5,
    Context = 6,
    ConfirmationTag = 7,
    GroupState = 8,
    MessageSecrets = 9,
    ResumptionPsks = 10,
    OwnLeafIndex = 11,
    EpochSecrets = 12,
    SignatureKeys = 13,
    EncryptionKeys = 14,
    EpochKeys = 15,
    KeyPackage = 16,
    Psk = 17,
    /// Our own record of a group.
    Group = 32,
    /// Our own record of a published key package.
    Package = 33,
}

type Key = Vec<u8>;

/// Old values by key: what a rollback puts back.
type Undo = HashMap<Key, Option<Secret>>;

#[derive(Default)]
struct Inner {
    values: HashMap<Key, Secret>,
    committed: Undo,
    /// Set while an operation runs that may still fail.
    attempt: Option<Undo>,
}

impl Inner {
    fn set(&mut self, key: Key, value: Option<Secret>) {
        let old = match value {
            Some(value) => self.values.insert(key.clone(), value),
            None => self.values.remove(&key),
        };
        self.attempt
            .as_mut()
            .unwrap_or(&mut self.committed)
            .entry(key)
            .or_insert(old);
    }

    fn restore(&mut self, undo: Undo) {
        for (key, old) in undo {
            match old {
                Some(old) => self.values.insert(key, old),
                None => self.values.remove(&key),
            };
        }
    }
}

/// The values of all chats.
#[derive(Default)]
pub(super) struct Store(Mutex<Inner>);

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store")
            .field("values", &self.0.lock().values.len())
            .finish()
    }
}

impl Store {
    /// Puts rows together again, in any order.
    pub(super) fn load(
        rows: impl IntoIterator<Item = (Vec<u8>, Secret)>,
    ) -> Result<Self, StoreError> {
        let mut rows: Vec<_> = rows.into_iter().collect();
        rows.sort_by(|a, b| a.0.cmp(&b.0));
        let mut values: HashMap<Key, Secret> = HashMap::new();
        for (row, part) in rows {
            let (key, index) = row.split_last_chunk::<4>().ok_or(StoreError::Incomplete)?;
            let value = values.entry(key.to_vec()).or_default();
            let expected = usize::try_from(u32::from_be_bytes(*index))
                .map_err(|_| StoreError::Incomplete)?
                .checked_mul(ROW_BYTES)
                .ok_or(StoreError::Incomplete)?;
            if value.len() != expected {
                return Err(StoreError::Incomplete);
            }
            value.extend_from_slice(&part);
        }
        Ok(Self(Mutex::new(Inner {
            values,
            ..Inner::default()
        })))
    }

    /// The rows that differ from what was last [`Store::committed`].
    pub(super) fn changes(&self) -> Vec<RowChange> {
        let inner = self.0.lock();
        let mut changes = Vec::new();
        for (key, old) in &inner.committed {
            diff(
                key,
                old.as_deref(),
                inner.values.get(key).map(|v| &**v),
                &mut changes,
            );
        }
        changes.sort_by(|a, b| a.key.cmp(&b.key));
        changes
    }

    /// The changes are on disk: forget how to undo them.
    pub(super) fn committed(&self) {
        self.0.lock().committed.clear();
    }

    /// Back to what was last committed.
    pub(super) fn rollback(&self) {
        let mut inner = self.0.lock();
        if let Some(attempt) = inner.attempt.take() {
            inner.restore(attempt);
        }
        let undo = std::mem::take(&mut inner.committed);
        inner.restore(undo);
    }

    /// Starts an operation that may fail half-way.
    pub(super) fn begin(&self) {
        self.0.lock().attempt.get_or_insert_default();
    }

    /// The operation succeeded; its changes wait for [`Store::committed`].
    pub(super) fn keep(&self) {
        let mut inner = self.0.lock();
        for (key, old) in inner.attempt.take().unwrap_or_default() {
            inner.committed.entry(key).or_insert(old);
        }
    }

    /// The operation failed; nothing of it stays.
    pub(super) fn abandon(&self) {
        let mut inner = self.0.lock();
        if let Some(attempt) = inner.attempt.take() {
            inner.restore(attempt);
        }
    }

    pub(super) fn put<V: Serialize>(
        &self,
        label: Label,
        name: &impl Serialize,
        value: &V,
    ) -> Result<(), StoreError> {
        let key = key(label, name)?;
        self.0.lock().set(key, Some(encode(value)?));
        Ok(())
    }

    pub(super) fn get<V: DeserializeOwned>(
        &self,
        label: Label,
        name: &impl Serialize,
    ) -> Result<Option<V>, StoreError> {
        let key = key(label, name)?;
        self.0
            .lock()
            .values
            .get(&key)
            .map(|value| decode(value))
            .transpose()
    }

    pub(super) fn delete(&self, label: Label, name: &impl Serialize) -> Result<(), StoreError> {
        let key = key(label, name)?;
        self.0.lock().set(key, None);
        Ok(())
    }

    /// All values with one label, in no order.
    pub(super) fn all<V: DeserializeOwned>(&self, label: Label) -> Result<Vec<V>, StoreError> {
        let inner = self.0.lock();
        let wanted = |key: &[u8]| key.first() == Some(&(label as u8));
        inner
            .values
            .iter()
            .filter(|(key, _)| wanted(key))
            .map(|(_, value)| decode(value))
            .collect()
    }

    /// Every value, for carrying a group that exists in a scratch store only.
    pub(super) fn export(&self) -> Vec<(Vec<u8>, Secret)> {
        self.0
            .lock()
            .values
            .iter()
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect()
    }

    /// Takes over values that another store exported.
    pub(super) fn import(&self, values: Vec<(Vec<u8>, Secret)>) {
        let mut inner = self.0.lock();
        for (key, value) in values {
            inner.set(key, Some(value));
        }
    }
}

/// `label | first 16 bytes of BLAKE3(encoded name)`: rows tell nothing about groups.
fn key(label: Label, name: &impl Serialize) -> Result<Key, StoreError> {
    let name = encode(name)?;
    let hash = blake3::hash(&name);
    let mut key = vec![label as u8];
    key.extend(hash.as_bytes().iter().take(16));
    Ok(key)
}

/// `MessagePack` with field names, so that a later OpenMLS can add a field and still read old rows.
pub(super) fn encode<V: Serialize + ?Sized>(value: &V) -> Result<Secret, StoreError> {
    rmp_serde::to_vec_named(value)
        .map(Zeroizing::new)
        .map_err(|_| StoreError::Encode)
}

pub(super) fn decode<V: DeserializeOwned>(value: &[u8]) -> Result<V, StoreError> {
    rmp_serde::from_slice(value).map_err(|_| StoreError::Malformed)
}

fn diff(key: &[u8], old: Option<&Vec<u8>>, new: Option<&Vec<u8>>, changes: &mut Vec<RowChange>) {
    let old_rows = parts(old);
    let new_rows = parts(new);
    for index in 0..old_rows.len().max(new_rows.len()) {
        let (before, after) = (old_rows.get(index), new_rows.get(index));
        let Ok(number) = u32::try_from(index) else {
            return;
        };
        if before != after {
            let row = [key, &number.to_be_bytes()].concat();
            let value = after.map(|part| Zeroizing::new(part.to_vec()));
            changes.push(RowChange { key: row, value });
        }
    }
}

/// The rows of a value: at least one if there is a value, so that an empty one is kept too.
fn parts(value: Option<&Vec<u8>>) -> Vec<&[u8]> {
    match value {
        None => Vec::new(),
        Some(value) if value.is_empty() => vec![&[]],
        Some(value) => value.chunks(ROW_BYTES).collect(),
    }
}
