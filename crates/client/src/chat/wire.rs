//! The parts of bundles and entries that members check against the commit in them.

use bytes::Bytes;
use commucat_proto::id::{Domain, GroupId, Handle, MessageId, SealedRef};
use commucat_proto::wire::Cbor;
use commucat_proto::wire::reader::{CborError, Reader};
use commucat_proto::wire::writer::{MapWriter, Writer};

/// One entry of a fan-out list.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ListEntry {
    pub handle: Handle,
    pub domain: Domain,
    pub sealed_ref: SealedRef,
    pub admin: bool,
}

/// KEY_UPDATE s->c.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Entry {
    pub group: GroupId,
    pub position: u64,
    pub commit: Bytes,
    pub add: Option<Vec<ListEntry>>,
    pub remove: Option<Vec<Handle>>,
    pub author: Handle,
    pub join_key: Option<Bytes>,
    pub close: bool,
    pub admins: Option<Vec<(Handle, bool)>>,
    pub message_id: MessageId,
}

/// GROUP_INVITE.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Invite {
    pub group: GroupId,
    pub hub: Domain,
    pub position: u64,
    pub handle: Handle,
    pub sealed_ref: SealedRef,
    pub welcome: Bytes,
    pub message_id: MessageId,
}

/// GROUP_CREATE.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Create {
    pub group: GroupId,
    pub fanout: ListEntry,
    pub sealed_group_info: Bytes,
    pub join_key: Option<Bytes>,
}

/// What a commit's authenticated data commits to: bundle keys 0, 1, 3, 4, 7, 9, 10, 11.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Terms {
    pub(super) group: GroupId,
    pub(super) expect: u64,
    pub(super) add: Option<Vec<ListEntry>>,
    pub(super) remove: Option<Vec<Handle>>,
    pub(super) author: Handle,
    pub(super) join_key: Option<Bytes>,
    pub(super) close: bool,
    pub(super) admins: Option<Vec<(Handle, bool)>>,
}

impl Terms {
    pub(super) fn of_entry(entry: &Entry) -> Option<Self> {
        Some(Self {
            group: entry.group,
            expect: entry.position.checked_sub(1)?,
            add: entry.add.clone(),
            remove: entry.remove.clone(),
            author: entry.author,
            join_key: entry.join_key.clone(),
            close: entry.close,
            admins: entry.admins.clone(),
        })
    }
}

pub(super) fn commitment(terms: &Terms) -> [u8; 32] {
    let mut out = bytes::BytesMut::new();
    Writer::new(&mut out).map(|map| {
        map.put(0, &terms.group);
        map.put(1, &terms.expect);
        early(terms, map);
        map.put(7, &terms.author);
        late(terms, map);
    });
    *blake3::hash(&out).as_bytes()
}

fn early(terms: &Terms, map: &mut MapWriter<'_, '_>) {
    if let Some(add) = &terms.add {
        let to = map.key(3);
        to.array(add.len());
        for entry in add {
            entry.write(to);
        }
    }
    if let Some(remove) = &terms.remove {
        map.key(4).list(remove);
    }
}

fn late(terms: &Terms, map: &mut MapWriter<'_, '_>) {
    if let Some(join_key) = &terms.join_key {
        map.put(9, join_key);
    }
    map.put_flag(10, terms.close);
    if let Some(admins) = &terms.admins {
        let to = map.key(11);
        to.array(admins.len());
        for (handle, flag) in admins {
            to.array(2);
            handle.write(to);
            to.uint(u8::from(*flag));
        }
    }
}

/// A bundle to be signed.
pub(super) struct Bundle {
    pub(super) terms: Terms,
    pub(super) commit: Bytes,
    pub(super) welcomes: Option<Vec<(Vec<Handle>, Bytes)>>,
    pub(super) sealed_group_info: Bytes,
}

impl Bundle {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = bytes::BytesMut::new();
        Writer::new(&mut out).map(|map| {
            map.put(0, &self.terms.group);
            map.put(1, &self.terms.expect);
            map.put(2, &self.commit);
            early(&self.terms, map);
            if let Some(welcomes) = &self.welcomes {
                let to = map.key(5);
                to.array(welcomes.len());
                for (handles, welcome) in welcomes {
                    to.array(2);
                    to.list(handles);
                    to.bytes(welcome);
                }
            }
            map.put(6, &self.sealed_group_info);
            map.put(7, &self.terms.author);
            late(&self.terms, map);
        });
        out.into()
    }
}

impl Cbor for ListEntry {
    fn write(&self, to: &mut Writer<'_>) {
        to.array(4);
        self.handle.write(to);
        self.domain.write(to);
        self.sealed_ref.write(to);
        to.uint(u8::from(self.admin));
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, CborError> {
        from.tuple(4, |from| {
            Ok(Self {
                handle: Handle::read(from)?,
                domain: Domain::read(from)?,
                sealed_ref: SealedRef::read(from)?,
                admin: from.bit()?,
            })
        })
    }
}
