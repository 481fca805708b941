//! CCP-1 values and bytes: frames, control payloads, limits; no I/O, no clock.

pub mod id;
pub mod time;
