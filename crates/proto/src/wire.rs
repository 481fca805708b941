//! Bytes: unsigned LEB128 varints, and deterministic CBOR with the strict rules of CCP-1 section 2.

mod item;
pub mod reader;
pub mod varint;
pub mod writer;

use bytes::{Bytes, BytesMut};

use reader::{CborError, Reader};
use writer::Writer;

/// A value with a CBOR form on the wire.
///
/// Writing is deterministic (RFC 8949 section 4.2.1). Reading follows CCP-1 section 2: order and
/// shortest form are not checked, unknown keys are skipped, and duplicate keys, indefinite lengths,
/// tags, floats, nesting over 8 and trailing bytes are refused.
pub trait Cbor: Sized {
    /// Appends this value.
    fn write(&self, to: &mut Writer<'_>);

    /// Reads one value; byte strings are slices of the source.
    ///
    /// # Errors
    ///
    /// [`CborError`] if the next item is not this value.
    fn read(from: &mut Reader<'_>) -> Result<Self, CborError>;

    /// The value as bytes of its own.
    #[must_use]
    fn encode(&self) -> Vec<u8> {
        let mut out = BytesMut::new();
        self.write(&mut Writer::new(&mut out));
        Vec::from(out)
    }

    /// Reads `raw`, all of it, by way of a copy. Use [`Cbor::decode_shared`] where there is a
    /// [`Bytes`].
    ///
    /// # Errors
    ///
    /// [`CborError`] if `raw` is not exactly one such value.
    fn decode(raw: &[u8]) -> Result<Self, CborError> {
        Self::decode_shared(&Bytes::copy_from_slice(raw))
    }

    /// Reads `raw`, all of it; byte strings of the value share its memory.
    ///
    /// # Errors
    ///
    /// [`CborError`] if `raw` is not exactly one such value.
    fn decode_shared(raw: &Bytes) -> Result<Self, CborError> {
        let mut reader = Reader::new(raw);
        let value = Self::read(&mut reader)?;
        reader.end()?;
        Ok(value)
    }
}
