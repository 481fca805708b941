//! The table of all frames (CCP-1 section 2): codes, directions, numbers, channels, limits.

pub mod ack;
pub mod bundle;
pub mod directory;
pub mod error;
pub mod fanout;
pub mod fetch;
pub mod group_create;
pub mod group_event;
pub mod group_invite;
pub mod handshake;
pub mod join;
pub mod key_package;
pub mod key_update;
pub mod leave;
pub mod msg;
pub mod payload;
pub mod presence;

use std::fmt;

use bytes::Bytes;

use crate::limits;

/// Which way a frame travels.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Direction {
    /// From client to server (c->s).
    Up,
    /// From server to client (s->c).
    Down,
}

/// Which part of a connection a frame belongs to.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Phase {
    /// The handshake, before the tunnel.
    Clear,
    /// Inside sealed records.
    Tunnel,
}

/// Whether the frames of a type take the next sequence number of their direction.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Number {
    /// They do, so an ERROR or ACK can name them.
    Takes,
    /// They carry 0.
    Zero,
}

/// Which channels the frames of a type may name.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Channels {
    /// 0 only.
    Zero,
    /// 1 to 4,096.
    Bound,
    /// Any; what is not bound is somebody else's rule.
    Any,
}

/// Declares the types, once for everything that a table can say.
macro_rules! frame_types {
    ($($(#[$doc:meta])* $name:ident, $text:literal, $code:literal;)*) => {
        /// A type of frames.
        #[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
        pub enum FrameType {
            $($(#[$doc])* $name,)*
        }

        impl FrameType {
            /// All types, by code.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The byte on the wire.
            #[must_use]
            pub const fn code(self) -> u8 {
                match self { $(Self::$name => $code,)* }
            }

            /// The name in the protocol's text.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// The type of a byte on the wire; `None` if version 2 knows none.
            #[must_use]
            pub const fn of_code(code: u8) -> Option<Self> {
                match code { $($code => Some(Self::$name),)* _ => None }
            }
        }
    };
}

frame_types! {
    /// Opens the handshake.
    Hello, "HELLO", 0x01;
    /// Goes on with the handshake.
    Auth, "AUTH", 0x02;
    /// Binds a channel to a group.
    Join, "JOIN", 0x03;
    /// Unbinds a group, or leaves it for good.
    Leave, "LEAVE", 0x04;
    /// A durable opaque message.
    Msg, "MSG", 0x05;
    /// Custody, results of requests, fork tags.
    Ack, "ACK", 0x06;
    /// Ephemeral opaque bytes.
    Typing, "TYPING", 0x07;
    /// State of the client.
    Presence, "PRESENCE", 0x08;
    /// A commit: up in a bundle, down as an entry of the log.
    KeyUpdate, "KEY_UPDATE", 0x09;
    /// Makes a group.
    GroupCreate, "GROUP_CREATE", 0x0a;
    /// Delivers a Welcome.
    GroupInvite, "GROUP_INVITE", 0x0b;
    /// Notice about a group or a message.
    GroupEvent, "GROUP_EVENT", 0x0c;
    /// A failure.
    Error, "ERROR", 0x0d;
    /// Publishes and claims key packages.
    KeyPackage, "KEY_PACKAGE", 0x40;
    /// Puts and gets device lists.
    Directory, "DIRECTORY", 0x41;
    /// Reads a group's log, GroupInfo or list.
    Fetch, "FETCH", 0x42;
    /// Ignored: keep-alive, and fills records.
    Padding, "PADDING", 0x43;
    /// Reserved.
    Grant, "GRANT", 0x44;
}

/// From which code on an unknown type does not end the connection.
pub const EXTENSION_CODES_FROM: u8 = 0x80;

impl FrameType {
    /// Whether the type may come this way in this phase.
    #[must_use]
    pub const fn travels(self, direction: Direction, phase: Phase) -> bool {
        match (self, phase) {
            (Self::Hello, Phase::Clear) => matches!(direction, Direction::Up),
            (Self::Auth, Phase::Clear) => true,
            (Self::Error, _) => matches!(direction, Direction::Down),
            (Self::Hello | Self::Auth | Self::Grant, Phase::Tunnel) | (_, Phase::Clear) => false,
            (Self::Msg | Self::Ack | Self::Typing | Self::KeyUpdate | Self::Padding, _) => true,
            (Self::GroupInvite | Self::GroupEvent, _) => matches!(direction, Direction::Down),
            (
                Self::Join
                | Self::Leave
                | Self::Presence
                | Self::GroupCreate
                | Self::KeyPackage
                | Self::Directory
                | Self::Fetch,
                _,
            ) => matches!(direction, Direction::Up),
        }
    }

    /// Whether its frames take a sequence number (CCP-1 section 4). The same both ways: no type that
    /// travels both ways is a number one way only.
    #[must_use]
    pub const fn number(self) -> Number {
        match self {
            Self::Ack | Self::Typing | Self::Presence | Self::Error | Self::Padding => Number::Zero,
            Self::Hello
            | Self::Auth
            | Self::Join
            | Self::Leave
            | Self::Msg
            | Self::KeyUpdate
            | Self::GroupCreate
            | Self::GroupInvite
            | Self::GroupEvent
            | Self::KeyPackage
            | Self::Directory
            | Self::Fetch
            | Self::Grant => Number::Takes,
        }
    }

    /// Which channels its frames may name (CCP-1 section 5.3).
    #[must_use]
    pub const fn channels(self) -> Channels {
        match self {
            Self::Join => Channels::Bound,
            Self::Msg | Self::Typing => Channels::Any,
            Self::Hello
            | Self::Auth
            | Self::Leave
            | Self::Ack
            | Self::Presence
            | Self::KeyUpdate
            | Self::GroupCreate
            | Self::GroupInvite
            | Self::GroupEvent
            | Self::Error
            | Self::KeyPackage
            | Self::Directory
            | Self::Fetch
            | Self::Padding
            | Self::Grant => Channels::Zero,
        }
    }

    /// Whether it is a control request: answered by ACK key 1 or ERROR key 5.
    #[must_use]
    pub const fn is_request(self) -> bool {
        matches!(
            self,
            Self::Join
                | Self::Leave
                | Self::GroupCreate
                | Self::KeyUpdate
                | Self::KeyPackage
                | Self::Directory
                | Self::Fetch
        )
    }

    /// The greatest payload in the tunnel, with `ciphertext_max` for MSG (CCP-1 section 2).
    #[must_use]
    pub const fn payload_max(self, direction: Direction, ciphertext_max: usize) -> usize {
        match (self, direction) {
            (Self::Msg, Direction::Up) => ciphertext_max.saturating_add(msg::UP_HEAD_MAX),
            (Self::Msg, Direction::Down) => ciphertext_max.saturating_add(msg::DOWN_HEAD_MAX),
            (Self::Typing, _) => limits::TYPING_PAYLOAD_MAX,
            (Self::KeyUpdate | Self::GroupCreate, Direction::Up) => limits::COMMIT_PAYLOAD_MAX,
            (Self::KeyUpdate | Self::GroupInvite | Self::Ack | Self::Error, Direction::Down) => {
                limits::ANSWER_PAYLOAD_MAX
            }
            (
                Self::Hello
                | Self::Auth
                | Self::Join
                | Self::Leave
                | Self::Ack
                | Self::Presence
                | Self::GroupCreate
                | Self::GroupInvite
                | Self::GroupEvent
                | Self::Error
                | Self::KeyPackage
                | Self::Directory
                | Self::Fetch
                | Self::Padding
                | Self::Grant,
                _,
            ) => limits::CONTROL_PAYLOAD_MAX,
        }
    }
}

/// What stands before a payload.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Header {
    /// The type.
    pub kind: FrameType,
    /// The channel; 0 for none.
    pub channel: u32,
    /// The sequence number; 0 for none.
    pub sequence: u32,
}

impl Header {
    /// The header of a frame on channel 0.
    #[must_use]
    pub const fn new(kind: FrameType, sequence: u32) -> Self {
        Self {
            kind,
            channel: 0,
            sequence,
        }
    }

    /// The header of a frame without a channel or a number: ACK, ERROR, PRESENCE, PADDING.
    #[must_use]
    pub const fn bare(kind: FrameType) -> Self {
        Self::new(kind, 0)
    }
}

/// A frame whose header was checked and whose payload was not looked at.
#[derive(Clone, Eq, PartialEq)]
pub struct Frame {
    /// Type, channel and number.
    pub header: Header,
    /// The payload as received.
    pub payload: Bytes,
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Header {
            kind,
            channel,
            sequence,
        } = self.header;
        write!(
            f,
            "{}({channel}, {sequence}, {} bytes)",
            kind.name(),
            self.payload.len()
        )
    }
}
