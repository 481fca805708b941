//! What can happen in the lane's world.

use super::bugs::Bug;
use super::lane_store::{Connection, Read, envelope};
use super::lane_world::{LaneWorld, send};
use super::{Kind, World};
use crate::lane::{Attachment, Page, Pumped};
use crate::ticket::Outcome;

#[derive(Clone, Copy, Debug)]
pub(super) enum Event {
    AuthorSends(usize),
    AuthorGetsAnswers(usize),
    AuthorBreaks(usize),
    TicketExpires(u8),
    HoldPasses,
    SpoolCommits,
    SpoolAnswerLost,
    SpoolFails,
    SpoolFailsThoughCommitted,
    HubCommits,
    HubPokes,
    OutsideCommits,
    Deletes,
    LaneCloses,
    DeviceConnects,
    DeviceReconnects,
    DeviceBreaks,
    DeviceReceives,
    SessionGetsAck,
    OldSessionGetsAck,
    OldSessionEnds,
    SessionPumps,
    StoreReads,
    PageArrives,
    PageFails,
    Crashes,
    CrashesAfterCommit,
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
        step(self.spool.is_some(), Event::SpoolCommits);
        step(
            self.hub.as_ref().is_some_and(|hub| !hub.committed),
            Event::HubCommits,
        );
        step(
            self.hub.as_ref().is_some_and(|hub| hub.committed),
            Event::HubPokes,
        );
        step(self.outside.is_some(), Event::OutsideCommits);
        step(!self.rows.deletes.is_empty(), Event::Deletes);
        step(self.connection.is_none(), Event::DeviceConnects);
        if let Some(connection) = &self.connection {
            let asked = matches!(connection.read, Some(Read::Asked(_)));
            let found = matches!(connection.read, Some(Read::Found(..)));
            step(!connection.down.is_empty(), Event::DeviceReceives);
            step(
                connection.received > connection.acked,
                Event::SessionGetsAck,
            );
            step(connection.runnable, Event::SessionPumps);
            step(asked, Event::StoreReads);
            step(found, Event::PageArrives);
        }
        if let Some(old) = &self.old {
            step(old.received > old.acked, Event::OldSessionGetsAck);
            step(true, Event::OldSessionEnds);
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
        fault(store && self.spool.is_some(), Event::SpoolAnswerLost);
        fault(store && self.spool.is_some(), Event::SpoolFails);
        fault(
            store && self.spool.is_some(),
            Event::SpoolFailsThoughCommitted,
        );
        if let Some(connection) = &self.connection {
            fault(plan.device_breaks > 0, Event::DeviceBreaks);
            fault(
                plan.device_breaks > 0 && self.old.is_none(),
                Event::DeviceReconnects,
            );
            fault(store && connection.read.is_some(), Event::PageFails);
        }
        let is_idle = |lane: &crate::lane::Lane<u8>| lane.clone().close_if_idle();
        fault(self.lane.as_ref().is_some_and(is_idle), Event::LaneCloses);
        fault(plan.crashes > 0, Event::Crashes);
        fault(
            plan.crashes > 0 && self.spool.is_some(),
            Event::CrashesAfterCommit,
        );
    }

    fn happen(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::AuthorSends(index) => {
                let Some(item) = self.authors[index].next() else {
                    return Ok(());
                };
                return self.accept(index, item);
            }
            Event::AuthorGetsAnswers(index) => {
                let author = &mut self.authors[index];
                for item in std::mem::take(&mut author.answers) {
                    if !author.acked.contains(&item) {
                        author.acked.push(item);
                    }
                }
                author.acked.sort_unstable();
            }
            Event::AuthorBreaks(index) => {
                self.plan.author_breaks -= 1;
                self.authors[index].answers.clear();
                self.authors[index].rebind();
            }
            Event::TicketExpires(id) => {
                self.plan.expiries -= 1;
                self.expire(id);
            }
            Event::HoldPasses => {
                let now = self.now;
                return self.with_lane(|lane, out| lane.tick(now, out));
            }
            Event::LaneCloses => {
                if self
                    .lane
                    .as_mut()
                    .is_some_and(crate::lane::Lane::close_if_idle)
                {
                    self.lane = None;
                }
            }
            Event::Crashes => self.crash(),
            Event::CrashesAfterCommit => {
                if let Some(insert) = self.spool.take() {
                    self.rows.commit(&insert);
                }
                self.crash();
            }
            store @ (Event::SpoolCommits
            | Event::SpoolAnswerLost
            | Event::SpoolFails
            | Event::SpoolFailsThoughCommitted
            | Event::HubCommits
            | Event::HubPokes
            | Event::OutsideCommits
            | Event::Deletes) => return self.store_acts(store),
            device => return self.device_acts(device),
        }
        Ok(())
    }

    fn store_acts(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::SpoolCommits => return self.spooled(),
            Event::SpoolAnswerLost => {
                self.plan.store_faults -= 1;
                if let Some(insert) = &self.spool {
                    self.rows.commit(insert);
                }
            }
            Event::SpoolFails | Event::SpoolFailsThoughCommitted => {
                self.plan.store_faults -= 1;
                let insert = self.spool.take();
                if let (Event::SpoolFailsThoughCommitted, Some(insert)) = (event, insert) {
                    self.rows.commit(&insert);
                }
                return self.with_lane(|lane, out| lane.spool_failed(out));
            }
            Event::HubCommits => {
                if let Some(hub) = &mut self.hub {
                    hub.committed = true;
                    self.rows.commit(&hub.insert);
                    self.log.push(hub.item);
                }
            }
            Event::HubPokes => {
                let Some(hub) = self.hub.take() else {
                    return Ok(());
                };
                if self.plan.bug != Some(Bug::CommitWithoutPoke) && self.lane.is_some() {
                    self.with_lane(|lane, out| lane.poke(out))?;
                }
                let author = &mut self.authors[hub.author];
                if author.channel == hub.channel {
                    author.answers.push(hub.item);
                }
            }
            Event::OutsideCommits => {
                if let Some((insert, leg)) = self.outside.take() {
                    self.rows.commit(&insert);
                    return self.resolve(leg, Outcome::Stored);
                }
            }
            _ => {
                for item in self.rows.delete() {
                    if !self.shown.contains(&item) {
                        return Err(format!("the row of {item} is deleted unseen"));
                    }
                }
            }
        }
        Ok(())
    }

    fn device_acts(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::DeviceConnects => self.connect(),
            Event::DeviceReconnects => {
                self.plan.device_breaks -= 1;
                self.old = self.connection.take();
                self.connect()
            }
            Event::DeviceBreaks => {
                self.plan.device_breaks -= 1;
                let Some(connection) = self.connection.take() else {
                    return Ok(());
                };
                self.detach(&connection)
            }
            Event::OldSessionEnds => {
                let Some(old) = self.old.take() else {
                    return Ok(());
                };
                self.detach(&old)
            }
            Event::DeviceReceives => self.receive(),
            Event::SessionGetsAck => self.session_gets_ack(),
            Event::OldSessionGetsAck => self.old_session_gets_ack(),
            Event::SessionPumps => self.pump(),
            Event::StoreReads => {
                let Some(connection) = &mut self.connection else {
                    return Ok(());
                };
                if let Some(Read::Asked(after)) = connection.read {
                    let page = self.rows.page(after, 2);
                    let rows = page.rows.iter();
                    let rows = rows
                        .map(|(position, entry)| (*position, super::lane_store::item(&entry.key)));
                    connection.read =
                        Some(Read::Found(after, rows.collect(), page.more, page.head));
                }
                Ok(())
            }
            Event::PageArrives => self.page_arrives(),
            _ => {
                self.plan.store_faults -= 1;
                let Some(connection) = &mut self.connection else {
                    return Ok(());
                };
                connection.read = None;
                connection.runnable = true;
                let attachment = Attachment::new(connection.attachment);
                self.with_lane(|lane, _| lane.page_failed(attachment))
            }
        }
    }

    fn connect(&mut self) -> Result<(), String> {
        let busy = self.old.as_ref().map(|old| old.attachment);
        let attachment = (1..)
            .find(|number| Some(*number) != busy)
            .unwrap_or_default();
        self.connection = Some(Connection::new(attachment));
        self.with_lane(|lane, out| lane.attach(Attachment::new(attachment), out))
    }

    fn detach(&mut self, connection: &Connection) -> Result<(), String> {
        let attachment = Attachment::new(connection.attachment);
        if self.lane.is_none() {
            return Ok(());
        }
        self.with_lane(|lane, out| lane.detach(attachment, out))
    }

    fn session_gets_ack(&mut self) -> Result<(), String> {
        let Some(connection) = &mut self.connection else {
            return Ok(());
        };
        connection.acked = connection.received;
        connection.runnable = true;
        let entries: Vec<_> = match connection.unacked.acked(connection.received) {
            Ok(entries) => entries.collect(),
            Err(error) => return Err(error.to_string()),
        };
        self.with_lane(|lane, out| lane.acked(entries, out))
    }

    fn old_session_gets_ack(&mut self) -> Result<(), String> {
        let Some(old) = &mut self.old else {
            return Ok(());
        };
        old.acked = old.received;
        let through = old.received;
        let unacked = match (&mut self.connection, self.plan.bug) {
            (Some(present), Some(Bug::BareSequence)) => &mut present.unacked,
            _ => &mut old.unacked,
        };
        let through = through.min(unacked.last_sent());
        let entries: Vec<_> = match unacked.acked(through) {
            Ok(entries) => entries.collect(),
            Err(error) => return Err(error.to_string()),
        };
        if self.lane.is_none() && entries.is_empty() {
            return Ok(());
        }
        self.with_lane(|lane, out| lane.acked(entries, out))
    }

    fn pump(&mut self) -> Result<(), String> {
        let room_max = self.plan.unacked_max;
        let (Some(connection), Some(lane)) = (&mut self.connection, &mut self.lane) else {
            return Err("a session without a lane".to_owned());
        };
        let attachment = Attachment::new(connection.attachment);
        let mut sends = Vec::new();
        let room = connection.unacked.room(room_max, room_max);
        connection.runnable = match lane.pump(attachment, room, &mut sends) {
            Pumped::ReadPage { after } => {
                connection.read = Some(Read::Asked(after));
                false
            }
            Pumped::Idle | Pumped::Full | Pumped::Reading => false,
            other => return Err(format!("the present session is told {other:?}")),
        };
        send(connection, &sends);
        Ok(())
    }

    fn page_arrives(&mut self) -> Result<(), String> {
        let (Some(connection), Some(lane)) = (&mut self.connection, &mut self.lane) else {
            return Err("a session without a lane".to_owned());
        };
        let Some(Read::Found(_, rows, more, head)) = connection.read.take() else {
            return Ok(());
        };
        let rows = rows
            .iter()
            .map(|(position, item)| (*position, envelope(*item)))
            .collect();
        let attachment = Attachment::new(connection.attachment);
        let mut sends = Vec::new();
        let pumped = lane.page(attachment, Page { rows, more, head }, &mut sends);
        connection.runnable = matches!(pumped, Pumped::More | Pumped::Emptied);
        send(connection, &sends);
        Ok(())
    }

    /// Everything in memory is gone; every connection breaks.
    fn crash(&mut self) {
        self.plan.crashes -= 1;
        self.lane = None;
        self.legs.clear();
        self.spool = None;
        self.hub = None;
        self.outside = None;
        self.rows.deletes.clear();
        self.connection = None;
        self.old = None;
        for author in &mut self.authors {
            author.answers.clear();
            author.rebind();
        }
    }
}
