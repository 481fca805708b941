//! The real program on real directories: what it prints, what it does, how it ends.

#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test that finds something missing should end there"
)]

mod backup;
mod config;
mod device;
mod diagnose;
mod init;
mod invite;
mod peer;
mod restored;
mod rotate_keys;
mod running;
mod world;
