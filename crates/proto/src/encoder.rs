//! Values to frames, appended to a buffer that the caller fills and seals.

use bytes::{BufMut, BytesMut};

use crate::frame::msg::Msg;
use crate::frame::{FrameType, Header};
use crate::id::GroupId;
use crate::wire::writer::Writer;
use crate::wire::{Cbor, varint};

/// Bytes that a minimal header can take: `len` and `payload_len` of five, channel and sequence of
/// five, the type.
const HEAD_MAX: usize = 5 + 1 + 5 + 5 + 5;

/// Appends a frame around bytes that exist already.
pub fn raw(header: Header, payload: &[u8], out: &mut BytesMut) {
    out.reserve(HEAD_MAX + payload.len());
    head(header, payload.len(), out);
    out.put_slice(payload);
}

/// Appends a frame around a value, which is encoded in its place: nothing is allocated but by `out`.
pub fn cbor(header: Header, value: &impl Cbor, out: &mut BytesMut) {
    let start = out.len();
    value.write(&mut Writer::new(out));
    let payload_len = out.len() - start;
    head(header, payload_len, out);
    // The head was written behind the payload, whose length it names; one small move puts it in front.
    let head_len = out.len() - start - payload_len;
    out.get_mut(start..)
        .unwrap_or_default()
        .rotate_right(head_len);
}

/// Appends a MSG on a bound channel: the same bytes up and down.
pub fn msg(channel: u32, sequence: u32, msg: &Msg, out: &mut BytesMut) {
    raw(
        Header {
            kind: FrameType::Msg,
            channel,
            sequence,
        },
        msg.payload(),
        out,
    );
}

/// Appends a MSG s->c of a group that is not bound: channel 0, the group id in front.
pub fn msg_unbound(sequence: u32, group: &GroupId, msg: &Msg, out: &mut BytesMut) {
    let payload_len = GroupId::LEN + msg.payload().len();
    out.reserve(HEAD_MAX + payload_len);
    head(Header::new(FrameType::Msg, sequence), payload_len, out);
    out.put_slice(group.as_bytes());
    out.put_slice(msg.payload());
}

/// Appends a PADDING with `filling` bytes of payload.
pub fn padding(filling: usize, out: &mut BytesMut) {
    head(Header::bare(FrameType::Padding), filling, out);
    out.put_bytes(0, filling);
}

/// Bytes of a frame with this header and that many bytes of payload.
#[must_use]
pub const fn frame_len(header: Header, payload_len: usize) -> usize {
    let body = body_len(header, payload_len);
    varint::len(body as u64) + body
}

const fn body_len(header: Header, payload_len: usize) -> usize {
    1 + varint::len(header.channel as u64)
        + varint::len(header.sequence as u64)
        + varint::len(payload_len as u64)
        + payload_len
}

fn head(header: Header, payload_len: usize, out: &mut BytesMut) {
    varint::write(body_len(header, payload_len) as u64, out);
    out.put_u8(header.kind.code());
    varint::write(header.channel.into(), out);
    varint::write(header.sequence.into(), out);
    varint::write(payload_len as u64, out);
}
