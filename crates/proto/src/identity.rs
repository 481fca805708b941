//! Statements about devices, accounts and servers, and what a device says of itself.

use bytes::Bytes;

use crate::id::{AccountKey, DeviceId, Domain, DomainKey, GroupId, NoiseKey, Token};
use crate::limits::DEVICES_MAX;
use crate::signed::Signed;
use crate::time::Timestamp;
use crate::wire::Cbor;
use crate::wire::reader::{CborError, Reader, required};
use crate::wire::writer::Writer;

/// What a device says of itself in the handshake's Noise payload (CCP-1 section 3).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Identification {
    /// Key 0.
    pub device: DeviceId,
    /// Key 1: only a device that the server does not know yet.
    pub registration: Option<Registration>,
    /// Key 2: none are defined.
    pub capabilities: Vec<u64>,
    /// Key 3: the list of HELLO again, sealed.
    pub versions: Vec<u64>,
}

impl Cbor for Identification {
    fn write(&self, to: &mut Writer<'_>) {
        to.map(|map| {
            map.put(0, &self.device);
            map.put_some(1, self.registration.as_ref());
            map.key(2).list(&self.capabilities);
            map.key(3).list(&self.versions);
        });
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, CborError> {
        let (mut device, mut registration) = (None, None);
        let (mut capabilities, mut versions) = (None, None);
        from.map(|key, from| {
            match key {
                0 => device = Some(DeviceId::read(from)?),
                1 => registration = Some(Registration::read(from)?),
                2 => capabilities = Some(from.list(u64::read)?),
                3 => versions = Some(from.list(u64::read)?),
                _ => from.skip()?,
            }
            Ok(())
        })?;
        Ok(Self {
            device: required(device, 0)?,
            registration,
            capabilities: required(capabilities, 2)?,
            versions: required(versions, 3)?,
        })
    }
}

/// How an unknown device becomes known (CCP-1 section 6).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Registration {
    /// Key 0: for a new account, unless registration is open.
    pub invite: Option<Token>,
    /// Key 1: a [`DeviceList`], purpose `device list`.
    pub list: Signed,
}

impl Cbor for Registration {
    fn write(&self, to: &mut Writer<'_>) {
        to.map(|map| {
            map.put_some(0, self.invite.as_ref());
            map.put(1, &self.list);
        });
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, CborError> {
        let (mut invite, mut list) = (None, None);
        from.map(|key, from| {
            match key {
                0 => invite = Some(Token::read(from)?),
                1 => list = Some(Signed::read(from)?),
                _ => from.skip()?,
            }
            Ok(())
        })?;
        Ok(Self {
            invite,
            list: required(list, 1)?,
        })
    }
}

/// Says that a device belongs to an account; signed by the account key, purpose
/// `device certificate`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DeviceCertificate {
    /// Key 0.
    pub account: AccountKey,
    /// Key 1.
    pub device: DeviceId,
    /// Key 2.
    pub noise_key: NoiseKey,
    /// Key 3: the public key of the device's MLS leaves, in the form of their signature scheme.
    pub mls_key: Bytes,
    /// Key 4.
    pub not_before: Timestamp,
    /// Key 5.
    pub not_after: Timestamp,
}

impl Cbor for DeviceCertificate {
    fn write(&self, to: &mut Writer<'_>) {
        to.map(|map| {
            map.put(0, &self.account);
            map.put(1, &self.device);
            map.put(2, &self.noise_key);
            map.put(3, &self.mls_key);
            map.put(4, &self.not_before);
            map.put(5, &self.not_after);
        });
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, CborError> {
        let (mut account, mut device, mut noise_key) = (None, None, None);
        let (mut mls_key, mut not_before, mut not_after) = (None, None, None);
        from.map(|key, from| {
            match key {
                0 => account = Some(AccountKey::read(from)?),
                1 => device = Some(DeviceId::read(from)?),
                2 => noise_key = Some(NoiseKey::read(from)?),
                3 => mls_key = Some(from.bytes()?),
                4 => not_before = Some(Timestamp::read(from)?),
                5 => not_after = Some(Timestamp::read(from)?),
                _ => from.skip()?,
            }
            Ok(())
        })?;
        Ok(Self {
            account: required(account, 0)?,
            device: required(device, 1)?,
            noise_key: required(noise_key, 2)?,
            mls_key: required(mls_key, 3)?,
            not_before: required(not_before, 4)?,
            not_after: required(not_after, 5)?,
        })
    }
}

/// All certificates of an account; signed by the account key, purpose `device list`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DeviceList {
    /// Key 0.
    pub account: AccountKey,
    /// Key 1: the account's home domain.
    pub domain: Domain,
    /// Key 2: the higher one wins.
    pub version: u64,
    /// Key 3.
    pub issued: Timestamp,
    /// Key 4: at most 16 [`DeviceCertificate`]s, purpose `device certificate`.
    pub certificates: Vec<Signed>,
}

impl Cbor for DeviceList {
    fn write(&self, to: &mut Writer<'_>) {
        to.map(|map| {
            map.put(0, &self.account);
            map.put(1, &self.domain);
            map.put(2, &self.version);
            map.put(3, &self.issued);
            map.key(4).list(&self.certificates);
        });
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, CborError> {
        let (mut account, mut domain, mut version) = (None, None, None);
        let (mut issued, mut certificates) = (None, None);
        from.map(|key, from| {
            match key {
                0 => account = Some(AccountKey::read(from)?),
                1 => domain = Some(Domain::read(from)?),
                2 => version = Some(from.uint()?),
                3 => issued = Some(Timestamp::read(from)?),
                4 => certificates = Some(from.list(Signed::read)?),
                _ => from.skip()?,
            }
            Ok(())
        })?;
        let certificates = required(certificates, 4)?;
        if certificates.len() > DEVICES_MAX {
            return Err(CborError::Range("the number of certificates"));
        }
        Ok(Self {
            account: required(account, 0)?,
            domain: required(domain, 1)?,
            version: required(version, 2)?,
            issued: required(issued, 3)?,
            certificates,
        })
    }
}

/// The Noise keys of a domain; signed by the domain key, purpose `server keys`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ServerKeys {
    /// Key 0.
    pub domain: Domain,
    /// Key 1: who signs.
    pub domain_key: DomainKey,
    /// Key 2: grows with every statement.
    pub serial: u64,
    /// Key 3.
    pub noise_keys: Vec<ServerNoiseKey>,
    /// Key 4: who signs the next statement, if the domain key changes.
    pub next_domain_key: Option<DomainKey>,
    /// Key 5.
    pub issued: Timestamp,
}

impl Cbor for ServerKeys {
    fn write(&self, to: &mut Writer<'_>) {
        to.map(|map| {
            map.put(0, &self.domain);
            map.put(1, &self.domain_key);
            map.put(2, &self.serial);
            map.key(3).list(&self.noise_keys);
            map.put_some(4, self.next_domain_key.as_ref());
            map.put(5, &self.issued);
        });
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, CborError> {
        let (mut domain, mut domain_key, mut serial) = (None, None, None);
        let (mut noise_keys, mut next_domain_key, mut issued) = (None, None, None);
        from.map(|key, from| {
            match key {
                0 => domain = Some(Domain::read(from)?),
                1 => domain_key = Some(DomainKey::read(from)?),
                2 => serial = Some(from.uint()?),
                3 => noise_keys = Some(from.list(ServerNoiseKey::read)?),
                4 => next_domain_key = Some(DomainKey::read(from)?),
                5 => issued = Some(Timestamp::read(from)?),
                _ => from.skip()?,
            }
            Ok(())
        })?;
        Ok(Self {
            domain: required(domain, 0)?,
            domain_key: required(domain_key, 1)?,
            serial: required(serial, 2)?,
            noise_keys: required(noise_keys, 3)?,
            next_domain_key,
            issued: required(issued, 5)?,
        })
    }
}

/// One Noise key of a domain: `[noise key, not before, not after]`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ServerNoiseKey {
    /// The public key.
    pub key: NoiseKey,
    /// When it becomes valid.
    pub not_before: Timestamp,
    /// When it stops being valid.
    pub not_after: Timestamp,
}

impl Cbor for ServerNoiseKey {
    fn write(&self, to: &mut Writer<'_>) {
        to.array(3);
        self.key.write(to);
        self.not_before.write(to);
        self.not_after.write(to);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, CborError> {
        from.tuple(3, |from| {
            Ok(Self {
                key: NoiseKey::read(from)?,
                not_before: Timestamp::read(from)?,
                not_after: Timestamp::read(from)?,
            })
        })
    }
}

/// Lets the holder of a join link read head and GroupInfo; signed by the join key, purpose
/// `join read` (CCP-1 section 5.4).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct JoinRead {
    /// Key 0.
    pub group: GroupId,
    /// Key 1.
    pub hub: Domain,
    /// Key 2: within 15 minutes of the hub's clock.
    pub created: Timestamp,
}

impl Cbor for JoinRead {
    fn write(&self, to: &mut Writer<'_>) {
        to.map(|map| {
            map.put(0, &self.group);
            map.put(1, &self.hub);
            map.put(2, &self.created);
        });
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, CborError> {
        let (mut group, mut hub, mut created) = (None, None, None);
        from.map(|key, from| {
            match key {
                0 => group = Some(GroupId::read(from)?),
                1 => hub = Some(Domain::read(from)?),
                2 => created = Some(Timestamp::read(from)?),
                _ => from.skip()?,
            }
            Ok(())
        })?;
        Ok(Self {
            group: required(group, 0)?,
            hub: required(hub, 1)?,
            created: required(created, 2)?,
        })
    }
}
