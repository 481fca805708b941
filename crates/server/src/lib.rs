//! The CommuCat server: a shell (listeners, TLS, HTTP) around an engine (sessions, queues, groups).

pub mod carrier;
pub mod clock;
pub mod engine;
pub mod metrics;
pub mod telemetry;
