//! How a client comes to life: join, link, open.

use commucat_proto::id::{Domain, DomainKey};
use commucat_proto::link::InviteLink;
use commucat_proto::wire::Cbor as _;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Client;
use crate::account::code::Answer;
use crate::account::{Phrase, new_device, verify_list};
use crate::connect::http::Endpoint;
use crate::connect::login::{Welcome, login};
use crate::engine::model::{Account, Server};
use crate::engine::{self, tables};
use crate::error::ClientError;
use crate::record;
use crate::settings::Settings;
use crate::vault::{Vault, VaultError};

pub(super) async fn join(settings: Settings, invite: &str) -> Result<Client, ClientError> {
    found(settings, invite, None).await
}

pub(super) async fn recover(
    settings: Settings,
    invite: &str,
    phrase: &str,
) -> Result<Client, ClientError> {
    found(settings, invite, Some(Phrase::parse(phrase)?)).await
}

/// Makes this the first, or after a recovery the only, device of an account.
async fn found(
    settings: Settings,
    invite: &str,
    phrase: Option<Phrase>,
) -> Result<Client, ClientError> {
    let invalid = || ClientError::Invalid {
        what: "invite link",
    };
    let invite = InviteLink::parse(invite.trim()).map_err(|_| invalid())?;
    let endpoint = Endpoint::parse(invite.host.as_str()).ok_or_else(invalid)?;
    let vault = blocking(settings.clone(), |settings| fresh_profile(&settings)).await?;
    let mut account = load(&vault)?;
    if account.registered {
        return Err(VaultError::Exists(settings.directory).into());
    }
    // A server that knows the account does not look at the token.
    account.invite = Some(invite.token);
    account.server = Some(server(
        endpoint.text(),
        invite.domain.clone(),
        invite.domain_key,
    ));
    let phrase = phrase
        .or_else(|| account.phrase())
        .unwrap_or_else(Phrase::generate);
    account.found(&phrase, &invite.domain, (settings.clock)());
    register(vault, account, settings).await
}

/// A server of which a link or answer tells.
fn server(endpoint: String, domain: Domain, domain_key: DomainKey) -> Server {
    Server {
        endpoint,
        domain,
        domain_key,
        serial: 0,
        noise: None,
        warned: false,
        certificate_failed: false,
    }
}

pub(super) async fn open(settings: Settings) -> Result<Client, ClientError> {
    let vault = blocking(settings.clone(), |settings| {
        Ok(Vault::open(&settings.directory, &settings.unlock)?)
    });
    let vault = vault.await?;
    engine::start(vault, settings)
}

pub(super) fn begin_link(settings: &Settings) -> Result<String, ClientError> {
    let vault = fresh_profile(settings)?;
    let account = load(&vault)?;
    if account.key.is_some() {
        return Err(VaultError::Exists(settings.directory.clone()).into());
    }
    Ok(account.request().code())
}

pub(super) async fn finish_link(settings: Settings, answer: &str) -> Result<Client, ClientError> {
    let answer = Answer::parse(answer)?;
    let invalid = || ClientError::Invalid {
        what: "answer: it is for another device",
    };
    let vault = blocking(settings.clone(), |settings| {
        Ok(Vault::open(&settings.directory, &settings.unlock)?)
    });
    let vault = vault.await?;
    let mut account = load(&vault)?;
    if account.registered {
        return Err(VaultError::Exists(settings.directory).into());
    }
    let list = commucat_crypto::certificate::List::verify(&answer.list).map_err(|_| invalid())?;
    let list = verify_list(&answer.list, &list.account_id())?;
    let own = list.certificate(&account.device).ok_or_else(invalid)?;
    if own.noise_key() != account.noise_key().public() {
        return Err(invalid());
    }
    account.key = Some(*list.account());
    account.list = Some(answer.list.encode());
    account.list_version = list.version();
    account.server = Some(server(answer.endpoint, answer.domain, answer.domain_key));
    register(vault, account, settings).await
}

/// Registers by a first login, then starts the engine, which signs in as a known device.
async fn register(
    vault: Vault,
    account: Account,
    settings: Settings,
) -> Result<Client, ClientError> {
    save(&vault, &account)?;
    let ticket = {
        let now = (settings.clock)();
        engine::ticket(&account, settings.trust.clone(), now)?
    };
    let tracker = TaskTracker::new();
    let session = login(&ticket, (&tracker, CancellationToken::new())).await?;
    let registered = after_login(account, &session.hello);
    save(&vault, &registered)?;
    drop(session);
    engine::start(vault, settings)
}

fn after_login(mut account: Account, welcome: &Welcome) -> Account {
    account.registered = true;
    account.invite = None;
    if let Some(server) = &mut account.server {
        server.noise = Some(welcome.noise);
        if let Some(statement) = &welcome.statement {
            let pin = statement.pin();
            server.domain_key = pin.key;
            server.serial = pin.serial;
        }
    }
    account
}

/// The vault of a profile without an account: a new one, or one begun before.
fn fresh_profile(settings: &Settings) -> Result<Vault, ClientError> {
    match Vault::create(&settings.directory, &settings.unlock) {
        Ok(vault) => {
            save(&vault, &new_device())?;
            Ok(vault)
        }
        Err(VaultError::Exists(_)) => Ok(Vault::open(&settings.directory, &settings.unlock)?),
        Err(error) => Err(error.into()),
    }
}

fn load(vault: &Vault) -> Result<Account, ClientError> {
    let damaged = VaultError::Damaged {
        table: tables::ACCOUNT,
    };
    Ok(record::get(vault, tables::ACCOUNT, (b"", b""))?.ok_or(damaged)?)
}

fn save(vault: &Vault, account: &Account) -> Result<(), ClientError> {
    Ok(record::put(vault, tables::ACCOUNT, (b"", b""), account)?)
}

/// Argon2 and SQLite take their time: not on the runtime's threads.
async fn blocking<T: Send + 'static>(
    settings: Settings,
    work: impl FnOnce(Settings) -> Result<T, ClientError> + Send + 'static,
) -> Result<T, ClientError> {
    let done = tokio::task::spawn_blocking(move || work(settings)).await;
    done.map_err(|_| ClientError::Stopped)?
}
