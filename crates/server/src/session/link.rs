//! A session as others see it: what they may tell it, and what waits to be written on it.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::{Bytes, BytesMut};
use commucat_proto::error::Title;
use commucat_proto::frame::error::Problem;
use commucat_proto::id::{Domain, GroupId, Handle, SealedRef};
use commucat_routing::keyed::KeyedMap;
use commucat_routing::pipeline::{Limits, OverflowError, Pipeline};
use commucat_routing::ticket::Status;
use commucat_routing::unacked::Unacked;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;

use super::outbound;
use crate::signal::Signal;

/// Ephemeral frames that wait for a slow device; more are dropped.
const HINTS_MAX: usize = 64;

/// Answers that wait for a client; with more the session reads on only when some were taken.
const ANSWERS_BYTES: usize = 64 * 1024;

/// Others reach a session only through this. Nothing here waits.
#[derive(Clone)]
pub(crate) struct Link(Arc<Shared>);

struct Shared {
    wake: Signal,
    /// Answers were taken.
    taken: Notify,
    state: Mutex<State>,
    /// What was sent and not acknowledged; the two halves of the session share it.
    sent: Mutex<Unacked>,
    idle: AtomicBool,
    /// Whether the writer stopped because the client had acknowledged too little.
    full: AtomicBool,
}

#[derive(Default)]
struct State {
    pipeline: Pipeline,
    /// Encoded answers to requests: [`ANSWERS_BYTES`] and one more.
    control: BytesMut,
    hints: VecDeque<Hint>,
    channels: Channels,
    ending: Option<Title>,
}

/// An ephemeral frame for a bound channel.
pub(crate) struct Hint {
    pub(crate) group: GroupId,
    pub(crate) payload: Bytes,
}

/// What a channel is bound to (CCP-1 section 5.3).
pub(crate) struct Binding {
    pub(crate) group: GroupId,
    pub(crate) hub: Domain,
    pub(crate) handle: Handle,
    pub(crate) sealed_ref: SealedRef,
    /// Whether a MSG has come on this channel.
    pub(crate) used: AtomicBool,
}

impl Binding {
    /// Whether this is the first MSG since the channel was bound.
    pub(crate) fn is_first(&self) -> bool {
        !self.used.load(Ordering::Relaxed) && !self.used.swap(true, Ordering::Relaxed)
    }
}

#[derive(Default)]
struct Channels {
    bound: KeyedMap<u32, Arc<Binding>>,
    by_group: KeyedMap<GroupId, u32>,
}

/// What became of binding a channel.
pub(crate) enum Bound {
    /// It is bound now, or was bound to the very same before.
    Done,
    /// The channel or the group is bound otherwise.
    Conflict,
}

/// What there is to write, besides the queue's entries.
#[derive(Default)]
pub(crate) struct Waiting {
    pub(crate) control: BytesMut,
    pub(crate) acks: Vec<commucat_routing::ack::Range>,
    pub(crate) hints: Vec<(u32, Bytes)>,
    pub(crate) ending: Option<Title>,
}

impl Link {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Shared {
            wake: Signal::default(),
            taken: Notify::new(),
            state: Mutex::default(),
            sent: Mutex::default(),
            idle: AtomicBool::new(false),
            full: AtomicBool::new(false),
        }))
    }

    /// What was sent on this connection and not acknowledged.
    pub(crate) fn sent(&self) -> MutexGuard<'_, Unacked> {
        self.0.sent.lock()
    }

    /// The writer stops until the client acknowledges something.
    pub(crate) fn set_full(&self) {
        self.0.full.store(true, Ordering::Relaxed);
    }

    /// The client acknowledged entries: whoever stopped for want of room goes on. Else nobody is
    /// woken: an acknowledgement comes for every message, and mostly there is nothing to write.
    pub(crate) fn made_room(&self) {
        if self.0.full.load(Ordering::Relaxed) && self.0.full.swap(false, Ordering::Relaxed) {
            self.wake();
        }
    }

    /// Whether the client said that it is idle (PRESENCE).
    pub(crate) fn is_idle(&self) -> bool {
        self.0.idle.load(Ordering::Relaxed)
    }

    /// There is something to write. Wakes coalesce.
    pub(crate) fn wake(&self) {
        self.0.wake.raise();
    }

    /// Waits until there may be something to write. Cancel-safe.
    pub(crate) async fn woken(&self) {
        poll_fn(|cx| self.0.wake.poll(cx)).await;
    }

    /// A frame's ticket is done.
    pub(crate) fn done(&self, sequence: u32, status: Status) {
        self.0.state.lock().pipeline.done(sequence.into(), status);
        self.wake();
    }

    /// Nobody has custody of a frame: its author sends it again.
    pub(crate) fn failed(&self, sequence: u32) {
        let problem = Problem::new(
            Title::StorageFailure,
            "the message could not be stored; send it again",
        );
        self.refuse(sequence, problem);
    }

    /// A frame is answered by an ERROR. Its channel is unbound, the frames behind it get
    /// `Not Joined` (CCP-1 section 4, "Flow").
    pub(crate) fn refuse(&self, sequence: u32, problem: Problem) {
        let mut state = self.0.state.lock();
        let Some(failure) = state.pipeline.failed(sequence.into()) else {
            return;
        };
        if let Ok(channel) = u32::try_from(failure.channel) {
            state.channels.unbind(channel);
        }
        outbound::problem(&problem.of_frame(sequence), &mut state.control);
        for behind in failure
            .behind
            .into_iter()
            .filter_map(|behind| u32::try_from(behind).ok())
        {
            let problem = Problem::new(Title::NotJoined, "a message before this one failed");
            outbound::problem(&problem.of_frame(behind), &mut state.control);
        }
        drop(state);
        self.wake();
    }

    /// Notes a MSG before its ticket is made; what its channel is bound to.
    ///
    /// # Errors
    ///
    /// [`OverflowError`] if the client does not wait for its answers: fatal.
    pub(crate) fn begin(
        &self,
        sequence: u32,
        channel: u32,
        bytes: usize,
        limits: Limits,
    ) -> Result<Option<Arc<Binding>>, OverflowError> {
        let mut state = self.0.state.lock();
        state
            .pipeline
            .begin(sequence.into(), channel.into(), bytes, limits)?;
        Ok(state.channels.bound.get(&channel).cloned())
    }

    /// Whether a MSG has no answer yet: it may have got one with a frame before it that failed.
    pub(crate) fn awaits(&self, sequence: u32) -> bool {
        self.0.state.lock().pipeline.is_open(sequence.into())
    }

    /// Whether the client has taken so much of its answers that it may get more, and the session goes on.
    pub(crate) fn has_room_now(&self) -> bool {
        let state = self.0.state.lock();
        state.ending.is_none() && state.control.len() <= ANSWERS_BYTES
    }

    /// Waits until the client has taken so much of its answers that it may get more; `false` if the
    /// session ends. Cancel-safe.
    pub(crate) async fn has_room(&self) -> bool {
        loop {
            {
                let state = self.0.state.lock();
                if state.ending.is_some() {
                    return false;
                }
                if state.control.len() <= ANSWERS_BYTES {
                    return true;
                }
            }
            // The one who waits is the only one, so a wake since the look is kept for it.
            self.0.taken.notified().await;
        }
    }

    /// Queues the encoded answer to a request.
    pub(crate) fn answer(&self, encode: impl FnOnce(&mut BytesMut)) {
        encode(&mut self.0.state.lock().control);
        self.wake();
    }

    /// Hands over an ephemeral frame, or drops it if the device is too slow, idle, or not joined.
    pub(crate) fn hint(&self, hint: Hint) {
        let mut state = self.0.state.lock();
        if self.is_idle() || state.hints.len() >= HINTS_MAX {
            return;
        }
        state.hints.push_back(hint);
        drop(state);
        self.wake();
    }

    /// What the client says of itself (PRESENCE): an idle one gets no ephemeral frames.
    pub(crate) fn set_idle(&self, idle: bool) {
        self.0.idle.store(idle, Ordering::Relaxed);
        if idle {
            self.0.state.lock().hints.clear();
        }
    }

    /// Another connection of the device took its place.
    pub(crate) fn replaced(&self) {
        self.end(Title::Replaced);
    }

    /// The device was revoked.
    pub(crate) fn revoked(&self) {
        self.end(Title::Revoked);
    }

    /// Ends the session with this ERROR after what waits was written. The first reason counts.
    pub(crate) fn end(&self, title: Title) {
        self.0.state.lock().ending.get_or_insert(title);
        self.0.taken.notify_one();
        self.wake();
    }

    /// Binds `channel`.
    pub(crate) fn bind(&self, channel: u32, binding: Binding) -> Bound {
        self.0.state.lock().channels.bind(channel, binding)
    }

    /// Unbinds the channel of `group`, if there is one.
    pub(crate) fn unbind_group(&self, group: &GroupId) {
        let mut state = self.0.state.lock();
        if let Some(channel) = state.channels.by_group.get(group).copied() {
            state.channels.unbind(channel);
        }
    }

    /// What `channel` is bound to.
    pub(crate) fn binding(&self, channel: u32) -> Option<Arc<Binding>> {
        self.0.state.lock().channels.bound.get(&channel).cloned()
    }

    /// The channel of `group`.
    pub(crate) fn channel_of(&self, group: &GroupId) -> Option<u32> {
        self.0.state.lock().channels.by_group.get(group).copied()
    }

    /// Takes what waits to be written.
    pub(crate) fn take(&self) -> Waiting {
        let mut guard = self.0.state.lock();
        let state = &mut *guard;
        let hints = state
            .hints
            .drain(..)
            .filter_map(|hint| Some((*state.channels.by_group.get(&hint.group)?, hint.payload)))
            .collect();
        if state.control.len() > ANSWERS_BYTES {
            self.0.taken.notify_one();
        }
        Waiting {
            // Taken whole: a rest would keep the memory of the largest answer.
            control: std::mem::take(&mut state.control),
            acks: if state.pipeline.has_acks() {
                state.pipeline.take_acks()
            } else {
                Vec::new()
            },
            hints,
            ending: state.ending,
        }
    }
}

impl Channels {
    fn bind(&mut self, channel: u32, binding: Binding) -> Bound {
        let is_same = |other: &Arc<Binding>| {
            other.group == binding.group
                && other.hub == binding.hub
                && other.handle == binding.handle
        };
        let free = match (self.bound.get(&channel), self.by_group.get(&binding.group)) {
            (None, None) => true,
            (Some(bound), Some(at)) => *at == channel && is_same(bound),
            (Some(_), None) | (None, Some(_)) => false,
        };
        if !free {
            return Bound::Conflict;
        }
        self.by_group.insert(binding.group, channel);
        self.bound.insert(channel, Arc::new(binding));
        Bound::Done
    }

    fn unbind(&mut self, channel: u32) {
        if let Some(binding) = self.bound.remove(&channel) {
            self.by_group.remove(&binding.group);
        }
    }
}
