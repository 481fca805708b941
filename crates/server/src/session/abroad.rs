//! Requests that another domain answers: passed on unchanged, while the session reads on.

use bytes::Bytes;
use commucat_federation::event::Requested;
use commucat_proto::error::{GoesOn, Title};
use commucat_proto::frame::ack::{AckDown, Answer};
use commucat_proto::frame::bundle::Bundle;
use commucat_proto::frame::directory::Directory;
use commucat_proto::frame::error::Problem;
use commucat_proto::frame::fetch::FetchAccess;
use commucat_proto::frame::key_package::KeyPackage;
use commucat_proto::frame::payload::FromClient;
use commucat_proto::id::{Domain, GroupId, SealedRef};
use commucat_proto::wire::Cbor;

use super::inbound::Inbound;

impl Inbound {
    /// The domain that answers a request, if it is not this one. This domain answers for its
    /// device's reference, as in JOIN.
    ///
    /// # Errors
    ///
    /// [`Problem`] for the device.
    pub(super) fn destination(
        &self,
        request: &FromClient,
    ) -> Result<Option<(Domain, Requested)>, Problem> {
        let (domain, frame) = match request {
            FromClient::KeyUpdate(update) if !self.hub.is_here(&update.hub) => {
                let invalid = |error: commucat_proto::wire::reader::CborError| {
                    Problem::new(error.into(), "the bundle is not what it must be")
                };
                let bundle = Bundle::decode_shared(&update.bundle.body).map_err(invalid)?;
                self.check_reference(&update.sealed_ref, &bundle.group, &update.hub)?;
                (&update.hub, Requested::KeyUpdate)
            }
            FromClient::Fetch(fetch) if !self.hub.is_here(&fetch.hub) => {
                if let FetchAccess::Member { sealed_ref, .. } = &fetch.access {
                    self.check_reference(sealed_ref, &fetch.group, &fetch.hub)?;
                }
                (&fetch.hub, Requested::Fetch)
            }
            FromClient::KeyPackage(KeyPackage::Claim(claim))
                if !self.hub.is_here(&claim.domain) =>
            {
                (&claim.domain, Requested::KeyPackage)
            }
            FromClient::Directory(Directory::Get { domain, .. }) if !self.hub.is_here(domain) => {
                (domain, Requested::Directory)
            }
            FromClient::KeyUpdate(_)
            | FromClient::Fetch(_)
            | FromClient::KeyPackage(_)
            | FromClient::Directory(_)
            | FromClient::Join(_)
            | FromClient::Leave(_)
            | FromClient::GroupCreate(_)
            | FromClient::Msg(_)
            | FromClient::Ack(_)
            | FromClient::Typing(_)
            | FromClient::Presence(_)
            | FromClient::Padding => return Ok(None),
        };
        Ok(Some((domain.clone(), frame)))
    }

    fn check_reference(
        &self,
        reference: &SealedRef,
        group: &GroupId,
        hub: &Domain,
    ) -> Result<(), Problem> {
        if self.hub.is_own(reference, group, hub, &self.device.queue) {
            Ok(())
        } else {
            let detail = "no such group, or no entry of yours in it";
            Err(Problem::new(Title::NotFound, detail))
        }
    }

    /// Asks `domain`; the answer is written when it comes.
    pub(super) fn pass_on(&self, sequence: u32, domain: Domain, frame: Requested, raw: Bytes) {
        let answerer = self.answerer();
        let Ok(permit) = self.abroad.clone().try_acquire_owned() else {
            let detail = "too many requests wait for other domains";
            answerer.problem(
                Problem::new(Title::RateLimited, detail).retry_after(1),
                sequence,
            );
            return;
        };
        let (peers, device) = (self.peers.clone(), self.device.device.clone());
        self.tasks.spawn(async move {
            match peers.ask(&device, &domain, frame, raw).await {
                Ok(result) => answerer.done(&AckDown {
                    answer: Some(Answer {
                        request: sequence,
                        result,
                    }),
                    ..AckDown::default()
                }),
                // One that would end the connection says nothing about this one.
                Err(problem) if problem.title.goes_on() == GoesOn::Never => {
                    let detail = "the other domain could not be asked";
                    let failure = Problem::new(Title::FederationFailure, detail);
                    answerer.problem(failure, sequence);
                }
                Err(problem) => answerer.problem(problem, sequence),
            }
            drop(permit);
        });
    }
}
