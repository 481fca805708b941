//! One file for each command.

pub(crate) mod backup;
pub(crate) mod config;
pub(crate) mod device;
pub(crate) mod diagnose;
pub(crate) mod init;
pub(crate) mod invite;
pub(crate) mod migrate;
pub(crate) mod node;
pub(crate) mod peer;
pub(crate) mod restore;
pub(crate) mod rotate_keys;
pub(crate) mod store;
