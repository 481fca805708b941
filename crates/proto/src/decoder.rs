//! Bytes to frames, as they come in (CCP-1 section 2).

use bytes::{Buf, Bytes, BytesMut};

use crate::frame::{
    Channels, Direction, EXTENSION_CODES_FROM, Frame, FrameType, Header, Number, Phase, msg,
};
use crate::id::GroupId;
use crate::limits::{
    CHANNEL_MAX, CLEAR_PAYLOAD_MAX, CONTROL_PAYLOAD_MAX, FRAME_LEN_MAX, HEADER_LEN_MAX,
    MESSAGE_CIPHERTEXT_DEFAULT,
};
use crate::wire::varint::{self, VarintOverflow};

/// Payloads up to this size are copied out of the receive buffer, larger ones share it.
///
/// A copy of 16 KiB costs a small part of what opening its record cost, the buffer then never has to
/// be given away, and a short message that waits in a mailbox does not hold a whole record in memory.
const COPIED_MAX: usize = 16 * 1024;

/// Why a connection must end. Carries names and sizes, never what was received.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum DecodeError {
    /// A type that is unknown, reserved, of the other direction or of the other phase.
    #[error("frame type {0:#04x} cannot come here")]
    FrameType(u8),
    /// A varint above 64 bits.
    #[error(transparent)]
    Varint(#[from] VarintOverflow),
    /// Payload and frame end at different places.
    #[error("frame and payload end at different places")]
    Truncated,
    /// A channel or sequence above 32 bits.
    #[error("channel or sequence above 32 bits")]
    Identifier,
    /// A channel that the type may not have.
    #[error("{} cannot come on this channel", kind.name())]
    Channel {
        /// The type.
        kind: FrameType,
    },
    /// A gap, a repeat, or a number where 0 belongs.
    #[error("sequence {found} where {expected} belongs")]
    Sequence {
        /// The number that belongs there.
        expected: u32,
        /// The number that came.
        found: u32,
    },
    /// A `len` above 16 MiB, or a payload above 32 KiB in clear.
    #[error("frame of {len} bytes")]
    FrameTooLarge {
        /// What it says its length is.
        len: u64,
    },
    /// A control frame above its type's limit.
    #[error("payload of {len} bytes in a control frame, {max} at most")]
    ControlTooLarge {
        /// What it says its length is.
        len: u64,
        /// The limit.
        max: usize,
    },
    /// A TYPING above 1 KiB. It has no number, so no ERROR could name it.
    #[error("typing of {len} bytes")]
    TypingTooLarge {
        /// What it says its length is.
        len: u64,
    },
}

/// What comes out of a decoder.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Incoming {
    /// A frame with a good header.
    Frame(Frame),
    /// A numbered frame that was skipped, for an ERROR with its number; the connection goes on.
    Skipped(Skipped),
}

/// A numbered frame that cannot be handled.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Skipped {
    /// Its channel; a MSG that gets an ERROR unbinds it.
    pub channel: u32,
    /// Its number.
    pub sequence: u32,
    /// Why.
    pub reason: SkipReason,
}

/// Why a numbered frame was skipped.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SkipReason {
    /// A type from 0x80 on that version 2 does not know: `Invalid Frame Type`. A client ignores it.
    UnknownType(u8),
    /// A MSG whose ciphertext is above the limit: `Payload Too Large`.
    MessageTooLarge,
}

/// Turns the bytes of one direction of one connection into frames, and checks their numbers.
///
/// It never reserves memory for a declared length, and holds at most one frame within its type's
/// limit beside what it was last given.
#[derive(Debug)]
pub struct Decoder {
    direction: Direction,
    phase: Phase,
    ciphertext_max: usize,
    last_sequence: u32,
    buffer: BytesMut,
    skipping: Option<Skipping>,
}

/// A frame that is passed over as its bytes come.
#[derive(Clone, Copy, Debug)]
struct Skipping {
    left: usize,
    frame: Skipped,
}

/// A header whose frame may still be on its way.
struct Head {
    code: u8,
    kind: Option<FrameType>,
    channel: u32,
    sequence: u32,
    payload_at: usize,
    payload_len: usize,
}

impl Decoder {
    /// A decoder of what a client (`Up`) or a server (`Down`) sends in clear before the tunnel.
    #[must_use]
    pub fn clear(direction: Direction) -> Self {
        Self::new(direction, Phase::Clear)
    }

    /// A decoder of what a client (`Up`) or a server (`Down`) sends inside the tunnel.
    #[must_use]
    pub fn tunnel(direction: Direction) -> Self {
        Self::new(direction, Phase::Tunnel)
    }

    fn new(direction: Direction, phase: Phase) -> Self {
        Self {
            direction,
            phase,
            ciphertext_max: MESSAGE_CIPHERTEXT_DEFAULT,
            last_sequence: 0,
            buffer: BytesMut::new(),
            skipping: None,
        }
    }

    /// Sets `limits.max_payload`, the greatest ciphertext of a MSG.
    pub const fn set_ciphertext_max(&mut self, max: usize) {
        self.ciphertext_max = max;
    }

    /// Adds bytes as they were received. Take out all frames with [`Decoder::next_frame`] before more.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The buffer that [`Decoder::push`] appends to, for whoever can write into it directly. Bytes
    /// may be appended only.
    pub const fn buffer_mut(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// The bytes behind the last frame: after a clear handshake, the beginning of the tunnel.
    #[must_use]
    pub fn into_rest(self) -> BytesMut {
        self.buffer
    }

    /// The number of the last numbered frame that came.
    #[must_use]
    pub const fn last_sequence(&self) -> u32 {
        self.last_sequence
    }

    /// Takes out the next frame; `None` if more bytes are needed.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] if the connection must end. What the decoder says after that means nothing.
    pub fn next_frame(&mut self) -> Result<Option<Incoming>, DecodeError> {
        if let Some(skipping) = self.skipping {
            return Ok(self.skip(skipping));
        }
        let Some(head) = self.read_head()? else {
            return Ok(None);
        };
        let max = self.payload_max(head.kind);
        let Some(kind) = head.kind else {
            self.check_payload(None, head.payload_len as u64, max)?;
            let reason = SkipReason::UnknownType(head.code);
            return self.begin_skip(&head, reason);
        };
        if kind == FrameType::Msg && head.payload_len > max {
            return self.begin_skip(&head, SkipReason::MessageTooLarge);
        }
        self.check_payload(Some(kind), head.payload_len as u64, max)?;
        self.take(kind, &head)
    }

    /// Takes a whole frame out of the buffer, if it is there.
    fn take(&mut self, kind: FrameType, head: &Head) -> Result<Option<Incoming>, DecodeError> {
        let end = head.payload_at + head.payload_len;
        let Some(payload) = self.buffer.get(head.payload_at..end) else {
            return Ok(None);
        };
        if kind == FrameType::Msg {
            let with_group = self.direction == Direction::Down && head.channel == 0;
            let group_len = if with_group { GroupId::LEN } else { 0 };
            if msg::ciphertext_len(payload, group_len) > self.ciphertext_max {
                return self.begin_skip(head, SkipReason::MessageTooLarge);
            }
        }
        let payload = if head.payload_len <= COPIED_MAX {
            let payload = Bytes::copy_from_slice(payload);
            self.buffer.advance(end);
            payload
        } else {
            self.buffer.advance(head.payload_at);
            self.buffer.split_to(head.payload_len).freeze()
        };
        self.count(kind.number(), head.sequence)?;
        let header = Header {
            kind,
            channel: head.channel,
            sequence: head.sequence,
        };
        Ok(Some(Incoming::Frame(Frame { header, payload })))
    }

    /// Reads and checks as much of a header as is there; `None` if it is not complete.
    fn read_head(&self) -> Result<Option<Head>, DecodeError> {
        let raw: &[u8] = &self.buffer;
        let Some((len, body_at)) = varint::read(raw)? else {
            return Ok(None);
        };
        let body_len = usize::try_from(len).unwrap_or(usize::MAX);
        if body_len > FRAME_LEN_MAX {
            return Err(DecodeError::FrameTooLarge { len });
        }
        if body_len == 0 {
            return Err(DecodeError::Truncated);
        }
        let Some(code) = raw.get(body_at).copied() else {
            return Ok(None);
        };
        let kind = self.check_type(code)?;
        if body_len > HEADER_LEN_MAX && kind != Some(FrameType::Msg) {
            let least = (body_len - HEADER_LEN_MAX) as u64;
            self.check_payload(kind, least, self.payload_max(kind))?;
        }
        let arrived = raw.get(body_at..).unwrap_or_default();
        let body = arrived.get(..body_len).unwrap_or(arrived);
        let complete = body.len() == body_len;

        let mut at = 1;
        let mut numbers = [0_u64; 3];
        for number in &mut numbers {
            match varint::read(body.get(at..).unwrap_or_default())? {
                Some((value, value_len)) => {
                    *number = value;
                    at += value_len;
                }
                None if complete => return Err(DecodeError::Truncated),
                None => return Ok(None),
            }
        }
        let [channel, sequence, payload_len] = numbers;
        let channel = u32::try_from(channel).map_err(|_| DecodeError::Identifier)?;
        let sequence = u32::try_from(sequence).map_err(|_| DecodeError::Identifier)?;
        if payload_len != (body_len - at) as u64 {
            return Err(DecodeError::Truncated);
        }
        check_channel(kind, channel)?;
        let head = Head {
            code,
            kind,
            channel,
            sequence,
            payload_at: body_at + at,
            payload_len: body_len - at,
        };
        self.check_sequence(kind.map_or(Number::Takes, FrameType::number), sequence)?;
        Ok(Some(head))
    }

    /// The type of a code, or none for an extension.
    fn check_type(&self, code: u8) -> Result<Option<FrameType>, DecodeError> {
        match FrameType::of_code(code) {
            Some(kind) if kind.travels(self.direction, self.phase) => Ok(Some(kind)),
            None if code >= EXTENSION_CODES_FROM && self.phase == Phase::Tunnel => Ok(None),
            Some(_) | None => Err(DecodeError::FrameType(code)),
        }
    }

    fn payload_max(&self, kind: Option<FrameType>) -> usize {
        match (self.phase, kind) {
            (Phase::Clear, _) => CLEAR_PAYLOAD_MAX,
            (Phase::Tunnel, None) => CONTROL_PAYLOAD_MAX,
            (Phase::Tunnel, Some(kind)) => kind.payload_max(self.direction, self.ciphertext_max),
        }
    }

    fn check_payload(
        &self,
        kind: Option<FrameType>,
        len: u64,
        max: usize,
    ) -> Result<(), DecodeError> {
        if len <= max as u64 {
            return Ok(());
        }
        Err(match (self.phase, kind) {
            (Phase::Clear, _) => DecodeError::FrameTooLarge { len },
            (Phase::Tunnel, Some(FrameType::Typing)) => DecodeError::TypingTooLarge { len },
            (Phase::Tunnel, _) => DecodeError::ControlTooLarge { len, max },
        })
    }

    fn check_sequence(&self, number: Number, found: u32) -> Result<(), DecodeError> {
        let expected = match number {
            Number::Zero => 0,
            Number::Takes => self
                .last_sequence
                .checked_add(1)
                .ok_or(DecodeError::Identifier)?,
        };
        if found == expected {
            Ok(())
        } else {
            Err(DecodeError::Sequence { expected, found })
        }
    }

    /// Notes the number of a frame that leaves the buffer.
    fn count(&mut self, number: Number, sequence: u32) -> Result<(), DecodeError> {
        self.check_sequence(number, sequence)?;
        if number == Number::Takes {
            self.last_sequence = sequence;
        }
        Ok(())
    }

    fn begin_skip(
        &mut self,
        head: &Head,
        reason: SkipReason,
    ) -> Result<Option<Incoming>, DecodeError> {
        self.count(Number::Takes, head.sequence)?;
        let frame = Skipped {
            channel: head.channel,
            sequence: head.sequence,
            reason,
        };
        Ok(self.skip(Skipping {
            left: head.payload_at + head.payload_len,
            frame,
        }))
    }

    fn skip(&mut self, skipping: Skipping) -> Option<Incoming> {
        let here = skipping.left.min(self.buffer.len());
        self.buffer.advance(here);
        let left = skipping.left - here;
        if left > 0 {
            self.skipping = Some(Skipping { left, ..skipping });
            return None;
        }
        self.skipping = None;
        Some(Incoming::Skipped(skipping.frame))
    }
}

fn check_channel(kind: Option<FrameType>, channel: u32) -> Result<(), DecodeError> {
    let Some(kind) = kind else {
        return Ok(());
    };
    let good = match kind.channels() {
        Channels::Zero => channel == 0,
        Channels::Bound => (1..=CHANNEL_MAX).contains(&channel),
        Channels::Any => true,
    };
    if good {
        Ok(())
    } else {
        Err(DecodeError::Channel { kind })
    }
}
