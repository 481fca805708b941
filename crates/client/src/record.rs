//! How identifiers and records are written into the vault.
//!
//! Records are `MessagePack` with field names, so that a later version can add a field and still
//! read what an earlier one wrote.

use commucat_proto::id::{
    AccountId, AccountKey, ClaimId, DeviceId, Domain, DomainKey, GroupId, Handle, MessageId,
    NoiseKey, SealedRef, Token,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::vault::{Vault, VaultError};

/// A value with a byte form.
pub(crate) trait Raw: Sized {
    /// Its bytes.
    fn raw(&self) -> &[u8];
    /// Reads [`Self::raw`].
    fn from_raw(raw: &[u8]) -> Option<Self>;
}

macro_rules! raw_bytes {
    ($($name:ident)*) => {$(
        impl Raw for $name {
            fn raw(&self) -> &[u8] {
                self.as_bytes()
            }

            fn from_raw(raw: &[u8]) -> Option<Self> {
                Self::parse(raw).ok()
            }
        }
    )*};
}

macro_rules! raw_text {
    ($($name:ident)*) => {$(
        impl Raw for $name {
            fn raw(&self) -> &[u8] {
                self.as_str().as_bytes()
            }

            fn from_raw(raw: &[u8]) -> Option<Self> {
                Self::parse(std::str::from_utf8(raw).ok()?).ok()
            }
        }
    )*};
}

raw_bytes! { AccountKey ClaimId DomainKey GroupId Handle MessageId NoiseKey SealedRef Token }
raw_text! { AccountId DeviceId Domain }

impl Raw for Vec<u8> {
    fn raw(&self) -> &[u8] {
        self
    }

    fn from_raw(raw: &[u8]) -> Option<Self> {
        Some(raw.to_vec())
    }
}

impl<const N: usize> Raw for [u8; N] {
    fn raw(&self) -> &[u8] {
        self
    }

    fn from_raw(raw: &[u8]) -> Option<Self> {
        raw.try_into().ok()
    }
}

struct BytesVisitor;

impl serde::de::Visitor<'_> for BytesVisitor {
    type Value = Vec<u8>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("bytes")
    }

    fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
        Ok(bytes.to_vec())
    }
}

struct Bytes<'a>(&'a [u8]);

impl Serialize for Bytes<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

struct Owned<T>(T);

impl<'de, T: Raw> serde::Deserialize<'de> for Owned<T> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = deserializer.deserialize_bytes(BytesVisitor)?;
        let value = T::from_raw(&bytes);
        value
            .map(Self)
            .ok_or_else(|| serde::de::Error::custom("not such an identifier"))
    }
}

/// `#[serde(with = "record::raw")]`: one value with a byte form.
pub(crate) mod raw {
    use super::{Bytes, Owned, Raw};
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

    pub(crate) fn serialize<T: Raw, S: Serializer>(value: &T, s: S) -> Result<S::Ok, S::Error> {
        Bytes(value.raw()).serialize(s)
    }

    pub(crate) fn deserialize<'de, T: Raw, D: Deserializer<'de>>(d: D) -> Result<T, D::Error> {
        Ok(Owned::deserialize(d)?.0)
    }
}

/// `#[serde(with = "record::optional")]`: one value with a byte form, or none.
pub(crate) mod optional {
    use super::{Bytes, Owned, Raw};
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

    pub(crate) fn serialize<T: Raw, S: Serializer>(
        value: &Option<T>,
        s: S,
    ) -> Result<S::Ok, S::Error> {
        value.as_ref().map(|value| Bytes(value.raw())).serialize(s)
    }

    pub(crate) fn deserialize<'de, T: Raw, D: Deserializer<'de>>(
        d: D,
    ) -> Result<Option<T>, D::Error> {
        Ok(Option::<Owned<T>>::deserialize(d)?.map(|owned| owned.0))
    }
}

/// `#[serde(with = "record::many")]`: several values with a byte form.
pub(crate) mod many {
    use super::{Bytes, Owned, Raw};
    use serde::{Deserialize as _, Deserializer, Serializer};

    #[expect(
        clippy::ptr_arg,
        reason = "serde hands over the field as it is declared"
    )]
    pub(crate) fn serialize<T: Raw, S: Serializer>(
        values: &Vec<T>,
        s: S,
    ) -> Result<S::Ok, S::Error> {
        s.collect_seq(values.iter().map(|value| Bytes(value.raw())))
    }

    pub(crate) fn deserialize<'de, T: Raw, D: Deserializer<'de>>(d: D) -> Result<Vec<T>, D::Error> {
        Ok(Vec::<Owned<T>>::deserialize(d)?
            .into_iter()
            .map(|owned| owned.0)
            .collect())
    }
}

/// Writes a record.
pub(crate) fn put<T: Serialize>(
    vault: &Vault,
    table: &'static str,
    (scope, id): (&[u8], &[u8]),
    value: &T,
) -> Result<(), VaultError> {
    let bytes = encode(table, value)?;
    vault.put(table, scope, id, &bytes)
}

/// Reads a record.
pub(crate) fn get<T: DeserializeOwned>(
    vault: &Vault,
    table: &'static str,
    (scope, id): (&[u8], &[u8]),
) -> Result<Option<T>, VaultError> {
    vault
        .get(table, scope, id)?
        .map(|bytes| decode(table, &bytes))
        .transpose()
}

/// Reads all records of a table under a scope.
pub(crate) fn list<T: DeserializeOwned>(
    vault: &Vault,
    table: &'static str,
    scope: &[u8],
) -> Result<Vec<T>, VaultError> {
    vault
        .list(table, scope)?
        .iter()
        .map(|(_, bytes)| decode(table, bytes))
        .collect()
}

/// The bytes of a record.
pub(crate) fn encode<T: Serialize>(table: &'static str, value: &T) -> Result<Vec<u8>, VaultError> {
    rmp_serde::to_vec_named(value).map_err(|_| VaultError::Damaged { table })
}

/// Reads [`encode`].
pub(crate) fn decode<T: DeserializeOwned>(
    table: &'static str,
    bytes: &[u8],
) -> Result<T, VaultError> {
    rmp_serde::from_slice(bytes).map_err(|_| VaultError::Damaged { table })
}
