//! Answers to HTTP requests beside `/connect`: health, metrics, discovery, two pages.

pub(crate) mod health;
pub(crate) mod metrics;
pub(crate) mod page;
pub(crate) mod well_known;

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use commucat_config::Secret;
use parking_lot::RwLock;

use self::page::Pages;
pub use self::well_known::WellKnown;
use crate::metrics::Metrics;

/// Says whether the engine can serve.
pub type Ready = Arc<dyn Fn() -> bool + Send + Sync>;

/// What the answers are made of. Cheap to clone.
#[derive(Clone)]
pub struct Public(Arc<Inner>);

struct Inner {
    metrics: Metrics,
    metrics_token: Option<Secret>,
    ready: Ready,
    well_known: RwLock<Bytes>,
    pages: Pages,
}

impl fmt::Debug for Public {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Public(..)")
    }
}

impl Public {
    /// Answers with `well_known` until [`Self::announce`] says otherwise.
    #[must_use]
    pub fn new(
        metrics: Metrics,
        metrics_token: Option<Secret>,
        ready: Ready,
        well_known: &WellKnown,
    ) -> Self {
        let pages = Pages::new(well_known.domain());
        let well_known = RwLock::new(well_known.to_json());
        Self(Arc::new(Inner { metrics, metrics_token, ready, well_known, pages }))
    }

    /// Replaces what `/.well-known/commucat` says: keys were rotated.
    pub fn announce(&self, well_known: &WellKnown) {
        *self.0.well_known.write() = well_known.to_json();
    }
}
