//! What domains say to each other, and by which rules (CCP-1 section 8).
//!
//! Bytes and the time in, values out: nothing here does I/O or reads a clock. Who carries batches and
//! keeps peers and outboxes is the server.

pub mod backoff;
pub mod batch;
pub mod discovery;
pub mod event;
pub mod peer;
pub mod policy;
pub mod verify;

pub use self::backoff::Backoff;
pub use self::batch::{
    Answer, AnswerError, Batch, BatchError, BatchId, Outcome, Parcel, RawEvent, Sent, Settled,
};
pub use self::event::{Event, EventId, EventKey, Lane};
pub use self::peer::PeerKeys;
pub use self::policy::{Admission, Policy, Standing};
pub use self::verify::{PEER_REFUSED, Received, Refusal, Verified};
