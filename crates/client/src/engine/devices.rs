//! The own account's devices: linking, revoking, key packages, and signing in.

use std::time::Duration;

use commucat_crypto::certificate::List;
use commucat_crypto::server_keys::{Pin, Statement};
use commucat_proto::frame::FrameType;
use commucat_proto::frame::directory::Directory;
use commucat_proto::frame::error::Problem;
use commucat_proto::frame::key_package::{KeyPackage, PackageCount, PublishedPackage};
use commucat_proto::id::{AccountId, AccountKey};
use commucat_proto::identity::Registration;
use commucat_proto::limits::DEVICES_MAX;
use commucat_proto::time::Timestamp;
use commucat_proto::wire::Cbor as _;

use super::core::{Core, Effect, chat_error};
use super::model::{Account, Kind, Stage};
use super::online::{Limits, Online, Purpose};
use super::replies::{AfterList, ListChange};
use super::tables;
use crate::account::code::Answer;
use crate::account::{CertificateRequest, certify};
use crate::chat::{Body, Intent, Use};
use crate::client::{Device, Me, Reply};
use crate::connect::http::Endpoint;
use crate::connect::login::{Ticket, Welcome};
use crate::error::ClientError;
use crate::event::{Connection, Event};
use crate::settings::{Suite, Trust};

/// Single-use packages that are kept published, and when they are made up again. Each contact that
/// starts a conversation takes one; the server hands out 20 a day and capability.
const PACKAGES: u64 = 20;
const PACKAGES_LOW: u64 = 8;
/// How long packages are handed out; the server keeps queues as long.
const PACKAGES_FOR: Duration = Duration::from_secs(60 * 86_400);

impl Core {
    /// What the next login needs.
    pub(crate) fn ticket(&self, trust: Trust) -> Result<Ticket, ClientError> {
        ticket(&self.account, trust, self.now)
    }

    /// Signed in.
    pub(crate) fn on_online(&mut self, welcome: Welcome) -> Result<(), ClientError> {
        let limits = &welcome.first.limits;
        let size = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
        self.online = Some(Online::new(Limits {
            payload: size(limits.max_payload),
            frames: size(limits.unacked_frames).max(1),
            bytes: size(limits.unacked_bytes),
        }));
        self.learn_server(&welcome);
        self.account.registered = true;
        self.account.invite = None;
        self.save_account()?;
        self.set_state(Connection::Online);
        self.retry.clear();
        let groups: Vec<_> = self
            .conversations
            .values()
            .map(|one| (one.id, one.leaving))
            .collect();
        for (group, leaving) in groups {
            if leaving {
                self.send_leave(&group);
            }
            self.intents.insert(group);
            self.awake.insert(group);
        }
        self.request(FrameType::KeyPackage, &KeyPackage::Count, Purpose::Count);
        if !self.account.capability_published {
            let add = vec![self.account.capability.hash()];
            let ask = KeyPackage::Capabilities {
                add,
                remove: Vec::new(),
            };
            self.request(FrameType::KeyPackage, &ask, Purpose::Capability);
        }
        for account in self.contacts.keys().cloned().collect::<Vec<_>>() {
            self.ask_list(&account)?;
        }
        self.ask_own_list();
        self.greet_own_devices()?;
        self.resume_invitations()
    }

    fn ask_own_list(&mut self) {
        let (Some(domain), account) = (self.own_domain(), self.own_id()) else {
            return;
        };
        let get = Directory::Get {
            account: account.clone(),
            domain,
            capability: None,
        };
        self.request(FrameType::Directory, &get, Purpose::List(account));
    }

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

    /// Pins what the login showed of the server.
    fn learn_server(&mut self, welcome: &Welcome) {
        let Some(server) = &mut self.account.server else {
            return;
        };
        server.noise = Some(welcome.noise);
        let pin = Pin {
            domain: server.domain.clone(),
            key: server.domain_key,
            serial: server.serial,
        };
        let fetched = welcome.statement.as_ref().map(Statement::pin);
        let pin = fetched.unwrap_or(pin);
        // The first ACK carries the latest statement: a rotation is learned before it is needed.
        let pin = match pin.follow(&[], &welcome.first.server_keys) {
            Ok(statement) => {
                if let Some(noise) = statement.noise_key(self.now) {
                    server.noise = Some(*noise);
                }
                statement.pin()
            }
            Err(error) => {
                tracing::warn!(%error, "the statement in the first ACK is not used");
                pin
            }
        };
        server.domain_key = pin.key;
        server.serial = pin.serial.max(server.serial);
        server.certificate_failed = welcome.certificate_failed;
        if welcome.certificate_failed && !server.warned {
            server.warned = true;
            self.effects.push(Effect::Tell(Event::CertificateWarning));
        }
    }

    fn resume_invitations(&mut self) -> Result<(), ClientError> {
        for (_, payload) in self.vault.list(tables::INVITED, b"")? {
            if let Ok(invite) = commucat_proto::frame::group_invite::GroupInvite::decode(&payload) {
                self.take_up(&invite, &[])?;
            }
        }
        Ok(())
    }

    /// The connection ended.
    pub(crate) fn on_offline(&mut self, reason: String) {
        self.online = None;
        if !matches!(self.state, Connection::Replaced | Connection::Revoked) {
            self.set_state(Connection::Offline { reason });
        }
        if let Some(change) = self.replies.list.take() {
            let error = ClientError::Http("connection lost before the server answered".to_owned());
            self.effects.push(change.then.fail(error));
        }
    }

    pub(super) fn on_count(&mut self, count: PackageCount) -> Result<(), ClientError> {
        self.key_packages = Some(count.single_use);
        let now = self.now;
        let forgotten = now.saturating_sub(PACKAGES_FOR);
        self.chat.forget_packages(forgotten).map_err(chat_error)?;
        let missing = if count.single_use < PACKAGES_LOW {
            PACKAGES - count.single_use
        } else {
            0
        };
        let suite = match self.suite {
            Suite::Hybrid => crate::chat::Suite::Hybrid,
            Suite::Classical => crate::chat::Suite::Classical,
        };
        let until = now.saturating_add(PACKAGES_FOR);
        let single = usize::try_from(missing).unwrap_or(0);
        let mut packages = self
            .chat
            .key_packages(suite, Use::Single, single, until)
            .map_err(chat_error)?;
        if count.last_resort == 0 || count.single_use == 0 {
            let last = self.chat.key_packages(suite, Use::LastResort, 1, until);
            packages.extend(last.map_err(chat_error)?);
        }
        if packages.is_empty() {
            return Ok(());
        }
        self.key_packages = Some(count.single_use + missing);
        let packages = packages
            .into_iter()
            .map(|one| PublishedPackage {
                not_after: until,
                last_resort: one.usage == Use::LastResort,
                package: one.bytes,
            })
            .collect();
        let publish = KeyPackage::Publish { packages };
        self.request(FrameType::KeyPackage, &publish, Purpose::Publish);
        Ok(())
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
            let view = self.chat.group(&group).map_err(chat_error)?;
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

/// What a login of `account` needs.
pub(crate) fn ticket(
    account: &Account,
    trust: Trust,
    now: Timestamp,
) -> Result<Ticket, ClientError> {
    let damaged = || ClientError::Identity("the profile names no server");
    let server = account.server.as_ref().ok_or_else(damaged)?;
    let registration = match (account.registered, account.signed_list()) {
        (false, Some(list)) => Some(Registration {
            invite: account.invite,
            list,
        }),
        (false, None) | (true, _) => None,
    };
    Ok(Ticket {
        endpoint: Endpoint::parse(&server.endpoint).ok_or_else(damaged)?,
        trust,
        pin: Pin {
            domain: server.domain.clone(),
            key: server.domain_key,
            serial: server.serial,
        },
        noise: server.noise,
        device: account.device.clone(),
        key: account.noise_key(),
        registration,
        now,
    })
}
