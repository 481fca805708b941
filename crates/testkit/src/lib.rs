//! Real servers, clients, faults and checkers for CommuCat's tests.
//!
//! [`server`] runs `commucat-server` as a process, [`people`] makes accounts and devices by the
//! client SDK, [`services`] the databases beside them, [`domain`] a domain of several nodes; a [`company`] talks while things
//! happen. [`history`] notes what every device saw and [`checker`] judges it; [`canary`] looks for what nobody may keep.

pub mod balancer;
pub mod cable;
pub mod canary;
pub mod checker;
pub mod company;
pub mod domain;
pub mod history;
pub mod people;
pub mod random;
pub mod recorder;
pub mod relay;
pub mod server;
pub mod stage;
pub mod traffic;

pub use commucat_services as services;
