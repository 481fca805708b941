//! MSG: a durable message whose bytes nobody between the two ends changes (CCP-1 section 4).

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};

use crate::id::{GroupId, MessageId};
use crate::limits::{CBOR_INTEGER_MAX, VARINT_LEN_MAX};
use crate::wire::reader::CborError;
use crate::wire::varint;

/// The most that can stand before the ciphertext c->s: position and message id.
pub const UP_HEAD_MAX: usize = VARINT_LEN_MAX + MessageId::LEN;
/// The most that can stand before the ciphertext s->c: the group id too.
pub const DOWN_HEAD_MAX: usize = GroupId::LEN + UP_HEAD_MAX;

/// `position:varint | message_id(16) | ciphertext`, as the author wrote it.
///
/// The bytes before the ciphertext are MLS authenticated data (CCP-1 section 5.5), and a varint has
/// more than one form; so the payload is kept and passed on as it is.
#[derive(Clone, Eq, PartialEq)]
pub struct Msg {
    position: u64,
    message: MessageId,
    head_len: usize,
    payload: Bytes,
}

impl Msg {
    /// A message as its author makes it.
    #[must_use]
    pub fn new(position: u64, message: MessageId, ciphertext: &[u8]) -> Self {
        let mut payload = BytesMut::with_capacity(UP_HEAD_MAX + ciphertext.len());
        varint::write(position, &mut payload);
        payload.put_slice(message.as_bytes());
        let head_len = payload.len();
        payload.put_slice(ciphertext);
        Self {
            position,
            message,
            head_len,
            payload: payload.freeze(),
        }
    }

    /// The MLS authenticated data of a message that is about to be sealed: what
    /// [`Msg::authenticated`] will be.
    #[must_use]
    pub fn authenticated_head(position: u64, message: MessageId) -> Vec<u8> {
        Self::new(position, message, &[]).payload.to_vec()
    }

    /// Takes a payload apart without copying it.
    ///
    /// # Errors
    ///
    /// [`CborError`] if it is too short for its parts; to the peer that is `Invalid Control Payload`.
    pub fn decode(payload: &Bytes) -> Result<Self, CborError> {
        let short = CborError::Malformed("position and message id");
        let Ok(Some((position, position_len))) = varint::read(payload) else {
            return Err(short);
        };
        if position > CBOR_INTEGER_MAX {
            return Err(CborError::Range("the position of a message"));
        }
        let head_len = position_len + MessageId::LEN;
        let message = payload.get(position_len..head_len).ok_or(short)?;
        let message = MessageId::parse(message)?;
        Ok(Self {
            position,
            message,
            head_len,
            payload: payload.clone(),
        })
    }

    /// The highest log position that the author had handled when sealing.
    #[must_use]
    pub const fn position(&self) -> u64 {
        self.position
    }

    /// The name that the author gave the message for ever.
    #[must_use]
    pub const fn message(&self) -> MessageId {
        self.message
    }

    /// The bytes before the ciphertext: MLS authenticated data (CCP-1 section 5.5).
    #[must_use]
    pub fn authenticated(&self) -> &[u8] {
        self.payload.get(..self.head_len).unwrap_or_default()
    }

    /// The sealed content, shared with the payload.
    #[must_use]
    pub fn ciphertext(&self) -> Bytes {
        self.payload.slice(self.head_len.min(self.payload.len())..)
    }

    /// The whole payload: what MSG carries on a bound channel.
    #[must_use]
    pub const fn payload(&self) -> &Bytes {
        &self.payload
    }
}

impl fmt::Debug for Msg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Msg({:?}, {} bytes)", self.message, self.payload.len())
    }
}

/// MSG s->c: on a bound channel the same as c->s, on channel 0 preceded by the group id.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct MsgDown {
    /// The group, if the channel does not tell.
    pub group: Option<GroupId>,
    /// The message as its author wrote it.
    pub msg: Msg,
}

impl MsgDown {
    /// Takes the payload of a frame on `channel` apart without copying it.
    ///
    /// # Errors
    ///
    /// [`CborError`] if it is too short for its parts.
    pub fn decode(channel: u32, payload: &Bytes) -> Result<Self, CborError> {
        if channel != 0 {
            return Ok(Self {
                group: None,
                msg: Msg::decode(payload)?,
            });
        }
        let group = payload
            .get(..GroupId::LEN)
            .ok_or(CborError::Malformed("a group id"))?;
        let group = GroupId::parse(group)?;
        Ok(Self {
            group: Some(group),
            msg: Msg::decode(&payload.slice(GroupId::LEN..))?,
        })
    }
}

/// Bytes of ciphertext in a MSG payload; all of it if it is too short for its parts.
pub(crate) fn ciphertext_len(payload: &[u8], group_len: usize) -> usize {
    let rest = payload.get(group_len..).unwrap_or_default();
    let head_len = match varint::read(rest) {
        Ok(Some((_, position_len))) => position_len + MessageId::LEN,
        Ok(None) | Err(_) => 0,
    };
    rest.len().saturating_sub(head_len)
}
