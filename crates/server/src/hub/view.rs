//! Groups at hand: the list as the store had it, with the place of each entry.

use std::sync::Arc;

use commucat_proto::frame::fanout::FanoutEntry;
use commucat_proto::id::{GroupId, Handle};
use commucat_routing::hub::{Entry, Group};
use commucat_storage::StoreError;

use super::{GROUPS_MAX, Hub};
use crate::router::Place;

/// One state of a group. Never changed; a newer one takes its place.
pub(super) struct View {
    pub(super) group: Group,
    /// Where each entry of the list leads, in its order.
    pub(super) places: Vec<Place>,
    /// The handle of each entry, in its order.
    pub(super) handles: Arc<[Handle]>,
    revision: u64,
    generation: u64,
}

impl View {
    /// The place of `handle` in the list.
    pub(super) fn index(&self, handle: &Handle) -> Option<usize> {
        self.handles.iter().position(|other| other == handle)
    }
}

impl Hub {
    /// The group at hand, unless its places may be stale.
    pub(super) fn cached(&self, group: &GroupId) -> Option<Arc<View>> {
        let generation = self.0.router.generation();
        let views = self.0.views.lock();
        views
            .get(group)
            .filter(|view| view.generation == generation)
            .cloned()
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

    /// The group as the store has it; at hand from now on.
    pub(super) async fn load(&self, group: &GroupId) -> Result<Option<Arc<View>>, StoreError> {
        let generation = self.0.router.generation();
        let Some(stored) = self.0.store.group(group).await? else {
            self.0.views.lock().remove(group);
            return Ok(None);
        };
        let revision = stored.revision;
        let known = routing_group(stored);
        let places = self.0.router.places(group, &known.list).await?;
        let handles = known.list.iter().map(|entry| entry.handle).collect();
        let view = Arc::new(View {
            group: known,
            places,
            handles,
            revision,
            generation,
        });
        let mut views = self.0.views.lock();
        if views.len() >= GROUPS_MAX && !views.contains_key(group) {
            views.clear();
        }
        // Of two that were read at the same time the newer one stays.
        let is_newer = views.get(group).is_none_or(|other| {
            (other.generation, other.revision) <= (view.generation, view.revision)
        });
        if is_newer {
            views.insert(*group, Arc::clone(&view));
        }
        Ok(Some(view))
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
