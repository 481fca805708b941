//! How identifiers, times and numbers stand in CBOR.

use bytes::Bytes;

use super::Cbor;
use super::reader::{CborError, Reader};
use super::writer::Writer;
use crate::id::{
    AccountId, AccountKey, ClaimId, DedupeKey, DeviceId, Domain, DomainKey, GroupId, Handle,
    JoinKey, MessageId, NoiseKey, SealedRef, Token, TokenHash,
};
use crate::time::Timestamp;

/// Identifiers of a fixed length are byte strings.
macro_rules! byte_strings {
    ($($id:ty),*) => {$(
        impl Cbor for $id {
            fn write(&self, to: &mut Writer<'_>) {
                to.bytes(self.as_bytes());
            }

            fn read(from: &mut Reader<'_>) -> Result<Self, CborError> {
                Ok(Self::parse(from.slice()?)?)
            }
        }
    )*};
}

/// Identifiers that people see are text strings.
macro_rules! text_strings {
    ($($id:ty),*) => {$(
        impl Cbor for $id {
            fn write(&self, to: &mut Writer<'_>) {
                to.text(self.as_str());
            }

            fn read(from: &mut Reader<'_>) -> Result<Self, CborError> {
                Ok(Self::parse(from.text()?)?)
            }
        }
    )*};
}

byte_strings! {
    AccountKey, ClaimId, DedupeKey, DomainKey, GroupId, Handle, JoinKey, MessageId, NoiseKey, SealedRef, Token,
    TokenHash
}
text_strings! { AccountId, DeviceId, Domain }

impl Cbor for Timestamp {
    fn write(&self, to: &mut Writer<'_>) {
        to.uint(self.as_millis());
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, CborError> {
        from.uint().map(Self::from_millis)
    }
}

impl Cbor for u64 {
    fn write(&self, to: &mut Writer<'_>) {
        to.uint(*self);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, CborError> {
        from.uint()
    }
}

impl Cbor for u32 {
    fn write(&self, to: &mut Writer<'_>) {
        to.uint(*self);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, CborError> {
        from.small("a number of 32 bits")
    }
}

impl Cbor for Bytes {
    fn write(&self, to: &mut Writer<'_>) {
        to.bytes(self);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, CborError> {
        from.bytes()
    }
}
