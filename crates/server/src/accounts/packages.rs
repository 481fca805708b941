//! KEY_PACKAGE: packages published, counted and claimed; capabilities; references to the own queue.

use commucat_proto::error::Title;
use commucat_proto::frame::ack::AckDown;
use commucat_proto::frame::error::Problem;
use commucat_proto::frame::key_package::{
    Claim, ClaimResult, ClaimedPackage, KeyPackage, PackageCount, PublishedPackage,
};
use commucat_proto::id::{Domain, TokenHash};
use commucat_storage::{Access, CapabilityChange, Device, NewPackage, Published};

use super::directory::other_domain;
use super::{Accounts, storage};
use crate::clock;

impl Accounts {
    /// Answers a KEY_PACKAGE request of `device`.
    ///
    /// # Errors
    ///
    /// [`Problem`] for the device.
    pub(crate) async fn key_package(
        &self,
        device: &Device,
        operation: KeyPackage,
        sequence: u32,
    ) -> Result<AckDown, Problem> {
        match operation {
            KeyPackage::Publish { packages } => {
                self.publish(device, packages).await?;
                Ok(AckDown::done(sequence))
            }
            KeyPackage::Count => {
                let count = self.0.store.count_packages(&device.device, clock::now());
                let count = count.await.map_err(storage)?;
                let (single_use, last_resort) = (count.single_use, count.last_resort);
                Ok(AckDown::with_result(
                    sequence,
                    &PackageCount {
                        single_use,
                        last_resort,
                    },
                ))
            }
            KeyPackage::Claim(claim) => {
                let packages = self.claim(device, claim).await?;
                Ok(AckDown::with_result(sequence, &packages))
            }
            KeyPackage::Capabilities { add, remove } => {
                self.capabilities(device, add, remove).await?;
                Ok(AckDown::done(sequence))
            }
            KeyPackage::OwnReference { group, hub } => {
                let now = clock::now();
                let reference = self.0.keys.seal_reference(&device.queue, now, &group, &hub);
                Ok(AckDown::with_result(sequence, &reference))
            }
        }
    }

    async fn publish(
        &self,
        device: &Device,
        packages: Vec<PublishedPackage>,
    ) -> Result<(), Problem> {
        let new = |package: PublishedPackage| NewPackage {
            not_after: package.not_after,
            last_resort: package.last_resort,
            package: package.package,
        };
        let packages = packages.into_iter().map(new).collect();
        let published = self
            .0
            .store
            .publish_packages(&device.device, packages, clock::now());
        match published.await.map_err(storage)? {
            Published::Stored => Ok(()),
            Published::TooMany => Err(Problem::new(
                Title::RateLimited,
                "more key packages than are kept",
            )),
            Published::UnknownDevice => Err(Problem::new(Title::NotFound, "no such device")),
        }
    }

    async fn claim(&self, device: &Device, claim: Claim) -> Result<ClaimResult, Problem> {
        let access = if claim.account == device.account {
            Access::Own(device.device.clone())
        } else {
            access_by(&claim)
        };
        let origin = self.0.domain.clone();
        self.claimed(claim, access, origin).await
    }

    /// Claims for a device of `origin`: the references are made for the group and hub that the claim
    /// names, whoever asks.
    ///
    /// # Errors
    ///
    /// [`Problem`] for the device.
    pub(crate) async fn claim_from(
        &self,
        origin: &Domain,
        claim: Claim,
    ) -> Result<ClaimResult, Problem> {
        let access = access_by(&claim);
        self.claimed(claim, access, origin.clone()).await
    }

    async fn claimed(
        &self,
        claim: Claim,
        access: Access,
        origin: Domain,
    ) -> Result<ClaimResult, Problem> {
        if claim.domain != self.0.domain {
            return Err(other_domain());
        }
        let now = clock::now();
        let asked = commucat_storage::Claim {
            id: claim.id,
            account: claim.account,
            access,
            origin,
            budgets: self.0.budgets,
        };
        let claimed = self
            .0
            .store
            .claim_packages(asked, now)
            .await
            .map_err(storage)?;
        let claimed = claimed
            .ok_or_else(|| Problem::new(Title::NotFound, "no such account, or no right to ask"))?;
        let package = |package: commucat_storage::ClaimedPackage| ClaimedPackage {
            device: package.device,
            package: package.package,
            sealed_ref: self
                .0
                .keys
                .seal_reference(&package.queue, now, &claim.group, &claim.hub),
            last_resort: package.last_resort,
        };
        Ok(ClaimResult(claimed.into_iter().map(package).collect()))
    }

    async fn capabilities(
        &self,
        device: &Device,
        add: Vec<TokenHash>,
        remove: Vec<TokenHash>,
    ) -> Result<(), Problem> {
        let changed = self
            .0
            .store
            .change_capabilities(&device.account, add, remove);
        match changed.await.map_err(storage)? {
            CapabilityChange::Changed => Ok(()),
            CapabilityChange::TooMany => Err(Problem::new(
                Title::RateLimited,
                "more capabilities than are kept",
            )),
            CapabilityChange::UnknownAccount => {
                Err(Problem::new(Title::NotFound, "no such account"))
            }
        }
    }
}

/// By which right anybody but the account's own devices claims.
fn access_by(claim: &Claim) -> Access {
    match &claim.capability {
        Some(token) => Access::Capability(token.hash()),
        None => Access::Nothing,
    }
}
