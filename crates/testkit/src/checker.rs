//! Judges a history: nothing acknowledged is lost, nothing shown twice, each author's order kept,
//! nothing out of thin air.

use std::collections::{HashMap, HashSet};

use crate::history::{Act, History, Key};

/// A message and the device that it concerns.
pub type Finding = (Key, usize);

/// What is wrong with a history, and its size.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Verdict {
    /// Messages that were sent.
    pub sent: usize,
    /// Messages that were acknowledged to their authors.
    pub acknowledged: usize,
    /// Times that a message was shown.
    pub shown: usize,
    /// Acknowledged, but not shown on this device of the room.
    pub lost: Vec<Finding>,
    /// Shown again.
    pub twice: Vec<Finding>,
    /// Shown after a later message of the same author in the same room.
    pub disordered: Vec<Finding>,
    /// Shown or acknowledged without having been sent before, shown where it does not belong, or
    /// written by nobody (then the key is `None`).
    pub alien: Vec<(Option<Key>, usize)>,
}

impl Verdict {
    /// Whether all is as promised.
    #[must_use]
    pub const fn is_good(&self) -> bool {
        self.lost.is_empty()
            && self.twice.is_empty()
            && self.disordered.is_empty()
            && self.alien.is_empty()
    }
}

/// Judges a history.
#[must_use]
pub fn check(history: &History) -> Verdict {
    let mut verdict = Verdict::default();
    let mut sent = HashSet::new();
    let mut acknowledged = HashSet::new();
    let mut shown = HashSet::new();
    let mut newest: HashMap<(usize, usize, usize), u64> = HashMap::new();
    let is_in = |room: usize, device| {
        let devices = history.rooms.get(room);
        devices.is_some_and(|devices| devices.contains(&device))
    };

    for entry in &history.entries {
        let device = entry.device;
        match entry.act {
            Act::Send(key) => {
                let is_right = key.author == device && is_in(key.room, device);
                if !is_right || !sent.insert(key) {
                    verdict.alien.push((Some(key), device));
                }
            }
            Act::Ack(key) => {
                if key.author != device || !sent.contains(&key) {
                    verdict.alien.push((Some(key), device));
                }
                acknowledged.insert(key);
            }
            Act::Show(key) => {
                if !sent.contains(&key) || !is_in(key.room, device) {
                    verdict.alien.push((Some(key), device));
                }
                if !shown.insert((key, device)) {
                    verdict.twice.push((key, device));
                    continue;
                }
                let newest = newest.entry((device, key.room, key.author)).or_default();
                if key.number < *newest {
                    verdict.disordered.push((key, device));
                }
                *newest = key.number.max(*newest);
            }
            Act::ShowUnknown => verdict.alien.push((None, device)),
        }
    }

    for key in &acknowledged {
        for device in history.rooms.get(key.room).into_iter().flatten() {
            if !shown.contains(&(*key, *device)) {
                verdict.lost.push((*key, *device));
            }
        }
    }
    verdict.lost.sort_unstable();
    verdict.sent = sent.len();
    verdict.acknowledged = acknowledged.len();
    verdict.shown = shown.len();
    verdict
}

#[cfg(test)]
mod tests;
