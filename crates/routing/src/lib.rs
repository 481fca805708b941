//! Custody and hub rules as pure state machines: lane, ticket, hub; no I/O, no clock.
