//! GROUP_INVITE: delivers a Welcome (CCP-1 section 5.2).

use std::fmt;

use bytes::Bytes;

use crate::id::{Domain, GroupId, Handle, MessageId, SealedRef};
use crate::wire::Cbor;
use crate::wire::reader::{CborError, Reader, required};
use crate::wire::writer::Writer;

/// Tells a device its place in a group that it was added to.
#[derive(Clone, Eq, PartialEq)]
pub struct GroupInvite {
    /// Key 0.
    pub group: GroupId,
    /// Key 1.
    pub hub: Domain,
    /// Key 2: of the commit that added it.
    pub position: u64,
    /// Key 3: the device's own handle.
    pub handle: Handle,
    /// Key 4: the device's own reference.
    pub sealed_ref: SealedRef,
    /// Key 5: opaque to the hub.
    pub welcome: Bytes,
    /// Key 11: that of the entry.
    pub message: MessageId,
}

impl Cbor for GroupInvite {
    fn write(&self, to: &mut Writer<'_>) {
        to.map(|map| {
            map.put(0, &self.group);
            map.put(1, &self.hub);
            map.put(2, &self.position);
            map.put(3, &self.handle);
            map.put(4, &self.sealed_ref);
            map.put(5, &self.welcome);
            map.put(11, &self.message);
        });
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, CborError> {
        let (mut group, mut hub, mut position, mut handle) = (None, None, None, None);
        let (mut sealed_ref, mut welcome, mut message) = (None, None, None);
        from.map(|key, from| {
            match key {
                0 => group = Some(GroupId::read(from)?),
                1 => hub = Some(Domain::read(from)?),
                2 => position = Some(from.uint()?),
                3 => handle = Some(Handle::read(from)?),
                4 => sealed_ref = Some(SealedRef::read(from)?),
                5 => welcome = Some(from.bytes()?),
                11 => message = Some(MessageId::read(from)?),
                _ => from.skip()?,
            }
            Ok(())
        })?;
        Ok(Self {
            group: required(group, 0)?,
            hub: required(hub, 1)?,
            position: required(position, 2)?,
            handle: required(handle, 3)?,
            sealed_ref: required(sealed_ref, 4)?,
            welcome: required(welcome, 5)?,
            message: required(message, 11)?,
        })
    }
}

impl fmt::Debug for GroupInvite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GroupInvite({:?} at {})", self.group, self.position)
    }
}
