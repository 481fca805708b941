//! FETCH: reads a group's log, GroupInfo or list (CCP-1 section 5.4).

use bytes::Bytes;

use super::fanout::FanoutEntry;
use super::key_update::LogEntry;
use crate::id::{Domain, GroupId, Handle, SealedRef};
use crate::signed::Signed;
use crate::wire::Cbor;
use crate::wire::reader::{CborError, Reader, required};
use crate::wire::writer::Writer;

/// Names the group, what to read, and by which right.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Fetch {
    /// Key 0.
    pub group: GroupId,
    /// Key 1.
    pub hub: Domain,
    /// Keys 2 and 3, or key 6.
    pub access: FetchAccess,
    /// Key 4: the first position wanted.
    pub from: u64,
    /// Key 5.
    pub want: Want,
}

/// By which right a device reads.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum FetchAccess {
    /// As an entry of the list.
    Member {
        /// Key 2.
        handle: Handle,
        /// Key 3.
        sealed_ref: SealedRef,
    },
    /// By a join link: key 6, a [`crate::identity::JoinRead`], purpose `join read`.
    Joiner(Signed),
}

/// What to read: a sum of bits on the wire.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Want {
    /// Bit 1.
    pub entries: bool,
    /// Bit 2.
    pub group_info: bool,
    /// Bit 4.
    pub list: bool,
}

impl Want {
    const fn bits(self) -> u64 {
        self.entries as u64 | (self.group_info as u64) << 1 | (self.list as u64) << 2
    }

    /// Bits of later versions are ignored, as unknown keys are.
    const fn of_bits(bits: u64) -> Self {
        Self {
            entries: bits & 1 != 0,
            group_info: bits & 2 != 0,
            list: bits & 4 != 0,
        }
    }
}

impl Cbor for Fetch {
    fn write(&self, to: &mut Writer<'_>) {
        to.map(|map| {
            map.put(0, &self.group);
            map.put(1, &self.hub);
            if let FetchAccess::Member { handle, sealed_ref } = &self.access {
                map.put(2, handle);
                map.put(3, sealed_ref);
            }
            map.put(4, &self.from);
            map.put(5, &self.want.bits());
            if let FetchAccess::Joiner(signed) = &self.access {
                map.put(6, signed);
            }
        });
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, CborError> {
        let (mut group, mut hub, mut handle, mut sealed_ref) = (None, None, None, None);
        let (mut first, mut want, mut signed) = (None, None, None);
        from.map(|key, from| {
            match key {
                0 => group = Some(GroupId::read(from)?),
                1 => hub = Some(Domain::read(from)?),
                2 => handle = Some(Handle::read(from)?),
                3 => sealed_ref = Some(SealedRef::read(from)?),
                4 => first = Some(from.uint()?),
                5 => want = Some(Want::of_bits(from.uint()?)),
                6 => signed = Some(Signed::read(from)?),
                _ => from.skip()?,
            }
            Ok(())
        })?;
        let access = match (handle, sealed_ref, signed) {
            (Some(handle), Some(sealed_ref), None) => FetchAccess::Member { handle, sealed_ref },
            (None, None, Some(signed)) => FetchAccess::Joiner(signed),
            (None | Some(_), None | Some(_), None | Some(_)) => {
                return Err(CborError::Range("keys 2 and 3, or 6"));
            }
        };
        Ok(Self {
            group: required(group, 0)?,
            hub: required(hub, 1)?,
            access,
            from: required(first, 4)?,
            want: required(want, 5)?,
        })
    }
}

/// Result of FETCH.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct FetchResult {
    /// Key 0.
    pub head: u64,
    /// Key 2: the lowest position still in the log; head + 1 if none.
    pub first_kept: u64,
    /// Key 3: ascending.
    pub entries: Vec<LogEntry>,
    /// Key 4: newest first.
    pub group_infos: Vec<KeptGroupInfo>,
    /// Key 5.
    pub fanout: Option<Vec<FanoutEntry>>,
}

impl Cbor for FetchResult {
    fn write(&self, to: &mut Writer<'_>) {
        to.map(|map| {
            map.put(0, &self.head);
            map.put(2, &self.first_kept);
            map.key(3).list(&self.entries);
            map.put_list(4, &self.group_infos);
            if let Some(fanout) = &self.fanout {
                map.key(5).list(fanout);
            }
        });
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, CborError> {
        let (mut head, mut first_kept, mut entries) = (None, None, None);
        let (mut group_infos, mut fanout) = (Vec::new(), None);
        from.map(|key, from| {
            match key {
                0 => head = Some(from.uint()?),
                2 => first_kept = Some(from.uint()?),
                3 => entries = Some(from.list(LogEntry::read)?),
                4 => group_infos = from.list(KeptGroupInfo::read)?,
                5 => fanout = Some(from.list(FanoutEntry::read)?),
                _ => from.skip()?,
            }
            Ok(())
        })?;
        Ok(Self {
            head: required(head, 0)?,
            first_kept: required(first_kept, 2)?,
            entries: required(entries, 3)?,
            group_infos,
            fanout,
        })
    }
}

/// `[position, sealed_group_info]`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct KeptGroupInfo {
    /// After which commit the group is in this state.
    pub position: u64,
    /// Opaque to the hub.
    pub sealed: Bytes,
}

impl Cbor for KeptGroupInfo {
    fn write(&self, to: &mut Writer<'_>) {
        to.array(2);
        self.position.write(to);
        self.sealed.write(to);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, CborError> {
        from.tuple(2, |from| {
            Ok(Self {
                position: from.uint()?,
                sealed: from.bytes()?,
            })
        })
    }
}
