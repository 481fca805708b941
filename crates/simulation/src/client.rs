//! Clients of the simulated domains.

pub(crate) mod commit;
pub(crate) mod external;
pub(crate) mod group;
pub(crate) mod model;
mod outbox;
mod propose;
mod receive;

pub(crate) use self::model::Model;
