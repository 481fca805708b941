//! The right to send to a peer: of several nodes of this domain one at a time has it, by the store,
//! so that what waits for the peer reaches it in order.

use std::time::{Duration, Instant};

use commucat_storage::NodeId;
use parking_lot::Mutex;
use tracing::warn;

use super::{Peer, Peers};
use crate::chain::chain;
use crate::federation::ANSWER_WAIT;

/// How long the right lasts: so long a peer waits for the outbox of a node that died.
const LEASE: Duration = Duration::from_secs(30);

/// So much of it has to be left for a request to begin: longer than one may take, so that no request
/// of the next node is under way beside it.
const REQUEST: Duration = ANSWER_WAIT.saturating_add(Duration::from_secs(2));

/// It is kept by whoever sends, from so long after it was taken.
pub(super) const RENEWAL: Duration = Duration::from_secs(5);

/// Between two tries while another node has it.
pub(super) const RETRY: Duration = Duration::from_secs(2);

/// It is kept for so long after the last event.
const USE: Duration = Duration::from_secs(60);

/// What this node knows of the right to send to one peer.
#[derive(Debug, Default)]
pub(super) struct Lease(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// When it ends, if this node has it.
    until: Option<Instant>,
    asked: Option<Instant>,
    used: Option<Instant>,
}

impl Lease {
    fn is_held(&self, now: Instant) -> bool {
        self.0.lock().until.is_some_and(|until| until > now)
    }

    /// Whether a request that begins now is over before the right is.
    fn lasts(&self, now: Instant) -> bool {
        now.checked_add(REQUEST)
            .is_some_and(|end| self.is_held(end))
    }

    /// An event is handed to the peer's lanes.
    pub(super) fn used(&self, now: Instant) {
        self.0.lock().used = Some(now);
    }

    /// Whether it is worth keeping.
    fn is_wanted(&self, now: Instant) -> bool {
        let used = self.0.lock().used;
        used.is_some_and(|used| now.saturating_duration_since(used) < USE)
    }

    /// Whether the store is to be asked now; who gets `true` asks.
    fn begin_asking(&self, now: Instant) -> bool {
        let mut state = self.0.lock();
        let is_held = state.until.is_some_and(|until| until > now);
        let pause = if is_held { RENEWAL } else { RETRY };
        let passed = |asked: Instant| now.saturating_duration_since(asked) >= pause;
        let is_due = state.asked.is_none_or(passed);
        if is_due {
            state.asked = Some(now);
        }
        is_due
    }

    /// The store has answered what was asked at `asked`.
    fn answered(&self, asked: Instant, is_held: bool) {
        self.0.lock().until = if is_held {
            asked.checked_add(LEASE)
        } else {
            None
        };
    }
}

impl Peers {
    /// Whether this node may begin a request to `peer` now, as far as it knows.
    pub(super) fn may_send(&self, peer: &Peer) -> bool {
        self.is_only_node() || peer.lease.lasts(Instant::now())
    }

    /// Whether it may, and would like to go on: then the right is to be kept.
    pub(super) fn keeps(&self, peer: &Peer) -> bool {
        !self.is_only_node() && peer.lease.is_wanted(Instant::now())
    }

    /// Whether this node may begin a request to `peer`; asks the store where that is due. While the
    /// store is down the right lasts as long as it was given.
    pub(super) async fn hold(&self, peer: &Peer) -> bool {
        if self.is_only_node() {
            return true;
        }
        if self.is_draining() {
            return false;
        }
        let now = Instant::now();
        if peer.lease.begin_asking(now) {
            match self.take_lease(peer, LEASE).await {
                Ok(is_held) => peer.lease.answered(now, is_held),
                Err(failure) => {
                    self.0.metrics.store_failures.inc();
                    warn!(error = %chain(&failure), "cannot ask for the right to send to a peer");
                }
            }
        }
        peer.lease.lasts(Instant::now())
    }

    /// Nothing is sent any more: another node may send at once.
    pub(super) async fn release(&self) {
        let peers: Vec<_> = self.0.peers.lock().values().cloned().collect();
        for peer in peers {
            if self.is_only_node() || !peer.lease.is_held(Instant::now()) {
                continue;
            }
            if let Err(failure) = self.take_lease(&peer, Duration::ZERO).await {
                warn!(error = %chain(&failure), "other nodes wait until a right to send runs out");
                return;
            }
        }
    }

    async fn take_lease(
        &self,
        peer: &Peer,
        lease: Duration,
    ) -> Result<bool, commucat_storage::StoreError> {
        let node: NodeId = self.0.node;
        self.0.store.hold_outbox(&peer.domain, node, lease).await
    }

    /// Whether no other node has this store.
    pub(super) fn is_only_node(&self) -> bool {
        self.0.mailboxes.cluster().is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_store_is_asked_again_before_the_right_runs_out_and_seldom_while_another_has_it() {
        let (lease, now) = (Lease::default(), Instant::now());

        assert!(lease.begin_asking(now) && !lease.begin_asking(now));
        lease.answered(now, true);
        assert!(lease.is_held(now) && !lease.is_held(now + LEASE));
        assert!(!lease.begin_asking(now + RETRY));
        assert!(lease.begin_asking(now + RENEWAL));

        lease.answered(now + RENEWAL, false);
        assert!(!lease.is_held(now + RENEWAL));
        assert!(!lease.begin_asking(now + RENEWAL));
        assert!(lease.begin_asking(now + RENEWAL + RETRY));
    }

    #[test]
    fn no_request_begins_that_could_outlast_the_right() {
        let (lease, now) = (Lease::default(), Instant::now());
        lease.answered(now, true);

        let last = now + LEASE - REQUEST;

        assert!(REQUEST > ANSWER_WAIT && LEASE > REQUEST + RENEWAL);
        assert!(lease.lasts(last - Duration::from_millis(1)));
        assert!(!lease.lasts(last) && lease.is_held(last));
    }

    #[test]
    fn the_right_is_kept_for_a_while_after_the_last_event() {
        let (lease, now) = (Lease::default(), Instant::now());

        assert!(!lease.is_wanted(now));
        lease.used(now);

        assert!(lease.is_wanted(now) && !lease.is_wanted(now + USE));
    }
}
