//! Events: what one domain tells another, five kinds (CCP-1 section 8).

use std::fmt;

use bytes::{Bytes, BytesMut};
use commucat_proto::frame::FrameType;
use commucat_proto::frame::group_event::Reason;
use commucat_proto::id::{DedupeKey, GroupId, Handle, LogTag, MessageId, SealedRef};
use commucat_proto::wire::Cbor;
use commucat_proto::wire::reader::{CborError, Reader};
use commucat_proto::wire::writer::Writer;

mod body;

/// The greatest encoded event (CCP-1 section 8).
pub const EVENT_MAX: usize = 1024 * 1024;
/// References in one `deliver`: a group has no more entries (CCP-1 section 5.0).
pub const REFERENCES_MAX: usize = 256;

/// Names one event, also when it is sent again: 16 random bytes of the domain that sends it.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct EventId([u8; 16]);

impl EventId {
    /// Wraps exactly the bytes given.
    #[must_use]
    pub const fn new(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The bytes for the wire and the store.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Debug for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Through a keyed hash like every id: the bytes would link two operators' logs.
        let tag: LogTag = MessageId::new(self.0).tag();
        write!(f, "EventId({tag})")
    }
}

impl Cbor for EventId {
    fn write(&self, to: &mut Writer<'_>) {
        to.bytes(&self.0);
    }

    fn read(from: &mut Reader<'_>) -> Result<Self, CborError> {
        let raw = from.slice()?.try_into();
        raw.map(Self)
            .map_err(|_| CborError::Range("the length of an event id"))
    }
}

/// What two events have in common that have the same effect: the first 16 bytes of BLAKE3 over kind
/// and map. The id does not count.
pub type EventKey = DedupeKey;

/// One of the eight lanes of a peer. All events of a group go through one, so that they keep their
/// order.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Lane(u8);

impl Lane {
    /// How many there are.
    pub const COUNT: u8 = 8;

    /// The lane with this number; `None` beyond [`Lane::COUNT`].
    #[must_use]
    pub const fn new(number: u8) -> Option<Self> {
        if number < Self::COUNT {
            Some(Self(number))
        } else {
            None
        }
    }

    /// The lane of a group: first byte of BLAKE3 of its id, modulo 8.
    #[must_use]
    pub fn of(group: &GroupId) -> Self {
        let first = blake3::hash(group.as_bytes()).as_bytes()[0];
        Self(first % Self::COUNT)
    }

    /// Its number.
    #[must_use]
    pub const fn number(self) -> u8 {
        self.0
    }

    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..Self::COUNT).map(Self)
    }
}

/// What a `deliver` carries: a frame that a server sends its devices.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Delivered {
    /// MSG, as it goes to a bound channel (CCP-1 section 4).
    Message,
    /// TYPING: ephemeral.
    Typing,
    /// KEY_UPDATE: an ordered commit.
    KeyUpdate,
    /// GROUP_INVITE: a Welcome, for exactly one reference.
    GroupInvite,
    /// GROUP_EVENT: `gone`, `fork` or `closed`.
    GroupEvent,
}

impl Delivered {
    /// The type of the frame.
    #[must_use]
    pub const fn frame_type(self) -> FrameType {
        match self {
            Self::Message => FrameType::Msg,
            Self::Typing => FrameType::Typing,
            Self::KeyUpdate => FrameType::KeyUpdate,
            Self::GroupInvite => FrameType::GroupInvite,
            Self::GroupEvent => FrameType::GroupEvent,
        }
    }

    /// What the frame type on the wire means.
    #[must_use]
    pub fn of_code(code: u8) -> Option<Self> {
        [
            Self::Message,
            Self::Typing,
            Self::KeyUpdate,
            Self::GroupInvite,
            Self::GroupEvent,
        ]
        .into_iter()
        .find(|delivered| delivered.frame_type().code() == code)
    }

    /// Whether it is stored and sent again until it is answered.
    #[must_use]
    pub const fn class(self) -> Class {
        match self {
            Self::Typing => Class::Ephemeral,
            Self::Message | Self::KeyUpdate | Self::GroupInvite | Self::GroupEvent => {
                Class::Durable
            }
        }
    }
}

/// Whether an event waits on disk for its answer.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Class {
    /// Stored and repeated until it is answered. A `submit` of this class is a MSG.
    Durable,
    /// A TYPING: never stored, never repeated, answered with custody whatever became of it.
    Ephemeral,
}

/// What a `request` carries: a control request of a device, for the hub or for the home of another
/// account.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Requested {
    /// KEY_UPDATE c->s.
    KeyUpdate,
    /// FETCH.
    Fetch,
    /// KEY_PACKAGE, operation `claim`.
    KeyPackage,
    /// DIRECTORY, operation `get`.
    Directory,
}

impl Requested {
    /// The type of the frame.
    #[must_use]
    pub const fn frame_type(self) -> FrameType {
        match self {
            Self::KeyUpdate => FrameType::KeyUpdate,
            Self::Fetch => FrameType::Fetch,
            Self::KeyPackage => FrameType::KeyPackage,
            Self::Directory => FrameType::Directory,
        }
    }

    /// What the frame type on the wire means.
    #[must_use]
    pub fn of_code(code: u8) -> Option<Self> {
        [
            Self::KeyUpdate,
            Self::Fetch,
            Self::KeyPackage,
            Self::Directory,
        ]
        .into_iter()
        .find(|requested| requested.frame_type().code() == code)
    }
}

/// `deliver`, from the hub: a frame for devices of the domain that gets it.
#[derive(Clone, Eq, PartialEq)]
pub struct Deliver {
    /// The group.
    pub group: GroupId,
    /// What it carries.
    pub frame: Delivered,
    /// The payload of the frame, without the group that precedes a MSG on channel 0.
    pub payload: Bytes,
    /// For whom: 1 to [`REFERENCES_MAX`], none twice, exactly one for a GROUP_INVITE.
    pub references: Vec<SealedRef>,
}

/// `submit`, to the hub: a MSG or TYPING of a device of the domain that sends it.
#[derive(Clone, Eq, PartialEq)]
pub struct Submit {
    /// The group.
    pub group: GroupId,
    /// The author's pseudonym.
    pub handle: Handle,
    /// The author's reference: with handle and origin it must be one entry of the list.
    pub reference: SealedRef,
    /// MSG or TYPING.
    pub class: Class,
    /// The payload as the device wrote it.
    pub payload: Bytes,
}

/// `return`, from the hub to the author's domain: a message that did not reach somebody.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Return {
    /// The group.
    pub group: GroupId,
    /// The message.
    pub message: MessageId,
    /// The dedupe key of the frame that carried it.
    pub returned: DedupeKey,
    /// Whom it did not reach; empty for nobody at all.
    pub handles: Vec<Handle>,
    /// Why.
    pub reason: Reason,
    /// The author's reference.
    pub author: SealedRef,
}

/// `tag`, to the hub: a device's fork tag.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Tag {
    /// The group.
    pub group: GroupId,
    /// The device's pseudonym.
    pub handle: Handle,
    /// Its reference.
    pub reference: SealedRef,
    /// The log position that it handled.
    pub position: u64,
    /// 16 bytes, or none if it skipped the entry.
    pub tag: Option<[u8; 16]>,
}

/// `request`: a control request of a device, its payload unchanged.
#[derive(Clone, Eq, PartialEq)]
pub struct Request {
    /// What it asks.
    pub frame: Requested,
    /// The payload of the frame, byte for byte.
    pub payload: Bytes,
}

/// One event without its id.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Body {
    /// Kind 1.
    Deliver(Deliver),
    /// Kind 2.
    Submit(Submit),
    /// Kind 3.
    Return(Return),
    /// Kind 4.
    Tag(Tag),
    /// Kind 5.
    Request(Request),
}

impl Body {
    /// The number on the wire.
    #[must_use]
    pub const fn kind(&self) -> u8 {
        match self {
            Self::Deliver(_) => 1,
            Self::Submit(_) => 2,
            Self::Return(_) => 3,
            Self::Tag(_) => 4,
            Self::Request(_) => 5,
        }
    }

    /// The group whose lane it takes; `None` for what takes no lane: requests and tags.
    #[must_use]
    pub const fn lane_group(&self) -> Option<&GroupId> {
        match self {
            Self::Deliver(deliver) => Some(&deliver.group),
            Self::Submit(submit) => Some(&submit.group),
            Self::Return(returned) => Some(&returned.group),
            Self::Tag(_) | Self::Request(_) => None,
        }
    }

    /// Whether it waits on disk until it is answered.
    #[must_use]
    pub const fn class(&self) -> Class {
        match self {
            Self::Deliver(deliver) => deliver.frame.class(),
            Self::Submit(submit) => submit.class,
            Self::Return(_) => Class::Durable,
            Self::Tag(_) | Self::Request(_) => Class::Ephemeral,
        }
    }
}

/// An event, with the bytes that stand for it on the wire and in the outbox.
#[derive(Clone, Eq, PartialEq)]
pub struct Event {
    /// Its name.
    pub id: EventId,
    /// What it says.
    pub body: Body,
    encoded: Bytes,
}

impl Event {
    /// Encodes an event. [`EVENT_MAX`] is the caller's to keep: payloads of every frame do.
    #[must_use]
    pub fn new(id: EventId, body: Body) -> Self {
        let mut out = BytesMut::new();
        let mut writer = Writer::new(&mut out);
        writer.array(3);
        id.write(&mut writer);
        body.write(&mut writer);
        Self {
            id,
            body,
            encoded: out.freeze(),
        }
    }

    /// Reads an event as it came, or as it was kept.
    ///
    /// # Errors
    ///
    /// [`CborError`] if it is none of the five, breaks their rules, or is over [`EVENT_MAX`].
    pub fn decode(encoded: &Bytes) -> Result<Self, CborError> {
        if encoded.len() > EVENT_MAX {
            return Err(CborError::Oversize("an event"));
        }
        let mut reader = Reader::new(encoded);
        let (id, body) = reader.tuple(3, |from| Ok((EventId::read(from)?, Body::read(from)?)))?;
        reader.end()?;
        Ok(Self {
            id,
            body,
            encoded: encoded.clone(),
        })
    }

    /// The bytes for the wire and the outbox.
    #[must_use]
    pub const fn encoded(&self) -> &Bytes {
        &self.encoded
    }

    /// The same for every event with the same effect, whatever its id.
    #[must_use]
    pub fn key(&self) -> EventKey {
        let mut kind_and_map = BytesMut::with_capacity(self.encoded.len());
        self.body.write(&mut Writer::new(&mut kind_and_map));
        let hash = blake3::hash(&kind_and_map);
        DedupeKey::new(std::array::from_fn(|index| {
            hash.as_bytes().get(index).copied().unwrap_or_default()
        }))
    }

    /// The lane that it takes; `None` for requests and tags, which take none.
    #[must_use]
    pub fn lane(&self) -> Option<Lane> {
        self.body.lane_group().map(Lane::of)
    }
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            id, body, encoded, ..
        } = self;
        write!(
            f,
            "Event({id:?}, kind {}, {} bytes)",
            body.kind(),
            encoded.len()
        )
    }
}

impl fmt::Debug for Deliver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (size, references) = (self.payload.len(), self.references.len());
        write!(
            f,
            "Deliver({:?}, {size} bytes, {references} references)",
            self.frame
        )
    }
}

impl fmt::Debug for Submit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Submit({:?}, {} bytes)", self.class, self.payload.len())
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Request({:?}, {} bytes)", self.frame, self.payload.len())
    }
}

#[cfg(test)]
mod tests;
