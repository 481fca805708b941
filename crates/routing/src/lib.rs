//! Custody and hub rules as pure state machines: values in, values out; no I/O, no clock, no locks.
//!
//! [`lane::Lane`] is one queue in use, [`peer::PeerLane`] one lane to another domain,
//! [`link::Dispatch`] the sending half of a node among the nodes of this domain,
//! [`ticket::Ticket`] decides when a frame may be acknowledged, [`pipeline::Pipeline`] and
//! [`unacked::Unacked`] are a session's two directions, and [`hub`] holds the rules of groups
//! (CCP-1 sections 4, 5 and 8).

pub mod ack;
pub mod hub;
pub mod keyed;
pub mod lane;
pub mod link;
pub mod peer;
pub mod pipeline;
pub mod ticket;
pub mod unacked;

#[cfg(test)]
mod explore;
