//! Frames as bytes, with any header that a table asks for.

use bytes::BytesMut;
use commucat_proto::wire::varint;

/// `v` in LEB128.
pub(crate) fn number(v: u64) -> Vec<u8> {
    let mut out = BytesMut::new();
    varint::write(v, &mut out);
    out.to_vec()
}

/// A frame with whatever header, its lengths right.
pub(crate) fn frame(code: u8, channel: u64, sequence: u64, payload: &[u8]) -> Vec<u8> {
    let len = u64::try_from(payload.len()).unwrap_or(u64::MAX);
    framed(&body(code, channel, sequence, len, payload))
}

/// The body of a frame that says its payload has `len` bytes.
pub(crate) fn body(code: u8, channel: u64, sequence: u64, len: u64, payload: &[u8]) -> Vec<u8> {
    [
        &[code][..],
        &number(channel),
        &number(sequence),
        &number(len),
        payload,
    ]
    .concat()
}

/// A body with its right length in front.
pub(crate) fn framed(body: &[u8]) -> Vec<u8> {
    let len = u64::try_from(body.len()).unwrap_or(u64::MAX);
    [&number(len)[..], body].concat()
}
