//! Groups at hand: the list as the store had it, with the place of each entry.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use commucat_proto::frame::fanout::FanoutEntry;
use commucat_proto::id::{GroupId, Handle};
use commucat_routing::hub::{Entry, Group};
use commucat_routing::keyed::KeyedMap;
use commucat_storage::StoreError;
use tracing::warn;

use super::Hub;
use crate::chain::chain;
use crate::router::{Place, Placement};

/// Groups kept at hand; beyond it all are forgotten and read again when they are used.
const GROUPS_MAX: usize = 10_000;

/// Entries of all their lists together, some 250 bytes each.
const ENTRIES_MAX: usize = 400_000;

/// One state of a group. Never changed; a newer one takes its place.
pub(super) struct View {
    pub(super) group: Group,
    /// Where the entries of the list lead.
    pub(super) placement: Placement,
    /// The handle of each entry, in its order.
    pub(super) handles: Arc<[Handle]>,
    revision: u64,
    generation: u64,
    /// When its reading began: see [`Router::is_believed`](crate::router::Router::is_believed).
    read: Instant,
    /// When its reading began, counted: of two with the same list the later one has the newer places.
    reading: u64,
}

/// The groups at hand.
#[derive(Default)]
pub(super) struct Views {
    groups: KeyedMap<GroupId, Arc<View>>,
    /// Entries of all their lists.
    entries: usize,
}

impl Views {
    fn remove(&mut self, group: &GroupId) {
        if let Some(view) = self.groups.remove(group) {
            self.entries = self.entries.saturating_sub(view.handles.len());
        }
    }

    fn insert(&mut self, group: GroupId, view: &Arc<View>) {
        self.remove(&group);
        if self.groups.len() >= GROUPS_MAX || self.entries >= ENTRIES_MAX {
            *self = Self::default();
        }
        self.entries = self.entries.saturating_add(view.handles.len());
        self.groups.insert(group, Arc::clone(view));
    }
}

impl View {
    /// The place of `handle` in the list.
    pub(super) fn index(&self, handle: &Handle) -> Option<usize> {
        self.handles.iter().position(|other| other == handle)
    }

    /// Where the entry of `handle` leads.
    pub(super) fn place(&self, handle: &Handle) -> Option<Place> {
        let places = &self.placement.places;
        places.get(self.index(handle)?).copied()
    }
}

impl Hub {
    /// The group at hand, unless its places may be stale.
    pub(super) fn cached(&self, group: &GroupId) -> Option<Arc<View>> {
        let generation = self.0.router.generation();
        let views = self.0.views.lock();
        views
            .groups
            .get(group)
            .filter(|view| view.generation == generation && self.0.router.is_believed(view.read))
            .cloned()
    }

    /// Another node has changed the group: it is read again when it is used.
    pub(crate) fn forget(&self, group: &GroupId) {
        self.0.views.lock().remove(group);
    }

    /// The group at hand, else as the store has it.
    pub(super) async fn load_if_unknown(
        &self,
        group: &GroupId,
    ) -> Result<Option<Arc<View>>, StoreError> {
        match self.cached(group) {
            Some(view) => Ok(Some(view)),
            None => self.load(group).await,
        }
    }

    /// Reads the group again after a change of its list or of a member's place.
    pub(crate) async fn refresh(&self, group: &GroupId) {
        if let Some(cluster) = self.0.router.mailboxes().cluster() {
            cluster.group_changed(*group);
        }
        if let Err(failure) = self.load(group).await {
            warn!(error = %chain(&failure), "a group could not be read again");
            // No place is believed until it was looked up.
            self.0.router.forget_places();
        }
    }

    /// The group as the store has it; at hand from now on.
    pub(super) async fn load(&self, group: &GroupId) -> Result<Option<Arc<View>>, StoreError> {
        let generation = self.0.router.generation();
        let read = Instant::now();
        let reading = self.0.readings.fetch_add(1, Ordering::AcqRel);
        let Some(stored) = self.0.store.group(group).await? else {
            self.0.views.lock().remove(group);
            return Ok(None);
        };
        let revision = stored.revision;
        let known = routing_group(stored);
        let mut placement = self.0.router.place(group, &known.list).await?;
        mark_repeated(&mut placement.places);
        let handles = known.list.iter().map(|entry| entry.handle).collect();
        let view = Arc::new(View {
            group: known,
            placement,
            handles,
            revision,
            generation,
            read,
            reading,
        });
        let mut views = self.0.views.lock();
        // Of two that were read at the same time the newer one stays.
        let age = |view: &View| (view.generation, view.revision, view.reading);
        let is_newer = views
            .groups
            .get(group)
            .is_none_or(|other| age(other) <= age(&view));
        if is_newer {
            views.insert(*group, &view);
        }
        Ok(Some(view))
    }
}

/// Marks all places but the first of each queue: a device whose handle is in the list twice gets a
/// message once. Five handles of one queue would otherwise be one leg too many for an entry, and
/// fail every message to the group.
fn mark_repeated(places: &mut [Place]) {
    let mut seen = HashSet::new();
    for place in places {
        if let Place::Here(queue) = *place
            && !seen.insert(queue)
        {
            *place = Place::Again(queue);
        }
    }
}

/// The group as the rules see it.
pub(super) fn routing_group(stored: commucat_storage::Group) -> Group {
    let entry = |entry: commucat_storage::FanoutEntry| Entry {
        handle: entry.handle,
        domain: entry.domain,
        sealed_ref: entry.sealed_ref,
        admin: entry.admin,
    };
    Group {
        head: stored.head,
        list: stored.entries.into_iter().map(entry).collect(),
        gone: stored.gone,
        join_key: stored.join_key,
        closed: stored.closed,
    }
}

/// An entry of the wire as the rules see it.
pub(super) fn entry(entry: &FanoutEntry) -> Entry {
    Entry {
        handle: entry.handle,
        domain: entry.domain.clone(),
        sealed_ref: entry.sealed_ref,
        admin: entry.admin,
    }
}

/// An entry of the rules as the wire has it.
pub(super) fn wire_entry(entry: &Entry) -> FanoutEntry {
    FanoutEntry {
        handle: entry.handle,
        domain: entry.domain.clone(),
        sealed_ref: entry.sealed_ref,
        admin: entry.admin,
    }
}

/// An entry of the wire as the store keeps it.
pub(super) fn stored_entry(entry: &FanoutEntry) -> commucat_storage::FanoutEntry {
    commucat_storage::FanoutEntry {
        handle: entry.handle,
        domain: entry.domain.clone(),
        sealed_ref: entry.sealed_ref,
        admin: entry.admin,
    }
}
