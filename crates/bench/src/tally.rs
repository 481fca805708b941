//! What came of every message: how often it arrived, where, and after what time.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use bytes::{Buf as _, BufMut as _, BytesMut};

/// Bytes at the start of each message's body: sender, number, time.
pub(crate) const STAMP_BYTES: usize = 4 + 8 + 8;

/// Counts of one run that all devices share.
#[derive(Debug)]
pub(crate) struct Tally {
    begun: Instant,
    pub(crate) sent: AtomicU64,
    pub(crate) acknowledged: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) deliveries: AtomicU64,
    pub(crate) records: AtomicU64,
}

impl Tally {
    pub(crate) fn new() -> Self {
        Self {
            begun: Instant::now(),
            sent: AtomicU64::new(0),
            acknowledged: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            deliveries: AtomicU64::new(0),
            records: AtomicU64::new(0),
        }
    }

    /// Time since the beginning.
    pub(crate) fn nanos(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// Adds to a counter that nothing else depends on.
pub(crate) fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

pub(crate) fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

/// What stands at the start of a message's body.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Stamp {
    pub(crate) sender: u32,
    pub(crate) number: u64,
    pub(crate) sent_ns: u64,
}

impl Stamp {
    pub(crate) fn write(self, out: &mut BytesMut) {
        out.put_u32(self.sender);
        out.put_u64(self.number);
        out.put_u64(self.sent_ns);
    }

    pub(crate) fn read(mut body: &[u8]) -> Option<Self> {
        (body.len() >= STAMP_BYTES).then(|| Self {
            sender: body.get_u32(),
            number: body.get_u64(),
            sent_ns: body.get_u64(),
        })
    }
}

/// What one receiver saw of its one sender.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    bits: Vec<u64>,
    pub(crate) once: u64,
    pub(crate) again: u64,
    /// Messages of somebody else, or none of ours.
    pub(crate) strange: u64,
    /// Nanoseconds from hand to hand.
    pub(crate) times: Vec<u32>,
}

/// So many times are kept of each receiver, then one in [`SAMPLED`].
const ALL_KEPT: u64 = 10_000;
const SAMPLED: u64 = 8;
const TIMES_KEPT: usize = 1 << 20;

impl Seen {
    pub(crate) fn take(&mut self, stamp: Stamp, now_ns: u64) {
        let (Ok(word), bit) = (usize::try_from(stamp.number / 64), stamp.number % 64) else {
            return;
        };
        if word >= self.bits.len() {
            self.bits.resize(word + 1, 0);
        }
        let Some(word) = self.bits.get_mut(word) else {
            return;
        };
        if *word >> bit & 1 == 1 {
            self.again += 1;
            return;
        }
        *word |= 1 << bit;
        self.once += 1;
        if (self.once < ALL_KEPT || self.once.is_multiple_of(SAMPLED))
            && self.times.len() < TIMES_KEPT
        {
            let nanos = now_ns.saturating_sub(stamp.sent_ns);
            self.times.push(u32::try_from(nanos).unwrap_or(u32::MAX));
        }
    }
}

/// The value below which `part` of a sorted list lies, in microseconds.
pub(crate) fn quantile_us(sorted_ns: &[u32], per_mille: usize) -> Option<f64> {
    let at = (sorted_ns.len() * per_mille / 1_000).min(sorted_ns.len().checked_sub(1)?);
    sorted_ns.get(at).map(|ns| f64::from(*ns) / 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_that_comes_twice_is_counted_once() {
        let mut seen = Seen::default();
        for number in [0, 1, 200, 1] {
            let stamp = Stamp {
                sender: 0,
                number,
                sent_ns: 5,
            };
            seen.take(stamp, 1_005);
        }

        assert_eq!((seen.once, seen.again), (3, 1));
        assert_eq!(seen.times, [1_000; 3]);
    }

    #[test]
    fn a_stamp_survives_the_way() {
        let stamp = Stamp {
            sender: 7,
            number: 1 << 40,
            sent_ns: 9,
        };
        let mut out = BytesMut::new();
        stamp.write(&mut out);

        assert_eq!(Stamp::read(&out), Some(stamp));
        assert_eq!(Stamp::read(&[0; 19]), None);
    }
}
