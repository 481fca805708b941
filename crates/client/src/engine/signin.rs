//! Signing in: what a login needs, what it teaches, what every connection begins with.

use std::time::Duration;

use commucat_crypto::server_keys::{Pin, Statement};
use commucat_proto::frame::FrameType;
use commucat_proto::frame::directory::Directory;
use commucat_proto::frame::key_package::{KeyPackage, PackageCount, PublishedPackage};
use commucat_proto::identity::Registration;
use commucat_proto::limits::RELAY_TTL_DEFAULT;
use commucat_proto::time::Timestamp;
use commucat_proto::wire::Cbor as _;

use super::core::{Core, Effect, chat_error};
use super::model::{Account, Stage};
use super::online::{Limits, Online, Purpose};
use super::tables;
use crate::chat::{ChatError, Use};
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

const DAY: Duration = Duration::from_secs(86_400);

impl Core {
    /// What the next login needs.
    pub(crate) fn ticket(&self, trust: Trust) -> Result<Ticket, ClientError> {
        ticket(&self.account, trust, self.now)
    }

    /// Signed in.
    pub(crate) fn on_online(&mut self, welcome: &Welcome) -> Result<(), ClientError> {
        let limits = &welcome.first.limits;
        let size = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
        self.online = Some(Online::new(Limits {
            payload: size(limits.max_payload),
            frames: size(limits.unacked_frames).max(1),
            bytes: size(limits.unacked_bytes),
        }));
        self.learn_server(welcome);
        self.account.registered = true;
        self.account.invite = None;
        self.save_account()?;
        self.set_state(Connection::Online);
        self.retry.clear();
        self.looks.clear();
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
        self.tidy()?;
        self.ask_own_list();
        self.greet_own_devices()?;
        self.resume_invitations()
    }

    /// Once a day: keys of epochs that no frame on its way can need.
    fn tidy(&mut self) -> Result<(), ClientError> {
        if self.now < self.tidied.saturating_add(DAY) {
            return Ok(());
        }
        self.tidied = self.now;
        let before = self.now.saturating_sub(RELAY_TTL_DEFAULT);
        let active = self
            .conversations
            .values()
            .filter(|one| one.stage == Stage::Active);
        for group in active.map(|one| one.id).collect::<Vec<_>>() {
            if let Err(error @ ChatError::Store(_)) = self.chat.forget_epochs(&group, before) {
                return Err(chat_error(error));
            }
            // What came back after so long is sealed again under its id, and waits as long again.
            let opened = before.saturating_sub(RELAY_TTL_DEFAULT).as_millis();
            self.forget_before(tables::OPENED, &group, opened)?;
        }
        Ok(())
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
            if let Ok(invite) = commucat_proto::frame::group_invite::GroupInvite::decode(&payload)
                && !self.is_active(&invite.group)
            {
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
