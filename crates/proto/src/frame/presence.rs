//! PRESENCE: whether the client wants ephemeral frames (CCP-1 section 2).

use crate::wire::Cbor;
use crate::wire::reader::{CborError, Reader, required};
use crate::wire::writer::Writer;

/// State of a client. A connection starts active.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Presence {
    /// 1: somebody looks.
    Active,
    /// 0: no TYPING, and the longer keep-alive.
    Idle,
}

impl Cbor for Presence {
    fn write(&self, to: &mut Writer<'_>) {
        to.map(|map| map.key(0).uint(u8::from(matches!(self, Self::Active))));
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, CborError> {
        let mut active = None;
        from.map(|key, from| {
            match key {
                0 => active = Some(from.bit()?),
                _ => from.skip()?,
            }
            Ok(())
        })?;
        Ok(if required(active, 0)? {
            Self::Active
        } else {
            Self::Idle
        })
    }
}
