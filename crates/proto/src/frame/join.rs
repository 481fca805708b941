//! JOIN: binds the frame's channel to a group (CCP-1 section 5.3).

use crate::id::{Domain, GroupId, Handle, SealedRef};
use crate::wire::Cbor;
use crate::wire::reader::{CborError, Reader, required};
use crate::wire::writer::Writer;

/// Names the group and the device's place in it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Join {
    /// Key 0.
    pub group: GroupId,
    /// Key 1.
    pub hub: Domain,
    /// Key 2.
    pub handle: Handle,
    /// Key 3.
    pub sealed_ref: SealedRef,
}

impl Cbor for Join {
    fn write(&self, to: &mut Writer<'_>) {
        to.map(|map| {
            map.put(0, &self.group);
            map.put(1, &self.hub);
            map.put(2, &self.handle);
            map.put(3, &self.sealed_ref);
        });
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, CborError> {
        let (mut group, mut hub, mut handle, mut sealed_ref) = (None, None, None, None);
        from.map(|key, from| {
            match key {
                0 => group = Some(GroupId::read(from)?),
                1 => hub = Some(Domain::read(from)?),
                2 => handle = Some(Handle::read(from)?),
                3 => sealed_ref = Some(SealedRef::read(from)?),
                _ => from.skip()?,
            }
            Ok(())
        })?;
        Ok(Self {
            group: required(group, 0)?,
            hub: required(hub, 1)?,
            handle: required(handle, 2)?,
            sealed_ref: required(sealed_ref, 3)?,
        })
    }
}
