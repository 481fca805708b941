//! CBOR from outside, by the strict rules of CCP-1 section 2, over `minicbor`.

use std::collections::BTreeSet;

use bytes::Bytes;
use minicbor::data::Type;
use minicbor::decode::Decoder;

use crate::id::IdError;
use crate::limits::{CBOR_INTEGER_MAX, CBOR_NESTING_MAX};

/// Why a control payload is refused. Carries names, keys and sizes, never what was received.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum CborError {
    /// The bytes end inside an item, or are not CBOR.
    #[error("no well-formed item where {0} is expected")]
    Malformed(&'static str),
    /// Another type of item; also a tag, a float, null, or an indefinite length.
    #[error("another type of item where {0} is expected")]
    Type(&'static str),
    /// The same key twice in a map.
    #[error("a key twice in a map")]
    DuplicateKey,
    /// A key that must be there is not.
    #[error("no key {0}")]
    MissingKey(u8),
    /// Maps and arrays nest deeper than 8.
    #[error("nesting over {CBOR_NESTING_MAX}")]
    Nesting,
    /// Bytes behind the item.
    #[error("{0} bytes behind the payload")]
    Trailing(usize),
    /// A number, length or combination that the field does not allow.
    #[error("{0} out of range")]
    Range(&'static str),
    /// An opaque part is over its own limit: `Control Payload Too Large`, where all else is
    /// `Invalid Control Payload`.
    #[error("{0} over its limit")]
    Oversize(&'static str),
    /// Bytes that are not the identifier expected.
    #[error(transparent)]
    Id(#[from] IdError),
}

/// Reads CBOR items one after another from shared bytes.
///
/// Nothing is allocated from a declared length: collections grow by the items that are there.
#[derive(Debug)]
pub struct Reader<'a> {
    items: Decoder<'a>,
    source: &'a Bytes,
    depth: u8,
}

impl<'a> Reader<'a> {
    /// A reader at the start of `source`.
    #[must_use]
    pub fn new(source: &'a Bytes) -> Self {
        Self {
            items: Decoder::new(source),
            source,
            depth: 0,
        }
    }

    /// Refuses bytes behind the last item.
    ///
    /// # Errors
    ///
    /// [`CborError::Trailing`] if there are any.
    pub fn end(&self) -> Result<(), CborError> {
        match self.source.len().saturating_sub(self.items.position()) {
            0 => Ok(()),
            left => Err(CborError::Trailing(left)),
        }
    }

    /// Reads an unsigned integer below 2^63.
    ///
    /// # Errors
    ///
    /// [`CborError`] if the next item is none.
    pub fn uint(&mut self) -> Result<u64, CborError> {
        let value = self
            .items
            .u64()
            .map_err(|error| because(&error, "an unsigned integer"))?;
        if value > CBOR_INTEGER_MAX {
            Err(CborError::Range("an integer"))
        } else {
            Ok(value)
        }
    }

    /// Reads an unsigned integer of a smaller type.
    ///
    /// # Errors
    ///
    /// [`CborError`] if the next item is none, or does not fit.
    pub fn small<T: TryFrom<u64>>(&mut self, what: &'static str) -> Result<T, CborError> {
        T::try_from(self.uint()?).map_err(|_| CborError::Range(what))
    }

    /// Reads `true` or `false`.
    ///
    /// # Errors
    ///
    /// [`CborError`] if the next item is neither.
    pub fn flag(&mut self) -> Result<bool, CborError> {
        self.items
            .bool()
            .map_err(|error| because(&error, "true or false"))
    }

    /// Reads an unsigned integer that is 0 or 1.
    ///
    /// # Errors
    ///
    /// [`CborError`] if the next item is neither.
    pub fn bit(&mut self) -> Result<bool, CborError> {
        match self.uint()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(CborError::Range("a field of 0 or 1")),
        }
    }

    /// Reads a byte string without copying it.
    ///
    /// # Errors
    ///
    /// [`CborError`] if the next item is none.
    pub fn slice(&mut self) -> Result<&'a [u8], CborError> {
        self.items
            .bytes()
            .map_err(|error| because(&error, "a byte string"))
    }

    /// Reads a byte string as a shared slice of the source.
    ///
    /// # Errors
    ///
    /// [`CborError`] if the next item is none.
    pub fn bytes(&mut self) -> Result<Bytes, CborError> {
        let slice = self.slice()?;
        Ok(self.source.slice_ref(slice))
    }

    /// Reads a text string.
    ///
    /// # Errors
    ///
    /// [`CborError`] if the next item is none.
    pub fn text(&mut self) -> Result<&'a str, CborError> {
        self.items
            .str()
            .map_err(|error| because(&error, "a text string"))
    }

    /// Reads an array of any length with `item`.
    ///
    /// # Errors
    ///
    /// [`CborError`] if the next item is no array, or from `item`.
    pub fn list<T>(
        &mut self,
        mut item: impl FnMut(&mut Self) -> Result<T, CborError>,
    ) -> Result<Vec<T>, CborError> {
        let len = self.enter_array()?;
        let mut values = Vec::new();
        for _ in 0..len {
            values.push(item(self)?);
        }
        self.leave();
        Ok(values)
    }

    /// Reads an array of exactly `len` items with `items`, which must read them all.
    ///
    /// # Errors
    ///
    /// [`CborError`] if the next item is no such array, or from `items`.
    pub fn tuple<T>(
        &mut self,
        len: u64,
        items: impl FnOnce(&mut Self) -> Result<T, CborError>,
    ) -> Result<T, CborError> {
        if self.enter_array()? != len {
            return Err(CborError::Range("the length of an array"));
        }
        let value = items(self)?;
        self.leave();
        Ok(value)
    }

    /// Reads a map: `entry` gets each key and reads its value, or skips it if it does not know the
    /// key.
    ///
    /// # Errors
    ///
    /// [`CborError`] if the next item is no map of unsigned keys, a key comes twice, or from `entry`.
    pub fn map(
        &mut self,
        mut entry: impl FnMut(u64, &mut Self) -> Result<(), CborError>,
    ) -> Result<(), CborError> {
        let len = self.enter_map()?;
        let mut seen = Keys::default();
        for _ in 0..len {
            let key = self.uint()?;
            if !seen.insert(key) {
                return Err(CborError::DuplicateKey);
            }
            entry(key, self)?;
        }
        self.leave();
        Ok(())
    }

    /// Reads one item of any kind as its bytes, under the same rules as everything else.
    ///
    /// # Errors
    ///
    /// [`CborError`] if the item breaks them.
    pub fn item(&mut self) -> Result<Bytes, CborError> {
        let start = self.items.position();
        self.skip()?;
        Ok(self.source.slice(start..self.items.position()))
    }

    /// Skips one item of any kind, under the same rules as everything else.
    ///
    /// # Errors
    ///
    /// [`CborError`] if the item breaks them.
    pub fn skip(&mut self) -> Result<(), CborError> {
        let kind = self
            .items
            .datatype()
            .map_err(|error| because(&error, "an item"))?;
        match kind {
            Type::Array => {
                let len = self.enter_array()?;
                for _ in 0..len {
                    self.skip()?;
                }
                self.leave();
                Ok(())
            }
            Type::Map => self.skip_map(),
            Type::Bytes => self.slice().map(drop),
            Type::String => self.text().map(drop),
            Type::Bool | Type::Null | Type::Undefined | Type::Simple => self.skip_simple(),
            Type::U8 | Type::U16 | Type::U32 | Type::U64 => self
                .items
                .u64()
                .map(drop)
                .map_err(|error| because(&error, "an integer")),
            Type::I8 | Type::I16 | Type::I32 | Type::I64 | Type::Int => self
                .items
                .int()
                .map(drop)
                .map_err(|error| because(&error, "an integer")),
            Type::F16
            | Type::F32
            | Type::F64
            | Type::Tag
            | Type::BytesIndef
            | Type::StringIndef
            | Type::ArrayIndef
            | Type::MapIndef
            | Type::Break
            | Type::Unknown(_) => Err(CborError::Type("a plain item")),
        }
    }

    /// Skips a simple value. Below 32 the form of two bytes is not well-formed (RFC 8949 section 3.3).
    fn skip_simple(&mut self) -> Result<(), CborError> {
        let at = self.items.position();
        self.items
            .skip()
            .map_err(|error| because(&error, "a simple value"))?;
        match self.source.get(at..self.items.position()) {
            Some([_, value]) if *value < 32 => Err(CborError::Malformed("a simple value")),
            Some(_) | None => Ok(()),
        }
    }

    /// Skips a map. Its keys may be anything, and are compared by their bytes; an integer in a
    /// longer form than it needs is compared by its value.
    fn skip_map(&mut self) -> Result<(), CborError> {
        let len = self.enter_map()?;
        let mut seen = Vec::new();
        for _ in 0..len {
            let start = self.items.position();
            let number = self.items.probe().int().ok().map(i128::from);
            self.skip()?;
            let raw = self
                .source
                .get(start..self.items.position())
                .unwrap_or_default();
            seen.push((number, if number.is_some() { &[] } else { raw }));
            self.skip()?;
        }
        seen.sort_unstable();
        if seen.array_windows().any(|[left, right]| left == right) {
            return Err(CborError::DuplicateKey);
        }
        self.leave();
        Ok(())
    }

    fn enter_array(&mut self) -> Result<u64, CborError> {
        let len = self
            .items
            .array()
            .map_err(|error| because(&error, "an array"))?;
        self.enter(len.ok_or(CborError::Type("an array"))?)
    }

    fn enter_map(&mut self) -> Result<u64, CborError> {
        let len = self.items.map().map_err(|error| because(&error, "a map"))?;
        self.enter(len.ok_or(CborError::Type("a map"))?)
    }

    const fn enter(&mut self, len: u64) -> Result<u64, CborError> {
        if self.depth == CBOR_NESTING_MAX {
            return Err(CborError::Nesting);
        }
        self.depth += 1;
        Ok(len)
    }

    const fn leave(&mut self) {
        self.depth = self.depth.saturating_sub(1);
    }
}

/// The keys of one map. Those that anybody uses are bits; the set bounds the work on the rest.
#[derive(Default)]
struct Keys {
    low: u64,
    high: BTreeSet<u64>,
}

impl Keys {
    fn insert(&mut self, key: u64) -> bool {
        let Some(bit) = u32::try_from(key)
            .ok()
            .and_then(|key| 1_u64.checked_shl(key))
        else {
            return self.high.insert(key);
        };
        let new = self.low & bit == 0;
        self.low |= bit;
        new
    }
}

/// Puts `value` where an absent key left `None`.
///
/// # Errors
///
/// [`CborError::MissingKey`] if it is absent.
pub fn required<T>(value: Option<T>, key: u8) -> Result<T, CborError> {
    value.ok_or(CborError::MissingKey(key))
}

fn because(error: &minicbor::decode::Error, what: &'static str) -> CborError {
    if error.is_type_mismatch() {
        CborError::Type(what)
    } else {
        CborError::Malformed(what)
    }
}
