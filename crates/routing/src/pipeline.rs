//! A session's unanswered MSGs: their bound, their answers, and what a failure does to those behind.

use std::collections::VecDeque;

use crate::ack::{Range, Ranges};
use crate::ticket::Status;

/// `limits.unacked`: what a client may have unanswered (CCP-1 section 4).
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Frames (1,024).
    pub frames: usize,
    /// Payload bytes (4 MiB).
    pub bytes: usize,
}

/// A client that does not wait for its answers; fatal for the connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("more frames unanswered than `limits.unacked` allows")]
pub struct OverflowError;

/// One MSG that waits for its answer.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
struct Open {
    sequence: u64,
    channel: u64,
    bytes: usize,
    answered: bool,
}

/// The unanswered MSGs of one session, oldest first, and the answers that wait to be written.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub struct Pipeline {
    open: VecDeque<Open>,
    frames: usize,
    bytes: usize,
    ranges: Ranges,
}

impl Pipeline {
    /// Notes a MSG on a bound channel; sequences ascend.
    ///
    /// # Errors
    ///
    /// [`OverflowError`] beyond the limits.
    pub fn begin(
        &mut self,
        sequence: u64,
        channel: u64,
        bytes: usize,
        limits: Limits,
    ) -> Result<(), OverflowError> {
        let total = self.bytes.saturating_add(bytes);
        if self.frames >= limits.frames || total > limits.bytes {
            return Err(OverflowError);
        }
        self.frames += 1;
        self.bytes = total;
        self.open.push_back(Open {
            sequence,
            channel,
            bytes,
            answered: false,
        });
        Ok(())
    }

    /// The frame's ticket is done: its answer waits to be written. Returns whether it was open.
    pub fn done(&mut self, sequence: u64, status: Status) -> bool {
        let was_open = self.answer(sequence).is_some();
        if was_open {
            self.ranges.push(sequence, status);
        }
        was_open
    }

    /// The frame failed: the caller answers it with its ERROR, unbinds the channel returned, and
    /// answers every sequence returned, all behind it on that channel, with `Not Joined`.
    ///
    /// `None` if the frame is answered already, for example as one of those behind an earlier one.
    pub fn failed(&mut self, sequence: u64) -> Option<Failure> {
        let channel = self.answer(sequence)?;
        let is_behind =
            |open: &&Open| open.sequence > sequence && open.channel == channel && !open.answered;
        let behind: Vec<u64> = self
            .open
            .iter()
            .filter(is_behind)
            .map(|open| open.sequence)
            .collect();
        for sequence in &behind {
            self.answer(*sequence);
        }
        Some(Failure { channel, behind })
    }

    /// Takes the answers that wait, for one ACK frame.
    #[must_use]
    pub fn take_acks(&mut self) -> Vec<Range> {
        self.ranges.take()
    }

    /// Whether answers wait to be written.
    #[must_use]
    pub const fn has_acks(&self) -> bool {
        !self.ranges.is_empty()
    }

    /// Whether the frame is unanswered.
    #[must_use]
    pub fn is_open(&self, sequence: u64) -> bool {
        let found = self
            .open
            .binary_search_by_key(&sequence, |open| open.sequence)
            .ok();
        found
            .and_then(|index| self.open.get(index))
            .is_some_and(|open| !open.answered)
    }

    /// How many frames are unanswered.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.frames
    }

    /// Whether every frame is answered.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.frames == 0
    }

    fn answer(&mut self, sequence: u64) -> Option<u64> {
        let index = self
            .open
            .binary_search_by_key(&sequence, |open| open.sequence)
            .ok()?;
        let open = self.open.get_mut(index).filter(|open| !open.answered)?;
        open.answered = true;
        let channel = open.channel;
        self.frames = self.frames.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(open.bytes);
        while self.open.front().is_some_and(|front| front.answered) {
            self.open.pop_front();
        }
        Some(channel)
    }
}

/// What follows from a failed frame.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Failure {
    /// Unbound from now on.
    pub channel: u64,
    /// Fail with it, oldest first.
    pub behind: Vec<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        frames: 4,
        bytes: 100,
    };

    fn with(channels: &[u64]) -> Pipeline {
        let mut pipeline = Pipeline::default();
        for (sequence, channel) in (1..).zip(channels) {
            pipeline.begin(sequence, *channel, 10, LIMITS).unwrap();
        }
        pipeline
    }

    #[test]
    fn a_failed_frame_fails_those_behind_it_on_its_channel_only() {
        let mut pipeline = with(&[1, 1, 2, 1]);

        let failure = pipeline.failed(2);

        assert_eq!(
            failure,
            Some(Failure {
                channel: 1,
                behind: vec![4]
            })
        );
        assert_eq!(pipeline.len(), 2);
        assert!(pipeline.done(1, Status::Stored) && pipeline.done(3, Status::Stored));
        assert!(
            !pipeline.done(4, Status::Stored),
            "it is answered `Not Joined` already"
        );
    }

    #[test]
    fn a_frame_is_answered_once() {
        let mut pipeline = with(&[1]);

        assert!(pipeline.is_open(1) && !pipeline.is_open(2));
        assert!(pipeline.done(1, Status::Delivered));
        assert!(!pipeline.is_open(1));
        assert!(!pipeline.done(1, Status::Delivered));
        assert_eq!(pipeline.failed(1), None);
        assert_eq!(pipeline.take_acks().len(), 1);
    }

    #[test]
    fn a_client_that_does_not_wait_overflows() {
        let mut pipeline = with(&[1, 1, 1, 1]);

        assert_eq!(pipeline.begin(5, 1, 1, LIMITS), Err(OverflowError));
        assert!(pipeline.done(3, Status::Stored));
        assert_eq!(pipeline.begin(5, 1, 100, LIMITS), Err(OverflowError));
        assert_eq!(pipeline.begin(5, 1, 70, LIMITS), Ok(()));
    }
}
