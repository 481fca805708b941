//! Accounts and devices: who may come in, device lists, key packages, capabilities (CCP-1 section 6).

mod admit;
mod directory;
mod packages;

use std::sync::Arc;

use commucat_ledger::{AccountMark, Change, DeviceMark, Hash, Ledger};
use commucat_proto::error::Title;
use commucat_proto::frame::error::Problem;
use commucat_proto::id::{AccountId, Domain, GroupId, QueueId};
use commucat_storage::{ClaimBudgets, Left, ListChange, Store, StoreError};
use tracing::error;

pub(crate) use self::admit::Admitted;
pub(crate) use self::directory::other_domain;
use crate::chain::chain;
use crate::clock;
use crate::keys::Keys;
use crate::limit::Buckets;
use crate::router::Router;

/// Who may open an account.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Registration {
    /// Whoever has a live invite.
    Invite,
    /// Anybody.
    Open,
    /// Nobody.
    Closed,
}

/// The settings that concern accounts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Policy {
    pub(crate) registration: Registration,
    pub(crate) budgets: ClaimBudgets,
}

/// Handle to accounts and devices. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Accounts(Arc<Inner>);

struct Inner {
    domain: Domain,
    registration: Registration,
    budgets: ClaimBudgets,
    keys: Keys,
    store: Store,
    ledger: Ledger,
    router: Router,
    buckets: Buckets,
}

impl Accounts {
    pub(crate) fn new(
        (policy, buckets): (Policy, Buckets),
        keys: Keys,
        store: Store,
        ledger: Ledger,
        router: Router,
    ) -> Self {
        Self(Arc::new(Inner {
            domain: router.domain().clone(),
            registration: policy.registration,
            budgets: policy.budgets,
            keys,
            store,
            ledger,
            router,
            buckets,
        }))
    }

    pub(crate) fn domain(&self) -> &Domain {
        &self.0.domain
    }

    /// How many entries wait in `queue`; `None` if it is revoked.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store cannot be read.
    pub(crate) async fn waiting(&self, queue: &QueueId) -> Result<Option<u64>, StoreError> {
        let state = self.0.store.queue_state(queue).await?;
        Ok(state.map(|state| state.entries))
    }

    /// Leaves a group for good on behalf of a queue; the group has to be read again.
    ///
    /// # Errors
    ///
    /// [`Problem`] for the device.
    pub(crate) async fn leave(&self, queue: &QueueId, group: &GroupId) -> Result<(), Problem> {
        match self
            .0
            .store
            .leave_group(queue, group, clock::now())
            .await
            .map_err(storage)?
        {
            Left::Marked { .. } => {
                // Places of this queue's references are at hand in the hub and where events of
                // other domains come in.
                self.0.router.forget_places();
                Ok(())
            }
            Left::TooMany => Err(Problem::new(
                Title::RateLimited,
                "too many groups were left",
            )),
            Left::UnknownQueue => Err(Problem::new(Title::NotFound, "no such queue")),
        }
    }

    /// The operator revoked the device of `queue`: its session ends. The store and the ledger know.
    pub(crate) fn revoked(&self, queue: &QueueId) {
        // Places first: what comes meanwhile is not placed by those from before any more.
        self.0.router.forget_places();
        self.0.router.mailboxes().revoke(queue);
    }

    /// What follows from a changed list: revoked queues end, the ledger hears of it.
    async fn follow(
        &self,
        account: &AccountId,
        change: &ListChange,
        list: (u64, Hash),
    ) -> Result<(), Problem> {
        for (_, queue) in &change.removed {
            self.revoked(queue);
        }
        let mark = AccountMark::of(account);
        let (version, list) = list;
        for device in &change.added {
            let device = DeviceMark::of(account, device);
            self.record(Change::DeviceRegistered {
                account: mark,
                device,
                version,
                list,
            })
            .await?;
        }
        if change.deleted {
            self.record(Change::AccountDeleted {
                account: mark,
                version,
                list,
            })
            .await?;
        } else {
            self.record(Change::ListChanged {
                account: mark,
                version,
                list,
            })
            .await?;
        }
        for (device, _) in &change.removed {
            let (device, version) = (DeviceMark::of(account, device), Some(version));
            self.record(Change::DeviceRevoked {
                account: mark,
                device,
                version,
            })
            .await?;
        }
        Ok(())
    }

    async fn record(&self, change: Change) -> Result<(), Problem> {
        match self.0.ledger.record(clock::now(), change).await {
            Ok(_) => Ok(()),
            Err(failure) => {
                error!(error = %chain(&failure), "the ledger did not take a key change");
                Err(Problem::new(
                    Title::StorageFailure,
                    "the ledger is not available",
                ))
            }
        }
    }
}

/// What a device is told when the store fails. The failure is logged where it is handled: here.
#[expect(clippy::needless_pass_by_value, reason = "it stands in `map_err`")]
pub(crate) fn storage(failure: StoreError) -> Problem {
    error!(error = %chain(&failure), "the store failed");
    Problem::new(
        Title::StorageFailure,
        "the store is not available; try again",
    )
}
