//! The domain's keys: shown, replaced.

use commucat_crypto::keyring::{Keyring, KeyringError};
use commucat_crypto::server_keys::Statement;
use commucat_ledger::{Change, Hash};
use commucat_proto::frame::handshake::Hello;
use commucat_proto::id::base32;
use commucat_proto::time::Timestamp;
use data_encoding::HEXLOWER;
use tokio::task::spawn_blocking;

use super::{ExecuteError, Executor, Live};
use crate::request::KeyKind;
use crate::response::{Keys, NoiseKey, millis};

impl<L: Live> Executor<L> {
    pub(super) async fn keys(&self) -> Result<Keys, ExecuteError> {
        let keyring = self.keyring(Ok).await?;
        Ok(shown(&keyring, None))
    }

    pub(super) async fn rotate_keys(
        &self,
        kind: KeyKind,
        now: Timestamp,
    ) -> Result<Keys, ExecuteError> {
        let keyring = self
            .keyring(move |mut keyring| {
                match kind {
                    KeyKind::Noise => keyring.rotate_noise(now)?,
                    KeyKind::Domain => keyring.rotate_domain(now)?,
                    KeyKind::References => keyring.rotate_references()?,
                }
                Ok(keyring)
            })
            .await?;
        self.live
            .keys_changed()
            .map_err(ExecuteError::NotReloaded)?;
        for statement in issued(&keyring, kind) {
            let (serial, statement) = (statement.serial(), Hash::new(statement.hash()));
            let change = Change::ServerKeysChanged { serial, statement };
            self.site.ledger.record(now, change).await?;
        }
        Ok(shown(&keyring, Some(kind)))
    }

    /// Opens the keys and works with them where blocking is allowed.
    async fn keyring(
        &self,
        work: impl FnOnce(Keyring) -> Result<Keyring, KeyringError> + Send + 'static,
    ) -> Result<Keyring, ExecuteError> {
        let (path, domain) = (self.site.keys.clone(), self.site.domain.clone());
        let working = spawn_blocking(move || Keyring::open(&path, &domain).and_then(work));
        Ok(working.await.map_err(|_| ExecuteError::Stopped)??)
    }
}

/// The statements that a change has issued, oldest first.
fn issued(keyring: &Keyring, kind: KeyKind) -> Vec<Statement> {
    let latest = keyring.statement().clone();
    match kind {
        KeyKind::Noise => vec![latest],
        // The last one of the old key, which names the new key, and the first one of that.
        KeyKind::Domain => {
            let hand_over = keyring
                .chain()
                .last()
                .and_then(|last| Statement::verify(last).ok());
            hand_over.into_iter().chain([latest]).collect()
        }
        KeyKind::References => Vec::new(),
    }
}

fn shown(keyring: &Keyring, rotated: Option<KeyKind>) -> Keys {
    let statement = keyring.statement();
    let noise_keys = statement.noise_keys().iter().map(|key| NoiseKey {
        name: HEXLOWER.encode(&Hello::key_name(&key.key)),
        not_before_ms: millis(key.not_before),
        not_after_ms: millis(key.not_after),
    });
    Keys {
        rotated,
        domain_key: base32(keyring.domain_key().as_bytes()),
        serial: statement.serial(),
        noise_keys: noise_keys.collect(),
        earlier_domain_keys: u64::try_from(keyring.chain().len()).unwrap_or(u64::MAX),
    }
}
