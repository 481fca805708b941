//! Answers to HTTP requests beside `/connect`: health, metrics, discovery, two pages.

pub(crate) mod health;
pub(crate) mod metrics;
pub(crate) mod page;
pub(crate) mod well_known;

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use commucat_config::Secret;
use commucat_proto::well_known::WellKnown;
use parking_lot::RwLock;

use self::page::Pages;
pub use self::well_known::describe;
use crate::metrics::Metrics;
use crate::metrics::label::Hindrance;

/// What the answers ask of the rest of the server.
pub trait Probe: Send + Sync + 'static {
    /// What keeps it from serving, if anything does.
    fn hindrance(&self) -> Option<Hindrance>;

    /// Brings metrics up to date that are kept elsewhere.
    fn refresh(&self, metrics: &Metrics);
}

/// What the answers are made of. Cheap to clone.
#[derive(Clone)]
pub struct Public(Arc<Inner>);

struct Inner {
    metrics: Metrics,
    metrics_token: Option<Secret>,
    probe: Arc<dyn Probe>,
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
        probe: Arc<dyn Probe>,
        well_known: &WellKnown,
    ) -> Self {
        let pages = Pages::new(well_known.domain.as_str());
        let well_known = RwLock::new(well_known.encode().into());
        Self(Arc::new(Inner {
            metrics,
            metrics_token,
            probe,
            well_known,
            pages,
        }))
    }

    /// Replaces what `/.well-known/commucat` says: keys were rotated.
    pub fn announce(&self, well_known: &WellKnown) {
        *self.0.well_known.write() = well_known.encode().into();
    }
}
