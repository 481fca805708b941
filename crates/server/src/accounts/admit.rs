//! Who may come in: known devices, and whoever registers.

use std::time::Instant;

use commucat_crypto::certificate::List;
use commucat_ledger::Hash;
use commucat_proto::error::Title;
use commucat_proto::frame::error::Problem;
use commucat_proto::id::{DeviceId, NoiseKey};
use commucat_proto::identity::{self, Identification};
use commucat_proto::wire::Cbor;
use commucat_storage::{
    Admission, Device, DeviceList, ListChange, ListedDevice, Registration as Registered,
};

use super::{Accounts, Registration, storage};
use crate::carrier::PeerTag;
use crate::clock;
use crate::limit::Kind;
use crate::session::may_enter;

/// How a device came in.
pub(crate) enum Admitted {
    /// It is registered.
    Known(Device),
    /// It has just registered.
    Registered(Device),
    /// It may not come in, for whatever reason.
    Refused,
}

impl Accounts {
    /// The registered device that proved `key` and says what `identification` says.
    ///
    /// # Errors
    ///
    /// [`Problem`] if the store cannot be read.
    pub(crate) async fn known(
        &self,
        key: &NoiseKey,
        identification: &Identification,
    ) -> Result<Option<Device>, Problem> {
        let device = self.0.store.device_by_key(key).await.map_err(storage)?;
        Ok(device.and_then(|device| may_enter(device, identification)))
    }

    /// Lets a known device in, or registers it (XK only).
    ///
    /// # Errors
    ///
    /// [`Problem`] if the store fails or there were too many registrations.
    pub(crate) async fn admit(
        &self,
        key: &NoiseKey,
        identification: &Identification,
        peer: PeerTag,
    ) -> Result<Admitted, Problem> {
        // A known device's registration is ignored: the answer to its first try may have got lost.
        if let Some(device) = self.known(key, identification).await? {
            return Ok(Admitted::Known(device));
        }
        let Some(registration) = &identification.registration else {
            return Ok(Admitted::Refused);
        };
        let taken = self
            .0
            .buckets
            .take(Kind::Registration, peer.0, Instant::now());
        if let Err(wait) = taken {
            let problem = Problem::new(Title::RateLimited, "too many registrations from here");
            return Err(problem.retry_after(wait.as_secs().saturating_add(1)));
        }
        if !self.register(key, identification, registration).await? {
            return Ok(Admitted::Refused);
        }
        let device = self.known(key, identification).await?;
        Ok(device.map_or(Admitted::Refused, Admitted::Registered))
    }

    async fn register(
        &self,
        key: &NoiseKey,
        identification: &Identification,
        registration: &identity::Registration,
    ) -> Result<bool, Problem> {
        let now = clock::now();
        let Ok(list) = List::verify(&registration.list) else {
            return Ok(false);
        };
        let names_it = list
            .certificate_for(&identification.device, key, now)
            .is_some();
        if !names_it || *list.domain() != self.0.domain || !self.ids_are_derived(&list).await? {
            return Ok(false);
        }
        let admission = match self.0.registration {
            Registration::Open => Admission::Open,
            Registration::Closed => Admission::Closed,
            Registration::Invite => {
                Admission::Invite(registration.invite.as_ref().map(|token| token.hash()))
            }
        };
        let stored = stored_list(&list);
        let registered = self
            .0
            .store
            .register(stored, &identification.device, admission, now);
        match registered.await.map_err(storage)? {
            Registered::Registered(change) => {
                self.list_changed(&list, &change).await?;
                Ok(true)
            }
            Registered::Unchanged => Ok(true),
            Registered::Equivocation => {
                self.equivocation(&list).await?;
                Ok(false)
            }
            Registered::NotInvited
            | Registered::Outdated
            | Registered::NotListed
            | Registered::Taken => Ok(false),
        }
    }

    /// Whether each device id is that of its certified key, or was in the account's list before: a
    /// device keeps its id when its key rotates.
    pub(super) async fn ids_are_derived(&self, list: &List) -> Result<bool, Problem> {
        let others = not_derived(list);
        if others.is_empty() {
            return Ok(true);
        }
        let known = self
            .0
            .store
            .account_devices(&list.account_id())
            .await
            .map_err(storage)?;
        Ok(others
            .iter()
            .all(|other| known.iter().any(|device| device.device == *other)))
    }

    pub(super) async fn list_changed(
        &self,
        list: &List,
        change: &ListChange,
    ) -> Result<(), Problem> {
        let named = (list.version(), Hash::new(list.hash()));
        self.follow(&list.account_id(), change, named).await
    }
}

/// The devices whose id is not that of the key that their certificate names.
fn not_derived(list: &List) -> Vec<DeviceId> {
    let others = list
        .certificates()
        .iter()
        .filter(|certificate| !certificate.has_id_of_its_key());
    others
        .map(|certificate| certificate.device().clone())
        .collect()
}

/// The stored form of a verified list.
pub(super) fn stored_list(list: &List) -> DeviceList {
    let device = |certificate: &commucat_crypto::certificate::Certificate| ListedDevice {
        device: certificate.device().clone(),
        noise_key: *certificate.noise_key(),
        not_before: certificate.validity().not_before,
        not_after: certificate.validity().not_after,
    };
    DeviceList {
        account_key: *list.account(),
        version: list.version(),
        signed: list.signed().encode().into(),
        devices: list.certificates().iter().map(device).collect(),
    }
}
