//! The hub: groups of which this domain keeps the list and the log (CCP-1 section 5).
//!
//! The rules are those of `commucat_routing::hub`; this file keeps groups at hand, finds the places of
//! their members and answers requests. `commit` appends to the log, `fetch` reads it.

mod commit;
mod fetch;
mod notice;
mod view;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

use bytes::Bytes;
use commucat_proto::error::Title;
use commucat_proto::frame::FrameType;
use commucat_proto::frame::ack::ForkTag;
use commucat_proto::frame::error::Problem;
use commucat_proto::frame::group_create::GroupCreate;
use commucat_proto::frame::msg::Msg;
use commucat_proto::id::{DedupeKey, Domain, GroupId, Handle, QueueId, SealedRef};
use commucat_proto::wire::Cbor;
use commucat_routing::hub::{Alarm, Author, Fanout, Group, Limiter, Rate, Refusal, Source};
use commucat_routing::lane::Envelope;
use commucat_storage::{GroupCreated, NewGroup, Store};
use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use tokio_util::task::TaskTracker;

use self::view::{View, Views};
use crate::accounts::{other_domain, storage};
use crate::clock;
use crate::custody::Frame;
use crate::router::{Place, Router};
use crate::session::{Binding, Hint, Link};

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
    commits: Mutex<Limiter<Handle>>,
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

impl Hub {
    pub(crate) fn new(
        router: Router,
        store: Store,
        tasks: TaskTracker,
        handles_max: usize,
        forks: Counter,
    ) -> Self {
        Self(Arc::new(Inner {
            router,
            store,
            tasks,
            views: Mutex::default(),
            readings: AtomicU64::new(0),
            departing: Mutex::default(),
            commits: Mutex::new(Limiter::new(Rate::COMMIT)),
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

    fn check_hub(&self, hub: &Domain) -> Result<(), Problem> {
        if hub == self.domain() {
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

    /// Takes a MSG into custody for everyone else in the group (CCP-1 sections 4 and 5.3).
    ///
    /// # Errors
    ///
    /// [`Problem`] for the author; nobody gets the message then.
    pub(crate) async fn message(
        &self,
        member: &Member,
        binding: &Binding,
        sequence: u32,
        msg: &Msg,
    ) -> Result<(), Problem> {
        self.check_hub(&binding.hub)?;
        let view = self.admitted(binding, msg.position()).await?;
        let frame = Frame {
            author: member.link.clone(),
            sequence,
            author_queue: member.queue,
            group: binding.group,
            message: msg.message(),
            recipients: Arc::clone(&view.handles),
            since: Instant::now(),
        };
        let envelope = Envelope {
            key: DedupeKey::of(&binding.group, &msg.message(), &msg.ciphertext()),
            group: Some(binding.group),
            frame: FrameType::Msg.code(),
            body: msg.payload().clone(),
        };
        // While the list was read, a message before it may have failed, and this one with it.
        if !member.link.awaits(sequence) {
            return Ok(());
        }
        if binding.is_first() {
            self.0.router.read_stores_first(&view.places);
        }
        let except = view.index(&binding.handle);
        self.0.router.accept(frame, &envelope, &view.places, except);
        if view.places.contains(&Place::Gone) {
            self.depart(binding.group, &view);
        }
        Ok(())
    }

    /// The group as of `position` or newer, if the binding's member may send to it.
    async fn admitted(&self, binding: &Binding, position: u64) -> Result<Arc<View>, Problem> {
        let author = Author {
            handle: &binding.handle,
            sealed_ref: &binding.sealed_ref,
            origin: self.domain(),
        };
        if let Some(view) = self.cached(&binding.group) {
            match view
                .group
                .fanout(author, position, Source::Cache)
                .map_err(refused)?
            {
                Fanout::To(_) => return Ok(view),
                Fanout::Reload => {}
            }
        }
        let view = Box::pin(self.load(&binding.group))
            .await
            .map_err(storage)?
            .ok_or_else(not_found)?;
        match view
            .group
            .fanout(author, position, Source::Store)
            .map_err(refused)?
        {
            Fanout::To(_) => Ok(view),
            Fanout::Reload => Err(not_found()),
        }
    }

    /// Passes ephemeral bytes on to whoever is there and has joined. Nothing is kept or answered.
    pub(crate) async fn typing(&self, binding: &Binding, payload: Bytes) {
        let Ok(Some(view)) = self.load_if_unknown(&binding.group).await else {
            return;
        };
        let author = Author {
            handle: &binding.handle,
            sealed_ref: &binding.sealed_ref,
            origin: self.domain(),
        };
        if binding.hub != *self.domain() || view.group.authorise(author).is_err() {
            return;
        }
        let except = view.index(&binding.handle);
        for (index, place) in view.places.iter().enumerate() {
            if let Place::Here(queue) = place
                && Some(index) != except
            {
                let mailboxes = self.0.router.mailboxes();
                if let Some(link) = mailboxes.link(queue) {
                    link.hint(Hint {
                        group: binding.group,
                        payload: payload.clone(),
                    });
                } else if let Some(cluster) = mailboxes.cluster() {
                    cluster.hint(*queue, binding.group, payload.clone());
                }
            }
        }
    }

    /// Notes a fork tag; tells everyone who reported if they differ (CCP-1 section 5.2).
    pub(crate) async fn tag(&self, binding: &Binding, tag: &ForkTag) {
        let Ok(Some(view)) = self.load_if_unknown(&binding.group).await else {
            return;
        };
        let author = Author {
            handle: &binding.handle,
            sealed_ref: &binding.sealed_ref,
            origin: self.domain(),
        };
        let is_member = binding.hub == *self.domain() && view.group.authorise(author).is_ok();
        if !is_member || tag.position > view.group.head {
            return;
        }
        let fork = {
            let mut alarms = self.0.alarms.lock();
            if alarms.len() >= ALARMS_MAX && !alarms.contains_key(&binding.group) {
                alarms.clear();
            }
            let alarm = alarms.entry(binding.group).or_default();
            alarm.report(tag.position, binding.handle, tag.tag, Instant::now())
        };
        if let Some(fork) = fork {
            self.0.forks.inc();
            self.tell_fork(&binding.group, &view, &fork);
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
