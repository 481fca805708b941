//! The order of an author's contents: what came early waits for what is before it, and what will
//! never come is told (CCP-1 section 5.5).
//!
//! A content overtakes another one when the hub refused the first as too old and it is sealed again.
//! So a gap alone says nothing: the author says which of its contents are settled, and only what is
//! not there although it is settled is missing.

use commucat_proto::id::{AccountId, DeviceId, GroupId, MessageId};
use commucat_proto::limits::{GAP_PATIENCE, ORDER_PATIENCE};
use commucat_proto::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::core::Core;
use super::tables;
use crate::chat::Content;
use crate::error::ClientError;
use crate::event::Event;
use crate::record;

/// Gaps of one author that are remembered; the oldest beyond it is told as missing.
const GAPS_MAX: usize = 64;

/// A content with its author.
#[derive(Clone, Deserialize, Serialize)]
pub(super) struct Arrival {
    #[serde(with = "record::raw")]
    pub(super) author: AccountId,
    #[serde(with = "record::raw")]
    pub(super) device: DeviceId,
    #[serde(with = "record::raw")]
    pub(super) message: MessageId,
    /// The author may change settings.
    pub(super) admin: bool,
    #[serde(with = "record::raw")]
    pub(super) content: Vec<u8>,
    /// When it came.
    #[serde(default)]
    pub(super) came: u64,
}

/// Counters that were passed over, first and last.
type Gap = (u64, u64);

impl Core {
    /// Takes a content in, now or when those before it are there.
    pub(super) fn arrive(
        &mut self,
        group: &GroupId,
        arrival: &Arrival,
        content: Content,
    ) -> Result<(), ClientError> {
        let device = arrival.device.as_str().as_bytes().to_vec();
        let settled = content.settled;
        if content.counter == 0 {
            self.deliver(group, arrival, content)?;
        } else {
            self.take_in_turn(group, (&device, arrival), content)?;
        }
        match settled {
            Some(settled) => self.settled_to(group, &device, settled),
            None => Ok(()),
        }
    }

    fn take_in_turn(
        &mut self,
        group: &GroupId,
        (device, arrival): (&[u8], &Arrival),
        content: Content,
    ) -> Result<(), ClientError> {
        let counter = content.counter;
        match self.counter_of(group, device)? {
            Some(last) if counter > last.saturating_add(1) => {
                let bytes = record::encode(tables::EARLY, arrival)?;
                let id = early_id(device, counter);
                self.vault
                    .put(tables::EARLY, group.as_bytes(), &id, &bytes)?;
                tracing::debug!(count = counter - last - 1, "a content came before its turn");
                let since = self.now;
                self.waiting
                    .entry((*group, device.to_vec()))
                    .or_insert(since);
                Ok(())
            }
            Some(last) if counter <= last => {
                let is_too_many = self.change_gaps(group, device, |gaps| {
                    fill(gaps, counter);
                    shorten(gaps)
                })?;
                self.deliver(group, arrival, content)?;
                if is_too_many {
                    self.tell(Event::Gap {
                        conversation: Some(*group),
                    });
                }
                Ok(())
            }
            Some(_) | None => {
                self.deliver(group, arrival, content)?;
                self.set_counter(group, device, counter)?;
                self.deliver_next(group, device, counter)
            }
        }
    }

    /// The author says that all counters up to `settled` are settled: what is not there never comes.
    fn settled_to(
        &mut self,
        group: &GroupId,
        device: &[u8],
        settled: u64,
    ) -> Result<(), ClientError> {
        // Of an author who is heard for the first time nothing is missed.
        let Some(last) = self.counter_of(group, device)? else {
            return Ok(());
        };
        let mut is_missing = self.change_gaps(group, device, |gaps| cut(gaps, settled))?;
        if settled > last {
            let came = self.deliver_early(group, device, settled)?;
            is_missing |= u64::try_from(came.len()).unwrap_or(u64::MAX) < settled - last;
            self.set_counter(group, device, settled)?;
            self.deliver_next(group, device, settled)?;
        }
        if is_missing {
            tracing::debug!("what its author calls settled is not here");
            self.tell(Event::Gap {
                conversation: Some(*group),
            });
        }
        Ok(())
    }

    fn counter_of(&self, group: &GroupId, device: &[u8]) -> Result<Option<u64>, ClientError> {
        let bytes = self.vault.get(tables::COUNTER, group.as_bytes(), device)?;
        Ok(bytes
            .and_then(|bytes| bytes.try_into().ok())
            .map(u64::from_be_bytes))
    }

    fn set_counter(&self, group: &GroupId, device: &[u8], at: u64) -> Result<(), ClientError> {
        Ok(self
            .vault
            .put(tables::COUNTER, group.as_bytes(), device, &at.to_be_bytes())?)
    }

    /// Changes what is remembered of an author's gaps; returns what `change` does.
    fn change_gaps<R>(
        &self,
        group: &GroupId,
        device: &[u8],
        change: impl FnOnce(&mut Vec<Gap>) -> R,
    ) -> Result<R, ClientError> {
        let key = (group.as_bytes().as_slice(), device);
        let mut gaps: Vec<Gap> = record::get(&self.vault, tables::PASSED, key)?.unwrap_or_default();
        let before = gaps.clone();
        let result = change(&mut gaps);
        if gaps.is_empty() && !before.is_empty() {
            self.vault.delete(tables::PASSED, key.0, key.1)?;
        } else if gaps != before {
            record::put(&self.vault, tables::PASSED, key, &gaps)?;
        }
        Ok(result)
    }

    /// Delivers what waited for `reached`.
    fn deliver_next(
        &mut self,
        group: &GroupId,
        device: &[u8],
        mut reached: u64,
    ) -> Result<(), ClientError> {
        let Some(since) = self.waiting.get(&(*group, device.to_vec())).copied() else {
            return Ok(());
        };
        let elapsed_ms = self.now.since(since).as_millis();
        tracing::debug!(elapsed_ms, "what contents waited for has come");
        loop {
            let id = early_id(device, reached.saturating_add(1));
            let Some(bytes) = self.vault.get(tables::EARLY, group.as_bytes(), &id)? else {
                break;
            };
            self.vault.delete(tables::EARLY, group.as_bytes(), &id)?;
            reached = reached.saturating_add(1);
            self.deliver_stored(group, &bytes)?;
        }
        self.set_counter(group, device, reached)?;
        let rest = self.vault.list(tables::EARLY, group.as_bytes())?;
        if !rest.iter().any(|(id, _)| early_of(id, device).is_some()) {
            self.waiting.remove(&(*group, device.to_vec()));
        }
        Ok(())
    }

    /// Delivers what came early, up to a counter, in order; their counters.
    fn deliver_early(
        &mut self,
        group: &GroupId,
        device: &[u8],
        up_to: u64,
    ) -> Result<Vec<u64>, ClientError> {
        let mut came = Vec::new();
        for (id, bytes) in self.vault.list(tables::EARLY, group.as_bytes())? {
            let counter = early_of(&id, device).filter(|counter| *counter <= up_to);
            if let Some(counter) = counter {
                self.vault.delete(tables::EARLY, group.as_bytes(), &id)?;
                self.deliver_stored(group, &bytes)?;
                came.push(counter);
            }
        }
        Ok(came)
    }

    fn deliver_stored(&mut self, group: &GroupId, bytes: &[u8]) -> Result<(), ClientError> {
        let arrival: Arrival = record::decode(tables::EARLY, bytes)?;
        match Content::decode(&arrival.content) {
            Ok(content) => self.deliver(group, &arrival, content),
            Err(_) => Ok(()),
        }
    }

    /// When what waits since `since` is shown without what is before it. Not while the queue has
    /// more: it may be in there.
    pub(super) fn waits_until(&self, since: Timestamp) -> Option<Timestamp> {
        let caught_up = self.online.as_ref()?.caught_up?;
        Some(
            since
                .saturating_add(ORDER_PATIENCE)
                .max(caught_up.saturating_add(GAP_PATIENCE)),
        )
    }

    /// Shows what has waited long enough. What it waited for may still come: nothing is said of it
    /// before its author says that it is settled.
    pub(super) fn end_waiting(&mut self) -> Result<(), ClientError> {
        let now = self.now;
        let over: Vec<_> = self
            .waiting
            .iter()
            .filter(|(_, since)| self.waits_until(**since).is_some_and(|at| at <= now))
            .map(|(key, _)| key.clone())
            .collect();
        for (group, device) in over {
            self.waiting.remove(&(group, device.clone()));
            let mut reached = self.counter_of(&group, &device)?.unwrap_or(0);
            let mut passed = Vec::new();
            for counter in self.deliver_early(&group, &device, u64::MAX)? {
                if counter > reached.saturating_add(1) {
                    passed.push((reached.saturating_add(1), counter - 1));
                }
                reached = counter;
            }
            self.set_counter(&group, &device, reached)?;
            let is_too_many = self.change_gaps(&group, &device, |gaps| {
                gaps.extend(passed);
                shorten(gaps)
            })?;
            if is_too_many {
                self.tell(Event::Gap {
                    conversation: Some(group),
                });
            }
        }
        Ok(())
    }

    /// After a restart: what waited before goes on waiting.
    pub(super) fn restore_waiting(&mut self) -> Result<(), ClientError> {
        let groups: Vec<_> = self.conversations.keys().copied().collect();
        for group in groups {
            for (id, bytes) in self.vault.list(tables::EARLY, group.as_bytes())? {
                if let Some((device, _)) = id.split_last_chunk::<8>() {
                    let device = device.strip_suffix(&[0]).unwrap_or(device).to_vec();
                    let arrival: Arrival = record::decode(tables::EARLY, &bytes)?;
                    let came = Timestamp::from_millis(arrival.came);
                    let since = self.waiting.entry((group, device)).or_insert(came);
                    *since = came.min(*since);
                }
            }
            self.restore_receipts(&group)?;
        }
        Ok(())
    }

    /// A device that joins a group misses nothing that was said there before. What waited from an earlier
    /// time in the group is shown.
    pub(super) fn forget_order(&mut self, group: &GroupId) -> Result<(), ClientError> {
        for (_, bytes) in self.vault.list(tables::EARLY, group.as_bytes())? {
            self.deliver_stored(group, &bytes)?;
        }
        self.waiting.retain(|(of, _), _| of != group);
        for table in [tables::COUNTER, tables::EARLY, tables::PASSED] {
            self.vault.delete_scope(table, group.as_bytes())?;
        }
        Ok(())
    }
}

/// Takes one counter out of the gaps.
fn fill(gaps: &mut Vec<Gap>, counter: u64) {
    let Some(at) = gaps
        .iter()
        .position(|(first, last)| (*first..=*last).contains(&counter))
    else {
        return;
    };
    let (first, last) = gaps.remove(at);
    if counter < last {
        gaps.insert(at, (counter + 1, last));
    }
    if first < counter {
        gaps.insert(at, (first, counter - 1));
    }
}

/// Forgets the oldest of too many gaps; whether there were.
fn shorten(gaps: &mut Vec<Gap>) -> bool {
    let more = gaps.len().saturating_sub(GAPS_MAX);
    gaps.drain(..more);
    more > 0
}

/// Takes all counters up to `settled` out of the gaps; whether there were any.
fn cut(gaps: &mut Vec<Gap>, settled: u64) -> bool {
    let there_were = gaps.iter().any(|(first, _)| *first <= settled);
    gaps.retain(|(_, last)| *last > settled);
    for (first, _) in gaps {
        *first = settled.saturating_add(1).max(*first);
    }
    there_were
}

fn early_id(device: &[u8], counter: u64) -> Vec<u8> {
    [device, &[0], &counter.to_be_bytes()].concat()
}

/// The counter in an id of [`early_id`], if it is of `device`.
fn early_of(id: &[u8], device: &[u8]) -> Option<u64> {
    let counter = id.strip_prefix(device)?.strip_prefix(&[0])?;
    counter.try_into().ok().map(u64::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_that_comes_late_leaves_the_rest_of_its_gap() {
        let mut gaps = vec![(3, 5), (8, 8)];

        fill(&mut gaps, 4);
        assert_eq!(gaps, [(3, 3), (5, 5), (8, 8)]);
        fill(&mut gaps, 8);
        fill(&mut gaps, 3);
        fill(&mut gaps, 100);

        assert_eq!(gaps, [(5, 5)]);
    }

    #[test]
    fn an_author_that_fills_its_gaps_from_the_middle_does_not_make_the_list_longer() {
        let mut gaps = vec![(1, 1_000)];

        let told = (1..=500).filter(|n| {
            fill(&mut gaps, 2 * n);
            shorten(&mut gaps)
        });

        assert_eq!(told.count(), 500 - GAPS_MAX);
        assert_eq!(gaps.len(), GAPS_MAX);
    }

    #[test]
    fn what_is_settled_leaves_the_gaps() {
        let mut gaps = vec![(3, 5), (8, 8)];

        assert!(!cut(&mut gaps, 2));
        assert!(cut(&mut gaps, 4));
        assert_eq!(gaps, [(5, 5), (8, 8)]);
        assert!(cut(&mut gaps, u64::MAX));
        assert!(gaps.is_empty());
    }
}
