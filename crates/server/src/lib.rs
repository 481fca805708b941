//! The CommuCat server: a shell (listeners, TLS, HTTP) around an engine (sessions, queues, groups).

mod accounts;
mod admin;
pub mod api;
pub mod args;
pub mod carrier;
mod chain;
pub mod check;
pub mod clock;
mod custody;
pub mod engine;
mod events;
pub mod http;
mod hub;
mod jobs;
pub mod keys;
pub mod limit;
pub mod listen;
mod mailbox;
pub mod metrics;
mod reload;
mod router;
mod session;
pub mod shutdown;
pub mod start;
pub mod telemetry;
pub mod tls;
mod welcome;
