//! DIRECTORY: device lists put by their accounts and read by whoever has a capability.

use commucat_crypto::certificate::{CertificateError, List, ListError};
use commucat_ledger::{AccountMark, Change, Hash};
use commucat_proto::error::Title;
use commucat_proto::frame::ack::AckDown;
use commucat_proto::frame::directory::{Directory, DirectoryResult};
use commucat_proto::frame::error::Problem;
use commucat_proto::id::{AccountId, Domain, Token};
use commucat_proto::signed::Signed;
use commucat_proto::wire::Cbor;
use commucat_storage::{Device, ListPut};

use super::admit::stored_list;
use super::{Accounts, storage};

impl Accounts {
    /// Answers a DIRECTORY request of `device`.
    ///
    /// # Errors
    ///
    /// [`Problem`] for the device.
    pub(crate) async fn directory(
        &self,
        device: &Device,
        request: Directory,
        sequence: u32,
    ) -> Result<AckDown, Problem> {
        match request {
            Directory::Put { list } => {
                self.put(device, &list).await?;
                Ok(AckDown::done(sequence))
            }
            Directory::Get {
                account,
                domain,
                capability,
            } => {
                let result = self.get(device, &account, &domain, capability).await?;
                Ok(AckDown::with_result(sequence, &result))
            }
        }
    }

    async fn put(&self, device: &Device, signed: &Signed) -> Result<(), Problem> {
        let list = List::verify(signed).map_err(|error| refused(&error))?;
        let is_own = list.account_id() == device.account && *list.domain() == self.0.domain;
        if !is_own || !self.ids_are_derived(&list).await? {
            return Err(Problem::new(
                Title::Forbidden,
                "the list is not one of this account here",
            ));
        }
        let put = self.0.store.put_list(stored_list(&list), &device.device);
        match put.await.map_err(storage)? {
            ListPut::Stored(change) => self.list_changed(&list, &change).await,
            ListPut::Unchanged => Ok(()),
            ListPut::Outdated => Err(Problem::new(
                Title::Conflict,
                "a list with a higher version is in force",
            )),
            ListPut::Equivocation => {
                self.equivocation(&list).await?;
                Err(Problem::new(
                    Title::Conflict,
                    "another list with this version is in force",
                ))
            }
            ListPut::Forbidden => Err(Problem::new(
                Title::Forbidden,
                "this device is in neither list",
            )),
            ListPut::Taken => Err(Problem::new(
                Title::Forbidden,
                "a device id or key belongs to another account",
            )),
        }
    }

    async fn get(
        &self,
        device: &Device,
        account: &AccountId,
        domain: &Domain,
        capability: Option<Token>,
    ) -> Result<DirectoryResult, Problem> {
        if *account == device.account && *domain == self.0.domain {
            return self.list_of(account, true).await;
        }
        self.list_for(account, domain, capability).await
    }

    /// The device list of an account for whoever holds a capability of it.
    ///
    /// # Errors
    ///
    /// [`Problem`] for the device that asks.
    pub(crate) async fn list_for(
        &self,
        account: &AccountId,
        domain: &Domain,
        capability: Option<Token>,
    ) -> Result<DirectoryResult, Problem> {
        if *domain != self.0.domain {
            return Err(other_domain());
        }
        let may = match capability {
            None => false,
            Some(token) => {
                let hash = token.hash();
                self.0
                    .store
                    .capability_is_live(account, &hash)
                    .await
                    .map_err(storage)?
            }
        };
        self.list_of(account, may).await
    }

    async fn list_of(&self, account: &AccountId, may: bool) -> Result<DirectoryResult, Problem> {
        let not_found = || Problem::new(Title::NotFound, "no such account, or no right to ask");
        let stored = self.0.store.list(account).await.map_err(storage)?;
        let stored = stored.filter(|_| may).ok_or_else(not_found)?;
        let list = Signed::decode_shared(&stored.signed).map_err(|_| not_found())?;
        Ok(DirectoryResult {
            list,
            ledger_proof: None,
        })
    }

    /// Enters a second list of one version into the ledger; it has no other effect.
    pub(super) async fn equivocation(&self, refused: &List) -> Result<(), Problem> {
        let account = refused.account_id();
        let Some(kept) = self.0.store.list(&account).await.map_err(storage)? else {
            return Ok(());
        };
        let kept = Signed::decode_shared(&kept.signed).map(|kept| Hash::of_body(&kept.body));
        let Ok(kept) = kept else { return Ok(()) };
        self.record(Change::Equivocation {
            account: AccountMark::of(&account),
            version: refused.version(),
            kept,
            refused: Hash::new(refused.hash()),
        })
        .await
    }
}

/// What a device is told about a list that does not hold: who signed what is a question of rights,
/// everything else of form.
fn refused(error: &ListError) -> Problem {
    let title = match error {
        ListError::Signature
        | ListError::OtherAccount { .. }
        | ListError::Certificate {
            source: CertificateError::Signature,
            ..
        } => Title::Forbidden,
        ListError::Body(_)
        | ListError::Version
        | ListError::TooMany { .. }
        | ListError::Repeated { .. }
        | ListError::Certificate { .. } => Title::InvalidControlPayload,
    };
    Problem::new(title, "the device list does not hold")
}

/// What is asked of another domain goes there before it comes here: this is another one's request.
pub(crate) fn other_domain() -> Problem {
    Problem::new(
        Title::FederationFailure,
        "this server does not speak for that domain",
    )
}
