//! GROUP_CREATE (CCP-1 section 5.1).

use std::fmt;

use bytes::Bytes;

use super::bundle::read_sealed_group_info;
use super::fanout::FanoutEntry;
use crate::id::{GroupId, JoinKey};
use crate::wire::Cbor;
use crate::wire::reader::{CborError, Reader, required};
use crate::wire::writer::Writer;

/// Makes a group on the creator's home domain, with the creator alone in its list.
#[derive(Clone, Eq, PartialEq)]
pub struct GroupCreate {
    /// Key 0: 32 random bytes.
    pub group: GroupId,
    /// Key 1: must be exactly one entry; the hub checks which.
    pub fanout: Vec<FanoutEntry>,
    /// Key 2.
    pub sealed_group_info: Option<Bytes>,
    /// Key 3.
    pub join_key: Option<JoinKey>,
}

impl Cbor for GroupCreate {
    fn write(&self, to: &mut Writer<'_>) {
        to.map(|map| {
            map.put(0, &self.group);
            map.key(1).list(&self.fanout);
            map.put_some(2, self.sealed_group_info.as_ref());
            map.put_some(3, self.join_key.as_ref());
        });
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, CborError> {
        let (mut group, mut fanout) = (None, None);
        let (mut sealed_group_info, mut join_key) = (None, None);
        from.map(|key, from| {
            match key {
                0 => group = Some(GroupId::read(from)?),
                1 => fanout = Some(from.list(FanoutEntry::read)?),
                2 => sealed_group_info = Some(read_sealed_group_info(from)?),
                3 => join_key = Some(JoinKey::read(from)?),
                _ => from.skip()?,
            }
            Ok(())
        })?;
        Ok(Self {
            group: required(group, 0)?,
            fanout: required(fanout, 1)?,
            sealed_group_info,
            join_key,
        })
    }
}

impl fmt::Debug for GroupCreate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GroupCreate({:?})", self.group)
    }
}
