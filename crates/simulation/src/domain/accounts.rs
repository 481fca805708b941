//! Key packages and device lists.

use bytes::Bytes;
use commucat_crypto::certificate::List;
use commucat_proto::frame::ack::Done;
use commucat_proto::frame::directory::{Directory, DirectoryResult};
use commucat_proto::frame::key_package::{
    Claim, ClaimResult, ClaimedPackage, KeyPackage, PackageCount,
};
use commucat_proto::id::DeviceId;
use commucat_proto::wire::Cbor as _;

use super::Domain;
use super::hub::not_found;
use super::requests::Answered;
use crate::outside::Outside;

impl Domain {
    pub(super) fn key_package(
        &mut self,
        out: &mut Outside,
        device: &DeviceId,
        operation: KeyPackage,
    ) -> Answered {
        let stored = self.store.devices.get_mut(device).ok_or_else(not_found)?;
        match operation {
            KeyPackage::Publish { packages } => {
                for package in packages {
                    if package.last_resort {
                        stored.last_resort = Some(package.package);
                    } else if !stored.packages.contains(&package.package) {
                        stored.packages.push(package.package);
                    }
                }
                Ok(Done.encode().into())
            }
            KeyPackage::Count => {
                let count = PackageCount {
                    single_use: u64::try_from(stored.packages.len()).unwrap_or(u64::MAX),
                    last_resort: u64::from(stored.last_resort.is_some()),
                };
                Ok(count.encode().into())
            }
            KeyPackage::Claim(claim) => self.claim(out, &claim, Some(device)),
            KeyPackage::Capabilities { .. } => Ok(Done.encode().into()),
            KeyPackage::OwnReference { group, hub } => {
                let queue = stored.queue;
                let hub = self.index_of(&hub).ok_or_else(not_found)?;
                let reference = self.mint(out, queue, group, hub);
                Ok(Bytes::from(reference.encode()))
            }
        }
    }

    /// One package of each device of an account; the same again for a repeated claim.
    pub(super) fn claim(
        &mut self,
        out: &mut Outside,
        claim: &Claim,
        by: Option<&DeviceId>,
    ) -> Answered {
        if let Some(claimed) = self.store.claims.get(&claim.id) {
            return Ok(claimed.encode().into());
        }
        let hub = self.index_of(&claim.hub).ok_or_else(not_found)?;
        let mut claimed = Vec::new();
        for device in self.store.devices_of(&claim.account) {
            if Some(&device) == by {
                continue;
            }
            let Some(stored) = self.store.devices.get_mut(&device) else {
                continue;
            };
            let single = stored.packages.pop();
            let last_resort = single.is_none();
            let Some(package) = single.or_else(|| stored.last_resort.clone()) else {
                continue;
            };
            let queue = stored.queue;
            let sealed_ref = self.mint(out, queue, claim.group, hub);
            claimed.push(ClaimedPackage {
                device,
                package,
                sealed_ref,
                last_resort,
            });
        }
        let claimed = ClaimResult(claimed);
        let answer = claimed.encode();
        self.store.claims.insert(claim.id, claimed);
        Ok(answer.into())
    }

    pub(super) fn directory(&mut self, operation: Directory) -> Answered {
        match operation {
            Directory::Put { list } => {
                let verified = List::verify(&list).map_err(|_| not_found())?;
                self.store.lists.insert(verified.account_id(), list);
                Ok(Done.encode().into())
            }
            Directory::Get { account, .. } => {
                let list = self.store.lists.get(&account).ok_or_else(not_found)?;
                let result = DirectoryResult {
                    list: list.clone(),
                    ledger_proof: None,
                };
                Ok(result.encode().into())
            }
        }
    }
}
