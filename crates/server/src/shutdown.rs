//! How the server ends: no new connections, sessions drained within the grace, store closed.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use commucat_ledger::Worker;
use commucat_storage::Store;
use parking_lot::Mutex;
use pingora_core::server::{ShutdownSignal, ShutdownSignalWatch};
use tokio::runtime::Handle;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::carrier::Serve as _;
use crate::engine::Engine;
use crate::listen::Shell;
use crate::metrics::Metrics;
use crate::metrics::label::Lifecycle;
use crate::service;

/// What closing the store may take after the grace: everything in it is on disk already.
const CLOSE_WAIT: Duration = Duration::from_secs(5);

/// What is ended, in order.
#[derive(Debug)]
pub(crate) struct Ending {
    pub(crate) shell: Arc<Shell<Engine>>,
    pub(crate) engine: Arc<Engine>,
    pub(crate) store: Store,
    pub(crate) worker: Worker,
    pub(crate) metrics: Metrics,
    pub(crate) grace: Duration,
    /// Cancelled when another node or the operator wants this one to end.
    pub(crate) asked: CancellationToken,
}

impl Ending {
    /// Waits for a signal on Pingora's main thread and ends what runs on `runtime`.
    pub(crate) fn on(self, runtime: Arc<OnceLock<Handle>>) -> Watch {
        Watch {
            ending: Mutex::new(Some(self)),
            runtime,
        }
    }

    async fn run(self) {
        self.metrics.enter(Lifecycle::Draining);
        self.shell.stop();
        let drained = async {
            Arc::clone(&self.engine).drain().await;
            self.shell.stopped().await;
        };
        if timeout(self.grace, drained).await.is_err() {
            tracing::warn!(
                count = self.shell.tasks(),
                "ended with connections that were still open"
            );
        }
        let closed = async {
            self.store.close().await;
            self.worker.stop().await;
        };
        if timeout(CLOSE_WAIT, closed).await.is_err() {
            tracing::error!("the store was still busy at the end; nothing acknowledged is lost");
        }
    }
}

/// Pingora's view of the signals.
///
/// Pingora itself would sleep its whole grace period however few connections there are, so it is
/// told to end only when everything has ended.
pub(crate) struct Watch {
    ending: Mutex<Option<Ending>>,
    runtime: Arc<OnceLock<Handle>>,
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").finish_non_exhaustive()
    }
}

#[async_trait]
impl ShutdownSignalWatch for Watch {
    async fn recv(&self) -> ShutdownSignal {
        let mut signals = match Signals::new() {
            Ok(signals) => signals,
            Err(error) => {
                tracing::error!(%error, "the system gives no signals");
                return ShutdownSignal::FastShutdown;
            }
        };
        let asked = self
            .ending
            .lock()
            .as_ref()
            .map(|ending| ending.asked.clone())
            .unwrap_or_default();
        tokio::select! {
            () = signals.next() => {}
            () = asked.cancelled() => tracing::info!("asked to end"),
        }
        tracing::info!("ending");
        service::stopping();
        let ending = self.ending.lock().take();
        if let (Some(ending), Some(runtime)) = (ending, self.runtime.get()) {
            let ended = runtime.spawn(ending.run());
            tokio::select! {
                _ended = ended => {}
                () = signals.next() => tracing::warn!("ended at once by a second signal"),
            }
        }
        tracing::info!("ended");
        ShutdownSignal::FastShutdown
    }
}

/// SIGTERM, SIGINT and SIGQUIT mean the same: end in order; a second one: at once.
struct Signals([Signal; 3]);

impl Signals {
    fn new() -> std::io::Result<Self> {
        let kinds = [
            SignalKind::terminate(),
            SignalKind::interrupt(),
            SignalKind::quit(),
        ];
        let [terminate, interrupt, quit] = kinds.map(signal);
        Ok(Self([terminate?, interrupt?, quit?]))
    }

    async fn next(&mut self) {
        let [terminate, interrupt, quit] = &mut self.0;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = quit.recv() => {}
        }
    }
}
