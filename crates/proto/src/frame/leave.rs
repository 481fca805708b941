//! LEAVE: unbinds a group's channel, or leaves the group for good (CCP-1 section 5.3).

use crate::id::GroupId;
use crate::wire::Cbor;
use crate::wire::reader::{CborError, Reader, required};
use crate::wire::writer::Writer;

/// Names the group, not the channel.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Leave {
    /// Key 0.
    pub group: GroupId,
    /// Key 1.
    pub for_good: bool,
}

impl Cbor for Leave {
    fn write(&self, to: &mut Writer<'_>) {
        to.map(|map| {
            map.put(0, &self.group);
            map.put_flag(1, self.for_good);
        });
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, CborError> {
        let (mut group, mut for_good) = (None, false);
        from.map(|key, from| {
            match key {
                0 => group = Some(GroupId::read(from)?),
                1 => for_good = from.flag()?,
                _ => from.skip()?,
            }
            Ok(())
        })?;
        Ok(Self {
            group: required(group, 0)?,
            for_good,
        })
    }
}
