//! KEY_PACKAGE: publishes and claims key packages, keeps capabilities, gives the own reference
//! (CCP-1 section 6).

use bytes::Bytes;

use crate::id::{AccountId, ClaimId, DeviceId, Domain, GroupId, SealedRef, Token, TokenHash};
use crate::time::Timestamp;
use crate::wire::Cbor;
use crate::wire::reader::{CborError, Reader, required};
use crate::wire::writer::Writer;

/// One operation; key 0 says which.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum KeyPackage {
    /// 1: adds to the device's pool.
    Publish {
        /// Key 1.
        packages: Vec<PublishedPackage>,
    },
    /// 2: asks how full the pool is.
    Count,
    /// 3: takes one package of each device of an account.
    Claim(Claim),
    /// 4: changes which capabilities of the own account live.
    Capabilities {
        /// Key 8.
        add: Vec<TokenHash>,
        /// Key 9.
        remove: Vec<TokenHash>,
    },
    /// 5: a fresh reference to the own queue; the result is the reference itself.
    OwnReference {
        /// Key 5.
        group: GroupId,
        /// Key 6.
        hub: Domain,
    },
}

impl Cbor for KeyPackage {
    fn write(&self, to: &mut Writer<'_>) {
        to.map(|map| match self {
            Self::Publish { packages } => {
                map.key(0).uint(1_u8);
                map.key(1).list(packages);
            }
            Self::Count => map.key(0).uint(2_u8),
            Self::Claim(claim) => {
                map.key(0).uint(3_u8);
                map.put(2, &claim.account);
                map.put(3, &claim.domain);
                map.put_some(4, claim.capability.as_ref());
                map.put(5, &claim.group);
                map.put(6, &claim.hub);
                map.put(7, &claim.id);
            }
            Self::Capabilities { add, remove } => {
                map.key(0).uint(4_u8);
                map.put_list(8, add);
                map.put_list(9, remove);
            }
            Self::OwnReference { group, hub } => {
                map.key(0).uint(5_u8);
                map.put(5, group);
                map.put(6, hub);
            }
        });
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, CborError> {
        let mut keys = Keys::default();
        from.map(|key, from| keys.read_key(key, from))?;
        keys.into_operation()
    }
}

/// Takes one package of each device of an account, for a group on a hub.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Claim {
    /// Key 2.
    pub account: AccountId,
    /// Key 3.
    pub domain: Domain,
    /// Key 4: not for the own account.
    pub capability: Option<Token>,
    /// Key 5: for which the references are made.
    pub group: GroupId,
    /// Key 6: for which the references are made.
    pub hub: Domain,
    /// Key 7: a repeat gets the same packages.
    pub id: ClaimId,
}

/// The keys of all operations, before it is known which one they belong to.
#[derive(Default)]
struct Keys {
    op: Option<u64>,
    packages: Option<Vec<PublishedPackage>>,
    account: Option<AccountId>,
    domain: Option<Domain>,
    capability: Option<Token>,
    group: Option<GroupId>,
    hub: Option<Domain>,
    claim: Option<ClaimId>,
    add: Vec<TokenHash>,
    remove: Vec<TokenHash>,
}

impl Keys {
    fn read_key(&mut self, key: u64, from: &mut Reader<'_>) -> Result<(), CborError> {
        match key {
            0 => self.op = Some(from.uint()?),
            1 => self.packages = Some(from.list(PublishedPackage::read)?),
            2 => self.account = Some(AccountId::read(from)?),
            3 => self.domain = Some(Domain::read(from)?),
            4 => self.capability = Some(Token::read(from)?),
            5 => self.group = Some(GroupId::read(from)?),
            6 => self.hub = Some(Domain::read(from)?),
            7 => self.claim = Some(ClaimId::read(from)?),
            8 => self.add = from.list(TokenHash::read)?,
            9 => self.remove = from.list(TokenHash::read)?,
            _ => from.skip()?,
        }
        Ok(())
    }

    fn into_operation(self) -> Result<KeyPackage, CborError> {
        match required(self.op, 0)? {
            1 => Ok(KeyPackage::Publish {
                packages: required(self.packages, 1)?,
            }),
            2 => Ok(KeyPackage::Count),
            3 => Ok(KeyPackage::Claim(Claim {
                account: required(self.account, 2)?,
                domain: required(self.domain, 3)?,
                capability: self.capability,
                group: required(self.group, 5)?,
                hub: required(self.hub, 6)?,
                id: required(self.claim, 7)?,
            })),
            4 => Ok(KeyPackage::Capabilities {
                add: self.add,
                remove: self.remove,
            }),
            5 => Ok(KeyPackage::OwnReference {
                group: required(self.group, 5)?,
                hub: required(self.hub, 6)?,
            }),
            _ => Err(CborError::Range("the operation of a KEY_PACKAGE")),
        }
    }
}

/// `[not after, last resort, bytes]`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PublishedPackage {
    /// Not given out after this.
    pub not_after: Timestamp,
    /// Whether it may be given out more than once.
    pub last_resort: bool,
    /// Opaque to the server.
    pub package: Bytes,
}

impl Cbor for PublishedPackage {
    fn write(&self, to: &mut Writer<'_>) {
        to.array(3);
        self.not_after.write(to);
        to.flag(self.last_resort);
        to.bytes(&self.package);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, CborError> {
        from.tuple(3, |from| {
            Ok(Self {
                not_after: Timestamp::read(from)?,
                last_resort: from.flag()?,
                package: from.bytes()?,
            })
        })
    }
}

/// Result of count.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PackageCount {
    /// Key 0: single-use packages left.
    pub single_use: u64,
    /// Key 1: last-resort packages.
    pub last_resort: u64,
}

impl Cbor for PackageCount {
    fn write(&self, to: &mut Writer<'_>) {
        to.map(|map| {
            map.put(0, &self.single_use);
            map.put(1, &self.last_resort);
        });
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, CborError> {
        let (mut single_use, mut last_resort) = (None, None);
        from.map(|key, from| {
            match key {
                0 => single_use = Some(from.uint()?),
                1 => last_resort = Some(from.uint()?),
                _ => from.skip()?,
            }
            Ok(())
        })?;
        Ok(Self {
            single_use: required(single_use, 0)?,
            last_resort: required(last_resort, 1)?,
        })
    }
}

/// Result of claim: one package of each device.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ClaimResult(pub Vec<ClaimedPackage>);

impl Cbor for ClaimResult {
    fn write(&self, to: &mut Writer<'_>) {
        to.list(&self.0);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, CborError> {
        from.list(ClaimedPackage::read).map(Self)
    }
}

/// `[device id, package, sealed_ref, last resort]`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ClaimedPackage {
    /// Whose.
    pub device: DeviceId,
    /// Opaque to the server.
    pub package: Bytes,
    /// Where the device's copies go, for the group and hub of the claim.
    pub sealed_ref: SealedRef,
    /// Whether others may have been given the same package.
    pub last_resort: bool,
}

impl Cbor for ClaimedPackage {
    fn write(&self, to: &mut Writer<'_>) {
        to.array(4);
        self.device.write(to);
        to.bytes(&self.package);
        self.sealed_ref.write(to);
        to.flag(self.last_resort);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, CborError> {
        from.tuple(4, |from| {
            Ok(Self {
                device: DeviceId::read(from)?,
                package: from.bytes()?,
                sealed_ref: SealedRef::read(from)?,
                last_resort: from.flag()?,
            })
        })
    }
}
