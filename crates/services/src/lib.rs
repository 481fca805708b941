//! Private PostgreSQL clusters and Redis servers for tests.
//!
//! Nothing here uses a service that the machine runs already. Calls block; an asynchronous test
//! moves long ones (`start`, `stop`) to a blocking thread if it must go on meanwhile.

mod keeper;
pub mod port;
pub mod postgres;
mod process;
pub mod redis;

pub use postgres::{Database, Postgres};
pub use redis::Redis;
