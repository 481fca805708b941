//! Batches: the body of a `POST /federation/v1/events`, and its answer (CCP-1 section 8).

use std::collections::BTreeSet;
use std::fmt;

use bytes::{Bytes, BytesMut};
use commucat_proto::id::{Domain, DomainKey};
use commucat_proto::signed::Signed;
use commucat_proto::time::Timestamp;
use commucat_proto::wire::Cbor;
use commucat_proto::wire::reader::{CborError, Reader, required};
use commucat_proto::wire::writer::Writer;

use crate::event::{EVENT_MAX, Event, EventId};

mod answer;
mod parcel;

pub use self::answer::{Answer, AnswerError, Outcome, Settled, Unsettled};
pub use self::parcel::{Parcel, Sent};

/// The greatest request, signature included (CCP-1 section 8).
pub const BATCH_MAX: usize = 4 * 1024 * 1024;
/// Events in one request (CCP-1 section 8).
pub const EVENTS_MAX: usize = 1_000;
/// The greatest answer, signature included (CCP-1 section 8).
pub const ANSWER_MAX: usize = 4 * 1024 * 1024;

/// Names one attempt: 16 random bytes, new with every signature.
#[derive(Clone, Copy, Eq, Hash, PartialEq)]
pub struct BatchId([u8; 16]);

impl BatchId {
    /// Wraps exactly the bytes given.
    #[must_use]
    pub const fn new(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }
}

impl fmt::Debug for BatchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BatchId(..)")
    }
}

impl Cbor for BatchId {
    fn write(&self, to: &mut Writer<'_>) {
        to.bytes(&self.0);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, CborError> {
        let raw = from.slice()?.try_into();
        raw.map(Self)
            .map_err(|_| CborError::Range("the length of a batch id"))
    }
}

/// Which domain key signed: the first 8 bytes of its BLAKE3. Says which key to try, proves nothing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct KeyId([u8; 8]);

impl KeyId {
    /// The id of a domain key.
    #[must_use]
    pub fn of(key: &DomainKey) -> Self {
        let hash = blake3::hash(key.as_bytes());
        Self(std::array::from_fn(|index| {
            hash.as_bytes().get(index).copied().unwrap_or_default()
        }))
    }
}

impl Cbor for KeyId {
    fn write(&self, to: &mut Writer<'_>) {
        to.bytes(&self.0);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, CborError> {
        let raw = from.slice()?.try_into();
        raw.map(Self)
            .map_err(|_| CborError::Range("the length of a key id"))
    }
}

/// Why bytes are not a batch or an answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BatchError {
    /// Over [`BATCH_MAX`] or [`ANSWER_MAX`].
    #[error("{0} bytes, which is over the limit")]
    TooLarge(usize),
    /// More than [`EVENTS_MAX`] events.
    #[error("{0} events, which is over the limit")]
    TooMany(usize),
    /// The same event id twice.
    #[error("an event twice in a batch")]
    EventTwice,
    /// Not the CBOR that it should be.
    #[error("not the structure expected")]
    Structure(#[source] CborError),
}

impl From<CborError> for BatchError {
    fn from(error: CborError) -> Self {
        Self::Structure(error)
    }
}

/// An event as bytes: of a batch that came and is not looked into yet, or on its way out of a lane.
/// Only its id is sure.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RawEvent {
    /// Its name, by which it is answered.
    pub id: EventId,
    encoded: Bytes,
}

impl RawEvent {
    /// Finds the id of an event that was encoded here.
    ///
    /// # Errors
    ///
    /// [`CborError`] if the bytes are none.
    pub fn parse(encoded: &Bytes) -> Result<Self, CborError> {
        let mut reader = Reader::new(encoded);
        let event = Self::read(&mut reader)?;
        reader.end()?;
        Ok(event)
    }

    /// Looks into it.
    ///
    /// # Errors
    ///
    /// [`CborError`] if it is no event: outcome [`Outcome::Refused`] for it alone.
    pub fn decode(&self) -> Result<Event, CborError> {
        Event::decode(&self.encoded)
    }

    /// The bytes for the wire.
    #[must_use]
    pub const fn encoded(&self) -> &Bytes {
        &self.encoded
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, CborError> {
        let encoded = from.item()?;
        if encoded.len() > EVENT_MAX {
            return Err(CborError::Oversize("an event"));
        }
        let id = Reader::new(&encoded).tuple(3, |from| {
            let id = EventId::read(from)?;
            from.skip()?;
            from.skip()?;
            Ok(id)
        })?;
        Ok(Self { id, encoded })
    }
}

impl From<&Event> for RawEvent {
    fn from(event: &Event) -> Self {
        Self {
            id: event.id,
            encoded: event.encoded().clone(),
        }
    }
}

/// A request as it came: nothing in it is believed before its signature is verified.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Batch {
    /// Key 0.
    pub id: BatchId,
    /// Key 1: who sends it.
    pub origin: Domain,
    /// Key 2: for whom it was made.
    pub destination: Domain,
    /// Key 3: when it was signed.
    pub created: Timestamp,
    /// Key 4, in order.
    pub events: Vec<RawEvent>,
    /// Key 5.
    pub key_id: KeyId,
    /// The exact bytes signed.
    pub signed: Signed,
}

impl Batch {
    /// Reads a request: size and outer CBOR.
    ///
    /// # Errors
    ///
    /// [`BatchError`].
    pub fn decode(raw: &Bytes) -> Result<Self, BatchError> {
        if raw.len() > BATCH_MAX {
            return Err(BatchError::TooLarge(raw.len()));
        }
        let signed = Signed::decode_shared(raw)?;
        let mut from = Reader::new(&signed.body);
        let (mut id, mut origin, mut destination) = (None, None, None);
        let (mut created, mut events, mut key_id) = (None, None, None);
        from.map(|key, from| {
            match key {
                0 => id = Some(BatchId::read(from)?),
                1 => origin = Some(Domain::read(from)?),
                2 => destination = Some(Domain::read(from)?),
                3 => created = Some(Timestamp::read(from)?),
                4 => events = Some(from.list(RawEvent::read)?),
                5 => key_id = Some(KeyId::read(from)?),
                _ => from.skip()?,
            }
            Ok(())
        })?;
        from.end()?;
        let events = required(events, 4)?;
        check_events(&events)?;
        Ok(Self {
            id: required(id, 0)?,
            origin: required(origin, 1)?,
            destination: required(destination, 2)?,
            created: required(created, 3)?,
            events,
            key_id: required(key_id, 5)?,
            signed,
        })
    }
}

fn check_events(events: &[RawEvent]) -> Result<(), BatchError> {
    if events.len() > EVENTS_MAX {
        return Err(BatchError::TooMany(events.len()));
    }
    let mut ids = BTreeSet::new();
    if events.iter().any(|event| !ids.insert(event.id)) {
        return Err(BatchError::EventTwice);
    }
    Ok(())
}

/// What both bodies are encoded with.
fn encode(fill: impl FnOnce(&mut Writer<'_>), capacity: usize) -> Bytes {
    let mut out = BytesMut::with_capacity(capacity);
    fill(&mut Writer::new(&mut out));
    out.freeze()
}

#[cfg(test)]
mod tests;
