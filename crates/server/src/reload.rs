//! Reads certificate and keys again: on SIGHUP, and when their files change.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use commucat_config::Config;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::api::{Public, describe};
use crate::chain::chain;
use crate::keys::Keys;
use crate::service;
use crate::tls::Identity;

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(5);

/// What is read again.
#[derive(Debug)]
pub(crate) struct Reloader {
    pub(crate) config: Arc<Config>,
    pub(crate) identity: Identity,
    pub(crate) keys: Keys,
    pub(crate) public: Public,
}

impl Reloader {
    /// Takes SIGHUP from now on, and acts on it until `stop`.
    pub(crate) fn run(self, stop: CancellationToken) -> impl Future<Output = ()> {
        let hangup = signal(SignalKind::hangup());
        async move {
            match hangup {
                Ok(hangup) => self.watch(hangup, stop).await,
                Err(error) => {
                    tracing::error!(%error, "no signals: certificate and keys stay as they are");
                }
            }
        }
    }

    async fn watch(self, mut hangup: Signal, stop: CancellationToken) {
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut seen, mut announced) = (self.changed_at(), self.keys.serial());
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = hangup.recv() => {
                    service::reloading();
                    self.reload_certificate();
                    self.reload_keys();
                    service::ready();
                }
                _ = look.tick() => {}
            }
            let changed_at = self.changed_at();
            if changed_at != seen {
                self.reload_certificate();
                seen = changed_at;
            }
            // The keys of a running server are renewed, or read again, by a job of the engine too.
            let serial = self.keys.serial();
            if serial != announced {
                self.announce();
                announced = serial;
            }
        }
    }

    /// When certificate and key were changed last; `None` for a file that is missing.
    fn changed_at(&self) -> [Option<SystemTime>; 2] {
        let changed = |path: &PathBuf| path.metadata().and_then(|data| data.modified()).ok();
        self.identity.files().map(changed)
    }

    fn reload_certificate(&self) {
        match self.identity.reload() {
            Ok(()) => tracing::info!("read the TLS certificate again"),
            Err(error) => {
                let error = chain(&error);
                tracing::error!(%error, "the TLS certificate stays the old one");
            }
        }
    }

    fn reload_keys(&self) {
        match self.keys.reload() {
            Ok(_) => tracing::info!("read the keys again"),
            Err(error) => {
                let error = chain(&error);
                tracing::error!(%error, "the keys stay the old ones");
            }
        }
    }

    fn announce(&self) {
        let (statement, chain) = (self.keys.statement(), self.keys.chain());
        self.public
            .announce(&describe(&self.config, statement, chain));
    }
}
