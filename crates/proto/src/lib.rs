//! CCP-1 values and bytes: frames, control payloads, limits; no I/O, no clock.
//!
//! A side pushes what it received into a [`decoder::Decoder`], takes [`frame::Frame`]s out, and reads
//! each with [`frame::payload::FromClient`] or [`frame::payload::FromServer`]; it answers through
//! [`encoder`]. Values that travel signed are in [`identity`] and [`frame::bundle`].

pub mod decoder;
pub mod encoder;
pub mod error;
pub mod frame;
pub mod id;
pub mod identity;
pub mod limits;
pub mod link;
pub mod signed;
pub mod time;
pub mod version;
pub mod well_known;
pub mod wire;

/// Compiles and runs the example of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
