//! Entries of a group's fan-out list, and how a commit changes the list (CCP-1 sections 5.0, 5.2).

use crate::id::{Domain, Handle, JoinKey, SealedRef};
use crate::wire::Cbor;
use crate::wire::reader::{CborError, Reader};
use crate::wire::writer::{MapWriter, Writer};

/// `[handle, domain, sealed_ref, admin]`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FanoutEntry {
    /// The device's pseudonym in this group.
    pub handle: Handle,
    /// The home domain of the device.
    pub domain: Domain,
    /// Where its copies go.
    pub sealed_ref: SealedRef,
    /// Whether its commits may remove others; 0 or 1 on the wire.
    pub admin: bool,
}

impl Cbor for FanoutEntry {
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

/// A new admin flag of a listed handle: `[handle, 0 or 1]`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct AdminChange {
    /// Whose flag.
    pub handle: Handle,
    /// Its new value.
    pub admin: bool,
}

impl Cbor for AdminChange {
    fn write(&self, to: &mut Writer<'_>) {
        to.array(2);
        self.handle.write(to);
        to.uint(u8::from(self.admin));
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, CborError> {
        from.tuple(2, |from| {
            Ok(Self {
                handle: Handle::read(from)?,
                admin: from.bit()?,
            })
        })
    }
}

/// A new join key, or the end of joining by link: 32 bytes, or none.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum JoinKeyChange {
    /// Holders of this key's seed may join.
    Set(JoinKey),
    /// Nobody may join by link.
    Remove,
}

impl Cbor for JoinKeyChange {
    fn write(&self, to: &mut Writer<'_>) {
        match self {
            Self::Set(key) => key.write(to),
            Self::Remove => to.bytes(&[]),
        }
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, CborError> {
        match from.slice()? {
            [] => Ok(Self::Remove),
            key => Ok(Self::Set(JoinKey::parse(key)?)),
        }
    }
}

/// What a commit does to the group at its hub, beside the commit itself.
///
/// An empty list is the same as an absent one, and `close: false` the same as none: they are written,
/// and hashed, as absent.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Change {
    /// Key 3: who comes.
    pub add: Vec<FanoutEntry>,
    /// Key 4: who goes.
    pub remove: Vec<Handle>,
    /// Key 9.
    pub join_key: Option<JoinKeyChange>,
    /// Key 10: the group ends.
    pub close: bool,
    /// Key 11.
    pub admins: Vec<AdminChange>,
}

impl Change {
    /// Whether only an admin's commit may do this; adding with the flag is one such thing.
    #[must_use]
    pub fn needs_admin(&self) -> bool {
        !self.remove.is_empty()
            || self.join_key.is_some()
            || self.close
            || !self.admins.is_empty()
            || self.add.iter().any(|entry| entry.admin)
    }

    /// Writes keys 3 and 4.
    pub(super) fn write_lists(&self, map: &mut MapWriter<'_, '_>) {
        map.put_list(3, &self.add);
        map.put_list(4, &self.remove);
    }

    /// Writes keys 9 to 11.
    pub(super) fn write_rest(&self, map: &mut MapWriter<'_, '_>) {
        map.put_some(9, self.join_key.as_ref());
        map.put_flag(10, self.close);
        map.put_list(11, &self.admins);
    }

    /// Reads the value of one of its keys, or skips that of another.
    pub(super) fn read_key(&mut self, key: u64, from: &mut Reader<'_>) -> Result<(), CborError> {
        match key {
            3 => self.add = from.list(FanoutEntry::read)?,
            4 => self.remove = from.list(Handle::read)?,
            9 => self.join_key = Some(JoinKeyChange::read(from)?),
            10 => self.close = from.flag()?,
            11 => self.admins = from.list(AdminChange::read)?,
            _ => from.skip()?,
        }
        Ok(())
    }
}
