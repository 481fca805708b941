//! Clients of the simulated domains.

pub(crate) mod group;
pub(crate) mod model;
mod outbox;
mod receive;

pub(crate) use self::model::Model;
