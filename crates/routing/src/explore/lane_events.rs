//! What can happen in the lane's world.

use super::lane_store::Read;
use super::lane_world::LaneWorld;
use super::{Kind, World};
use crate::lane::Lane;

#[derive(Clone, Copy, Debug)]
pub(super) enum Event {
    AuthorSends(usize),
    AuthorGetsAnswers(usize),
    AuthorBreaks(usize),
    TicketExpires(u8),
    HoldPasses,
    LaneCloses,
    Store(StoreEvent),
    Device(DeviceEvent),
    Crashes,
    CrashesAfterCommit,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum StoreEvent {
    SpoolCommits,
    SpoolAnswerLost,
    SpoolFails,
    SpoolFailsThoughCommitted,
    HubCommits,
    HubPokes,
    OutsideCommits,
    Deletes,
}

/// Events of the device, its connections and their sessions.
#[derive(Clone, Copy, Debug)]
pub(super) enum DeviceEvent {
    Connects,
    Reconnects,
    Breaks,
    Receives,
    SessionGetsAck,
    OldSessionGetsAck,
    OldSessionEnds,
    SessionPumps,
    StoreReads,
    PageArrives,
    PageFails,
}

impl World for LaneWorld {
    type Event = Event;

    fn events(&self) -> Vec<(Kind, Event)> {
        let mut events = Vec::new();
        let mut step = |enabled: bool, event| {
            if enabled {
                events.push((Kind::Step, event));
            }
        };
        for (index, author) in self.authors.iter().enumerate() {
            step(!author.answers.is_empty(), Event::AuthorGetsAnswers(index));
            step(
                author.next().is_some() && self.hub.is_none(),
                Event::AuthorSends(index),
            );
        }
        step(self.spool.is_some(), Event::Store(StoreEvent::SpoolCommits));
        step(
            self.hub.as_ref().is_some_and(|hub| !hub.committed),
            Event::Store(StoreEvent::HubCommits),
        );
        step(
            self.hub.as_ref().is_some_and(|hub| hub.committed),
            Event::Store(StoreEvent::HubPokes),
        );
        step(
            self.outside.is_some(),
            Event::Store(StoreEvent::OutsideCommits),
        );
        step(
            !self.rows.deletes.is_empty(),
            Event::Store(StoreEvent::Deletes),
        );
        step(
            self.connection.is_none(),
            Event::Device(DeviceEvent::Connects),
        );
        if let Some(connection) = &self.connection {
            let asked = matches!(connection.read, Some(Read::Asked(_)));
            let found = matches!(connection.read, Some(Read::Found(..)));
            step(
                !connection.down.is_empty(),
                Event::Device(DeviceEvent::Receives),
            );
            step(
                connection.received > connection.acked,
                Event::Device(DeviceEvent::SessionGetsAck),
            );
            step(
                connection.runnable,
                Event::Device(DeviceEvent::SessionPumps),
            );
            step(asked, Event::Device(DeviceEvent::StoreReads));
            step(found, Event::Device(DeviceEvent::PageArrives));
        }
        if let Some(old) = &self.old {
            step(
                old.received > old.acked,
                Event::Device(DeviceEvent::OldSessionGetsAck),
            );
            step(true, Event::Device(DeviceEvent::OldSessionEnds));
        }
        let lane = self.lane.as_ref();
        step(
            lane.is_some_and(|lane| lane.deadline().is_some()),
            Event::HoldPasses,
        );
        self.faults(&mut events);
        events
    }

    fn apply(&mut self, event: Event) -> Result<(), String> {
        self.happen(event)?;
        self.nothing_is_lost()
    }

    fn at_rest(&self) -> Result<(), String> {
        for author in &self.authors {
            if author.acked.len() != author.items.len() {
                return Err(format!(
                    "an author waits: {:?} of {:?}",
                    author.acked, author.items
                ));
            }
            if let Some(missing) = author.items.iter().find(|item| !self.shown.contains(item)) {
                return Err(format!("{missing} is not shown"));
            }
        }
        if !self.legs.is_empty() {
            return Err("a leg is open".to_owned());
        }
        if let Some((_, item)) = self.rows.rows.first() {
            return Err(format!("the row of {item} stays though the device has it"));
        }
        match &self.lane {
            Some(lane) if !lane.is_empty() => Err("the window is not empty".to_owned()),
            _ => Ok(()),
        }
    }
}

impl LaneWorld {
    fn faults(&self, events: &mut Vec<(Kind, Event)>) {
        let mut fault = |enabled: bool, event| {
            if enabled {
                events.push((Kind::Fault, event));
            }
        };
        let plan = &self.plan;
        for (index, author) in self.authors.iter().enumerate() {
            let waits = author.acked.len() < author.sent.len().max(1) && !author.sent.is_empty();
            fault(plan.author_breaks > 0 && waits, Event::AuthorBreaks(index));
        }
        for id in self.legs.keys() {
            fault(plan.expiries > 0, Event::TicketExpires(*id));
        }
        let store = plan.store_faults > 0;
        fault(
            store && self.spool.is_some(),
            Event::Store(StoreEvent::SpoolAnswerLost),
        );
        fault(
            store && self.spool.is_some(),
            Event::Store(StoreEvent::SpoolFails),
        );
        fault(
            store && self.spool.is_some(),
            Event::Store(StoreEvent::SpoolFailsThoughCommitted),
        );
        if let Some(connection) = &self.connection {
            fault(plan.device_breaks > 0, Event::Device(DeviceEvent::Breaks));
            fault(
                plan.device_breaks > 0 && self.old.is_none(),
                Event::Device(DeviceEvent::Reconnects),
            );
            fault(
                store && connection.read.is_some(),
                Event::Device(DeviceEvent::PageFails),
            );
        }
        let is_idle = |lane: &Lane<u8>| lane.clone().close_if_idle();
        fault(self.lane.as_ref().is_some_and(is_idle), Event::LaneCloses);
        fault(plan.crashes > 0, Event::Crashes);
        fault(
            plan.crashes > 0 && self.spool.is_some(),
            Event::CrashesAfterCommit,
        );
    }
}
