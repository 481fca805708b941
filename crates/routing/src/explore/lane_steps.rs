//! How the lane's world changes with each event.

use super::bugs::Bug;
use super::lane_events::{DeviceEvent, Event, StoreEvent};
use super::lane_store::{Connection, Read, envelope, item};
use super::lane_world::{LaneWorld, send};
use crate::lane::{Attachment, Lane, Page, Pumped};
use crate::ticket::Outcome;

impl LaneWorld {
    pub(super) fn happen(&mut self, event: Event) -> Result<(), String> {
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
                if self.lane.as_mut().is_some_and(Lane::close_if_idle) {
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
            Event::Store(event) => return self.store_acts(event),
            Event::Device(event) => return self.device_acts(event),
        }
        Ok(())
    }

    fn store_acts(&mut self, event: StoreEvent) -> Result<(), String> {
        match event {
            StoreEvent::SpoolCommits => return self.spooled(),
            StoreEvent::SpoolAnswerLost => {
                self.plan.store_faults -= 1;
                if let Some(insert) = &self.spool {
                    self.rows.commit(insert);
                }
            }
            StoreEvent::SpoolFails | StoreEvent::SpoolFailsThoughCommitted => {
                self.plan.store_faults -= 1;
                let insert = self.spool.take();
                if let (StoreEvent::SpoolFailsThoughCommitted, Some(insert)) = (event, insert) {
                    self.rows.commit(&insert);
                }
                return self.with_lane(|lane, out| lane.spool_failed(out));
            }
            StoreEvent::HubCommits => {
                if let Some(hub) = &mut self.hub {
                    hub.committed = true;
                    self.rows.commit(&hub.insert);
                    self.log.push(hub.item);
                }
            }
            StoreEvent::HubPokes => {
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
            StoreEvent::OutsideCommits => {
                if let Some((insert, leg)) = self.outside.take() {
                    self.rows.commit(&insert);
                    return self.resolve(leg, Outcome::Stored);
                }
            }
            StoreEvent::Deletes => {
                for item in self.rows.delete() {
                    if !self.shown.contains(&item) {
                        return Err(format!("the row of {item} is deleted unseen"));
                    }
                }
            }
        }
        Ok(())
    }

    fn device_acts(&mut self, event: DeviceEvent) -> Result<(), String> {
        match event {
            DeviceEvent::Connects => self.connect(),
            DeviceEvent::Reconnects => {
                self.plan.device_breaks -= 1;
                self.old = self.connection.take();
                self.connect()
            }
            DeviceEvent::Breaks => {
                self.plan.device_breaks -= 1;
                let Some(connection) = self.connection.take() else {
                    return Ok(());
                };
                self.detach(&connection)
            }
            DeviceEvent::OldSessionEnds => {
                let Some(old) = self.old.take() else {
                    return Ok(());
                };
                self.detach(&old)
            }
            DeviceEvent::Receives => self.receive(),
            DeviceEvent::SessionGetsAck => self.session_gets_ack(),
            DeviceEvent::OldSessionGetsAck => self.old_session_gets_ack(),
            DeviceEvent::SessionPumps => self.pump(),
            DeviceEvent::StoreReads => {
                let Some(connection) = &mut self.connection else {
                    return Ok(());
                };
                if let Some(Read::Asked(after)) = connection.read {
                    let page = self.rows.page(after, 2);
                    let rows = page.rows.iter();
                    let rows = rows.map(|(position, entry)| (*position, item(&entry.key)));
                    connection.read =
                        Some(Read::Found(after, rows.collect(), page.more, page.head));
                }
                Ok(())
            }
            DeviceEvent::PageArrives => self.page_arrives(),
            DeviceEvent::PageFails => {
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
            pumped @ (Pumped::More | Pumped::Emptied | Pumped::Detached) => {
                return Err(format!("the present session is told {pumped:?}"));
            }
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
