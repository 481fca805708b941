//! How PADDING frames fill a record's plaintext to a size class (CCP-1 section 3).

use commucat_proto::encoder::frame_len;
use commucat_proto::frame::{FrameType, Header};
use commucat_proto::limits::SIZE_CLASSES;

/// The smallest PADDING frame: length, type, channel, sequence and payload length of a byte each.
const FRAME_BYTES_MIN: usize = 5;

/// Bytes that PADDING frames have to fill so that a record of `len` bytes reaches a size class.
///
/// Zero or at least as long as the smallest PADDING frame: where fewer are missing, the class after
/// the next is taken; zero, too, where no class is large enough for that.
#[must_use]
pub fn missing_to_class(len: usize) -> usize {
    SIZE_CLASSES
        .iter()
        .filter_map(|class| class.checked_sub(len))
        .find(|missing| *missing == 0 || *missing >= FRAME_BYTES_MIN)
        .unwrap_or(0)
}

/// Payload lengths of the PADDING frames that fill exactly `missing` bytes, for
/// `commucat_proto::encoder::padding`: one frame, or two where the lengths' own varints skip a size.
/// None if `missing` is shorter than a frame.
pub fn padding_payloads(missing: usize) -> impl Iterator<Item = usize> {
    // Where no frame has the size, one byte more or less in another frame gets around the gap.
    let second = |payload| {
        Some((
            payload_of(missing.checked_sub(frame_bytes(payload))?)?,
            payload,
        ))
    };
    let payloads = match payload_of(missing) {
        Some(payload) => [Some(payload), None],
        None => match (0..=1).find_map(second) {
            Some((one, two)) => [Some(one), Some(two)],
            None => [None, None],
        },
    };
    payloads.into_iter().flatten()
}

/// The payload length of a PADDING frame of exactly `len` bytes, if there is one.
fn payload_of(len: usize) -> Option<usize> {
    let least = len.checked_sub(FRAME_BYTES_MIN)?;
    // The two varints take at most four bytes more than the one each that is counted already.
    (least.saturating_sub(4)..=least)
        .rev()
        .find(|payload| frame_bytes(*payload) == len)
}

/// Bytes of a PADDING frame.
const fn frame_bytes(payload: usize) -> usize {
    frame_len(Header::bare(FrameType::Padding), payload)
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use commucat_proto::encoder::padding;
    use commucat_proto::limits::RECORD_PLAINTEXT_MAX;

    use super::*;

    #[test]
    fn padding_reaches_a_size_class_and_is_never_shorter_than_a_frame() {
        assert_eq!(missing_to_class(1), 255);
        assert_eq!(missing_to_class(256), 0);
        assert_eq!(missing_to_class(251), 5);
        assert_eq!(missing_to_class(252), 1_024 - 252);
        assert_eq!(missing_to_class(16_385), RECORD_PLAINTEXT_MAX - 16_385);
        assert_eq!(missing_to_class(RECORD_PLAINTEXT_MAX - 4), 0);
        assert_eq!(missing_to_class(RECORD_PLAINTEXT_MAX), 0);
    }

    #[test]
    fn frames_of_the_encoder_fill_every_size_exactly() {
        let mut out = BytesMut::new();
        for missing in FRAME_BYTES_MIN..=RECORD_PLAINTEXT_MAX {
            out.clear();
            for payload in padding_payloads(missing) {
                padding(payload, &mut out);
            }
            assert_eq!(out.len(), missing);
        }
    }

    #[test]
    fn nothing_fills_less_than_a_frame() {
        for missing in 0..FRAME_BYTES_MIN {
            assert_eq!(padding_payloads(missing).count(), 0, "{missing}");
        }
        assert_eq!(padding_payloads(5).collect::<Vec<_>>(), [0]);
        assert_eq!(padding_payloads(129).collect::<Vec<_>>(), [119, 0]);
    }
}
