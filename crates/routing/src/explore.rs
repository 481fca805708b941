//! Exhaustive runs of the machines in small worlds.

pub(crate) mod bugs;
