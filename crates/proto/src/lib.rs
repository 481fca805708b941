//! CCP-1 values and bytes: frames, control payloads, limits; no I/O, no clock.

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
