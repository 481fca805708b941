//! Who hears what became of a frame: a device here, a device of another domain, or a hub.

use std::time::Duration;

use commucat_proto::frame::error::Problem;
use commucat_proto::id::{Domain, QueueId, SealedRef};
use commucat_routing::ticket::{Missed, Status};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::metrics::{Metrics, label};
use crate::session::Link;

/// Who hears what became of a frame.
pub(crate) enum Author {
    /// A device of this domain, on the connection that sent the frame.
    Device {
        /// The connection.
        link: Link,
        /// The frame's sequence there.
        sequence: u32,
        /// The device's queue, for `undelivered`.
        queue: QueueId,
        /// Its reference in the group, for what comes back after the ticket is done.
        reference: SealedRef,
    },
    /// A device of another domain, whose `submit` waits for its outcome.
    Abroad {
        /// Its domain.
        home: Domain,
        /// Its reference, for `return`.
        reference: SealedRef,
        /// What waits.
        reply: Reply,
    },
    /// The hub of another domain, whose `deliver` waits for its outcome.
    Hub {
        /// What waits.
        reply: Reply,
    },
}

/// Where `undelivered` goes.
pub(crate) enum Home {
    /// A queue of this domain.
    Here(QueueId),
    /// A reference of another domain.
    Abroad(Domain, SealedRef),
}

/// What became of an event that another domain sent.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Settled {
    /// This domain has custody for all but these.
    Custody(Vec<Missed>),
    /// It has not; the event is to be sent again.
    Failed,
}

/// Answers an event once. Nobody may wait any more: that is no concern of custody.
pub(crate) struct Reply(Mutex<Option<oneshot::Sender<Settled>>>);

impl Reply {
    /// A reply and the one who waits for it.
    pub(crate) fn new() -> (Self, oneshot::Receiver<Settled>) {
        let (reply, answer) = oneshot::channel();
        (Self(Mutex::new(Some(reply))), answer)
    }

    fn send(&self, settled: Settled) {
        if let Some(reply) = self.0.lock().take()
            && reply.send(settled).is_err()
        {
            tracing::trace!("the peer does not wait for the event's outcome any more");
        }
    }
}

impl Author {
    /// Where `undelivered` goes; a hub hears of missed recipients in the answer.
    pub(super) fn home(&self) -> Option<Home> {
        match self {
            Self::Device { queue, .. } => Some(Home::Here(*queue)),
            Self::Abroad {
                home, reference, ..
            } => Some(Home::Abroad(home.clone(), *reference)),
            Self::Hub { .. } => None,
        }
    }

    /// Custody is complete.
    pub(super) fn done(&self, status: Status, elapsed: Duration, metrics: &Metrics) {
        match self {
            Self::Device { link, sequence, .. } => {
                metrics.acks.of(ack_label(status)).inc();
                metrics.custody_seconds.observe(elapsed.as_secs_f64());
                link.done(*sequence, status);
            }
            Self::Abroad { reply, .. } | Self::Hub { reply } => {
                reply.send(Settled::Custody(Vec::new()));
            }
        }
    }

    /// Nobody has custody: whoever sent the frame keeps it.
    pub(super) fn failed(&self) {
        match self {
            Self::Device { link, sequence, .. } => link.failed(*sequence),
            Self::Abroad { reply, .. } | Self::Hub { reply } => reply.send(Settled::Failed),
        }
    }

    /// Custody is complete but for these.
    pub(super) fn missed(&self, missed: Vec<Missed>) {
        match self {
            Self::Hub { reply } => reply.send(Settled::Custody(missed)),
            // Theirs goes the way of `undelivered`.
            Self::Device { .. } | Self::Abroad { .. } => {}
        }
    }

    /// The hub refused the frame.
    pub(super) fn rejected(&self, problem: Problem) {
        match self {
            Self::Device { link, sequence, .. } => link.refuse(*sequence, problem),
            Self::Abroad { reply, .. } | Self::Hub { reply } => reply.send(Settled::Failed),
        }
    }
}

const fn ack_label(status: Status) -> label::Ack {
    match status {
        Status::Stored => label::Ack::Stored,
        Status::Relayed => label::Ack::Relayed,
        Status::Delivered => label::Ack::Delivered,
        Status::Refused => label::Ack::Refused,
    }
}
