//! A batch in the making: filled up to its bounds, then signed, anew at every attempt.

use blake3::Hash;
use bytes::Bytes;
use commucat_crypto::Purpose;
use commucat_crypto::server_keys::DomainSecret;
use commucat_proto::id::Domain;
use commucat_proto::time::Timestamp;
use commucat_proto::wire::Cbor;

use super::{BATCH_MAX, BatchId, EVENTS_MAX, KeyId, RawEvent, encode};
use crate::event::EventId;

/// Room for everything but the events: two domains of 255 bytes, ids, heads and the signature.
const FRAME_ROOM: usize = 1_024;

/// Events that go together.
#[derive(Clone, Debug, Default)]
pub struct Parcel {
    events: Vec<RawEvent>,
    bytes: usize,
}

impl Parcel {
    /// An empty one. Signed, it is a ping.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an event; `false` if it does not fit any more: send what is there first.
    #[must_use]
    pub fn push(&mut self, event: RawEvent) -> bool {
        let bytes = self.bytes + event.encoded().len();
        if self.events.len() >= EVENTS_MAX || bytes > BATCH_MAX - FRAME_ROOM {
            return false;
        }
        self.bytes = bytes;
        self.events.push(event);
        true
    }

    /// How many events there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.events.len()
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// Bytes of the events.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Signs it for one attempt from `origin` to `destination`.
    #[must_use]
    pub fn sign(
        &self,
        id: BatchId,
        (origin, destination): (&Domain, &Domain),
        created: Timestamp,
        secret: &DomainSecret,
    ) -> Sent {
        let key_id = KeyId::of(&secret.key());
        let body = encode(
            |to| {
                to.map(|map| {
                    map.put(0, &id);
                    map.put(1, origin);
                    map.put(2, destination);
                    map.put(3, &created);
                    let list = map.key(4);
                    list.array(self.events.len());
                    for event in &self.events {
                        list.raw(event.encoded());
                    }
                    map.put(5, &key_id);
                });
            },
            self.bytes + FRAME_ROOM,
        );
        let body_hash = blake3::hash(&body);
        let signed = secret.sign(Purpose::FederationRequest, body);
        Sent {
            id,
            body_hash,
            destination: destination.clone(),
            events: self.events.iter().map(|event| event.id).collect(),
            request: encode(|to| signed.write(to), self.bytes + FRAME_ROOM),
        }
    }
}

/// One attempt: the bytes to send, and what its answer must be about.
#[derive(Clone, Debug)]
pub struct Sent {
    pub(super) id: BatchId,
    pub(super) body_hash: Hash,
    pub(super) destination: Domain,
    pub(super) events: Vec<EventId>,
    request: Bytes,
}

impl Sent {
    /// The body of the `POST`.
    #[must_use]
    pub const fn request(&self) -> &Bytes {
        &self.request
    }

    /// Who is to answer.
    #[must_use]
    pub const fn destination(&self) -> &Domain {
        &self.destination
    }

    /// The events in it, in order.
    #[must_use]
    pub fn events(&self) -> &[EventId] {
        &self.events
    }
}
