//! One connected device: from its first byte to its last.
//!
//! `handshake` finds out who it is, `inbound` and `outbound` are the two halves of the session, in one
//! task, `link` is what others hold of it, `batch` what frames share that came together, `requests`
//! answers control requests, `abroad` passes on those for other domains, `budget` says how many a
//! device may make.

mod abroad;
mod batch;
mod budget;
mod handshake;
mod inbound;
mod link;
mod outbound;
mod requests;
mod wire;

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use commucat_crypto::tunnel::{Opener, Sealer};
use commucat_proto::error::Title;
use commucat_proto::frame::ack::{FirstAck, SessionLimits};
use commucat_proto::frame::error::Problem;
use commucat_proto::frame::{FrameType, Header};
use commucat_proto::id::QueueId;
use commucat_proto::version::SUPPORTED;
use commucat_proto::{encoder, limits};
use commucat_routing::pipeline;
use commucat_storage::Device;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::debug;

pub(crate) use self::batch::Batch;
pub(crate) use self::budget::{Budgets, rate};
use self::handshake::Refused;
pub(crate) use self::handshake::may_enter;
use self::inbound::{Ended, Inbound};
pub(crate) use self::link::{Binding, Hint, Link};
use self::outbound::Outbound;
use self::wire::Wire;
use crate::accounts::Accounts;
use crate::carrier::{Carrier, CarrierReader, CarrierWriter, PeerTag};
use crate::chain::chain;
use crate::clock;
use crate::hub::Hub;
use crate::keys::Keys;
use crate::mailbox::Mailboxes;
use crate::metrics::{Metrics, label};
use crate::peers::Peers;
use crate::signal::Quiet;

/// How long a session that ends may take to write its last ERROR.
const FAREWELL: Duration = Duration::from_secs(5);

/// What every session shares.
#[derive(Clone)]
pub(crate) struct Sessions {
    pub(crate) keys: Keys,
    pub(crate) accounts: Accounts,
    pub(crate) hub: Hub,
    pub(crate) mailboxes: Mailboxes,
    pub(crate) peers: Peers,
    pub(crate) metrics: Metrics,
    pub(crate) rules: Arc<Rules>,
    pub(crate) drain: Drain,
    /// For what goes on when a session has ended.
    pub(crate) tasks: TaskTracker,
    pub(crate) budgets: Budgets,
}

/// The settings that concern sessions.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    pub(crate) handshake_timeout: Duration,
    pub(crate) keepalive: Duration,
    pub(crate) keepalive_idle: Duration,
    pub(crate) write_timeout: Duration,
    pub(crate) padding: bool,
    pub(crate) unacked: pipeline::Limits,
    pub(crate) submit_rate: u32,
    pub(crate) submit_burst: u32,
    pub(crate) announced: SessionLimits,
}

/// The two steps of stopping: sessions stop reading, then, when all that was in memory is on disk,
/// they end.
#[derive(Clone, Default)]
pub(crate) struct Drain {
    begun: CancellationToken,
    finished: CancellationToken,
    /// Whether it has begun: asked for each frame, and the token has one lock for all sessions.
    reads_no_more: Arc<AtomicBool>,
}

impl Drain {
    /// Sessions read no more.
    pub(crate) fn begin(&self) {
        self.reads_no_more.store(true, Ordering::Release);
        self.begun.cancel();
    }

    /// Sessions say farewell.
    pub(crate) fn finish(&self) {
        self.finished.cancel();
    }

    pub(crate) fn has_begun(&self) -> bool {
        self.reads_no_more.load(Ordering::Acquire)
    }
}

/// A device that proved who it is.
struct Established {
    device: Device,
    sealer: Sealer,
    opener: Opener,
    /// Bytes behind the handshake: sealed already.
    rest: BytesMut,
    /// Plaintext of the records that were opened to see that the device is there.
    opened: BytesMut,
}

impl Sessions {
    /// Serves one carrier until it ends.
    ///
    /// Not an `async fn`, which would keep its arguments for as long as the session lasts: what only
    /// the beginning needs is in a box that is given back before the long rest.
    pub(crate) fn serve(self, carrier: Carrier) -> impl Future<Output = ()> + Send + 'static {
        let beginning = Box::pin(self.begin(carrier));
        async move {
            if let Some(conversation) = beginning.await {
                converse(conversation).await;
            }
        }
    }

    /// From the first byte to the first ACK.
    async fn begin(self, carrier: Carrier) -> Option<Box<Conversation>> {
        let Carrier {
            reader,
            writer,
            peer,
            span: _,
        } = carrier;
        let (established, wire) = Box::pin(self.open(reader, writer, peer)).await?;
        let counted = Counted::new(&self.metrics);
        let link = Link::new();
        let queue = established.device.queue;
        let attached = Arc::new(self.mailboxes.attach(queue, link.clone()));
        self.greet(&queue, &link).await;
        let Established {
            device,
            sealer,
            opener,
            rest,
            opened,
        } = established;
        let Wire { reader, writer, .. } = wire;
        let outbound = Outbound::new(&self, link.clone(), Arc::clone(&attached), sealer, writer);
        let mut inbound = Inbound::new(&self, device, (link.clone(), attached), opener, reader);
        let is_true = inbound.take_up(&opened, &rest);
        is_true.then(|| {
            Box::new(Conversation {
                inbound,
                outbound,
                link,
                finished: self.drain.finished,
                _counted: counted,
            })
        })
    }

    async fn open(
        &self,
        reader: CarrierReader,
        writer: CarrierWriter,
        peer: PeerTag,
    ) -> Option<(Established, Wire)> {
        let mut wire = Wire::new(reader, writer);
        let refused = tokio::select! {
            biased;
            () = self.drain.begun.cancelled() => {
                Refused::broken_off(&wire, Title::Draining, "the server stops; connect again")
            }
            shaken = timeout(
                self.rules.handshake_timeout,
                handshake::run(self, &mut wire, peer),
            ) => match shaken {
                Ok(Ok(established)) => return Some((established, wire)),
                Ok(Err(refused)) => {
                    debug!(code = refused.code(), "handshake ended");
                    self.metrics.handshakes.of(refused.label()).inc();
                    refused
                }
                Err(_) => {
                    self.metrics.handshakes.of(label::Handshake::TimedOut).inc();
                    let detail = "the handshake took too long";
                    Refused::broken_off(&wire, Title::HandshakeTimeout, detail)
                }
            },
        };
        within_farewell(async move {
            refused.say(&mut wire).await;
            wire.writer.close().await;
        })
        .await;
        None
    }

    /// Queues the first ACK, or ends the session.
    async fn greet(&self, queue: &QueueId, link: &Link) {
        // Asked when it is attached: a device that is revoked later hears it through its mailbox.
        match self.accounts.waiting(queue).await {
            Ok(Some(waiting)) => link.answer(|out| {
                encoder::cbor(Header::bare(FrameType::Ack), &self.first_ack(waiting), out);
            }),
            Ok(None) => link.end(Title::Revoked),
            Err(error) => {
                self.metrics.store_failures.inc();
                debug!(error = %chain(&error), "cannot read the queue's state");
                link.end(Title::StorageFailure);
            }
        }
    }

    fn first_ack(&self, waiting: u64) -> FirstAck {
        FirstAck {
            waiting,
            capabilities: Vec::new(),
            server_keys: self.keys.statement(),
            versions: SUPPORTED.to_vec(),
            server_time: clock::now(),
            limits: self.rules.announced,
        }
    }
}

/// A session whose device is there.
struct Conversation {
    inbound: Inbound,
    outbound: Outbound,
    link: Link,
    /// All that was in memory is on disk, and the server stops.
    finished: CancellationToken,
    _counted: Counted,
}

/// Reads and writes until one of both ends.
///
/// What comes once is in boxes: a future is as large as the largest that it may wait for, and this
/// one is there for every device that is idle.
async fn converse(mut conversation: Box<Conversation>) {
    let Conversation {
        inbound,
        outbound,
        link,
        finished,
        _counted,
    } = &mut *conversation;
    let told = {
        let mut finished = Quiet::new(finished.cancelled());
        let mut writing = pin!(outbound.run());
        let first = {
            let mut reading = pin!(inbound.run());
            tokio::select! {
                // What was read is answered in the same turn.
                biased;
                ended = &mut reading => First::Read(ended),
                told = &mut writing => First::Wrote(told),
                () = &mut finished => First::Finished,
            }
        };
        Box::pin(end(first, link, writing, finished)).await
    };
    let Conversation {
        inbound, outbound, ..
    } = *conversation;
    drop(inbound);
    if told {
        Box::pin(within_farewell(outbound.close())).await;
    }
}

/// What ended first.
enum First {
    Read(Ended),
    /// Whether the client was told why.
    Wrote(bool),
    /// A request that still waits does not hold up the end: its answer got lost.
    Finished,
}

/// Has the client told why, if it is to be; whether it was, and its stream can be closed in order.
async fn end(
    first: First,
    link: &Link,
    writing: Pin<&mut impl Future<Output = bool>>,
    mut finished: Quiet<impl Future<Output = ()>>,
) -> bool {
    let mut writing = writing;
    match first {
        First::Wrote(told) => return told,
        First::Read(Ended::Closed) => return false,
        First::Read(Ended::Told) => {}
        First::Read(Ended::Fatal(title)) => link.end(title),
        First::Read(Ended::Draining) => {
            tokio::select! {
                biased;
                told = &mut writing => return told,
                () = &mut finished => link.end(Title::Draining),
            }
        }
        First::Finished => link.end(Title::Draining),
    }
    timeout(FAREWELL, writing).await.is_ok()
}

/// Counts a session for as long as it lasts, however it ends.
struct Counted(Metrics);

impl Counted {
    fn new(metrics: &Metrics) -> Self {
        metrics.sessions.inc();
        Self(metrics.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.sessions.dec();
    }
}

/// Runs `work` to its end, also if the session ends meanwhile: a change in the store and what follows
/// from it (mailboxes, ledger, other sessions) belong together.
async fn to_its_end<T: Send + 'static>(
    tasks: &TaskTracker,
    work: impl Future<Output = Result<T, Problem>> + Send + 'static,
) -> Result<T, Problem> {
    let lost = |_| Err(Problem::new(Title::StorageFailure, "try again"));
    tasks.spawn(work).await.unwrap_or_else(lost)
}

/// Gives a client that may have stopped reading so long and no longer.
async fn within_farewell(last: impl Future<Output = ()>) {
    if timeout(FAREWELL, last).await.is_err() {
        debug!("the client did not read to the end");
    }
}

/// After how long without a byte a connection counts as lost (CCP-1 section 3).
fn lost_after(keepalive: Duration) -> Duration {
    keepalive.saturating_mul(limits::KEEPALIVE_LOST_HALVES) / 2
}
