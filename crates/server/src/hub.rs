//! The hub: groups of which this domain keeps the list and the log (CCP-1 section 5).
//!
//! The rules are those of `commucat_routing::hub`; this file keeps groups at hand, finds the places of
//! their members and answers requests. `commit` appends to the log, `fetch` reads it, `abroad` sends
//! what concerns groups of other domains to their hubs.

mod abroad;
mod commit;
mod fetch;
mod forks;
mod notice;
mod view;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

use bytes::Bytes;
use commucat_federation::event::{Body, Deliver, Delivered, Submit};
use commucat_proto::error::Title;
use commucat_proto::frame::FrameType;
use commucat_proto::frame::error::Problem;
use commucat_proto::frame::group_create::GroupCreate;
use commucat_proto::frame::msg::Msg;
use commucat_proto::id::{DedupeKey, Domain, GroupId, Handle, QueueId, SealedRef};
use commucat_proto::wire::Cbor;
use commucat_routing::hub::{Admission, Alarm, Author, Group, Limiter, Rate, Refusal, Source};
use commucat_routing::lane::Envelope;
use commucat_storage::{GroupCreated, NewGroup, Store};
use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use tokio::sync::oneshot;
use tokio_util::task::TaskTracker;

use self::view::{View, Views};
use crate::accounts::{other_domain, storage};
use crate::clock;
use crate::custody::{Author as Sender, Frame, Reply, Settled};
use crate::limit::Buckets;
use crate::router::{Place, Router};
use crate::session::{Batch, Binding, Link};

/// Groups with fork tags kept at hand; nothing depends on them.
const ALARMS_MAX: usize = 10_000;

/// Handle to the hub. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Hub(Arc<Inner>);

struct Inner {
    router: Router,
    store: Store,
    tasks: TaskTracker,
    views: Mutex<Views>,
    readings: AtomicU64,
    /// Groups from which members that are gone are being taken out.
    departing: Mutex<HashSet<GroupId>>,
    buckets: Buckets,
    /// MSGs of members of other domains: of own devices the session reads no faster.
    submits: Mutex<Limiter<Handle>>,
    /// Their TYPINGs and fork tags: what is dropped beyond.
    hints: Mutex<Limiter<Handle>>,
    alarms: Mutex<HashMap<GroupId, Alarm>>,
    /// `limits.group_handles`.
    handles_max: usize,
    forks: Counter,
}

/// A device of this domain that asks.
pub(crate) struct Member {
    pub(crate) link: Link,
    pub(crate) queue: QueueId,
}

/// Who asks the hub.
#[derive(Clone, Copy)]
pub(crate) enum Asker<'a> {
    /// A device of this domain with this queue.
    Device(&'a QueueId),
    /// A device of another domain, which has checked its reference.
    Abroad(&'a Domain),
}

impl Hub {
    pub(crate) fn new(
        router: Router,
        store: Store,
        tasks: TaskTracker,
        (handles_max, submit_rate, buckets): (usize, Rate, Buckets),
        forks: Counter,
    ) -> Self {
        Self(Arc::new(Inner {
            router,
            store,
            tasks,
            views: Mutex::default(),
            readings: AtomicU64::new(0),
            departing: Mutex::default(),
            buckets,
            submits: Mutex::new(Limiter::new(submit_rate)),
            hints: Mutex::new(Limiter::new(submit_rate)),
            alarms: Mutex::default(),
            handles_max,
            forks,
        }))
    }

    fn domain(&self) -> &Domain {
        self.0.router.domain()
    }

    /// Whether `reference` was made here for this group and hub, and leads to `queue`.
    pub(crate) fn is_own(
        &self,
        reference: &SealedRef,
        group: &GroupId,
        hub: &Domain,
        queue: &QueueId,
    ) -> bool {
        self.0.router.open(reference, group, hub).as_ref() == Some(queue)
    }

    /// Whether groups of `hub` are kept here.
    pub(crate) fn is_here(&self, hub: &Domain) -> bool {
        hub == self.domain()
    }

    /// Returns when no node sends anything more by what it knew of a group before the call.
    pub(crate) async fn until_all_look_again(&self) {
        self.0.router.until_all_look_again().await;
    }

    fn check_hub(&self, hub: &Domain) -> Result<(), Problem> {
        if self.is_here(hub) {
            Ok(())
        } else {
            Err(other_domain())
        }
    }

    /// Makes a group (CCP-1 section 5.1).
    ///
    /// # Errors
    ///
    /// [`Problem`] for the device.
    pub(crate) async fn create(
        &self,
        member: &Member,
        create: &GroupCreate,
    ) -> Result<(), Problem> {
        let list: Vec<_> = create.fanout.iter().map(view::entry).collect();
        let join_key = create.join_key.map(|key| *key.as_bytes());
        Group::create(&list, self.domain(), join_key).map_err(refused)?;
        let Some(creator) = create.fanout.first() else {
            return Err(not_found());
        };
        if !self.is_own(
            &creator.sealed_ref,
            &create.group,
            self.domain(),
            &member.queue,
        ) {
            return Err(not_found());
        }
        let group = NewGroup {
            group: create.group,
            request_hash: *blake3::hash(&create.encode()).as_bytes(),
            creator: view::stored_entry(creator),
            group_info: create.sealed_group_info.clone(),
            join_key,
        };
        match self
            .0
            .store
            .create_group(group, clock::now())
            .await
            .map_err(storage)?
        {
            GroupCreated::Created | GroupCreated::Repeat => Ok(()),
            GroupCreated::Conflict => Err(Problem::new(Title::Conflict, "the group id is taken")),
        }
    }

    /// Takes a MSG into custody for everyone else in the group (CCP-1 sections 4 and 5.3), or passes
    /// it on to the group's hub.
    ///
    /// # Errors
    ///
    /// [`Problem`] for the author; nobody gets the message then.
    pub(crate) async fn message(
        &self,
        member: &Member,
        binding: &Binding,
        (sequence, msg): (u32, &Msg),
        batch: &mut Batch,
    ) -> Result<(), Problem> {
        let author = Sender::Device {
            link: member.link.clone(),
            sequence,
            queue: member.queue,
            reference: binding.sealed_ref,
        };
        if !self.is_here(&binding.hub) {
            if binding.is_first() {
                let peers = self.0.router.peers();
                peers.read_outbox_first(&binding.hub, &binding.group);
            }
            self.submit_abroad(author, binding, msg);
            return Ok(());
        }
        let asks = Author {
            handle: &binding.handle,
            sealed_ref: &binding.sealed_ref,
            origin: self.domain(),
        };
        let position = msg.position();
        let view = match self.admitted_now(&binding.group, asks, position)? {
            Some(view) => view,
            None => {
                batch.flush();
                // In a box what is rare: every idle session has room for what is not.
                Box::pin(self.admitted_by_store(&binding.group, asks, position)).await?
            }
        };
        // While the list was read, a message before it may have failed, and this one with it.
        if member.link.awaits(sequence) {
            if binding.is_first() {
                self.read_first(&view, &binding.group);
            }
            self.fan_out(&view, (author, binding.group, &binding.handle), msg, batch);
        }
        Ok(())
    }

    /// Lets what the author has sent over another node go before what comes now.
    fn read_first(&self, view: &View, group: &GroupId) {
        self.0.router.read_stores_first(&view.placement.places);
        self.0.router.read_outboxes_first(&view.placement, group);
    }

    /// Takes a `submit` of `origin` into custody; what comes is its outcome.
    ///
    /// # Errors
    ///
    /// [`Problem`] for the author; nobody gets the message then. [`Title::RateLimited`] concerns its
    /// domain alone, which sends the message again: no author hears it (CCP-1 section 4).
    pub(crate) async fn submit(
        &self,
        origin: &Domain,
        submit: &Submit,
        (ciphertext_max, is_first): (usize, bool),
    ) -> Result<oneshot::Receiver<Settled>, Problem> {
        let invalid =
            |_| Problem::new(Title::InvalidControlPayload, "the payload is not a message");
        let msg = Msg::decode(&submit.payload).map_err(invalid)?;
        if msg.ciphertext().len() > ciphertext_max {
            return Err(Problem::new(
                Title::PayloadTooLarge,
                "the message is too large",
            ));
        }
        let asks = Author {
            handle: &submit.handle,
            sealed_ref: &submit.reference,
            origin,
        };
        let view = self.admitted(&submit.group, asks, msg.position()).await?;
        // Only now: nobody else's submits use up a member's budget.
        let taken = self.0.submits.lock().take(submit.handle, Instant::now());
        if taken.is_err() {
            let detail = "a handle submits faster than it may";
            return Err(Problem::new(Title::RateLimited, detail));
        }
        if is_first {
            self.read_first(&view, &submit.group);
        }
        let (reply, answer) = Reply::new();
        let author = Sender::Abroad {
            home: origin.clone(),
            reference: submit.reference,
            reply,
        };
        let by = (author, submit.group, &submit.handle);
        self.fan_out(&view, by, &msg, &mut Batch::new(Instant::now()));
        Ok(answer)
    }

    /// Notes a hint of a member of another domain.
    fn charge(&self, author: Author<'_>) {
        if author.origin != self.domain() {
            let mut hints = self.0.hints.lock();
            hints.charge(*author.handle, Instant::now());
        }
    }

    fn fan_out(
        &self,
        view: &Arc<View>,
        by: (Sender, GroupId, &Handle),
        msg: &Msg,
        batch: &mut Batch,
    ) {
        let (author, group, handle) = by;
        let key = DedupeKey::of(&group, &msg.message(), &msg.ciphertext());
        let frame = Frame {
            author,
            group,
            message: msg.message(),
            key,
            recipients: Arc::clone(&view.handles),
            since: batch.now(),
        };
        let envelope = Envelope {
            key,
            group: Some(group),
            frame: FrameType::Msg.code(),
            body: msg.payload().clone(),
        };
        let except = view.index(handle);
        self.0
            .router
            .accept(frame, &envelope, (&view.placement, except), batch);
        if view.placement.places.contains(&Place::Gone) {
            self.depart(group, Arc::clone(view), Vec::new());
        }
    }

    /// The group as of `position` or newer, if its author may send to it.
    async fn admitted(
        &self,
        group: &GroupId,
        author: Author<'_>,
        position: u64,
    ) -> Result<Arc<View>, Problem> {
        match self.admitted_now(group, author, position)? {
            Some(view) => Ok(view),
            None => self.admitted_by_store(group, author, position).await,
        }
    }

    /// The group at hand, if it is new enough to say that its author may send to it.
    fn admitted_now(
        &self,
        group: &GroupId,
        author: Author<'_>,
        position: u64,
    ) -> Result<Option<Arc<View>>, Problem> {
        let Some(view) = self.cached(group) else {
            return Ok(None);
        };
        let admission = view.group.admit(author, position, Source::Cache);
        match admission.map_err(refused)? {
            Admission::Granted => Ok(Some(view)),
            Admission::Reload => Ok(None),
        }
    }

    async fn admitted_by_store(
        &self,
        group: &GroupId,
        author: Author<'_>,
        position: u64,
    ) -> Result<Arc<View>, Problem> {
        let view = Box::pin(self.load(group))
            .await
            .map_err(storage)?
            .ok_or_else(not_found)?;
        let admission = view.group.admit(author, position, Source::Store);
        match admission.map_err(refused)? {
            Admission::Granted => Ok(view),
            Admission::Reload => Err(not_found()),
        }
    }

    /// Passes ephemeral bytes on to whoever is there and has joined. Nothing is kept or answered.
    pub(crate) async fn typing(&self, binding: &Binding, payload: Bytes) {
        if !self.is_here(&binding.hub) {
            self.typing_abroad(binding, payload);
            return;
        }
        let author = Author {
            handle: &binding.handle,
            sealed_ref: &binding.sealed_ref,
            origin: self.domain(),
        };
        self.spread(&binding.group, author, payload).await;
    }

    /// The same for a device of `origin`.
    pub(crate) async fn typing_from(&self, origin: &Domain, submit: Submit) {
        let author = Author {
            handle: &submit.handle,
            sealed_ref: &submit.reference,
            origin,
        };
        if self
            .0
            .hints
            .lock()
            .check(author.handle, Instant::now())
            .is_ok()
        {
            self.spread(&submit.group, author, submit.payload).await;
        }
    }

    async fn spread(&self, group: &GroupId, author: Author<'_>, payload: Bytes) {
        let Ok(Some(view)) = self.load_if_unknown(group).await else {
            return;
        };
        if view.group.authorise(author).is_err() {
            return;
        }
        self.charge(author);
        let except = view.index(author.handle);
        for (index, place) in view.placement.places.iter().enumerate() {
            if let Place::Here(queue) = place
                && Some(index) != except
            {
                self.0.router.hint(*queue, *group, &payload);
            }
        }
        for peer in &view.placement.abroad {
            let references: Vec<SealedRef> = peer
                .members
                .iter()
                .filter(|member| member.handle != *author.handle)
                .map(|member| member.reference)
                .collect();
            if !references.is_empty() {
                let deliver = Deliver {
                    group: *group,
                    frame: Delivered::Typing,
                    payload: payload.clone(),
                    references,
                };
                let peers = self.0.router.peers();
                peers.hint(&peer.domain, Body::Deliver(deliver));
            }
        }
    }
}

/// What a device is told about a rule of the hub.
fn refused(refusal: Refusal) -> Problem {
    match refusal {
        Refusal::NotFound => not_found(),
        Refusal::Conflict { head } => {
            let mut problem = Problem::new(Title::Conflict, "the position is taken");
            problem.extra.head = Some(head);
            problem
        }
        Refusal::EpochOld => Problem::new(Title::EpochOld, "sealed too many key changes ago"),
        Refusal::Forbidden(detail) => Problem::new(Title::Forbidden, detail),
        Refusal::Invalid(detail) => Problem::new(Title::InvalidControlPayload, detail),
    }
}

/// Absent group and absent entry look alike.
fn not_found() -> Problem {
    Problem::new(Title::NotFound, "no such group, or no entry of yours in it")
}
