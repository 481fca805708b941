//! The payload of each type as a value: what a server and what a client may receive in the tunnel.

use bytes::{Bytes, BytesMut};

use super::ack::{AckDown, AckUp};
use super::directory::Directory;
use super::error::Problem;
use super::fetch::Fetch;
use super::group_create::GroupCreate;
use super::group_event::GroupEvent;
use super::group_invite::GroupInvite;
use super::join::Join;
use super::key_package::KeyPackage;
use super::key_update::{KeyUpdate, LogEntry};
use super::leave::Leave;
use super::msg::{Msg, MsgDown};
use super::presence::Presence;
use super::{Frame, FrameType, Header};
use crate::encoder;
use crate::wire::Cbor;
use crate::wire::reader::CborError;

/// What a client says in the tunnel. JOIN, MSG and TYPING concern the channel in the frame's header.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum FromClient {
    /// JOIN.
    Join(Join),
    /// LEAVE.
    Leave(Leave),
    /// MSG.
    Msg(Msg),
    /// ACK.
    Ack(AckUp),
    /// TYPING: opaque.
    Typing(Bytes),
    /// PRESENCE.
    Presence(Presence),
    /// KEY_UPDATE.
    KeyUpdate(KeyUpdate),
    /// GROUP_CREATE.
    GroupCreate(GroupCreate),
    /// KEY_PACKAGE.
    KeyPackage(KeyPackage),
    /// DIRECTORY.
    Directory(Directory),
    /// FETCH.
    Fetch(Fetch),
    /// PADDING.
    Padding,
}

impl FromClient {
    /// Reads the payload of a frame that a server's decoder gave out.
    ///
    /// # Errors
    ///
    /// [`CborError`]: `Invalid Control Payload` for this frame, which goes on if it has a number.
    pub fn decode(frame: &Frame) -> Result<Self, CborError> {
        let payload = &frame.payload;
        match frame.header.kind {
            FrameType::Join => Join::decode_shared(payload).map(Self::Join),
            FrameType::Leave => Leave::decode_shared(payload).map(Self::Leave),
            FrameType::Msg => Msg::decode(payload).map(Self::Msg),
            FrameType::Ack => AckUp::decode_shared(payload).map(Self::Ack),
            FrameType::Typing => Ok(Self::Typing(payload.clone())),
            FrameType::Presence => Presence::decode_shared(payload).map(Self::Presence),
            FrameType::KeyUpdate => KeyUpdate::decode_shared(payload).map(Self::KeyUpdate),
            FrameType::GroupCreate => GroupCreate::decode_shared(payload).map(Self::GroupCreate),
            FrameType::KeyPackage => KeyPackage::decode_shared(payload).map(Self::KeyPackage),
            FrameType::Directory => Directory::decode_shared(payload).map(Self::Directory),
            FrameType::Fetch => Fetch::decode_shared(payload).map(Self::Fetch),
            FrameType::Padding => Ok(Self::Padding),
            FrameType::Hello
            | FrameType::Auth
            | FrameType::GroupInvite
            | FrameType::GroupEvent
            | FrameType::Error
            | FrameType::Grant => Err(CborError::Type("a frame of a client")),
        }
    }

    /// The type of the frame that carries it.
    #[must_use]
    pub const fn kind(&self) -> FrameType {
        match self {
            Self::Join(_) => FrameType::Join,
            Self::Leave(_) => FrameType::Leave,
            Self::Msg(_) => FrameType::Msg,
            Self::Ack(_) => FrameType::Ack,
            Self::Typing(_) => FrameType::Typing,
            Self::Presence(_) => FrameType::Presence,
            Self::KeyUpdate(_) => FrameType::KeyUpdate,
            Self::GroupCreate(_) => FrameType::GroupCreate,
            Self::KeyPackage(_) => FrameType::KeyPackage,
            Self::Directory(_) => FrameType::Directory,
            Self::Fetch(_) => FrameType::Fetch,
            Self::Padding => FrameType::Padding,
        }
    }

    /// Appends the frame. `channel` and `sequence` are 0 where the type has none.
    pub fn encode(&self, channel: u32, sequence: u32, out: &mut BytesMut) {
        let header = Header {
            kind: self.kind(),
            channel,
            sequence,
        };
        match self {
            Self::Join(value) => encoder::cbor(header, value, out),
            Self::Leave(value) => encoder::cbor(header, value, out),
            Self::Msg(msg) => encoder::msg(channel, sequence, msg, out),
            Self::Ack(value) => encoder::cbor(header, value, out),
            Self::Typing(payload) => encoder::raw(header, payload, out),
            Self::Presence(value) => encoder::cbor(header, value, out),
            Self::KeyUpdate(value) => encoder::cbor(header, value, out),
            Self::GroupCreate(value) => encoder::cbor(header, value, out),
            Self::KeyPackage(value) => encoder::cbor(header, value, out),
            Self::Directory(value) => encoder::cbor(header, value, out),
            Self::Fetch(value) => encoder::cbor(header, value, out),
            Self::Padding => encoder::padding(0, out),
        }
    }
}

/// What a server says in the tunnel, after the first ACK
/// ([`FirstAck`](super::ack::FirstAck), which has a shape of its own).
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum FromServer {
    /// MSG.
    Msg(MsgDown),
    /// ACK.
    Ack(AckDown),
    /// TYPING: opaque.
    Typing(Bytes),
    /// KEY_UPDATE.
    KeyUpdate(LogEntry),
    /// GROUP_INVITE.
    GroupInvite(GroupInvite),
    /// GROUP_EVENT.
    GroupEvent(GroupEvent),
    /// ERROR.
    Error(Problem),
    /// PADDING.
    Padding,
}

impl FromServer {
    /// Reads the payload of a frame that a client's decoder gave out.
    ///
    /// # Errors
    ///
    /// [`CborError`] if the server sent what no server may send.
    pub fn decode(frame: &Frame) -> Result<Self, CborError> {
        let payload = &frame.payload;
        match frame.header.kind {
            FrameType::Msg => MsgDown::decode(frame.header.channel, payload).map(Self::Msg),
            FrameType::Ack => AckDown::decode_shared(payload).map(Self::Ack),
            FrameType::Typing => Ok(Self::Typing(payload.clone())),
            FrameType::KeyUpdate => LogEntry::decode_shared(payload).map(Self::KeyUpdate),
            FrameType::GroupInvite => GroupInvite::decode_shared(payload).map(Self::GroupInvite),
            FrameType::GroupEvent => GroupEvent::decode_shared(payload).map(Self::GroupEvent),
            FrameType::Error => Problem::decode_shared(payload).map(Self::Error),
            FrameType::Padding => Ok(Self::Padding),
            FrameType::Hello
            | FrameType::Auth
            | FrameType::Join
            | FrameType::Leave
            | FrameType::Presence
            | FrameType::GroupCreate
            | FrameType::KeyPackage
            | FrameType::Directory
            | FrameType::Fetch
            | FrameType::Grant => Err(CborError::Type("a frame of a server")),
        }
    }

    /// The type of the frame that carries it.
    #[must_use]
    pub const fn kind(&self) -> FrameType {
        match self {
            Self::Msg(_) => FrameType::Msg,
            Self::Ack(_) => FrameType::Ack,
            Self::Typing(_) => FrameType::Typing,
            Self::KeyUpdate(_) => FrameType::KeyUpdate,
            Self::GroupInvite(_) => FrameType::GroupInvite,
            Self::GroupEvent(_) => FrameType::GroupEvent,
            Self::Error(_) => FrameType::Error,
            Self::Padding => FrameType::Padding,
        }
    }

    /// Appends the frame. `channel` and `sequence` are 0 where the type has none; a MSG that names its
    /// group goes to channel 0.
    pub fn encode(&self, channel: u32, sequence: u32, out: &mut BytesMut) {
        let header = Header {
            kind: self.kind(),
            channel,
            sequence,
        };
        match self {
            Self::Msg(MsgDown {
                group: Some(group),
                msg,
            }) => {
                encoder::msg_unbound(sequence, group, msg, out);
            }
            Self::Msg(MsgDown { group: None, msg }) => encoder::msg(channel, sequence, msg, out),
            Self::Ack(value) => encoder::cbor(header, value, out),
            Self::Typing(payload) => encoder::raw(header, payload, out),
            Self::KeyUpdate(value) => encoder::cbor(header, value, out),
            Self::GroupInvite(value) => encoder::cbor(header, value, out),
            Self::GroupEvent(value) => encoder::cbor(header, value, out),
            Self::Error(value) => encoder::cbor(header, value, out),
            Self::Padding => encoder::padding(0, out),
        }
    }
}
