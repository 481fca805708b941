//! The bundle: a commit with all that it does, signed by its author (CCP-1 section 5.2).

use std::fmt;

use bytes::{Bytes, BytesMut};

use super::fanout::Change;
use super::key_update::LogEntry;
use crate::id::{GroupId, Handle, MessageId};
use crate::limits::SEALED_GROUP_INFO_MAX;
use crate::wire::Cbor;
use crate::wire::reader::{CborError, Reader, required};
use crate::wire::writer::Writer;

/// Purpose `commit`, or `join commit` when somebody joins by link.
#[derive(Clone, Eq, PartialEq)]
pub struct Bundle {
    /// Key 0.
    pub group: GroupId,
    /// Key 1: the head after which the commit is to stand.
    pub expect: u64,
    /// Key 2: opaque to the hub.
    pub commit: Bytes,
    /// Keys 3, 4, 9, 10, 11.
    pub change: Change,
    /// Key 5.
    pub welcomes: Vec<Welcome>,
    /// Key 6: of the epoch after the commit.
    pub sealed_group_info: Bytes,
    /// Key 7: whose key signs.
    pub author: Handle,
    /// Key 8: the payload of a MSG with position `expect + 1`.
    pub first_message: Option<Bytes>,
}

impl Bundle {
    /// The entry that the hub appends for the bundle whose signed bytes are `body`; `None` behind the
    /// last possible position.
    #[must_use]
    pub fn entry(&self, body: &[u8]) -> Option<LogEntry> {
        Some(LogEntry {
            group: self.group,
            position: self.expect.checked_add(1)?,
            commit: self.commit.clone(),
            change: self.change.clone(),
            author: self.author,
            message: MessageId::of_body(body),
        })
    }

    /// The MLS authenticated data of the commit, see [`authenticated_hash`].
    #[must_use]
    pub fn authenticated_hash(&self) -> [u8; 32] {
        authenticated_hash(&self.group, self.expect, &self.change, &self.author)
    }
}

impl Cbor for Bundle {
    fn write(&self, to: &mut Writer<'_>) {
        to.map(|map| {
            map.put(0, &self.group);
            map.put(1, &self.expect);
            map.put(2, &self.commit);
            self.change.write_lists(map);
            map.put_list(5, &self.welcomes);
            map.put(6, &self.sealed_group_info);
            map.put(7, &self.author);
            map.put_some(8, self.first_message.as_ref());
            self.change.write_rest(map);
        });
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, CborError> {
        let (mut group, mut expect, mut commit) = (None, None, None);
        let (mut sealed_group_info, mut author, mut first_message) = (None, None, None);
        let (mut change, mut welcomes) = (Change::default(), Vec::new());
        from.map(|key, from| {
            match key {
                0 => group = Some(GroupId::read(from)?),
                1 => expect = Some(from.uint()?),
                2 => commit = Some(from.bytes()?),
                5 => welcomes = from.list(Welcome::read)?,
                6 => sealed_group_info = Some(read_sealed_group_info(from)?),
                7 => author = Some(Handle::read(from)?),
                8 => first_message = Some(from.bytes()?),
                _ => change.read_key(key, from)?,
            }
            Ok(())
        })?;
        Ok(Self {
            group: required(group, 0)?,
            expect: required(expect, 1)?,
            commit: required(commit, 2)?,
            change,
            welcomes,
            sealed_group_info: required(sealed_group_info, 6)?,
            author: required(author, 7)?,
            first_message,
        })
    }
}

impl fmt::Debug for Bundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bundle({:?} after {})", self.group, self.expect)
    }
}

/// One Welcome and whom it is for: `[[handle], bytes]`.
#[derive(Clone, Eq, PartialEq)]
pub struct Welcome {
    /// Handles in `add` of the same bundle.
    pub handles: Vec<Handle>,
    /// Opaque to the hub.
    pub welcome: Bytes,
}

impl Cbor for Welcome {
    fn write(&self, to: &mut Writer<'_>) {
        to.array(2);
        to.list(&self.handles);
        to.bytes(&self.welcome);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, CborError> {
        from.tuple(2, |from| {
            Ok(Self {
                handles: from.list(Handle::read)?,
                welcome: from.bytes()?,
            })
        })
    }
}

impl fmt::Debug for Welcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Welcome({} bytes for {} handles)",
            self.welcome.len(),
            self.handles.len()
        )
    }
}

/// The MLS authenticated data of a commit: BLAKE3 of the deterministic CBOR of bundle keys 0, 1, 3, 4,
/// 7, 9, 10 and 11, those that are present (CCP-1 section 5.2).
#[must_use]
pub fn authenticated_hash(
    group: &GroupId,
    expect: u64,
    change: &Change,
    author: &Handle,
) -> [u8; 32] {
    let mut out = BytesMut::new();
    Writer::new(&mut out).map(|map| {
        map.put(0, group);
        map.put(1, &expect);
        change.write_lists(map);
        map.put(7, author);
        change.write_rest(map);
    });
    *blake3::hash(&out).as_bytes()
}

/// What a join key signs so that members can check who joins by link: it follows the hash in the
/// commit's authenticated data (CCP-1 section 5.4).
#[must_use]
pub fn join_entry_message(hash: &[u8; 32]) -> Vec<u8> {
    [b"commucat/2 join entry\0".as_slice(), hash].concat()
}

/// A commit's authenticated data taken apart.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct AuthenticatedData {
    /// [`authenticated_hash`] of its entry.
    pub hash: [u8; 32],
    /// The join key's signature over [`join_entry_message`], if somebody joins by link.
    pub join_signature: Option<[u8; 64]>,
}

impl AuthenticatedData {
    /// The bytes for MLS.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let signature = self
            .join_signature
            .as_ref()
            .map_or(&[][..], |signature| signature);
        [&self.hash[..], signature].concat()
    }

    /// Takes MLS authenticated data apart; `None` if it is neither a hash nor a hash and a signature.
    #[must_use]
    pub fn parse(raw: &[u8]) -> Option<Self> {
        let (hash, rest) = raw.split_first_chunk::<32>()?;
        let join_signature = match rest {
            [] => None,
            rest => Some(rest.try_into().ok()?),
        };
        Some(Self {
            hash: *hash,
            join_signature,
        })
    }
}

/// Reads a sealed GroupInfo within its limit (CCP-1 section 2).
pub(super) fn read_sealed_group_info(from: &mut Reader<'_>) -> Result<Bytes, CborError> {
    let sealed = from.bytes()?;
    if sealed.len() > SEALED_GROUP_INFO_MAX {
        return Err(CborError::Oversize("a sealed GroupInfo"));
    }
    Ok(sealed)
}
