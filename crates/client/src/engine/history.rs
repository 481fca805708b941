//! What opened, in the order that its author gave it, each content once (CCP-1 section 4).

use commucat_proto::id::{AccountId, DeviceId, GroupId, MessageId};
use commucat_proto::limits::GAP_PATIENCE;
use commucat_proto::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::core::Core;
use super::model::Stored;
use super::tables;
use crate::chat::{Body, Content, Stage};
use crate::error::ClientError;
use crate::event::{Event, Message, Tick};
use crate::record;

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
}

impl Core {
    /// Takes a content in, now or when those before it are there.
    pub(super) fn arrive(
        &mut self,
        group: &GroupId,
        arrival: &Arrival,
        content: Content,
    ) -> Result<(), ClientError> {
        let device = arrival.device.as_str().as_bytes().to_vec();
        let last = self.counter_of(group, &device)?;
        let counter = content.counter;
        if last.is_some_and(|last| counter > last.saturating_add(1)) {
            let bytes = record::encode(tables::EARLY, arrival)?;
            self.vault.put(
                tables::EARLY,
                group.as_bytes(),
                &early_id(&device, counter),
                &bytes,
            )?;
            self.waiting.entry((*group, device)).or_insert(self.now);
            return Ok(());
        }
        self.deliver(group, arrival, content)?;
        let reached = last.unwrap_or(0).max(counter);
        self.set_counter(group, &device, reached)?;
        self.deliver_next(group, &device, reached)
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

    /// Delivers what waited for `reached`.
    fn deliver_next(
        &mut self,
        group: &GroupId,
        device: &[u8],
        mut reached: u64,
    ) -> Result<(), ClientError> {
        if !self.waiting.contains_key(&(*group, device.to_vec())) {
            return Ok(());
        }
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

    fn deliver_stored(&mut self, group: &GroupId, bytes: &[u8]) -> Result<(), ClientError> {
        let arrival: Arrival = record::decode(tables::EARLY, bytes)?;
        match Content::decode(&arrival.content) {
            Ok(content) => self.deliver(group, &arrival, content),
            Err(_) => Ok(()),
        }
    }

    /// Gives up waiting where the patience is over: something is missing.
    pub(super) fn end_waiting(&mut self) -> Result<(), ClientError> {
        let now = self.now;
        let over: Vec<_> = self
            .waiting
            .iter()
            .filter(|(_, since)| since.saturating_add(GAP_PATIENCE) <= now)
            .map(|(key, _)| key.clone())
            .collect();
        for (group, device) in over {
            self.waiting.remove(&(group, device.clone()));
            let mut reached = self.counter_of(&group, &device)?.unwrap_or(0);
            for (id, bytes) in self.vault.list(tables::EARLY, group.as_bytes())? {
                if let Some(counter) = early_of(&id, &device) {
                    self.vault.delete(tables::EARLY, group.as_bytes(), &id)?;
                    self.deliver_stored(&group, &bytes)?;
                    reached = reached.max(counter);
                }
            }
            self.set_counter(&group, &device, reached)?;
            self.tell(Event::Gap {
                conversation: Some(group),
            });
        }
        Ok(())
    }

    /// After a restart: what waited before waits again.
    pub(super) fn restore_waiting(&mut self) -> Result<(), ClientError> {
        let groups: Vec<_> = self.conversations.keys().copied().collect();
        for group in groups {
            for (id, _) in self.vault.list(tables::EARLY, group.as_bytes())? {
                if let Some((device, _)) = id.split_last_chunk::<8>() {
                    let device = device.strip_suffix(&[0]).unwrap_or(device).to_vec();
                    self.waiting.insert((group, device), self.now);
                }
            }
            self.restore_receipts(&group)?;
        }
        Ok(())
    }

    fn deliver(
        &mut self,
        group: &GroupId,
        arrival: &Arrival,
        content: Content,
    ) -> Result<(), ClientError> {
        let own = arrival.author == self.own_id();
        if own {
            self.decided_elsewhere(group)?;
        }
        match content.body {
            Body::Text(text) => {
                let stored = Stored {
                    id: arrival.message,
                    author: arrival.author.clone(),
                    device: arrival.device.clone(),
                    counter: content.counter,
                    sent: content.sent.as_millis(),
                    text,
                    tick: 0,
                    ours: false,
                    read: false,
                };
                self.remember(group, stored)?;
                if own {
                    Ok(())
                } else {
                    self.owe_receipt(group, &arrival.message)
                }
            }
            Body::Receipt { .. } if own => Ok(()),
            Body::Receipt { stage, messages } => {
                let tick = match stage {
                    Stage::Stored => Tick::Delivered,
                    Stage::Read => Tick::Read,
                };
                messages
                    .iter()
                    .try_for_each(|message| self.reached(message, tick))
            }
            Body::Capability {
                account,
                domain,
                capability,
            } => self.learn_capability(arrival, &account, &domain, capability),
            Body::Settings { name } if arrival.admin => self.rename(group, &name),
            Body::Reaction { .. }
            | Body::Edit { .. }
            | Body::Delete(_)
            | Body::Settings { .. }
            | Body::Unknown { .. } => {
                self.vault
                    .append(tables::KEPT, group.as_bytes(), &arrival.content)?;
                Ok(())
            }
        }
    }

    /// Puts a message into the history; the application is told unless nobody decided yet whether
    /// its author may talk to this account.
    pub(super) fn remember(&mut self, group: &GroupId, stored: Stored) -> Result<u64, ClientError> {
        let bytes = record::encode(tables::HISTORY, &stored)?;
        let number = self
            .vault
            .append(tables::HISTORY, group.as_bytes(), &bytes)?;
        if stored.author != self.own_id() {
            self.vault.put(
                tables::UNSHOWN,
                b"",
                &number.to_be_bytes(),
                group.as_bytes(),
            )?;
        }
        if self
            .conversations
            .get(group)
            .is_some_and(|one| one.request.is_none())
        {
            let message = self.message(group, number, stored);
            self.tell(Event::Message(message));
        }
        Ok(number)
    }

    /// A message of this device got as far as `tick`.
    pub(super) fn reached(&mut self, message: &MessageId, tick: Tick) -> Result<(), ClientError> {
        let Some(place) = self.vault.get(tables::SENT, b"", message.as_bytes())? else {
            return Ok(());
        };
        let Some((number, group)) = place.split_first_chunk::<8>() else {
            return Ok(());
        };
        let (Ok(group), number) = (GroupId::parse(group), u64::from_be_bytes(*number)) else {
            return Ok(());
        };
        let Some(mut stored) = self.stored(&group, number)? else {
            return Ok(());
        };
        if tick_of(stored.tick) >= tick {
            return Ok(());
        }
        stored.tick = tick_number(tick);
        let bytes = record::encode(tables::HISTORY, &stored)?;
        self.vault
            .replace(tables::HISTORY, group.as_bytes(), number, &bytes)?;
        self.tell(Event::Tick {
            conversation: group,
            message: *message,
            tick,
        });
        Ok(())
    }

    /// How far a message of this device is.
    pub(super) fn tick(&self, message: &MessageId) -> Result<Option<Tick>, ClientError> {
        let place = self.vault.get(tables::SENT, b"", message.as_bytes())?;
        let Some((number, group)) = place.as_deref().and_then(<[u8]>::split_first_chunk::<8>)
        else {
            return Ok(None);
        };
        let Ok(group) = GroupId::parse(group) else {
            return Ok(None);
        };
        let stored = self.stored(&group, u64::from_be_bytes(*number))?;
        Ok(stored.map(|stored| tick_of(stored.tick)))
    }

    /// One message of a history.
    pub(super) fn stored(
        &self,
        group: &GroupId,
        number: u64,
    ) -> Result<Option<Stored>, ClientError> {
        let after = number.saturating_sub(1);
        let page = self
            .vault
            .entries(tables::HISTORY, group.as_bytes(), after, 1)?;
        match page.first() {
            Some((found, bytes)) if *found == number => {
                Ok(Some(record::decode(tables::HISTORY, bytes)?))
            }
            _ => Ok(None),
        }
    }

    /// A stored message as the application sees it.
    pub(super) fn message(&self, group: &GroupId, number: u64, stored: Stored) -> Message {
        Message {
            number,
            conversation: *group,
            id: stored.id,
            author_name: self.name_of(&stored.author),
            own: stored.author == self.own_id(),
            author: stored.author,
            device: stored.device,
            counter: stored.counter,
            sent: Timestamp::from_millis(stored.sent),
            text: stored.text,
            tick: tick_of(stored.tick),
        }
    }

    /// A page of a history.
    pub(super) fn page(
        &self,
        group: &GroupId,
        after: u64,
        limit: u32,
    ) -> Result<Vec<Message>, ClientError> {
        let page = self
            .vault
            .entries(tables::HISTORY, group.as_bytes(), after, limit)?;
        page.into_iter()
            .map(|(number, bytes)| {
                let stored = record::decode(tables::HISTORY, &bytes)?;
                Ok(self.message(group, number, stored))
            })
            .collect()
    }

    /// Messages that were not shown yet, of conversations that were decided on.
    pub(super) fn unshown(&self, limit: u32) -> Result<Vec<Message>, ClientError> {
        let mut out = Vec::new();
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        for (number, group) in self.vault.list(tables::UNSHOWN, b"")? {
            let (Ok(number), Ok(group)) = (number.try_into(), GroupId::parse(&group)) else {
                continue;
            };
            let number = u64::from_be_bytes(number);
            let decided = self
                .conversations
                .get(&group)
                .is_none_or(|one| one.request.is_none());
            if decided && let Some(stored) = self.stored(&group, number)? {
                out.push(self.message(&group, number, stored));
            }
            if out.len() >= limit {
                break;
            }
        }
        Ok(out)
    }
}

fn early_id(device: &[u8], counter: u64) -> Vec<u8> {
    [device, &[0], &counter.to_be_bytes()].concat()
}

/// The counter in an id of [`early_id`], if it is of `device`.
fn early_of(id: &[u8], device: &[u8]) -> Option<u64> {
    let counter = id.strip_prefix(device)?.strip_prefix(&[0])?;
    counter.try_into().ok().map(u64::from_be_bytes)
}

pub(super) const fn tick_of(number: u8) -> Tick {
    match number {
        0 => Tick::Queued,
        1 => Tick::Stored,
        2 => Tick::Delivered,
        _ => Tick::Read,
    }
}

const fn tick_number(tick: Tick) -> u8 {
    match tick {
        Tick::Queued => 0,
        Tick::Stored => 1,
        Tick::Delivered => 2,
        Tick::Read => 3,
    }
}
