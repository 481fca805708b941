//! What domains say to each other, and by which rules (CCP-1 section 8).
//!
//! Bytes and the time in, values out: nothing here does I/O or reads a clock. Who carries batches and
//! keeps peers and outboxes is the server.

pub mod batch;
pub mod event;

pub use self::batch::{
    Answer, AnswerError, Batch, BatchError, BatchId, Outcome, Parcel, RawEvent, Sent, Settled,
};
pub use self::event::{Event, EventId, EventKey, Lane};
