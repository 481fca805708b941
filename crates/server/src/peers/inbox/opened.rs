//! Where the references in recent events led: a look into the store for each event would cost more
//! than everything else.

use std::collections::{HashMap, HashSet};
use std::time::Instant;

use commucat_federation::event::Deliver;
use commucat_proto::id::{Domain, GroupId, SealedRef};
use commucat_storage::StoreError;
use parking_lot::Mutex;

use crate::router::{Place, Router};

/// References kept at hand, some 250 bytes each; beyond it all are looked up again.
const REFERENCES_MAX: usize = 100_000;

/// References that led to a queue. They are this domain's own; of groups nothing is kept.
#[derive(Default)]
pub(super) struct OpenedCache(Mutex<Known>);

#[derive(Default)]
struct Known {
    generation: u64,
    places: HashMap<SealedRef, Opened>,
}

/// One that led to a queue, for a group of this hub.
struct Opened {
    group: GroupId,
    hub: Domain,
    place: Place,
    /// When the look into the store began.
    read: Instant,
}

impl OpenedCache {
    /// Where each reference of the event leads, for a group of `origin`.
    ///
    /// # Errors
    ///
    /// [`StoreError`] if the store cannot be read.
    pub(super) async fn places(
        &self,
        router: &Router,
        origin: &Domain,
        deliver: &Deliver,
    ) -> Result<Vec<Place>, StoreError> {
        let mut places = match self.known(router, origin, deliver) {
            Some(places) => places,
            None => {
                let (generation, read) = (router.generation(), Instant::now());
                let references = &deliver.references;
                let places = router.places(&deliver.group, origin, references).await?;
                self.learn((generation, read), origin, deliver, &places);
                places
            }
        };
        let mut seen = HashSet::new();
        for place in &mut places {
            if let Place::Here(queue) = *place
                && !seen.insert(queue)
            {
                *place = Place::Again(queue);
            }
        }
        Ok(places)
    }

    fn known(&self, router: &Router, origin: &Domain, deliver: &Deliver) -> Option<Vec<Place>> {
        let known = self.0.lock();
        if known.generation != router.generation() {
            return None;
        }
        let place = |reference: &SealedRef| {
            let opened = known.places.get(reference)?;
            let is_the_same = opened.group == deliver.group && opened.hub == *origin;
            (is_the_same && router.is_believed(opened.read)).then_some(opened.place)
        };
        deliver.references.iter().map(place).collect()
    }

    fn learn(
        &self,
        (generation, read): (u64, Instant),
        origin: &Domain,
        deliver: &Deliver,
        places: &[Place],
    ) {
        let mut known = self.0.lock();
        if known.generation != generation || known.places.len() >= REFERENCES_MAX {
            known.places = HashMap::new();
            known.generation = generation;
        }
        for (reference, place) in deliver.references.iter().zip(places) {
            if matches!(place, Place::Here(_)) {
                let opened = Opened {
                    group: deliver.group,
                    hub: origin.clone(),
                    place: *place,
                    read,
                };
                known.places.insert(*reference, opened);
            }
        }
    }
}
