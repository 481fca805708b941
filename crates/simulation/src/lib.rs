//! Domains and clients in virtual time: one seed, one history.
//!
//! Everything that the server's machines decide (`commucat_routing`) is decided here by the same
//! code; around it are a store that survives crashes, connections and peers that lose, double and
//! delay, clients that crash, and a judge who knows what everybody was promised. A run is a function
//! of its seed, so that a failure can be looked at again.

#![expect(
    clippy::too_many_arguments,
    clippy::too_many_lines,
    clippy::needless_pass_by_value,
    clippy::wildcard_enum_match_arm,
    reason = "every step takes what is outside besides its own arguments; a model ignores most frames"
)]

mod client;
mod domain;
mod judge;
mod outside;
mod peer;
pub mod plant;
mod random;
#[cfg(test)]
mod reproductions;
mod scenario;
mod store;
mod world;

pub use judge::Counts;
pub use world::Report;

use plant::Plant;
use world::World;

/// Runs one seed.
///
/// With `trace` it prints what happens, line by line.
#[must_use]
pub fn run(seed: u64, plant: Option<Plant>, trace: Trace) -> Option<Report> {
    World::new(seed, plant, trace == Trace::Print).map(World::run)
}

/// Whether a run is printed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Trace {
    /// It is.
    Print,
    /// It is not.
    Silent,
}
