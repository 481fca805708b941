//! How the server ends: no new connections, sessions drained within the grace, store closed. With a
//! successor nobody is turned away meanwhile.

use std::sync::Arc;
use std::time::Duration;
use std::{fmt, io};

use async_trait::async_trait;
use commucat_ledger::Worker;
use commucat_storage::Store;
use parking_lot::Mutex;
use pingora_core::server::{ShutdownSignal, ShutdownSignalWatch};
use tokio::runtime::Handle;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::carrier::Serve as _;
use crate::engine::Engine;
use crate::handover::{self, Successor};
use crate::listen::{Doors, Farewell, Shell};
use crate::metrics::Metrics;
use crate::metrics::label::Lifecycle;
use crate::service;

/// What closing the store may take after the grace: everything in it is on disk already.
const CLOSE_WAIT: Duration = Duration::from_secs(5);

/// How often a process whose successor is gone starts its own program, and the pause before it does so
/// again: a database may be away for a moment.
const STAND_INS: u32 = 10;
const STAND_IN_PAUSE: Duration = Duration::from_secs(1);

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
    pub(crate) doors: Doors,
    /// Brings the process that takes over.
    pub(crate) successors: mpsc::Receiver<Successor>,
    /// Cancelled when nobody may take over any more.
    pub(crate) offer: CancellationToken,
}

/// How a server ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Ended {
    /// As it should.
    Well,
    /// Another process should serve and does not.
    Unsucceeded,
}

impl Ending {
    /// Waits for a signal on Pingora's main thread and ends what runs, once it does.
    pub(crate) fn on(self, started: oneshot::Receiver<Started>) -> Watch {
        Watch(Mutex::new(Some((self, started))))
    }

    async fn run(self, successor: Option<Successor>) -> Ended {
        self.metrics.enter(Lifecycle::Draining);
        match successor {
            None => self.end().await,
            Some(successor) => self.make_way(successor).await,
        }
    }

    async fn end(self) -> Ended {
        self.offer.cancel();
        self.shell.stop(Farewell::Now);
        let drained = async {
            Arc::clone(&self.engine).drain().await;
            self.shell.stopped().await;
        };
        if timeout(self.grace, drained).await.is_err() {
            complain(&self.shell);
        }
        close(self.store, self.worker).await;
        Ended::Well
    }

    /// Ends as soon as another process serves; what is left of connections ends meanwhile.
    async fn make_way(mut self, successor: Successor) -> Ended {
        let deadline = Instant::now() + self.grace;
        // Whoever is not accepted any more waits in the sockets for the successor.
        if timeout_at(deadline, self.doors.close()).await.is_err() {
            tracing::warn!("the ports are still being listened on");
        }
        self.shell.stop(Farewell::AfterFirstAnswer);
        let drained = Arc::clone(&self.engine).drain();
        if timeout_at(deadline, drained).await.is_err() {
            complain(&self.shell);
        }
        close(self.store, self.worker).await;
        let shell = Arc::clone(&self.shell);
        let emptied = async {
            if timeout_at(deadline, shell.stopped()).await.is_err() {
                complain(&shell);
            }
        };
        let (ended, ()) = tokio::join!(succeeded(successor, &mut self.successors), emptied);
        self.offer.cancel();
        ended
    }
}

/// Waits until `successor` serves, or, if it is gone before, this program once more.
async fn succeeded(successor: Successor, successors: &mut mpsc::Receiver<Successor>) -> Ended {
    if successor.left().await {
        return Ended::Well;
    }
    for _ in 0..STAND_INS {
        tracing::error!("the process that took the ports is gone; this program starts again");
        let mut child = match handover::stand_in() {
            Ok(child) => child,
            Err(error) => {
                tracing::error!(%error, "this program cannot be started again");
                break;
            }
        };
        tokio::select! {
            Some(successor) = successors.recv() => if successor.left().await {
                return Ended::Well;
            },
            _ended = child.wait() => {}
        }
        sleep(STAND_IN_PAUSE).await;
    }
    tracing::error!("nobody serves any more");
    Ended::Unsucceeded
}

fn complain(shell: &Shell<Engine>) {
    tracing::warn!(
        count = shell.tasks(),
        "ended with connections that were still open"
    );
}

async fn close(store: Store, worker: Worker) {
    let closed = async {
        store.close().await;
        worker.stop().await;
    };
    if timeout(CLOSE_WAIT, closed).await.is_err() {
        tracing::error!("the store was still busy at the end; nothing acknowledged is lost");
    }
}

/// Pingora's view of the signals.
///
/// Pingora itself would sleep its whole grace period however few connections there are, so it is
/// told to end only when everything has ended.
pub(crate) struct Watch(Mutex<Option<(Ending, oneshot::Receiver<Started>)>>);

/// What there is from the moment that the server says it is ready.
#[derive(Debug)]
pub(crate) struct Started {
    /// Of the listeners.
    runtime: Handle,
    signals: Signals,
}

impl Started {
    /// Takes the signals from now on. Needs the runtime of the listeners.
    pub(crate) fn now() -> io::Result<Self> {
        Ok(Self {
            runtime: Handle::current(),
            signals: Signals::new()?,
        })
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").finish_non_exhaustive()
    }
}

#[async_trait]
impl ShutdownSignalWatch for Watch {
    async fn recv(&self) -> ShutdownSignal {
        let Some((mut ending, started)) = self.0.lock().take() else {
            return ShutdownSignal::FastShutdown;
        };
        // Until then a signal ends the process as it ends any other.
        let Ok(Started {
            runtime,
            mut signals,
        }) = started.await
        else {
            return ShutdownSignal::FastShutdown;
        };
        let successor = tokio::select! {
            () = signals.next() => None,
            () = ending.asked.cancelled() => {
                tracing::info!("asked to end");
                None
            }
            Some(successor) = ending.successors.recv() => Some(successor),
        };
        match &successor {
            None => {
                tracing::info!("ending");
                service::stopping();
            }
            Some(_) => tracing::info!("handing over"),
        }
        let ended = runtime.spawn(ending.run(successor));
        tokio::select! {
            ended = ended => if matches!(ended, Ok(Ended::Unsucceeded)) {
                // For whoever starts it again where it fails.
                std::process::exit(1);
            },
            () = signals.next() => tracing::warn!("ended at once by a second signal"),
        }
        tracing::info!("ended");
        ShutdownSignal::FastShutdown
    }
}

/// SIGTERM, SIGINT and SIGQUIT mean the same: end in order; a second one: at once.
#[derive(Debug)]
struct Signals([Signal; 3]);

impl Signals {
    fn new() -> io::Result<Self> {
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
