//! Deterministic CBOR (RFC 8949 section 4.2.1): shortest heads, definite lengths, ascending keys.

use bytes::{BufMut, BytesMut};

use super::Cbor;

const UNSIGNED: u8 = 0;
const BYTES: u8 = 2;
const TEXT: u8 = 3;
const ARRAY: u8 = 4;
const MAP: u8 = 5;

/// Appends CBOR items to a buffer. Nothing here can fail.
#[derive(Debug)]
pub struct Writer<'a> {
    out: &'a mut BytesMut,
}

impl<'a> Writer<'a> {
    /// A writer behind what `out` holds.
    pub const fn new(out: &'a mut BytesMut) -> Self {
        Self { out }
    }

    /// Appends an unsigned integer.
    pub fn uint(&mut self, value: impl Into<u64>) {
        self.head(UNSIGNED, value.into());
    }

    /// Appends a byte string.
    pub fn bytes(&mut self, value: &[u8]) {
        self.head(BYTES, value.len() as u64);
        self.out.put_slice(value);
    }

    /// Appends a text string.
    pub fn text(&mut self, value: &str) {
        self.head(TEXT, value.len() as u64);
        self.out.put_slice(value.as_bytes());
    }

    /// Appends `true` or `false`.
    pub fn flag(&mut self, value: bool) {
        self.out.put_u8(if value { 0xf5 } else { 0xf4 });
    }

    /// Appends the head of an array; the caller appends `len` items.
    pub fn array(&mut self, len: usize) {
        self.head(ARRAY, len as u64);
    }

    /// Appends an array of values.
    pub fn list<T: Cbor>(&mut self, values: &[T]) {
        self.array(values.len());
        for value in values {
            value.write(self);
        }
    }

    /// Appends a map; `fill` adds its entries in ascending order of keys, at most 23 of them.
    pub fn map(&mut self, fill: impl FnOnce(&mut MapWriter<'_, 'a>)) {
        let at = self.out.len();
        self.head(MAP, 0);
        let mut map = MapWriter {
            writer: self,
            entries: 0,
            next_key: 0,
        };
        fill(&mut map);
        let entries = map.entries;
        debug_assert!(entries < 24, "the head of a map is one byte");
        if let Some(head) = self.out.get_mut(at) {
            *head |= entries;
        }
    }

    /// Appends an item that is encoded already.
    pub fn raw(&mut self, item: &[u8]) {
        self.out.put_slice(item);
    }

    fn head(&mut self, major: u8, value: u64) {
        let major = major << 5;
        if let Ok(small) = u8::try_from(value) {
            if small < 24 {
                self.out.put_u8(major | small);
            } else {
                self.out.put_slice(&[major | 24, small]);
            }
        } else if let Ok(value) = u16::try_from(value) {
            self.out.put_u8(major | 25);
            self.out.put_u16(value);
        } else if let Ok(value) = u32::try_from(value) {
            self.out.put_u8(major | 26);
            self.out.put_u32(value);
        } else {
            self.out.put_u8(major | 27);
            self.out.put_u64(value);
        }
    }
}

/// The entries of a map. Each method appends a key; the value must follow.
#[derive(Debug)]
pub struct MapWriter<'w, 'a> {
    writer: &'w mut Writer<'a>,
    entries: u8,
    next_key: u8,
}

impl<'a> MapWriter<'_, 'a> {
    /// Appends a key; the caller appends one value to the writer returned.
    pub fn key(&mut self, key: u8) -> &mut Writer<'a> {
        debug_assert!(key >= self.next_key, "keys ascend");
        self.entries += 1;
        self.next_key = key + 1;
        self.writer.uint(key);
        self.writer
    }

    /// Appends a key and its value.
    pub fn put<T: Cbor>(&mut self, key: u8, value: &T) {
        value.write(self.key(key));
    }

    /// Appends a key and its value, if there is one.
    pub fn put_some<T: Cbor>(&mut self, key: u8, value: Option<&T>) {
        if let Some(value) = value {
            self.put(key, value);
        }
    }

    /// Appends a key and a list, unless that is empty.
    pub fn put_list<T: Cbor>(&mut self, key: u8, values: &[T]) {
        if !values.is_empty() {
            self.key(key).list(values);
        }
    }

    /// Appends a key and `true`, if `value` is; absent means false.
    pub fn put_flag(&mut self, key: u8, value: bool) {
        if value {
            self.key(key).flag(true);
        }
    }
}
