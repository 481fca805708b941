//! What contents say, and the history of messages that they make (CCP-1 section 5.5).

use commucat_proto::id::{GroupId, MessageId};
use commucat_proto::time::Timestamp;

use super::core::Core;
use super::model::Stored;
use super::order::Arrival;
use super::tables;
use crate::chat::{Body, Content, Stage};
use crate::error::ClientError;
use crate::event::{Event, Message, Tick};
use crate::record;

impl Core {
    /// Does what a content says, once.
    pub(super) fn deliver(
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
        if tick >= Tick::Delivered {
            // Whoever has it has it from the hub.
            self.settle_given(&group, message)?;
        }
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
            group_name: self.group_name(group),
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
