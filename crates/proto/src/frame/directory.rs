//! DIRECTORY: puts and gets device lists (CCP-1 section 6).

use bytes::Bytes;

use crate::id::{AccountId, Domain, Token};
use crate::signed::Signed;
use crate::wire::Cbor;
use crate::wire::reader::{CborError, Reader, required};
use crate::wire::writer::Writer;

/// One operation; key 0 says which.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Directory {
    /// 1: replaces the own account's list.
    Put {
        /// Key 1: a [`crate::identity::DeviceList`], purpose `device list`.
        list: Signed,
    },
    /// 2: reads a list.
    Get {
        /// Key 2.
        account: AccountId,
        /// Key 3.
        domain: Domain,
        /// Key 4: not for the own account.
        capability: Option<Token>,
    },
}

impl Cbor for Directory {
    fn write(&self, to: &mut Writer<'_>) {
        to.map(|map| match self {
            Self::Put { list } => {
                map.key(0).uint(1_u8);
                map.put(1, list);
            }
            Self::Get {
                account,
                domain,
                capability,
            } => {
                map.key(0).uint(2_u8);
                map.put(2, account);
                map.put(3, domain);
                map.put_some(4, capability.as_ref());
            }
        });
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, CborError> {
        let (mut op, mut list) = (None, None);
        let (mut account, mut domain, mut capability) = (None, None, None);
        from.map(|key, from| {
            match key {
                0 => op = Some(from.uint()?),
                1 => list = Some(Signed::read(from)?),
                2 => account = Some(AccountId::read(from)?),
                3 => domain = Some(Domain::read(from)?),
                4 => capability = Some(Token::read(from)?),
                _ => from.skip()?,
            }
            Ok(())
        })?;
        match required(op, 0)? {
            1 => Ok(Self::Put {
                list: required(list, 1)?,
            }),
            2 => Ok(Self::Get {
                account: required(account, 2)?,
                domain: required(domain, 3)?,
                capability,
            }),
            _ => Err(CborError::Range("the operation of a DIRECTORY")),
        }
    }
}

/// Result of DIRECTORY get.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DirectoryResult {
    /// Key 0: a [`crate::identity::DeviceList`], purpose `device list`.
    pub list: Signed,
    /// Key 1: opaque in version 2.
    pub ledger_proof: Option<Bytes>,
}

impl Cbor for DirectoryResult {
    fn write(&self, to: &mut Writer<'_>) {
        to.map(|map| {
            map.put(0, &self.list);
            map.put_some(1, self.ledger_proof.as_ref());
        });
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, CborError> {
        let (mut list, mut ledger_proof) = (None, None);
        from.map(|key, from| {
            match key {
                0 => list = Some(Signed::read(from)?),
                1 => ledger_proof = Some(from.bytes()?),
                _ => from.skip()?,
            }
            Ok(())
        })?;
        Ok(Self {
            list: required(list, 0)?,
            ledger_proof,
        })
    }
}
