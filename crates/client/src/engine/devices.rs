//! The own account's devices: linking, revoking, introducing themselves to each other.

use commucat_crypto::certificate::List;
use commucat_proto::frame::FrameType;
use commucat_proto::frame::directory::Directory;
use commucat_proto::frame::error::Problem;
use commucat_proto::id::{AccountId, AccountKey};
use commucat_proto::limits::DEVICES_MAX;
use commucat_proto::wire::Cbor as _;

use super::core::{Core, unless_refused};
use super::model::{Kind, Stage};
use super::online::Purpose;
use super::replies::{AfterList, ListChange};
use crate::account::code::Answer;
use crate::account::{CertificateRequest, Phrase, certify};
use crate::chat::{Body, Intent};
use crate::client::{Device, Me, Reply};
use crate::error::ClientError;
use crate::event::Event;

impl Core {
    /// The own list as the server has it: another own device may have changed it.
    pub(super) fn on_own_list(&mut self, list: &List) -> Result<(), ClientError> {
        if list.version() <= self.account.list_version {
            return Ok(());
        }
        self.account.list = Some(list.signed().encode());
        self.account.list_version = list.version();
        self.save_account()?;
        self.tell(Event::Devices);
        self.greet_own_devices()
    }

    pub(super) fn me(&self) -> Me {
        let domain = self.own_domain();
        let link = domain.clone().map(|domain| {
            let capability = self.account.capability;
            commucat_proto::link::ContactLink {
                account: self.own_id(),
                domain,
                capability,
            }
        });
        Me {
            account: self.own_id(),
            domain: domain
                .map(|domain| domain.as_str().to_owned())
                .unwrap_or_default(),
            device: self.account.device.clone(),
            contact_link: link.map(|link| link.to_link()).unwrap_or_default(),
            holds_account_key: self.account.entropy.is_some(),
        }
    }

    /// Takes the account key over from the phrase.
    pub(super) fn enter_phrase(&mut self, words: &str) -> Result<(), ClientError> {
        let phrase = Phrase::parse(words)?;
        if self.account.key != Some(phrase.account_secret().key()) {
            return Err(ClientError::Invalid {
                what: "recovery phrase of this account",
            });
        }
        self.account.entropy = Some(phrase.entropy());
        self.save_account()
    }

    pub(super) fn devices(&self) -> Vec<Device> {
        let list = self.account.verified_list();
        let certificates = list
            .as_ref()
            .map(|list| list.certificates())
            .unwrap_or_default();
        certificates
            .iter()
            .map(|one| Device {
                id: one.device().clone(),
                current: *one.device() == self.account.device,
            })
            .collect()
    }

    /// Signs a new device in.
    pub(super) fn link_device(&mut self, code: &str, reply: Reply<String>) {
        match self.new_list_with(code) {
            Ok((list, version, answer)) => {
                self.put_list(ListChange {
                    list,
                    version,
                    then: AfterList::Linked { answer, reply },
                });
            }
            Err(error) => self.effects.push(
                AfterList::Linked {
                    answer: String::new(),
                    reply,
                }
                .fail(error),
            ),
        }
    }

    fn new_list_with(&self, code: &str) -> Result<(Vec<u8>, u64, String), ClientError> {
        let request = CertificateRequest::parse(code)?;
        let secret = self
            .account
            .phrase()
            .ok_or(ClientError::NotFirstDevice)?
            .account_secret();
        let list = self.account.verified_list();
        let list = list.ok_or(ClientError::Identity("the own device list does not verify"))?;
        let (Some(server), false) = (&self.account.server, self.replies.list.is_some()) else {
            return Err(ClientError::NotNow(
                "another change of the device list is under way",
            ));
        };
        if self.online.is_none() {
            return Err(ClientError::NotNow(
                "not connected: linking needs the server",
            ));
        }
        let certificate = certify(&secret, &request, self.now);
        let kept = list
            .certificates()
            .iter()
            .filter(|one| *one.noise_key() != request.noise);
        let mut certificates: Vec<_> = kept.map(|one| one.signed().clone()).collect();
        certificates.push(certificate);
        if certificates.len() > DEVICES_MAX {
            return Err(ClientError::NotNow(
                "an account has at most 16 devices: revoke one first",
            ));
        }
        let version = self.now.as_millis().max(list.version().saturating_add(1));
        let signed = secret.list(&server.domain, version, self.now, certificates);
        let answer = Answer {
            endpoint: server.endpoint.clone(),
            domain: server.domain.clone(),
            domain_key: server.domain_key,
            list: signed.clone(),
        };
        Ok((signed.encode(), version, answer.code()))
    }

    /// Removes a device from the account.
    pub(super) fn revoke_device(&mut self, which: &str, reply: Reply<()>) {
        match self.list_without(which) {
            Ok((list, version)) => {
                self.put_list(ListChange {
                    list,
                    version,
                    then: AfterList::Revoked { reply },
                });
            }
            Err(error) => self.effects.push(AfterList::Revoked { reply }.fail(error)),
        }
    }

    fn list_without(&self, which: &str) -> Result<(Vec<u8>, u64), ClientError> {
        let secret = self
            .account
            .phrase()
            .ok_or(ClientError::NotFirstDevice)?
            .account_secret();
        let list = self.account.verified_list();
        let list = list.ok_or(ClientError::Identity("the own device list does not verify"))?;
        let unknown = || ClientError::Unknown {
            what: "device",
            name: which.to_owned(),
        };
        let mut found = list
            .certificates()
            .iter()
            .filter(|one| one.device().as_str().starts_with(which));
        let (Some(gone), None) = (found.next().filter(|_| !which.is_empty()), found.next()) else {
            return Err(unknown());
        };
        if *gone.device() == self.account.device {
            return Err(ClientError::NotNow(
                "this is the device that holds the account key",
            ));
        }
        if self.online.is_none() || self.replies.list.is_some() {
            return Err(ClientError::NotNow(
                "not connected: revoking needs the server",
            ));
        }
        let kept = list
            .certificates()
            .iter()
            .filter(|one| one.device() != gone.device());
        let kept = kept.map(|one| one.signed().clone()).collect();
        let version = self.now.as_millis().max(list.version().saturating_add(1));
        let signed = secret.list(list.domain(), version, self.now, kept);
        Ok((signed.encode(), version))
    }

    fn put_list(&mut self, change: ListChange) {
        if let Ok(list) = commucat_proto::signed::Signed::decode(&change.list) {
            self.request(
                FrameType::Directory,
                &Directory::Put { list },
                Purpose::PutList,
            );
            self.replies.list = Some(change);
        }
    }

    /// The server has the new list.
    pub(super) fn on_list_taken(&mut self) -> Result<(), ClientError> {
        let Some(change) = self.replies.list.take() else {
            return Ok(());
        };
        self.account.list = Some(change.list);
        self.account.list_version = change.version;
        self.save_account()?;
        self.remove_own_strays()?;
        self.tell(Event::Devices);
        self.effects.push(change.then.done());
        Ok(())
    }

    pub(super) fn on_list_refused(&mut self, problem: &Problem) -> Result<(), ClientError> {
        if let Some(change) = self.replies.list.take() {
            let title = problem.title.as_str().to_owned();
            self.effects
                .push(change.then.fail(ClientError::Server { title }));
        }
        Ok(())
    }

    /// Own devices that are not in the list any more leave all conversations.
    fn remove_own_strays(&mut self) -> Result<(), ClientError> {
        let Some(list) = self.account.verified_list() else {
            return Ok(());
        };
        let active = self
            .conversations
            .values()
            .filter(|one| one.stage == Stage::Active);
        for group in active.map(|one| one.id).collect::<Vec<_>>() {
            let Some(view) = unless_refused(self.chat.group(&group))? else {
                continue;
            };
            let gone: Vec<_> = view
                .members
                .iter()
                .filter(|member| member.account == *list.account())
                .filter(|member| list.certificate(&member.device).is_none())
                .map(|member| member.handle)
                .collect();
            if !gone.is_empty() {
                self.intend(&group, Intent::Remove(gone));
            }
        }
        Ok(())
    }

    /// A linked device introduces itself to the others in a conversation of its own.
    pub(super) fn greet_own_devices(&mut self) -> Result<(), ClientError> {
        let others = self
            .account
            .verified_list()
            .is_some_and(|list| list.certificates().len() > 1);
        let greeted = self.conversations.values().any(|one| one.kind == Kind::Own);
        if others && !greeted && self.account.entropy.is_none() {
            self.plan(Kind::Own, None, Vec::new())?;
        }
        Ok(())
    }

    /// Another own device introduced itself: whoever holds the account key brings it into all
    /// conversations and tells it how to reach the contacts.
    pub(super) fn own_device_joined(&mut self) -> Result<(), ClientError> {
        self.tell(Event::Devices);
        if self.account.entropy.is_none() {
            return Ok(());
        }
        let own = self.own_id();
        let groups: Vec<_> = self
            .conversations
            .values()
            .filter(|one| one.kind != Kind::Own && one.stage != Stage::Left)
            .map(|one| one.id)
            .collect();
        for group in groups {
            self.want(&group, &own);
        }
        let own_group = self
            .conversations
            .values()
            .filter(|one| one.kind == Kind::Own);
        let Some(own_group) = own_group.map(|one| one.id).next_back() else {
            return Ok(());
        };
        for contact in self.contacts.values().cloned().collect::<Vec<_>>() {
            let key: Option<AccountKey> = contact.key;
            if let (Some(account), Some(capability), false) =
                (key, contact.capability, contact.petname.is_empty())
            {
                let domain = contact.domain;
                self.post(
                    &own_group,
                    Body::Capability {
                        account,
                        domain,
                        capability,
                    },
                )?;
            }
        }
        Ok(())
    }

    /// Devices of `account` shall be in `group`.
    pub(super) fn want(&mut self, group: &commucat_proto::id::GroupId, account: &AccountId) {
        let account = account.clone();
        self.change(group, |one| {
            if !one.wanted.contains(&account) {
                one.wanted.push(account);
            }
        });
        self.retry.remove(group);
        self.awake.insert(*group);
    }
}
