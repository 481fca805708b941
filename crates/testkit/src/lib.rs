//! Real servers, clients, faults and checkers for CommuCat's tests.
//!
//! [`server`] runs `commucat-server` as a process, [`people`] makes accounts and devices by the
//! client SDK, [`services`] the databases beside them, [`domain`] a domain of several nodes. On a
//! [`stage`] devices talk while things happen; a [`company`] does so within one domain. [`history`] notes what every
//! device saw, [`checker`] judges it and [`report`] keeps it; [`canary`] looks for what nobody may keep; a [`tap`] hears what domains tell each
//! other, which [`cddl`] holds against the protocol's schema. A [`program`] is
//! one of the suites.

pub mod balancer;
pub mod cable;
pub mod canary;
pub mod cddl;
pub mod checker;
pub mod company;
pub mod domain;
pub mod history;
pub mod people;
pub mod program;
pub mod random;
pub mod recorder;
pub mod relay;
pub mod report;
pub mod server;
pub mod stage;
pub mod tap;
pub mod traffic;

pub use commucat_services as services;
