//! KEY_UPDATE: a bundle up, an entry of the log down (CCP-1 section 5.2).

use std::fmt;

use bytes::Bytes;

use super::bundle::authenticated_hash;
use super::fanout::Change;
use crate::id::{Domain, GroupId, Handle, MessageId, SealedRef};
use crate::signed::Signed;
use crate::wire::Cbor;
use crate::wire::reader::{CborError, Reader, required};
use crate::wire::writer::Writer;

/// KEY_UPDATE c->s: asks the hub to append a commit.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct KeyUpdate {
    /// Key 0.
    pub hub: Domain,
    /// Key 1: a [`super::bundle::Bundle`], purpose `commit` or `join commit`.
    pub bundle: Signed,
    /// Key 2: the author's own reference for this group and hub.
    pub sealed_ref: SealedRef,
}

impl Cbor for KeyUpdate {
    fn write(&self, to: &mut Writer<'_>) {
        to.map(|map| {
            map.put(0, &self.hub);
            map.put(1, &self.bundle);
            map.put(2, &self.sealed_ref);
        });
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, CborError> {
        let (mut hub, mut bundle, mut sealed_ref) = (None, None, None);
        from.map(|key, from| {
            match key {
                0 => hub = Some(Domain::read(from)?),
                1 => bundle = Some(Signed::read(from)?),
                2 => sealed_ref = Some(SealedRef::read(from)?),
                _ => from.skip()?,
            }
            Ok(())
        })?;
        Ok(Self {
            hub: required(hub, 0)?,
            bundle: required(bundle, 1)?,
            sealed_ref: required(sealed_ref, 2)?,
        })
    }
}

/// Result of KEY_UPDATE: the commit stands.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct KeyUpdateResult {
    /// Key 0: where it stands.
    pub position: u64,
    /// Key 1: whose Welcome was refused at once.
    pub refused: Vec<Handle>,
}

impl Cbor for KeyUpdateResult {
    fn write(&self, to: &mut Writer<'_>) {
        to.map(|map| {
            map.put(0, &self.position);
            map.put_list(1, &self.refused);
        });
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, CborError> {
        let (mut position, mut refused) = (None, Vec::new());
        from.map(|key, from| {
            match key {
                0 => position = Some(from.uint()?),
                1 => refused = from.list(Handle::read)?,
                _ => from.skip()?,
            }
            Ok(())
        })?;
        Ok(Self {
            position: required(position, 0)?,
            refused,
        })
    }
}

/// KEY_UPDATE s->c, and the `entry` of a Conflict and of FETCH: one commit of a group's log.
#[derive(Clone, Eq, PartialEq)]
pub struct LogEntry {
    /// Key 0.
    pub group: GroupId,
    /// Key 1.
    pub position: u64,
    /// Key 2: opaque to the hub.
    pub commit: Bytes,
    /// Keys 3, 4, 9, 10, 11.
    pub change: Change,
    /// Key 7.
    pub author: Handle,
    /// Key 12: the first 16 bytes of BLAKE3 of the bundle's body.
    pub message: MessageId,
}

impl LogEntry {
    /// What the commit's MLS authenticated data must be, see [`authenticated_hash`].
    #[must_use]
    pub fn authenticated_hash(&self) -> [u8; 32] {
        let expect = self.position.saturating_sub(1);
        authenticated_hash(&self.group, expect, &self.change, &self.author)
    }
}

impl Cbor for LogEntry {
    fn write(&self, to: &mut Writer<'_>) {
        to.map(|map| {
            map.put(0, &self.group);
            map.put(1, &self.position);
            map.put(2, &self.commit);
            self.change.write_lists(map);
            map.put(7, &self.author);
            self.change.write_rest(map);
            map.put(12, &self.message);
        });
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, CborError> {
        let (mut group, mut position, mut commit) = (None, None, None);
        let (mut author, mut message, mut change) = (None, None, Change::default());
        from.map(|key, from| {
            match key {
                0 => group = Some(GroupId::read(from)?),
                1 => position = Some(from.uint()?),
                2 => commit = Some(from.bytes()?),
                7 => author = Some(Handle::read(from)?),
                12 => message = Some(MessageId::read(from)?),
                _ => change.read_key(key, from)?,
            }
            Ok(())
        })?;
        Ok(Self {
            group: required(group, 0)?,
            position: required(position, 1)?,
            commit: required(commit, 2)?,
            change,
            author: required(author, 7)?,
            message: required(message, 12)?,
        })
    }
}

impl fmt::Debug for LogEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LogEntry({:?} at {})", self.group, self.position)
    }
}
