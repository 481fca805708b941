//! Unsigned LEB128 (CCP-1 section 2).

use bytes::{BufMut, BytesMut};

use crate::limits::VARINT_LEN_MAX;

/// An eleventh byte, or a tenth above 1: more than 64 bits.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("varint of more than 64 bits")]
pub struct VarintOverflow;

/// Reads the varint at the start of `raw`: its value and its length; `None` if it goes on behind
/// the end. Forms that are not minimal are accepted.
///
/// # Errors
///
/// [`VarintOverflow`] as soon as the bytes that are there cannot begin a number of 64 bits.
pub fn read(raw: &[u8]) -> Result<Option<(u64, usize)>, VarintOverflow> {
    let mut value = 0_u64;
    for (index, byte) in raw.iter().take(VARINT_LEN_MAX).enumerate() {
        let last_possible = index + 1 == VARINT_LEN_MAX;
        if last_possible && *byte > 1 {
            return Err(VarintOverflow);
        }
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Ok(Some((value, index + 1)));
        }
    }
    Ok(None)
}

/// Appends the minimal form of `value`.
pub fn write(mut value: u64, out: &mut BytesMut) {
    while value >= 0x80 {
        out.put_u8(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.put_u8(value.to_le_bytes()[0]);
}

/// Bytes of the minimal form of `value`.
#[must_use]
pub const fn len(value: u64) -> usize {
    let bits = (u64::BITS - value.leading_zeros()) as usize;
    if bits == 0 { 1 } else { bits.div_ceil(7) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(value: u64) -> Vec<u8> {
        let mut out = BytesMut::new();
        write(value, &mut out);
        out.to_vec()
    }

    #[test]
    fn a_varint_that_is_not_minimal_is_accepted() {
        assert_eq!(read(&[0x81, 0x80, 0x00, 0xff]), Ok(Some((1, 3))));
    }

    #[test]
    fn a_tenth_byte_above_one_overflows() {
        let mut raw = [0xff; 10];
        raw[9] = 0x01;
        assert_eq!(read(&raw), Ok(Some((u64::MAX, 10))));
        raw[9] = 0x02;
        assert_eq!(read(&raw), Err(VarintOverflow));
    }

    #[test]
    fn an_eleventh_byte_overflows() {
        let mut raw = [0x80; 11];
        raw[10] = 0;
        assert_eq!(read(&raw), Err(VarintOverflow));
    }

    #[test]
    fn a_varint_that_ends_early_is_incomplete() {
        assert_eq!(read(&[]), Ok(None));
        assert_eq!(read(&[0x80; 9]), Ok(None));
    }

    proptest! {
        #[test]
        fn every_number_comes_back(value: u64) {
            let raw = written(value);

            prop_assert_eq!(read(&raw), Ok(Some((value, raw.len()))));
            prop_assert_eq!(len(value), raw.len());
        }
    }
}
