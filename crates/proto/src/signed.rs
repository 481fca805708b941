//! Signed things: the exact bytes that were signed, and the signature (CCP-1 section 2).

use std::fmt;

use bytes::Bytes;

use crate::wire::Cbor;
use crate::wire::reader::{CborError, Reader};
use crate::wire::writer::Writer;

/// `[body: bstr, signature: bstr .size 64]`. What the body says is trusted only after the signature
/// was verified, and `body` is never encoded anew for that.
#[derive(Clone, Eq, PartialEq)]
pub struct Signed {
    /// The encoded map that was signed.
    pub body: Bytes,
    /// Ed25519 over `"commucat/2 " | purpose | 0x00 | BLAKE3(body)`.
    pub signature: [u8; 64],
}

impl Cbor for Signed {
    fn write(&self, to: &mut Writer<'_>) {
        to.array(2);
        to.bytes(&self.body);
        to.bytes(&self.signature);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, CborError> {
        from.tuple(2, |from| {
            let body = from.bytes()?;
            let signature = from.slice()?;
            let signature = signature
                .try_into()
                .map_err(|_| CborError::Range("the length of a signature"))?;
            Ok(Self { body, signature })
        })
    }
}

impl fmt::Debug for Signed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signed({} bytes)", self.body.len())
    }
}
