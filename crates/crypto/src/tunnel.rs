//! Sealed records: a stream of `u16be length | ciphertext` in each direction (CCP-1 section 3).
//!
//! Sans-I/O and the same for both ends. The bytes are those of Noise's transport phase; the cipher
//! is aws-lc's ChaCha20-Poly1305, six times faster than the one snow brings.

use std::fmt;

use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use bytes::BytesMut;
use commucat_proto::limits::{RECORD_CIPHERTEXT_MIN, RECORD_PLAINTEXT_MAX, RECORDS_PER_KEY};
use zeroize::{Zeroize, Zeroizing};

mod padding;

pub use self::padding::{missing_to_class, padding_payloads};

/// What a record adds to its plaintext: length and tag.
pub const OVERHEAD: usize = LENGTH_BYTES + TAG_BYTES;

/// Room that an idle [`Opener`] may keep; anything above is given back after use.
const IDLE_CAPACITY_MAX: usize = 2_048;

/// How much more than has come of a record there may be room for: whoever announces a long one and
/// sends little shall not have much memory held.
const ROOM_FACTOR: usize = 4;

const LENGTH_BYTES: usize = 2;
const TAG_BYTES: usize = 16;

/// Why a record was not sealed.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum SealError {
    /// The plaintext does not fit one record.
    #[error("plaintext of {len} bytes does not fit a record")]
    TooLong {
        /// Bytes of the plaintext.
        len: usize,
    },
    /// The nonces of this direction are used up, after 2^64 - 1 records.
    #[error("no nonce is left")]
    Exhausted,
}

/// A record that does not open. The connection ends without an answer and without a reason.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("sealed record does not open")]
pub struct OpenError;

/// The sending direction.
#[derive(Debug)]
pub struct Sealer(Direction);

impl Sealer {
    pub(crate) fn new(key: &[u8; 32]) -> Self {
        Self(Direction::new(key))
    }

    /// Appends `plaintext` as one record to `out`. Empty plaintext appends nothing.
    ///
    /// # Errors
    ///
    /// [`SealError`]; `out` is as it was.
    pub fn seal(&mut self, plaintext: &[u8], out: &mut BytesMut) -> Result<(), SealError> {
        let mut record = self.record(out);
        if !record.append(plaintext).is_empty() {
            return Err(SealError::TooLong {
                len: plaintext.len(),
            });
        }
        record.finish()
    }

    /// Appends `plaintext` as however many full records it takes.
    ///
    /// # Errors
    ///
    /// [`SealError::Exhausted`]; records appended so far stay.
    pub fn seal_all(&mut self, plaintext: &[u8], out: &mut BytesMut) -> Result<(), SealError> {
        plaintext
            .chunks(RECORD_PLAINTEXT_MAX)
            .try_for_each(|part| self.seal(part, out))
    }

    /// Opens a record at the end of `out`, to be filled piece by piece and sealed where it lies, so
    /// that several queued frames cost one copy.
    ///
    /// A [`Record`] that is dropped unfinished leaves `out` as it was.
    pub fn record<'a>(&'a mut self, out: &'a mut BytesMut) -> Record<'a> {
        let start = out.len();
        out.extend_from_slice(&[0; LENGTH_BYTES]);
        Record {
            direction: &mut self.0,
            out,
            start,
        }
    }
}

/// A record that is being filled; see [`Sealer::record`].
#[derive(Debug)]
pub struct Record<'a> {
    direction: &'a mut Direction,
    out: &'a mut BytesMut,
    start: usize,
}

impl Record<'_> {
    /// Takes as much of `bytes` as fits and returns the rest, which belongs into the next record.
    #[must_use = "what does not fit belongs into the next record"]
    pub fn append<'b>(&mut self, bytes: &'b [u8]) -> &'b [u8] {
        let (fits, rest) = bytes.split_at(bytes.len().min(self.remaining()));
        self.out.extend_from_slice(fits);
        rest
    }

    /// Bytes of plaintext in the record so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.out.len().saturating_sub(self.start + LENGTH_BYTES)
    }

    /// Whether nothing was appended yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes that still fit.
    #[must_use]
    pub fn remaining(&self) -> usize {
        RECORD_PLAINTEXT_MAX - self.len()
    }

    /// Bytes of PADDING frames that fill the record to its size class; see [`missing_to_class`] and
    /// [`padding_payloads`].
    #[must_use]
    pub fn missing_to_class(&self) -> usize {
        missing_to_class(self.len())
    }

    /// Seals the record. An empty one is taken back.
    ///
    /// # Errors
    ///
    /// [`SealError::Exhausted`]; the record is taken back.
    pub fn finish(mut self) -> Result<(), SealError> {
        if self.is_empty() {
            return Ok(());
        }
        let (start, len) = (self.start, self.len());
        let length = u16::try_from(len + TAG_BYTES).map_err(|_| SealError::TooLong { len })?;
        let (head, plaintext) = self
            .out
            .get_mut(start..)
            .and_then(<[u8]>::split_first_chunk_mut::<LENGTH_BYTES>)
            .ok_or(SealError::TooLong { len })?;
        *head = length.to_be_bytes();
        let nonce = self.direction.next_nonce().ok_or(SealError::Exhausted)?;
        let tag = self
            .direction
            .key
            .seal_in_place_separate_tag(nonce, Aad::empty(), plaintext)
            .map_err(|_| SealError::Exhausted)?;
        self.out.extend_from_slice(tag.as_ref());
        // What follows is the drop, which takes back everything behind `start`.
        self.start = self.out.len();
        Ok(())
    }
}

impl Drop for Record<'_> {
    fn drop(&mut self) {
        self.out.truncate(self.start);
    }
}

/// The receiving direction.
pub struct Opener {
    direction: Direction,
    /// The start of a record whose end has not arrived.
    partial: BytesMut,
    failed: bool,
}

impl Opener {
    pub(crate) fn new(key: &[u8; 32]) -> Self {
        Self {
            direction: Direction::new(key),
            partial: BytesMut::new(),
            failed: false,
        }
    }

    /// Takes the next bytes of the connection, appends the plaintext of every record that they
    /// complete to `out`, and returns how many records that were.
    ///
    /// A record that arrived whole is opened straight from `input` into `out`; the start of an
    /// unfinished one is kept here, 65,537 bytes at most.
    ///
    /// # Errors
    ///
    /// [`OpenError`] at the first record that does not open, and ever after. The plaintext of the
    /// records before it is in `out`.
    pub fn open(&mut self, mut input: &[u8], out: &mut BytesMut) -> Result<usize, OpenError> {
        if self.failed {
            return Err(OpenError);
        }
        let result = self.open_all(&mut input, out);
        self.failed = result.is_err();
        result
    }

    /// Whether the start of a record waits for its end.
    #[must_use]
    pub fn is_inside_record(&self) -> bool {
        !self.partial.is_empty()
    }

    fn open_all(&mut self, input: &mut &[u8], out: &mut BytesMut) -> Result<usize, OpenError> {
        let mut records = 0;
        if !self.partial.is_empty() {
            if !self.complete_partial(input)? {
                return Ok(0);
            }
            let sealed = self.partial.get(LENGTH_BYTES..).ok_or(OpenError)?;
            self.direction.open(sealed, out)?;
            self.partial.clear();
            records += 1;
        }
        while let Some(len) = record_length(input)? {
            let Some((record, rest)) = input.split_at_checked(LENGTH_BYTES + len) else {
                break;
            };
            self.direction
                .open(record.get(LENGTH_BYTES..).ok_or(OpenError)?, out)?;
            *input = rest;
            records += 1;
        }
        if input.is_empty() && self.partial.capacity() > IDLE_CAPACITY_MAX {
            self.partial = BytesMut::new();
        }
        if let Some(len) = record_length(input)? {
            let whole = LENGTH_BYTES + len;
            self.partial.reserve(whole.min(ROOM_FACTOR * input.len()));
        }
        self.partial.extend_from_slice(input);
        Ok(records)
    }

    /// Moves bytes from `input` until `partial` is one whole record; false if they do not suffice.
    fn complete_partial(&mut self, input: &mut &[u8]) -> Result<bool, OpenError> {
        self.fill_partial(input, LENGTH_BYTES);
        let Some(len) = record_length(&self.partial)? else {
            return Ok(false);
        };
        self.fill_partial(input, LENGTH_BYTES + len);
        Ok(self.partial.len() == LENGTH_BYTES + len)
    }

    fn fill_partial(&mut self, input: &mut &[u8], len: usize) {
        let missing = len.saturating_sub(self.partial.len());
        let (taken, rest) = input.split_at(missing.min(input.len()));
        self.partial.extend_from_slice(taken);
        *input = rest;
    }
}

impl fmt::Debug for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opener")
            .field("direction", &self.direction)
            .field("partial", &self.partial.len())
            .field("failed", &self.failed)
            .finish()
    }
}

/// The length that a record announces; `None` while it has not arrived.
fn record_length(bytes: &[u8]) -> Result<Option<usize>, OpenError> {
    let Some(head) = bytes.first_chunk::<LENGTH_BYTES>() else {
        return Ok(None);
    };
    let len = usize::from(u16::from_be_bytes(*head));
    if len >= RECORD_CIPHERTEXT_MIN {
        Ok(Some(len))
    } else {
        Err(OpenError)
    }
}

/// One key and the number of the next record.
struct Direction {
    key: LessSafeKey,
    next: u64,
}

impl Direction {
    fn new(key: &[u8; 32]) -> Self {
        Self {
            key: cipher(key),
            next: 0,
        }
    }

    /// The nonce of the next record, under the key that is now in place for it.
    fn next_nonce(&mut self) -> Option<Nonce> {
        // Noise reserves the last value for rekeying.
        if self.next == u64::MAX {
            return None;
        }
        if self.next != 0 && self.next.is_multiple_of(RECORDS_PER_KEY) {
            self.rekey()?;
        }
        let nonce = noise_nonce(self.next);
        self.next += 1;
        Some(nonce)
    }

    /// Noise specification, section 4.2: the new key is the first 32 bytes of 32 zeros sealed under
    /// the old key with the highest nonce.
    fn rekey(&mut self) -> Option<()> {
        let mut key = Zeroizing::new([0; 32]);
        let nonce = noise_nonce(u64::MAX);
        // The tag is the part of the output that Noise cuts off.
        let sealed = self
            .key
            .seal_in_place_separate_tag(nonce, Aad::empty(), key.as_mut_slice());
        sealed.is_ok().then(|| self.key = cipher(&key))
    }

    /// Opens `sealed` onto the end of `out`.
    fn open(&mut self, sealed: &[u8], out: &mut BytesMut) -> Result<(), OpenError> {
        let start = out.len();
        let (ciphertext, tag) = sealed.split_last_chunk::<TAG_BYTES>().ok_or(OpenError)?;
        let nonce = self.next_nonce().ok_or(OpenError)?;
        out.resize(start + ciphertext.len(), 0);
        let plaintext = out.get_mut(start..).ok_or(OpenError)?;
        if self
            .key
            .open_separate_gather(nonce, Aad::empty(), ciphertext, tag, plaintext)
            .is_err()
        {
            plaintext.zeroize();
            out.truncate(start);
            return Err(OpenError);
        }
        Ok(())
    }
}

impl fmt::Debug for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Direction")
            .field("next", &self.next)
            .finish_non_exhaustive()
    }
}

fn cipher(key: &[u8; 32]) -> LessSafeKey {
    #[expect(clippy::expect_used, reason = "a ChaCha20 key is any 32 bytes")]
    LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, key).expect("a key has 32 bytes"))
}

/// Four zero bytes and the number, little endian (Noise specification, section 12.3).
fn noise_nonce(number: u64) -> Nonce {
    let mut nonce = [0; 12];
    if let Some(counter) = nonce.last_chunk_mut::<8>() {
        *counter = number.to_le_bytes();
    }
    Nonce::assume_unique_for_key(nonce)
}

#[cfg(test)]
mod tests;
