//! Audit log of key changes with exchangeable sinks.
